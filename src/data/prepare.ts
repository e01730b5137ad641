/**
 * Cleaning in DuckDB, from raw_interactions to `clean(u, i, t)`: rating filter, unknown items, duplicates and repeats,
 * per-user cap, then k-core iterated to its fixed point (cap first, so that the result is a k-core).
 */
import type { Duck } from "./duck.ts";

/** What happens when a user meets an item again. */
export type RepeatPolicy = "keep" | "first" | "last" | "no-consecutive";

export interface PrepareOptions {
  /** Interactions below this rating are left out; undefined keeps all. */
  readonly minRating?: number;
  /** Every user has at least this many interactions; 0 or 1: no filter. */
  readonly minUserInteractions: number;
  /** Every item has at least this many interactions; 0 or 1: no filter. */
  readonly minItemInteractions: number;
  /** `keep`: only exact duplicates (user, item, time) go; `first`/`last`: one interaction a user and item;
   *  `no-consecutive`: an item directly after itself goes. */
  readonly repeats: RepeatPolicy;
  /** The latest this many interactions of a user; undefined: all. */
  readonly maxPerUser?: number;
}

/** Ties in time are broken by this: stable across runs and versions, of user AND item, so it cannot be learnt. */
const tieBreak = "md5(u || chr(31) || i)";

/** Builds `clean`; returns rows dropped by reason (only reasons that occurred). */
export async function prepare(duck: Duck, options: PrepareOptions, hasItems: boolean): Promise<Record<string, number>> {
  const dropped: Record<string, number> = {};
  let count = await duck.number("SELECT count(*) FROM raw_interactions");
  const step = async (reason: string, sql: string): Promise<number> => {
    await duck.run(`CREATE OR REPLACE TEMP TABLE next_clean AS ${sql}; DROP TABLE IF EXISTS clean;
      ALTER TABLE next_clean RENAME TO clean`);
    const left = await duck.number("SELECT count(*) FROM clean");
    if (left < count) dropped[reason] = (dropped[reason] ?? 0) + count - left;
    const gone = count - left;
    count = left;
    return gone;
  };
  const rating = options.minRating === undefined ? "" : `WHERE r >= ${Number(options.minRating)}`;
  await step("below minimum rating", `SELECT u, i, t FROM raw_interactions ${rating}`);
  await duck.run("DROP TABLE raw_interactions");
  if (hasItems) await step("unknown item", "SELECT * FROM clean WHERE i IN (SELECT i FROM raw_items)");
  await step("duplicate", "SELECT DISTINCT u, i, t FROM clean");
  if (options.repeats === "first" || options.repeats === "last")
    await step(
      "repeat",
      `SELECT u, i, ${options.repeats === "first" ? "min" : "max"}(t) AS t FROM clean GROUP BY u, i`,
    );
  else if (options.repeats === "no-consecutive")
    await step(
      "consecutive repeat",
      `SELECT u, i, t FROM (SELECT *, lag(i) OVER (PARTITION BY u ORDER BY t, ${tieBreak}) AS before FROM clean)
       WHERE before IS DISTINCT FROM i`,
    );
  if (options.maxPerUser !== undefined)
    await step(
      "beyond the cap per user",
      `SELECT u, i, t FROM clean QUALIFY row_number() OVER (PARTITION BY u ORDER BY t DESC, ${tieBreak} DESC) <= ${Math.trunc(options.maxPerUser)}`,
    );
  const [kUser, kItem] = [Math.trunc(options.minUserInteractions), Math.trunc(options.minItemInteractions)];
  for (let gone = kUser > 1 || kItem > 1 ? 1 : 0; gone > 0; ) {
    gone = 0;
    if (kItem > 1) gone += await step("below k-core", core("i", kItem));
    if (kUser > 1) gone += await step("below k-core", core("u", kUser));
  }
  return dropped;
}

const core = (key: "u" | "i", k: number): string =>
  `SELECT * FROM clean WHERE ${key} IN (SELECT ${key} FROM clean GROUP BY ${key} HAVING count(*) >= ${k})`;

/** ORDER BY that fixes every sequence: user row, time, tie-break. */
export const sequenceOrder = `t, ${tieBreak}`;
