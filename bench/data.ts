/**
 * Data at any size: synthetic interactions to 5-core, de-duplicated, time-ordered sequences, as `gr2` builds them,
 * against pandas on the same file (same sequences, compared by hash); then five times the rows.
 *   npm run bench -- data [--rows 10000000] [--growth 5] [--python PYTHON_WITH_PANDAS]
 * Long-tailed users (20 interactions a user on average, 3 in the tail) and items; times in whole days, so that some
 * tie; 2 % of the rows are in the file twice.
 */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { DuckDBInstance } from "@duckdb/node-api";
import { DataError } from "../src/core/errors.ts";
import type { Benchmark } from "./claim.ts";
import type { BuildReport, BuildTask } from "./data-child.ts";

const core = 5;
const here = (name: string): string => fileURLToPath(new URL(name, import.meta.url));

export const bench: Benchmark = async (emit, args) => {
  const { values } = parseArgs({
    args: [...args],
    options: {
      rows: { type: "string", default: "10000000" },
      growth: { type: "string", default: "5" },
      python: { type: "string", default: "" },
    },
  });
  const rows = Number(values.rows);
  const growth = Number(values.growth);
  if (!(rows >= 1000) || !(growth >= 1)) throw new DataError("--rows must be at least 1000 and --growth at least 1.");
  const folder = mkdtempSync(join(tmpdir(), "gr2-bench-data-"));
  const say = (claim: string, value: number, unit: string): void => emit({ claim: `data/${claim}`, value, unit, n: 1 });
  try {
    const small = await generate(join(folder, "small"), rows);
    for (const file of files) say(`size of ${million(rows)} rows, ${file}`, small[file], "MiB");
    const own = build({ folder: join(folder, "small"), file: "interactions.csv", core, cache: join(folder, "cache") });
    const fromParquet = build({ folder: join(folder, "small"), file: "interactions.parquet", core });
    const pandas = values.python === "" ? undefined : runPandas(values.python, join(folder, "small/interactions.csv"));
    report(own, pandas, `${million(rows)} rows of CSV`);
    report(fromParquet, undefined, `${million(rows)} rows of Parquet`);
    const peers = [fromParquet, ...(pandas ? [pandas] : [])];
    emit({
      claim: `data/other ways that give the same sequences (${own.users} users, ${own.interactions} interactions)`,
      value: peers.filter((p) => p.sequences === own.sequences).length,
      unit: `of ${peers.length}`,
      n: own.interactions,
      bar: ["value", ">=", peers.length],
    });
    if (own.cache) {
      say("the saved data set", own.cache.mb, "MiB");
      say("saving it", own.cache.saveSeconds, "CPU s");
      say("loading it", own.cache.loadSeconds, "CPU s");
    }
    rmSync(join(folder, "small"), { recursive: true });
    if (growth === 1) return;

    const large = await generate(join(folder, "large"), growth * rows);
    say(`size of ${million(growth * rows)} rows, interactions.csv`, large["interactions.csv"], "MiB");
    const grown = build({ folder: join(folder, "large"), file: "interactions.csv", core });
    report(grown, undefined, `${million(growth * rows)} rows of CSV`);
    for (const clock of ["seconds", "cpuSeconds"] as const)
      emit({
        claim: `data/microseconds per row (${clock === "seconds" ? "wall" : "CPU"}), ${million(growth * rows)} rows`,
        value: (1e6 * grown[clock]) / (growth * rows),
        unit: "µs",
        n: 1,
        peer: `${million(rows)} rows`,
        peerValue: (1e6 * own[clock]) / rows,
        ...(clock === "cpuSeconds" ? { bar: ["ratio", "<=", 1.3] as const } : {}),
      });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }

  function report(own: BuildReport, peer: BuildReport | undefined, what: string): void {
    const against = (value: number | undefined) => (value === undefined ? {} : { peer: "pandas", peerValue: value });
    emit({ claim: `data/seconds, ${what}`, value: own.seconds, unit: "s", n: 1, ...against(peer?.seconds) });
    emit({ claim: `data/CPU seconds, ${what}`, value: own.cpuSeconds, unit: "s", n: 1, ...against(peer?.cpuSeconds) });
    emit({
      claim: `data/peak memory, ${what}`,
      value: own.peakMb,
      unit: "MiB",
      n: 1,
      ...against(peer?.peakMb),
      bar: ["value", "<=", 2048],
    });
  }
};

const million = (rows: number): string => `${rows / 1e6} M`;

const files = ["interactions.csv", "interactions.parquet"] as const;

/** Writes both files; returns their sizes in MiB. Row k depends on k and the number of rows alone. */
export async function generate(folder: string, rows: number): Promise<Record<(typeof files)[number], number>> {
  mkdirSync(folder);
  const [users, items] = [Math.ceil(rows / 20), Math.ceil(rows / 25)];
  const uniform = (salt: number): string => `(hash(4 * k + ${salt}) / 18446744073709551616.0::DOUBLE)`;
  // Zipf's law with a flattened head: density of row n is about 1 / (n + head).
  const longTail = (n: number, head: number, salt: number): string =>
    `(${head} * pow(${(n + head) / head}::DOUBLE, ${uniform(salt)}) - ${head})::BIGINT`;
  // Odd multiplier modulo 2^32: distinct numbers get distinct ids, in no order.
  const id = (letter: string, n: string): string => `'${letter}' || printf('%08X', (${n} * 2654435761) % 4294967296)`;
  const instance = await DuckDBInstance.create(":memory:", { memory_limit: "1500MB", threads: "2" });
  const connection = await instance.connect();
  try {
    const parquet = join(folder, files[1]);
    await connection.run(`COPY (
      SELECT ${id("A", "u")} AS user, ${id("B", "i")} AS item, 1 + hash(4 * k + 2) % 5 AS rating,
        86400 * (14000 + hash(u) % 3650 + hash(4 * k + 3) % 60) AS time
      FROM (SELECT k, ${longTail(users, 1000, 0)} AS u, ${longTail(items, 100, 1)} AS i
        FROM (SELECT CASE WHEN k % 50 = 49 THEN k - 40 ELSE k END AS k FROM range(${rows}) AS numbers(k)))
      ) TO '${parquet.replaceAll("'", "''")}'`);
    await connection.run(`COPY (FROM read_parquet('${parquet.replaceAll("'", "''")}'))
      TO '${join(folder, files[0]).replaceAll("'", "''")}' (HEADER)`);
  } finally {
    connection.closeSync();
    instance.closeSync();
  }
  const size = (file: string): number => statSync(join(folder, file)).size / 2 ** 20;
  return { "interactions.csv": size(files[0]), "interactions.parquet": size(files[1]) };
}

function build(task: BuildTask): BuildReport {
  const child = ["--import", "tsx", here("data-child.ts"), JSON.stringify(task)];
  return JSON.parse(execFileSync(process.execPath, child, { encoding: "utf8" })) as BuildReport;
}

function runPandas(python: string, file: string): BuildReport {
  return JSON.parse(
    execFileSync(python, [here("data-pandas.py"), file, String(core)], { encoding: "utf8" }),
  ) as BuildReport;
}
