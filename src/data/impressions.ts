/**
 * Logged slates after cleaning: raw_impressions → Impressions by user row and time, computed in DuckDB; and their file
 * in the data cache:
 *
 *   impressions.parquet(user INTEGER, time DOUBLE, candidates INTEGER[], scores DOUBLE[], labels DOUBLE[])
 *
 * The k-core applies to histories, not to slates: an item without clicks stays a candidate, because dropping such items
 * would reveal to the re-ranker which ones were clicked. Only items missing from the item file are removed from slates.
 */
import { DOUBLE, type DuckDBListValue, type DuckDBType, INTEGER, LIST, listValue } from "@duckdb/node-api";
import { type Duck, readNumbers } from "./duck.ts";
import type { Column } from "./parquet.ts";
import type { DatasetStats, Impressions } from "./types.ts";

/** Without an item file, gives shown items a code; returns SQL that adds them to the catalogue. */
export async function addShownItems(duck: Duck, hasItems: boolean): Promise<string> {
  if (!hasItems)
    await duck.run(`INSERT INTO item_codes
      SELECT (row_number() OVER () + (SELECT max(c) FROM item_codes))::INTEGER, i
      FROM (SELECT DISTINCT i FROM raw_impressions) ANTI JOIN item_codes ON item_codes.id = i`);
  return " OR id IN (SELECT i FROM raw_impressions)";
}

/** Needs raw_impressions, item_rows(id, row) and user_rows(id, row). */
export async function readImpressions(
  duck: Duck,
): Promise<{ impressions: Impressions; stats: NonNullable<DatasetStats["impressions"]> }> {
  await duck.run(`CREATE TEMP TABLE shown AS SELECT r.s, r.t, r.k, r.x, r.y, ur.row AS un, ir.row AS inn
      FROM raw_impressions r LEFT JOIN user_rows ur ON ur.id = r.u LEFT JOIN item_rows ir ON ir.id = r.i;
    DROP TABLE raw_impressions;
    CREATE TEMP TABLE fates AS SELECT s, CASE
        WHEN max(un) IS NULL THEN 'user without interactions'
        WHEN count(inn) < 2 THEN 'fewer than 2 known candidates'
        WHEN max(y) FILTER (inn IS NOT NULL) = 0 THEN 'no positive'
        WHEN max(y) FILTER (inn IS NOT NULL) = min(y) FILTER (inn IS NOT NULL) THEN 'all labels are equal'
      END AS reason FROM shown GROUP BY s;
    CREATE TEMP TABLE kept AS SELECT * FROM shown JOIN fates USING (s) WHERE reason IS NULL AND inn IS NOT NULL`);
  const fates = await duck.rows("SELECT reason, count(*) AS n FROM fates GROUP BY reason ORDER BY reason NULLS FIRST");
  const slates = await duck.number("SELECT count(*) FROM fates WHERE reason IS NULL");
  const candidates = await duck.number("SELECT count(*) FROM kept");
  const unknownCandidates = await duck.number("SELECT count(*) FROM shown WHERE un IS NOT NULL AND inn IS NULL");
  const [slate, user, items] = [new Float64Array(candidates), new Int32Array(candidates), new Int32Array(candidates)];
  const [time, scores, labels] = [0, 0, 0].map(() => new Float64Array(candidates)) as [
    Float64Array<ArrayBuffer>,
    Float64Array<ArrayBuffer>,
    Float64Array<ArrayBuffer>,
  ];
  await readNumbers(duck, "SELECT s::DOUBLE, un, inn, t, x, y FROM kept ORDER BY un, t, s, k", [
    ...[slate, user, items],
    ...[time, scores, labels],
  ]);
  await duck.run("DROP TABLE shown; DROP TABLE fates; DROP TABLE kept");
  const first = Int32Array.from(slate.keys()).filter((k) => k === 0 || slate[k] !== slate[k - 1]);
  return {
    impressions: {
      users: first.map((k) => user[k] as number),
      times: Float64Array.from(first, (k) => time[k] as number),
      starts: Int32Array.from([...first, candidates]),
      items,
      scores,
      labels,
    },
    stats: {
      read: fates.reduce((sum, f) => sum + Number(f.n), 0),
      slates,
      candidates,
      dropped: Object.fromEntries(fates.flatMap((f) => (f.reason === null ? [] : [[String(f.reason), Number(f.n)]]))),
      unknownCandidates,
    },
  };
}

/** impressions.parquet of the data cache: one row per slate; candidates in the incumbent's order. */
export function impressionColumns(i: Impressions): readonly Column[] {
  const list = (name: string, values: Int32Array | Float64Array, type: DuckDBType): Column => ({
    name,
    type: LIST(type),
    at: (row) => listValue(Array.from(values.subarray(i.starts[row], i.starts[row + 1]))),
  });
  return [
    { name: "user", type: INTEGER, at: (row) => i.users[row] as number },
    { name: "time", type: DOUBLE, at: (row) => i.times[row] as number },
    list("candidates", i.items, INTEGER),
    list("scores", i.scores, DOUBLE),
    list("labels", i.labels, DOUBLE),
  ];
}

/** Reads what impressionColumns wrote. `file`: SQL that reads it. */
export async function readSavedImpressions(
  duck: Duck,
  file: string,
  size: { readonly rows: number; readonly candidates: number },
): Promise<Impressions> {
  const [users, times, starts] = [
    new Int32Array(size.rows),
    new Float64Array(size.rows),
    new Int32Array(size.rows + 1),
  ];
  const items = new Int32Array(size.candidates);
  const [scores, labels] = [new Float64Array(size.candidates), new Float64Array(size.candidates)];
  let row = 0;
  await duck.each(`SELECT "user", time, candidates, scores, labels FROM ${file}`, (chunk) => {
    for (const [user, time, ...lists] of chunk.getRows()) {
      const start = starts[row] as number;
      users[row] = user as number;
      times[row] = time as number;
      for (const [c, target] of [items, scores, labels].entries())
        target.set((lists[c] as DuckDBListValue).items as number[], start);
      starts[++row] = start + (lists[0] as DuckDBListValue).items.length;
    }
  });
  return { users, times, starts, items, scores, labels };
}
