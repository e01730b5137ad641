/**
 * Reads the files of a proposal through its adapter and measures what the choice of split, k-core and semantic IDs
 * depends on. Bounded: only the first part of large files is read, and the result says so.
 */
import { mkdirSync, mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { gzipSync } from "node:zlib";
import { DataError } from "../../core/errors.ts";
import { type AdapterOptions, loadRaw } from "../adapters/index.ts";
import { type Duck, openDuck, Quarantine, sqlText } from "../duck.ts";
import { decompressed, isCompressed } from "../text-file.ts";

export interface Measured {
  /** False: the files exceed the limits, and the numbers describe their first part. */
  readonly whole: boolean;
  readonly rowsRead: number;
  /** Usable rows: well-formed, kept, and with the minimum rating if the proposal sets one. */
  readonly interactions: number;
  readonly malformed: number;
  /** file:line: reason */
  readonly firstMalformed?: string;
  readonly users: number;
  /** Items with an interaction. */
  readonly items: number;
  /** Rows of the item file; undefined without one. */
  readonly catalogue?: number;
  /** Share of interactions whose item is missing from the item file. */
  readonly unknownItems: number;
  /** Share of items in the item file without a title. */
  readonly withoutTitle: number;
  readonly withoutText: number;
  readonly ratings?: { readonly low: number; readonly high: number; readonly different: number };
  /** Unix seconds; undefined without timestamps. */
  readonly time?: { readonly first: number; readonly last: number };
  /** Whether the time column counts 0, 1, 2, ... within each user. */
  readonly positions: boolean;
  readonly lengthMean: number;
  readonly lengthMedian: number;
  readonly lengthMax: number;
  /** Share of interactions whose user had the item before. */
  readonly repeats: number;
  /** Share of a user's consecutive interactions with equal times. */
  readonly ties: number;
  /** Of the latest 40 % of interactions: the share whose user has an earlier one and therefore a history. */
  readonly reach: number;
  /** What remains after a k-core, repeats counted once; 0 = all. */
  readonly left: Readonly<Record<Core, Left>>;
  /** Characters of an item's texts, on average. */
  readonly textLength: number;
}

export type Core = 5 | 3 | 2 | 0;
export interface Left {
  readonly users: number;
  readonly items: number;
  readonly interactions: number;
}

/** Files up to these sizes are read in full; of larger ones the first `cutBytes` (decompressed). */
export interface Limits {
  readonly plainBytes: number;
  readonly gzipBytes: number;
  readonly cutBytes: number;
}

export const defaultLimits: Limits = { plainBytes: 96 << 20, gzipBytes: 24 << 20, cutBytes: 24 << 20 };

/** @param files names within options.path that the adapter will read */
export async function measure(
  options: AdapterOptions,
  files: readonly string[],
  limits: Limits = defaultLimits,
  minRating = 0,
): Promise<Measured> {
  const folder = mkdtempSync(join(tmpdir(), "gr2-inspect-"));
  const duck = await openDuck();
  try {
    const cut = new Set<string>();
    for (const name of files) mkdirSync(dirname(join(folder, name)), { recursive: true });
    for (const name of files) if (await lay(duck, join(options.path, name), join(folder, name), limits)) cut.add(name);
    const quarantine = new Quarantine();
    const report = await loadRaw(duck, { ...options, path: folder }, quarantine);
    if (minRating > 0) await duck.run(`DELETE FROM raw_interactions WHERE r < ${minRating}`);
    const first = quarantine.kept[0];
    return {
      whole: cut.size === 0,
      rowsRead: report.rowsRead,
      malformed: quarantine.count(),
      ...(first ? { firstMalformed: `${first.file.slice(folder.length + 1)}:${first.line}: ${first.reason}` } : {}),
      ...(await numbers(duck, report.hasItems, report.hasClock, cut.size === 0)),
    };
  } catch (e) {
    // Readers of the message know the data's folder, not this temporary one.
    if (e instanceof DataError)
      throw new DataError(e.message.replaceAll(folder, options.path), {
        cause: e,
        ...(e.advice ? { advice: e.advice } : {}),
      });
    throw e;
  } finally {
    duck.close();
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Copies a file, or its first part, into the folder; true if it was cut. */
async function lay(duck: Duck, from: string, to: string, limits: Limits): Promise<boolean> {
  const { size } = statSync(from);
  const parquet = /\.(parquet|pq)$/i.test(from);
  const compressed = !parquet && isCompressed(from);
  if (size <= (compressed || parquet ? limits.gzipBytes : limits.plainBytes)) {
    symlinkSync(from, to);
    return false;
  }
  if (parquet) {
    await duck.run(
      `COPY (SELECT * FROM read_parquet(${sqlText(from)}) LIMIT 500000) TO ${sqlText(to)} (FORMAT parquet)`,
    );
    return true;
  }
  const chunks: Buffer[] = [];
  let read = 0;
  for await (const chunk of decompressed(from)) {
    chunks.push(chunk);
    read += chunk.length;
    if (read >= limits.cutBytes) break;
  }
  const text = Buffer.concat(chunks);
  const lines = text.subarray(0, text.lastIndexOf(10) + 1);
  writeFileSync(to, compressed ? gzipSync(lines, { level: 1 }) : lines); // readers recognise compression by the bytes
  return true;
}

async function numbers(duck: Duck, hasItems: boolean, hasClock: boolean, whole: boolean) {
  const one = async (sql: string): Promise<Record<string, unknown>> => (await duck.rows(sql))[0] ?? {};
  const n = (v: unknown): number => Number(v ?? 0);
  const total =
    await one(`SELECT count(*) AS rows, count(DISTINCT u) AS users, count(DISTINCT i) AS items, min(t) AS first,
    max(t) AS last, min(r) AS low, max(r) AS high, count(DISTINCT r) AS different, count(r) AS rated FROM raw_interactions`);
  const rows = Math.max(1, n(total.rows));
  const users =
    await one(`SELECT avg(c) AS mean, median(c) AS median, max(c) AS most, avg((span = c - 1 AND low IN (0, 1))::INT) AS counted
    FROM (SELECT count(*) AS c, max(t) - min(t) AS span, min(t) AS low FROM raw_interactions GROUP BY u)`);
  const order = await one(`SELECT avg((again > 1)::INT) AS repeats, avg((t = before)::INT) AS ties FROM (SELECT t,
    row_number() OVER (PARTITION BY u, i ORDER BY t) AS again, lag(t) OVER (PARTITION BY u ORDER BY t) AS before FROM raw_interactions)`);
  const positions = n(users.counted) > 0.95 && n(total.last) < 1e6;
  const clock = hasClock && !positions;
  const catalogue = await one(`SELECT count(*) AS items, avg((title = '')::INT) AS untitled,
    avg((title = '' AND brand = '' AND categories = '[]' AND description = '')::INT) AS untexted,
    avg(length(title) + length(brand) + length(categories) + length(description)) AS length FROM raw_items`);
  const reach = clock
    ? await one(`WITH cut AS (SELECT quantile_disc(t, 0.6) AS edge FROM raw_interactions),
        begun AS (SELECT u, min(t) AS begin_t FROM raw_interactions GROUP BY u)
        SELECT avg((begin_t < edge)::INT) AS share FROM raw_interactions JOIN begun USING (u), cut WHERE t >= edge`)
    : {};
  return {
    interactions: n(total.rows),
    users: n(total.users),
    items: n(total.items),
    ...(hasItems ? { catalogue: n(catalogue.items) } : {}),
    unknownItems:
      hasItems && whole
        ? (await duck.number("SELECT count(*) FROM raw_interactions WHERE i NOT IN (SELECT i FROM raw_items)")) / rows
        : 0,
    withoutTitle: n(catalogue.untitled),
    withoutText: n(catalogue.untexted),
    ...(n(total.rated) > 0
      ? { ratings: { low: n(total.low), high: n(total.high), different: n(total.different) } }
      : {}),
    ...(clock ? { time: { first: n(total.first), last: n(total.last) } } : {}),
    positions,
    lengthMean: n(users.mean),
    lengthMedian: n(users.median),
    lengthMax: n(users.most),
    repeats: n(order.repeats),
    ties: n(order.ties),
    reach: n(reach.share),
    left: {
      5: await measureCore(duck, 5),
      3: await measureCore(duck, 3),
      2: await measureCore(duck, 2),
      0: await measureCore(duck, 0),
    },
    textLength: n(catalogue.length),
  };
}

/** The k-core, with one interaction per user and item. */
async function measureCore(duck: Duck, k: Core): Promise<Left> {
  await duck.run("CREATE OR REPLACE TEMP TABLE core AS SELECT DISTINCT u, i FROM raw_interactions");
  for (let before = -1, left = await duck.number("SELECT count(*) FROM core"); left !== before; ) {
    before = left;
    for (const key of ["i", "u"])
      await duck.run(`CREATE OR REPLACE TEMP TABLE core AS SELECT * FROM core
        WHERE ${key} IN (SELECT ${key} FROM core GROUP BY ${key} HAVING count(*) >= ${k})`);
    left = await duck.number("SELECT count(*) FROM core");
  }
  const [found] = await duck.rows(
    "SELECT count(DISTINCT u) AS users, count(DISTINCT i) AS items, count(*) AS n FROM core",
  );
  return { users: Number(found?.users), items: Number(found?.items), interactions: Number(found?.n) };
}
