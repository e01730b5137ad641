/**
 * `gr2 sid ablate` (npm run ablate:sid): runs the cells of the semantic-ID ablation that are not finished yet and writes
 * the table. A cell is one JSON file named by a hash of all that decides its numbers, so a run that was stopped goes on,
 * and a changed setting or changed code measures again.
 *
 *   OUT/cells/ROW-SEED-HASH.json   one cell: numbers, settings, commit, hardware, date
 *   OUT/ablation.json              the cells of the last call, with mean and spread a row
 *   OUT/ablation.md                the same as a table to paste
 */
import { mkdtempSync, rmSync } from "node:fs";
import { basename, extname, join, resolve } from "node:path";
import { configHash, loadConfig } from "../config/load.ts";
import type { Config } from "../config/schema.ts";
import { ConfigError, InterruptedError } from "../core/errors.ts";
import { hashOf } from "../core/hash.ts";
import { sourceHash } from "../data/source.ts";
import { type AblationCell, ablationMarkdown, summariseAblation } from "../eval/ablation.ts";
import { codeHash } from "../run/code-hash.ts";
import { makeFolder, readJson, writeAtomic, writeJson } from "../run/files.ts";
import { codeRevision, hardware } from "../run/manifest.ts";
import { runtimeOf } from "../stages/pipeline.ts";
import {
  ablationCode,
  cellConfig,
  cellSettings,
  changesOf,
  measureCell,
  prepareCells,
  type RowName,
  rowNames,
} from "../stages/sid-ablation.ts";
import { handleInterrupts } from "../worker/interrupt.ts";
import { type RunningWorker, startWorker } from "../worker/launcher.ts";
import type { WorkerClient, WorkerInfo } from "../worker/types.ts";
import { duration } from "./format.ts";

export interface AblateArguments {
  readonly config: string;
  readonly set: readonly string[];
  /** Comma-separated whole numbers. */
  readonly seeds: string;
  /** Comma-separated names of `rowNames`; undefined = all. */
  readonly rows?: string;
  /** Default: runs/ablate-RECIPE. */
  readonly out?: string;
  /** Validation positions searched at most; 0 = all. */
  readonly positions: number;
}

/** What a cell's file says besides its numbers. */
interface StoredCell extends AblationCell {
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

/** `given`: a worker instead of one started for this call, in tests. */
export async function ablateSid(
  args: AblateArguments,
  out: { write(text: string): unknown },
  given?: WorkerClient,
): Promise<void> {
  const base = loadConfig(args.config, args.set);
  const folder = resolve(args.out ?? join("runs", `ablate-${basename(args.config, extname(args.config))}`));
  const planned = await plan(base, args, folder);
  const missing = planned.filter((cell) => readCell(cell) === undefined);
  out.write(`${planned.length} cells, ${planned.length - missing.length} finished before\n`);
  if (missing.length > 0) await measureAll(missing, base, args, folder, out, given);
  const cells = planned.flatMap((cell) => readCell(cell) ?? []);
  const table = writeTables(folder, base, args, cells);
  out.write(`\n${table}\n${join(folder, "ablation.json")}\n`);
}

async function plan(base: Config, args: AblateArguments, folder: string): Promise<Planned[]> {
  const rows = args.rows === undefined ? rowNames : args.rows.split(",").map(rowNamed);
  const source = await sourceHash(base.data);
  const code = codeHash(ablationCode);
  return seedsOf(args.seeds).flatMap((seed) =>
    rows.map((row) => {
      const config = cellConfig(base, row, seed);
      const settings = cellSettings(config);
      const key = hashOf({ settings, source: source ?? "", positions: args.positions, code });
      return { row, seed, config, key, path: join(folder, "cells", `${row}-${seed}-${key.slice(0, 12)}.json`) };
    }),
  );
}

function rowNamed(name: string): RowName {
  const found = rowNames.find((row) => row === name.trim());
  if (found === undefined) throw new ConfigError(`--rows ${name}: no such row; there are ${rowNames.join(", ")}`);
  return found;
}

const seedsOf = (text: string): number[] =>
  text.split(",").map((part) => {
    const seed = Number(part);
    if (part.trim() === "" || !Number.isInteger(seed) || seed < 0)
      throw new ConfigError(`--seeds ${text}: expected whole numbers, for example --seeds 0,1,2`);
    return seed;
  });

function readCell({ path, key }: Planned): StoredCell | undefined {
  const cell = readJson(path) as StoredCell | undefined;
  return cell?.key === key ? cell : undefined;
}

async function measureAll(
  cells: readonly Planned[],
  base: Config,
  args: AblateArguments,
  folder: string,
  out: { write(text: string): unknown },
  given: WorkerClient | undefined,
): Promise<void> {
  makeFolder(join(folder, "cells"));
  const scratch = mkdtempSync(join(folder, "work-"));
  const interrupts = handleInterrupts(() => void out.write("stopping; finished cells are kept\n"));
  const { signal } = interrupts;
  let running: RunningWorker | undefined;
  try {
    if (!given) running = await startWorker(runtimeOf(base, folder), signal);
    const client = given ?? (running as RunningWorker).client;
    const { device, numThreads, torchVersion, transformersVersion, pythonVersion } = await client.getInfo({ signal });
    const place = {
      dir: scratch,
      worker: async () => client,
      signal,
      log: () => {},
      progress: () => {
        if (signal.aborted) throw new InterruptedError();
      },
    };
    const shared = await prepareCells(place, base);
    const begin = performance.now();
    for (const [done, { row, seed, config, key, path }] of cells.entries()) {
      const { metrics, seconds } = await measureCell(place, config, shared, args.positions);
      const cell: StoredCell = {
        schema: "gr2.sid-ablation-cell/1",
        key,
        row,
        seed,
        changes: changesOf(row, base),
        metrics,
        seconds,
        config_hash: configHash(config),
        settings: cellSettings(config),
        code: codeRevision(),
        hardware: hardware(),
        worker: { device, numThreads, torchVersion, transformersVersion, pythonVersion },
        date: new Date().toISOString(),
      };
      writeJson(path, cell);
      const each = (performance.now() - begin) / 1000 / (done + 1);
      const left = done + 1 < cells.length ? `; ${duration(each * (cells.length - done - 1))} left` : "";
      out.write(`${describeCell(cell)} (${done + 1} of ${cells.length}${left})\n`);
    }
  } catch (e) {
    throw signal.aborted ? new InterruptedError() : e;
  } finally {
    interrupts.dispose();
    await running?.close();
    rmSync(scratch, { recursive: true, force: true });
  }
}

function describeCell({ row, seed, metrics, seconds }: StoredCell): string {
  const percent = (share: number | undefined): string => `${(100 * (share ?? 0)).toFixed(2)} %`;
  const total = Object.values(seconds).reduce((a, b) => a + b, 0);
  return `${row}, seed ${seed}: unique ${percent(metrics.uniqueness)} (nearest ${percent(metrics.uniqueness_nearest)}), R@10 ${metrics.recall_at_10?.toFixed(4)}, ${duration(total)}`;
}

function writeTables(folder: string, base: Config, args: AblateArguments, cells: readonly StoredCell[]): string {
  const rows = summariseAblation(cells, rowNames);
  const markdown = ablationMarkdown(rows);
  const positions = cells[0]?.metrics.positions ?? 0;
  const notes = [
    `${base.data.name}: ${positions} validation positions, ${base.sid.levels} levels of ${base.sid.codes} codes.`,
    "Mean ± standard deviation over seeds. A shared ID's hit counts 1 / (items of that ID the user has not seen).",
  ];
  writeAtomic(join(folder, "ablation.md"), `${markdown}\n${notes.join(" ")}\n`);
  writeJson(join(folder, "ablation.json"), {
    schema: "gr2.sid-ablation/1",
    data: base.data.name,
    recipe: args.config,
    set: args.set,
    date: new Date().toISOString(),
    rows,
    cells,
  });
  return markdown;
}
