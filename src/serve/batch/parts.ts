/**
 * A batch's results so far: OUT.parts/ with plan.json (input, model and settings) and part-N.jsonl, each with
 * `partSlates` slates and written atomically. Once all parts exist, OUT is made from them, in any format. Nothing is
 * kept in memory.
 */
import { createReadStream, createWriteStream, existsSync, readdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { ConfigError, RunError } from "../../core/errors.ts";
import { openDuck, sqlText } from "../../data/duck.ts";
import { fileError, makeFolder, tryReadJson, writeAtomic } from "../../run/files.ts";
import type { Layout } from "./read-slates.ts";

export const partSlates = 1_000;

/** A line of a part. */
export interface RankedSlate {
  readonly slate: string;
  /** Ids of the candidates, best first; empty if there is an error. */
  readonly ranked: readonly string[];
  /** In the order of `ranked`. */
  readonly scores: readonly number[];
  readonly reasoning: string | null;
  /** Why `ranked` is the input order; null if it is not. */
  readonly fallback: string | null;
  /** Why the slate could not be ranked; null if it was. */
  readonly error: string | null;
}

type OutFormat = "parquet" | "csv" | "jsonl";

export function outFormat(path: string): OutFormat {
  const name = path.toLowerCase();
  if (name.endsWith(".parquet")) return "parquet";
  if (name.endsWith(".csv")) return "csv";
  if (name.endsWith(".jsonl") || name.endsWith(".ndjson")) return "jsonl";
  throw new ConfigError(`--out ${path}: expected a .parquet, .csv or .jsonl file`);
}

export class Parts {
  private readonly folder: string;
  private readonly out: string;

  private constructor(folder: string, out: string) {
    this.folder = folder;
    this.out = out;
  }

  /** Throws RunError if the folder contains parts of other input, another model or other settings. */
  static open(out: string, plan: Readonly<Record<string, unknown>>): Parts {
    outFormat(out);
    const parts = new Parts(`${out}.parts`, out);
    const file = join(parts.folder, "plan.json");
    const earlier = tryReadJson(file);
    if (earlier === undefined) {
      makeFolder(parts.folder);
      writeAtomic(file, `${JSON.stringify(plan)}\n`);
    } else if (JSON.stringify(earlier) !== JSON.stringify(plan))
      throw new RunError(`${parts.folder} was started with other slates, settings or weights`, {
        advice: "Finish it with those, delete the folder, or write to another --out.",
      });
    return parts;
  }

  /** Number n of finished parts, which are parts 0 to n − 1. */
  count(): number {
    let n = 0;
    while (existsSync(this.path(n))) n++;
    return n;
  }

  write(number: number, slates: readonly RankedSlate[]): void {
    writeAtomic(this.path(number), slates.map((s) => `${JSON.stringify(s)}\n`).join(""));
  }

  /** Writes OUT from all parts, atomically, and removes them. */
  async finish(layout: Layout): Promise<void> {
    const files = Array.from({ length: this.count() }, (_, n) => this.path(n));
    const unfinished = `${this.out}.${process.pid}.tmp`;
    try {
      if (outFormat(this.out) === "jsonl" && layout === "wide") await concatenate(files, unfinished);
      else await convert(files, unfinished, outFormat(this.out), layout);
      renameSync(unfinished, this.out);
    } catch (e) {
      rmSync(unfinished, { force: true });
      throw fileError("write", this.out, e);
    }
    for (const name of readdirSync(this.folder)) rmSync(join(this.folder, name));
    rmSync(this.folder, { recursive: true });
  }

  private path(number: number): string {
    return join(this.folder, `part-${String(number).padStart(6, "0")}.jsonl`);
  }
}

async function concatenate(files: readonly string[], to: string): Promise<void> {
  const out = createWriteStream(to);
  for (const file of files) await pipeline(createReadStream(file), out, { end: false });
  await new Promise<void>((resolve, reject) => {
    out.once("error", reject);
    out.end(resolve);
  });
}

const columns =
  "{slate: 'VARCHAR', ranked: 'VARCHAR[]', scores: 'DOUBLE[]', reasoning: 'VARCHAR', fallback: 'VARCHAR', error: " +
  "'VARCHAR'}";
const memoryMb = 512;

async function convert(files: readonly string[], to: string, format: OutFormat, layout: Layout): Promise<void> {
  const duck = await openDuck({ memoryMb, threads: 1 });
  const source = `read_json([${files.map(sqlText).join(", ")}], format = 'newline_delimited', columns = ${columns})`;
  const lists =
    format === "csv"
      ? "slate, to_json(ranked)::VARCHAR AS ranked, to_json(scores)::VARCHAR AS scores, reasoning, fallback, error"
      : "*";
  // A slate that could not be ranked has one row without an item.
  const rows = `SELECT slate, unnest(if(len(ranked) = 0, [NULL], ranked)) AS item,
    unnest(if(len(ranked) = 0, [NULL], range(1, len(ranked) + 1))) AS rank,
    unnest(if(len(ranked) = 0, [NULL], scores)) AS score, fallback, error FROM ${source}`;
  const how = { parquet: "FORMAT parquet, CODEC zstd", csv: "FORMAT csv, HEADER", jsonl: "FORMAT json" }[format];
  try {
    await duck.run(`COPY (${layout === "wide" ? `SELECT ${lists} FROM ${source}` : rows}) TO ${sqlText(to)} (${how})`);
  } finally {
    duck.close();
  }
}
