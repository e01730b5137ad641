/**
 * Builds the Dataset: adapter → cleaning → dense rows → neutralised text → statistics.
 * Rows are numbered by a hash of the id, so a row number says nothing about time, popularity or file order.
 */
import { basename } from "node:path";
import { DataError } from "../core/errors.ts";
import { hashOf, sha256File } from "../core/hash.ts";
import { itemId, userId } from "../core/ids.ts";
import { type AdapterOptions, loadRaw } from "./adapters/index.ts";
import { type DuckOptions, openDuck, Quarantine, readNumbers } from "./duck.ts";
import { type PrepareOptions, prepare, sequenceOrder } from "./prepare.ts";
import type { Dataset, DatasetStats, Item, UserSequence } from "./types.ts";

export interface BuildOptions {
  readonly name: string;
  readonly source: AdapterOptions;
  readonly prepare: PrepareOptions;
  /** `interacted` (default): only items somebody interacted with; `all`: the whole item file. */
  readonly catalogue?: "interacted" | "all";
  /** Malformed rows above this share stop the run. Default 0.01. */
  readonly maxBadShare?: number;
  /** Where malformed rows are written as JSONL. */
  readonly quarantineFile?: string;
  /** Makes untrusted text safe (sid/sanitise); called on every title, brand, category and description. */
  readonly neutralise: (text: string) => string;
  /** Names the neutraliser's version; part of the hash. */
  readonly neutraliseId: string;
  readonly duck?: DuckOptions;
}

/** Raised whenever building changes its result. */
const version = 1;

/** Reads, cleans and numbers a data set. Throws DataError for missing, corrupt or empty data. */
export async function buildDataset(options: BuildOptions): Promise<Dataset> {
  const duck = await openDuck(options.duck);
  try {
    const quarantine = new Quarantine();
    const report = await loadRaw(duck, options.source, quarantine);
    quarantine.settle(options.maxBadShare ?? 0.01, options.quarantineFile);
    const cleaned = await prepare(duck, options.prepare, report.hasItems);
    if ((await duck.number("SELECT count(*) FROM clean")) === 0)
      throw new DataError(`No interaction is left of ${report.rowsRead} rows read (${describe(cleaned)}).`, {
        advice: "Lower data.minInteractions or data.minRating.",
      });
    const all = options.catalogue === "all" ? "UNION SELECT i FROM raw_items" : "";
    await duck.run(`CREATE TEMP TABLE item_rows AS SELECT i, (row_number() OVER (ORDER BY md5(i), i) - 1)::INTEGER AS n
      FROM (SELECT i FROM clean ${all} GROUP BY i);
      CREATE TEMP TABLE user_rows AS SELECT u, (row_number() OVER (ORDER BY md5(u), u) - 1)::INTEGER AS n
      FROM (SELECT DISTINCT u FROM clean);
      CREATE TEMP TABLE ordered AS SELECT ur.n AS un, ir.n AS inn, c.t FROM clean c
      JOIN item_rows ir USING (i) JOIN user_rows ur USING (u) ORDER BY un, ${sequenceOrder};
      DROP TABLE clean`);
    const items = await readItems(duck, options.neutralise);
    const sequences = await readSequences(duck);
    const hash = hashOf({
      version,
      source: { ...options.source, path: "" },
      files: await Promise.all(report.files.map(async (f) => [basename(f), await sha256File(f)])),
      prepare: options.prepare,
      catalogue: options.catalogue ?? "interacted",
      neutralise: options.neutraliseId,
    });
    const dropped = quarantine.count() > 0 ? { malformed: quarantine.count(), ...cleaned } : cleaned;
    return {
      name: options.name,
      items,
      sequences,
      hash,
      stats: {
        ...statistics(items, sequences, report.rowsRead, dropped),
        hasClock: report.hasClock,
        notes: report.notes,
      },
    };
  } finally {
    duck.close();
  }
}

type Duck = Awaited<ReturnType<typeof openDuck>>;

const describe = (dropped: Record<string, number>): string =>
  Object.entries(dropped)
    .map(([reason, n]) => `${n} ${reason}`)
    .join(", ") || "none dropped";

async function readItems(duck: Duck, neutralise: (text: string) => string): Promise<Item[]> {
  const rows = await duck.rows(`SELECT r.i AS id, x.title, x.brand, x.categories, x.description FROM item_rows r
    LEFT JOIN (SELECT * FROM raw_items QUALIFY row_number() OVER (PARTITION BY i ORDER BY n) = 1) x USING (i) ORDER BY r.n`);
  return rows.map((row) => ({
    id: itemId(String(row.id)),
    title: neutralise(String(row.title ?? "")),
    brand: neutralise(String(row.brand ?? "")),
    categories: (JSON.parse(String(row.categories ?? "[]")) as string[]).map(neutralise).filter((c) => c !== ""),
    description: neutralise(String(row.description ?? "")),
  }));
}

async function readSequences(duck: Duck): Promise<UserSequence[]> {
  const total = await duck.number("SELECT count(*) FROM ordered");
  const users = (await duck.rows("SELECT u FROM user_rows ORDER BY n")).map((r) => userId(String(r.u)));
  const user = new Int32Array(total);
  const item = new Int32Array(total);
  const time = new Float64Array(total);
  await readNumbers(duck, "SELECT un, inn, t FROM ordered", [user, item, time]);
  const sequences: UserSequence[] = [];
  for (let start = 0, row = 0; row < users.length; row++) {
    let end = start;
    while (end < total && user[end] === row) end++;
    sequences.push({ user: users[row] ?? userId(""), items: item.slice(start, end), times: time.slice(start, end) });
    start = end;
  }
  return sequences;
}

/** Statistics over finished rows. */
export function statistics(
  items: readonly Item[],
  sequences: readonly UserSequence[],
  rowsRead: number,
  dropped: Readonly<Record<string, number>>,
): DatasetStats {
  const lengths = sequences.map((s) => s.items.length).sort((a, b) => a - b);
  const interactions = lengths.reduce((a, b) => a + b, 0);
  let steps = 0;
  let ties = 0;
  for (const { times } of sequences) {
    for (let k = 1; k < times.length; k++) {
      steps++;
      if (times[k] === times[k - 1]) ties++;
    }
  }
  const half = lengths.length >> 1;
  const median =
    lengths.length % 2 === 1 ? (lengths[half] ?? 0) : ((lengths[half - 1] ?? 0) + (lengths[half] ?? 0)) / 2;
  return {
    users: sequences.length,
    items: items.length,
    interactions,
    rowsRead,
    dropped,
    itemsWithoutText: items.filter(
      (i) => i.title === "" && i.brand === "" && i.description === "" && i.categories.length === 0,
    ).length,
    tieShare: steps === 0 ? 0 : ties / steps,
    lengthMean: sequences.length === 0 ? 0 : interactions / sequences.length,
    lengthMedian: median,
    lengthMax: lengths.at(-1) ?? 0,
  };
}
