/**
 * Cleaning in DuckDB, from raw_interactions to `clean`: rating filter, unknown items, duplicates and repeats, per-user
 * cap, then k-core iterated to its fixed point (after the cap, which makes the result a k-core). Ids become integers
 * once, at the start; everything after that works on integers, out of core.
 *
 *   clean(u INTEGER, i INTEGER, t DOUBLE)      u, i: codes; in no particular order;
 *                                              including rows that the k-core drops
 *   user_counts(c INTEGER, n INTEGER), item_counts(c INTEGER, n INTEGER)    interactions (> 0) of those in the core
 *   user_codes(c INTEGER, id VARCHAR), item_codes(c INTEGER, id VARCHAR)    codes, including dropped ids
 */
import { hash } from "node:crypto";
import { compareIds } from "./compare-ids.ts";
import type { Duck } from "./duck.ts";

/** How repeated interactions of a user with an item are handled. */
export type RepeatPolicy = "keep" | "first" | "last" | "no-consecutive";

export interface PrepareOptions {
  /** Interactions below this rating are left out; undefined keeps all. */
  readonly minRating?: number;
  /** Every user has at least this many interactions; 0 or 1: no filter. */
  readonly minUserInteractions: number;
  /** Every item has at least this many interactions; 0 or 1: no filter. */
  readonly minItemInteractions: number;
  /** `keep`: drop only exact duplicates (user, item, time); `first`/`last`: one interaction per user and item;
   *  `no-consecutive`: drop an item directly after itself. */
  readonly repeats: RepeatPolicy;
  /** Keep this many latest interactions of a user; undefined: all. */
  readonly maxPerUser?: number;
}

/** Breaks ties in time: stable across runs and versions; a hash of user AND item, which cannot be learned. */
export const tieBreak = (user: string, item: string): string => hash("md5", `${user}\u001f${item}`);

/** `rows` of clean, with the same tie-break for SQL as the column `tie`. */
const withTies = (rows: string): string =>
  `(SELECT c.*, md5(uc.id || chr(31) || ic.id) AS tie FROM ${rows} c
    JOIN user_codes uc ON uc.c = c.u JOIN item_codes ic ON ic.c = c.i)`;

export interface Prepared {
  /** Rows left out by reason, only reasons that occurred. */
  readonly dropped: Readonly<Record<string, number>>;
  /** If many rows have items missing from the item file: ids of both sides, and the likely reason. */
  readonly strangers?: string;
}

/** Share of interactions with unknown items above which a note is given. */
const unknownShare = 0.1;

/** Builds these tables and consumes raw_interactions. */
export async function prepare(duck: Duck, options: PrepareOptions, hasItems: boolean): Promise<Prepared> {
  const dropped: Record<string, number> = {};
  let count = await duck.number("SELECT count(*) FROM raw_interactions");
  const leave = (reason: string, left: number): number => {
    const gone = count - left;
    if (gone > 0) dropped[reason] = (dropped[reason] ?? 0) + gone;
    count = left;
    return gone;
  };
  const numClean = (): Promise<number> => duck.number("SELECT count(*) FROM clean");
  const replace = (sql: string): Promise<void> =>
    duck.run(`CREATE TEMP TABLE next_clean AS ${sql}; DROP TABLE clean; ALTER TABLE next_clean RENAME TO clean`);

  // Nothing from here on depends on the order of rows, and keeping it would cost memory.
  await duck.run("SET preserve_insertion_order = false");
  const rating = options.minRating === undefined ? "" : `WHERE r >= ${Number(options.minRating)}`;
  leave("below minimum rating", await duck.number(`SELECT count(*) FROM raw_interactions ${rating}`));
  await duck.run(`${codes("user_codes", "u", "raw_interactions")};
    ${codes("item_codes", "i", hasItems ? "raw_items" : "raw_interactions")};
    CREATE TEMP TABLE clean AS SELECT uc.c AS u, ic.c AS i, t FROM (SELECT u, i, t FROM raw_interactions ${rating}) raw
    JOIN user_codes uc ON uc.id = raw.u JOIN item_codes ic ON ic.id = raw.i`);
  const before = count;
  const unknown = leave("unknown item", await numClean());
  const strangers = hasItems && unknown > unknownShare * before ? await compareIds(duck) : undefined;
  await duck.run("DROP TABLE raw_interactions");

  if (options.repeats === "first" || options.repeats === "last") {
    await duck.run(`CREATE TEMP TABLE pairs AS
      SELECT u, i, ${options.repeats === "first" ? "min" : "max"}(t) AS t, count(*) AS n FROM clean GROUP BY u, i`);
    // Distinct rows: pairs that occur once, plus the distinct times of the few other pairs.
    const once = await duck.number("SELECT count(*) FROM pairs WHERE n = 1");
    const others = await duck.number(
      `SELECT count(*) FROM (SELECT DISTINCT u, i, t FROM clean
        SEMI JOIN (SELECT u, i FROM pairs WHERE n > 1) USING (u, i))`,
    );
    leave("duplicate", once + others);
    await duck.run("DROP TABLE clean; ALTER TABLE pairs DROP n; ALTER TABLE pairs RENAME TO clean");
    leave("repeat", await numClean());
  } else {
    await replace("SELECT DISTINCT u, i, t FROM clean");
    leave("duplicate", await numClean());
    if (options.repeats === "no-consecutive") {
      await replace(`SELECT u, i, t FROM
        (SELECT *, lag(i) OVER (PARTITION BY u ORDER BY t, tie) AS before FROM ${withTies("clean")})
        WHERE before IS DISTINCT FROM i`);
      leave("consecutive repeat", await numClean());
    }
  }
  if (options.maxPerUser !== undefined) {
    const cap = Math.trunc(options.maxPerUser);
    const above = `(SELECT u FROM clean GROUP BY u HAVING count(*) > ${cap})`;
    await replace(`SELECT * FROM clean ANTI JOIN ${above} USING (u) UNION ALL
      SELECT u, i, t FROM ${withTies(`(FROM clean SEMI JOIN ${above} USING (u))`)}
      QUALIFY row_number() OVER (PARTITION BY u ORDER BY t DESC, tie DESC) <= ${cap}`);
    leave("beyond the cap per user", await numClean());
  }
  const [kUser, kItem] = [Math.trunc(options.minUserInteractions), Math.trunc(options.minItemInteractions)];
  await kCore(duck, kUser, kItem);
  leave("below k-core", await duck.number("SELECT coalesce(sum(n), 0) FROM user_counts"));
  return { dropped, ...(strangers === undefined ? {} : { strangers }) };
}

const codes = (table: string, column: string, source: string): string =>
  `CREATE TEMP TABLE ${table} AS
    SELECT (row_number() OVER ())::INTEGER AS c, id FROM (SELECT DISTINCT ${column} AS id FROM ${source})`;

/**
 * Counts every row once; after that, only rows of users and items that fell out, to subtract them from the other side's
 * counts (a scan, but hardly an aggregation). Nothing is deleted from clean: readers join the counts.
 */
async function kCore(duck: Duck, kUser: number, kItem: number): Promise<void> {
  const users = { key: "u", counts: "user_counts", k: Math.max(1, kUser) };
  const items = { key: "i", counts: "item_counts", k: Math.max(1, kItem) };
  for (const { key, counts } of [users, items])
    await duck.run(
      `CREATE TEMP TABLE ${counts} AS SELECT ${key} AS c, count(*)::INTEGER AS n FROM clean GROUP BY ${key}`,
    );
  let settled = 0;
  for (let [own, other] = [items, users]; settled < 2; [own, other] = [other, own]) {
    await duck.run(`CREATE TEMP TABLE fallen AS SELECT c FROM ${own.counts} WHERE n < ${own.k}`);
    settled = (await duck.number("SELECT count(*) FROM fallen")) === 0 ? settled + 1 : 0;
    if (settled === 0)
      await duck.run(`DELETE FROM ${own.counts} WHERE n < ${own.k};
        UPDATE ${other.counts} SET n = ${other.counts}.n - lost.n FROM
          (SELECT ${other.key} AS c, count(*)::INTEGER AS n FROM clean SEMI JOIN fallen ON fallen.c = ${own.key} GROUP BY ALL) lost
          WHERE lost.c = ${other.counts}.c`);
    await duck.run("DROP TABLE fallen");
  }
}
