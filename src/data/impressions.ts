/**
 * Logged slates after cleaning: raw_impressions → Impressions by user row and time. Heavy work in DuckDB. And their bytes:
 *
 *   times Float64[slates] · scores, labels Float64[candidates] · users Int32[slates] · starts Int32[slates + 1]
 *   · items Int32[candidates]                                       little-endian; eight-byte numbers first: all aligned
 *
 * The k-core thins histories, not slates: an item nobody clicked stays a candidate, since leaving such items out would
 * tell the re-ranker which ones were clicked. Only items that an item file does not know are taken out of their slates.
 */
import { type Duck, readNumbers } from "./duck.ts";
import type { DatasetStats, Impressions } from "./types.ts";

/** Gives shown items a code where there is no item file that knows all; SQL that puts them into the catalogue. */
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
        WHEN max(y) FILTER (inn IS NOT NULL) = min(y) FILTER (inn IS NOT NULL) THEN 'all candidates labelled alike'
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

export interface ImpressionsSize {
  readonly slates: number;
  readonly candidates: number;
}

/** For the data cache. */
export function impressionsTo(i: Impressions): {
  readonly parts: readonly Uint8Array[];
  readonly size: ImpressionsSize;
} {
  const parts = [i.times, i.scores, i.labels, i.users, i.starts, i.items];
  return {
    parts: parts.map((a) => new Uint8Array(a.buffer, a.byteOffset, a.byteLength)),
    size: { slates: i.users.length, candidates: i.items.length },
  };
}

/** What impressionsTo wrote. */
export function impressionsFrom(bytes: ArrayBuffer, { slates, candidates }: ImpressionsSize): Impressions {
  const integersAt = 8 * (slates + 2 * candidates);
  return {
    users: new Int32Array(bytes, integersAt, slates),
    times: new Float64Array(bytes, 0, slates),
    starts: new Int32Array(bytes, integersAt + 4 * slates, slates + 1),
    items: new Int32Array(bytes, integersAt + 4 * (2 * slates + 1), candidates),
    scores: new Float64Array(bytes, 8 * slates, candidates),
    labels: new Float64Array(bytes, 8 * (slates + candidates), candidates),
  };
}
