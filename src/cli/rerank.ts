/** `gr2 rerank`: re-ranks slates from a file or stdin with a finished run, resumably; or shows one user of its data. */
import { createWriteStream, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { ConfigError, DataError } from "../core/errors.ts";
import { sha256File } from "../core/hash.ts";
import { loadDataset } from "../data/cache.ts";
import type { Dataset } from "../data/types.ts";
import { RunFolder } from "../run/run-folder.ts";
import { outFormat, Parts, partSlates, type RankedSlate } from "../serve/batch/parts.ts";
import { openEngine, rankSlates } from "../serve/batch/rank.ts";
import {
  columnNames,
  type Layout,
  type ReadSlate,
  readLayout,
  readSlates,
  type SlateSource,
} from "../serve/batch/read-slates.ts";
import type { Engine } from "../serve/engine/engine.ts";
import type { StartedWorker } from "../serve/engine/pool.ts";
import { openServedRun, type ServedRun } from "../serve/model/served-run.ts";
import type { ItemReference, ServeMode } from "../serve/request/types.ts";
import { workerStarter } from "../serve/serve.ts";
import { handleInterrupts } from "../worker/interrupt.ts";
import { duration } from "./format.ts";

export interface RerankArguments {
  readonly name: string;
  readonly root: string;
  readonly set: readonly string[];
  /** A file, or "-" for stdin. */
  readonly in?: string;
  /** Default: JSONL on stdout. */
  readonly out?: string;
  /** Format of stdin. */
  readonly format: string;
  /** FIELD=COLUMN. */
  readonly column: readonly string[];
  readonly system?: string;
  readonly topN?: number;
  readonly workers?: number;
  readonly user?: string;
  readonly json?: boolean;
  /** Replaces Python workers in tests. */
  readonly startWorker?: (number: number, signal: AbortSignal) => Promise<StartedWorker>;
  /** Replaces the process's stdin in tests. */
  readonly stdin?: Readable;
  readonly signal?: AbortSignal;
}

interface Streams {
  readonly out: NodeJS.WritableStream;
  readonly errors: NodeJS.WritableStream;
}

/** A run ready to rank, and its users' histories. */
export interface Opened {
  readonly run: ServedRun;
  readonly dataset: Dataset;
  readonly engine: Engine;
  readonly mode: ServeMode;
  readonly system: string;
}

/** Opens the run, its system and its workers for as long as `use` takes. */
export async function withEngine<T>(
  args: RerankArguments,
  log: (message: string) => void,
  signal: AbortSignal,
  use: (opened: Opened) => Promise<T>,
): Promise<T> {
  const overrides = [
    ...args.set,
    ...(args.system ? [`serve.system=${args.system}`] : []),
    ...(args.workers ? [`serve.workers=${args.workers}`] : []),
  ];
  const run = await openServedRun(args.root, args.name, overrides);
  const dataset = await loadDataset(RunFolder.view(args.root, args.name).file("stages", "data"));
  const wanted = args.system ?? run.recommendation.system;
  const modes = (["direct", "think"] as const).filter((m) => run.systems[m] !== undefined);
  const mode = modes.find((m) => run.systems[m]?.name === wanted) ?? modes[0];
  const system = mode && run.systems[mode]?.name;
  if (!mode || !system) throw new ConfigError(`run ${args.name} has no system that can be served`);
  const start = args.startWorker ?? workerStarter(run.config, join(args.root, args.name));
  const itemsFile = run.config.serve.items || join(args.root, `${args.name}.items.jsonl`); // as in the service
  const engine = await openEngine({ run, start, itemsFile, log }, signal);
  try {
    return await use({ run, dataset, engine, mode, system });
  } finally {
    await engine.drain(0);
  }
}

export async function rerankFile(args: RerankArguments, { out, errors }: Streams): Promise<void> {
  if (args.in === undefined)
    throw new ConfigError("gr2 rerank: no slates given; use --in FILE, --in - for stdin, or --user ID");
  if (args.out !== undefined) outFormat(args.out);
  const columns = Object.fromEntries(args.column.map(parseColumn));
  const log = (message: string): void => void errors.write(`${message}\n`);
  const interrupts = handleInterrupts(() => log("stopping; finished parts are kept"));
  const signal = args.signal ? AbortSignal.any([args.signal, interrupts.signal]) : interrupts.signal;
  const spool = args.in === "-" ? mkdtempSync(join(tmpdir(), "gr2-rerank-")) : undefined;
  try {
    const file = spool ? await spoolInput(args, spool) : args.in;
    await withEngine(args, log, signal, async (opened) => {
      const source = { file, columns, findHistory: indexHistories(opened.dataset) };
      const layout = await readLayout(source);
      log(`${opened.system} (mode ${opened.mode}) of run ${opened.run.name}, ${layout} layout`);
      const progress = new Progress(log);
      if (args.out === undefined) await toStdout(args, opened, source, signal, progress, out);
      else await toFile({ ...args, out: args.out }, opened, source, layout, signal, progress);
      progress.end(opened.run.config.data.maxBadShare);
    });
  } finally {
    interrupts.dispose();
    if (spool) rmSync(spool, { recursive: true, force: true });
  }
}

const rank = (
  args: RerankArguments,
  { engine, mode, run }: Opened,
  slates: AsyncIterable<ReadSlate>,
  signal: AbortSignal,
) =>
  rankSlates(slates, {
    reranker: engine,
    mode,
    topN: args.topN ?? 0,
    concurrency: 2 * run.config.serve.maxBatch * engine.load().workers,
    signal,
  });

async function toStdout(
  args: RerankArguments,
  opened: Opened,
  source: SlateSource,
  signal: AbortSignal,
  progress: Progress,
  out: NodeJS.WritableStream,
): Promise<void> {
  for await (const ranked of rank(args, opened, readSlates(source), signal)) {
    progress.count(ranked);
    if (!out.write(`${JSON.stringify(ranked)}\n`)) await new Promise((resolve) => out.once("drain", resolve));
  }
}

async function toFile(
  args: RerankArguments & { readonly out: string },
  opened: Opened,
  source: SlateSource,
  layout: Layout,
  signal: AbortSignal,
  progress: Progress,
): Promise<void> {
  const { system, engine } = opened;
  const parts = Parts.open(args.out, {
    input: await sha256File(source.file),
    columns: source.columns,
    model: engine.model()?.version ?? "",
    system,
    topN: args.topN ?? 0,
  });
  const finished = parts.count();
  if (finished > 0) progress.resume(finished * partSlates);
  let number = finished;
  let part: RankedSlate[] = [];
  const write = (): void => {
    parts.write(number++, part);
    part = [];
  };
  for await (const ranked of rank(args, opened, skip(readSlates(source), finished * partSlates), signal)) {
    progress.count(ranked);
    if (part.push(ranked) === partSlates) write();
  }
  if (part.length > 0) write();
  await parts.finish(layout);
}

async function* skip<T>(values: AsyncIterable<T>, count: number): AsyncGenerator<T> {
  let n = 0;
  for await (const value of values) if (n++ >= count) yield value;
}

async function spoolInput({ stdin = process.stdin, format }: RerankArguments, folder: string): Promise<string> {
  if (!["jsonl", "csv", "tsv"].includes(format))
    throw new ConfigError(`--format ${format}: expected jsonl, csv or tsv`);
  const file = join(folder, `stdin.${format}`);
  await pipeline(stdin, createWriteStream(file));
  return file;
}

/** The whole history of a user in the data, by the data's own id. */
function indexHistories({ sequences, items }: Dataset): SlateSource["findHistory"] {
  const rows = new Map<string, number>(sequences.map((s, row) => [s.user, row]));
  return (user) => {
    const row = rows.get(user);
    return row === undefined ? undefined : referTo(sequences[row]?.items ?? [], items);
  };
}

export const referTo = (rows: Iterable<number>, items: Dataset["items"]): ItemReference[] =>
  Array.from(rows, (row) => ({ itemId: items[row]?.id ?? "" }));

function parseColumn(assignment: string): [field: string, column: string] {
  const [field = "", ...column] = assignment.split("=");
  if (!columnNames.some((f) => f === field) || column.join("=") === "")
    throw new ConfigError(
      `--column ${assignment}: expected FIELD=COLUMN with one of the fields ${columnNames.join(", ")}`,
      {
        advice: "For example: --column candidates=shown --column user=visitor",
      },
    );
  return [field, column.join("=")];
}

const progressSeconds = 10;

/** Progress lines, and the count of slates that could not be ranked. */
class Progress {
  private readonly log: (message: string) => void;
  private readonly begin = performance.now();
  private told = performance.now();
  private done = 0;
  private fallbacks = 0;
  private errors = 0;
  private first: string | undefined;

  constructor(log: (message: string) => void) {
    this.log = log;
  }

  resume(slates: number): void {
    this.log(`${slates} slates were already ranked`);
  }

  count({ fallback, error, slate }: RankedSlate): void {
    this.done++;
    if (fallback !== null) this.fallbacks++;
    if (error !== null) {
      this.errors++;
      this.first ??= `slate ${slate}: ${error}`;
    }
    if (performance.now() - this.told < 1000 * progressSeconds) return;
    this.told = performance.now();
    this.log(`  ${this.done} slates, ${this.rate()} per second`);
  }

  private rate(): string {
    return (this.done / ((performance.now() - this.begin) / 1000)).toFixed(0);
  }

  /** Throws DataError if more than this share could not be ranked; the output is complete and contains the reasons. */
  end(maxBadShare: number): void {
    const seconds = (performance.now() - this.begin) / 1000;
    const own = this.fallbacks > 0 ? `; ${this.fallbacks} kept the input order (fallback)` : "";
    this.log(`${this.done} slates in ${duration(seconds)}, ${this.rate()} per second${own}`);
    if (this.errors === 0) return;
    const what = `${this.errors} of ${this.done} slates could not be ranked; the first is ${this.first}`;
    if (this.errors / this.done > maxBadShare)
      throw new DataError(what, { advice: 'The column "error" has the reasons; all other slates are ranked.' });
    this.log(what);
  }
}
