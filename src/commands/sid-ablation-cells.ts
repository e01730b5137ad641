/**
 * The cells of a semantic-ID ablation on disk: measures those not finished yet and writes the table. A cell is one JSON
 * file named by a hash of everything its numbers depend on, so an interrupted call resumes, and changed settings or
 * code are measured again.
 *
 *   OUT/cells/ROW-SEED-HASH.json   one cell: numbers, settings, commit, hardware, date
 *   OUT/ablation.json              the cells of the last call, with mean and spread per row
 *   OUT/ablation.md                the same as a table to paste
 */
import { mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import { configHash } from "../config/load.ts";
import type { Config } from "../config/schema.ts";
import { InterruptedError } from "../core/errors.ts";
import { hashJson } from "../core/hash.ts";
import { sourceHash } from "../data/source.ts";
import { type AblationCell, ablationMarkdown, summariseAblation } from "../eval/ablation.ts";
import { codeHash } from "../run/code-hash.ts";
import { makeFolder, tryReadJson, writeAtomic, writePrettyJson } from "../run/files.ts";
import { codeRevision, hardware } from "../run/manifest.ts";
import type { WorkerClient, WorkerInfo } from "../worker/types.ts";
import {
  ablationCode,
  cellConfig,
  cellSettings,
  changesFor,
  measureCell,
  prepareCells,
  type RowName,
  rowNames,
} from "./sid-ablation.ts";

export interface AblationOptions {
  readonly base: Config;
  readonly rows: readonly RowName[];
  readonly seeds: readonly number[];
  /** Most validation positions to search; 0 = all. */
  readonly positions: number;
  readonly folder: string;
  /** The request, repeated in ablation.json. */
  readonly asked: Readonly<Record<string, unknown>>;
  /** Called if a cell is to be measured. */
  readonly worker: () => Promise<WorkerClient>;
  readonly signal: AbortSignal;
  readonly onPlan: (cells: number, finished: number) => void;
  readonly onCell: (cell: StoredCell, done: number, total: number, secondsLeft: number) => void;
}

/** What a cell's file contains besides its numbers. */
export interface StoredCell extends AblationCell {
  readonly schema: "gr2.sid-ablation-cell/1";
  readonly key: string;
  readonly config_hash: string;
  readonly settings: unknown;
  readonly code: ReturnType<typeof codeRevision>;
  readonly hardware: ReturnType<typeof hardware>;
  readonly worker: Pick<WorkerInfo, "device" | "numThreads" | "torchVersion" | "transformersVersion" | "pythonVersion">;
  readonly date: string;
}

interface Planned {
  readonly row: RowName;
  readonly seed: number;
  readonly config: Config;
  readonly key: string;
  readonly path: string;
}

/** Measures what is missing; returns the table as Markdown. */
export async function runAblation(o: AblationOptions): Promise<string> {
  const planned = await plan(o);
  const missing = planned.filter((cell) => readCell(cell) === undefined);
  o.onPlan(planned.length, planned.length - missing.length);
  if (missing.length > 0) await measureAll(missing, o);
  return writeTables(
    o,
    planned.flatMap((cell) => readCell(cell) ?? []),
  );
}

async function plan({ base, rows, seeds, positions, folder }: AblationOptions): Promise<Planned[]> {
  const source = await sourceHash(base.data);
  const code = codeHash(ablationCode.entries, ablationCode.verbs);
  return seeds.flatMap((seed) =>
    rows.map((row) => {
      const config = cellConfig(base, row, seed);
      const key = hashJson({ settings: cellSettings(config), source: source ?? "", positions, code });
      return { row, seed, config, key, path: join(folder, "cells", `${row}-${seed}-${key.slice(0, 12)}.json`) };
    }),
  );
}

function readCell({ path, key }: Planned): StoredCell | undefined {
  const cell = tryReadJson(path) as StoredCell | undefined;
  return cell?.key === key ? cell : undefined;
}

async function measureAll(cells: readonly Planned[], o: AblationOptions): Promise<void> {
  makeFolder(join(o.folder, "cells"));
  const scratch = mkdtempSync(join(o.folder, "work-"));
  const { signal } = o;
  try {
    const client = await o.worker();
    const { device, numThreads, torchVersion, transformersVersion, pythonVersion } = await client.getInfo({ signal });
    const workspace = {
      dir: scratch,
      worker: async () => client,
      signal,
      log: () => {},
      progress: () => {
        if (signal.aborted) throw new InterruptedError();
      },
    };
    const shared = await prepareCells(workspace, o.base);
    const begin = performance.now();
    for (const [at, { row, seed, config, key, path }] of cells.entries()) {
      const { metrics, seconds } = await measureCell(workspace, config, shared, o.positions);
      const cell: StoredCell = {
        schema: "gr2.sid-ablation-cell/1",
        key,
        row,
        seed,
        changes: changesFor(row, o.base),
        metrics,
        seconds,
        config_hash: configHash(config),
        settings: cellSettings(config),
        code: codeRevision(),
        hardware: hardware(),
        worker: { device, numThreads, torchVersion, transformersVersion, pythonVersion },
        date: new Date().toISOString(),
      };
      writePrettyJson(path, cell);
      const done = at + 1;
      o.onCell(cell, done, cells.length, ((performance.now() - begin) / 1000 / done) * (cells.length - done));
    }
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

function writeTables({ base, folder, asked }: AblationOptions, cells: readonly StoredCell[]): string {
  const rows = summariseAblation(cells, rowNames);
  const markdown = ablationMarkdown(rows);
  const positions = cells[0]?.metrics.positions ?? 0;
  const notes = [
    `${base.data.name}: ${positions} validation positions, ${base.sid.levels} levels of ${base.sid.codes} codes.`,
    "Mean ± standard deviation over seeds. A shared ID's hit counts 1 / (items of that ID the user has not seen).",
  ];
  writeAtomic(join(folder, "ablation.md"), `${markdown}\n${notes.join(" ")}\n`);
  const head = { schema: "gr2.sid-ablation/1", data: base.data.name, ...asked, date: new Date().toISOString() };
  writePrettyJson(join(folder, "ablation.json"), { ...head, rows, cells });
  return markdown;
}
