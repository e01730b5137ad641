/**
 * Builds the Dataset: adapter → cleaning → dense rows → neutralised text → statistics.
 * Rows are numbered by a hash of the id, so a row number says nothing about time, popularity or file order.
 */
import { basename } from "node:path";
import { DataError } from "../core/errors.ts";
import { hashJson, sha256File } from "../core/hash.ts";
import { itemId, type UserId, userId } from "../core/ids.ts";
import { type AdapterOptions, loadRaw } from "./adapters/index.ts";
import type { AdapterReport } from "./adapters/readers.ts";
import { type Duck, type DuckOptions, openDuck, Quarantine, readNumbers } from "./duck.ts";
import { addShownItems, readImpressions } from "./impressions.ts";
import { type PrepareOptions, prepare, tieBreak } from "./prepare.ts";
import type { Dataset, DatasetStats, Item, UserSequence } from "./types.ts";

export interface BuildOptions {
  readonly name: string;
  readonly source: AdapterOptions;
  readonly prepare: PrepareOptions;
  /** `interacted` (default): only items with an interaction; `all`: the whole item file. */
  readonly catalogue?: "interacted" | "all";
  /** The run stops if the share of malformed rows is larger. Default 0.01. */
  readonly maxBadShare?: number;
  /** Where malformed rows are written as JSONL. */
  readonly quarantineFile?: string;
  /** Makes untrusted text safe (sid/sanitise); called on every title, brand, category and description. */
  readonly neutralise: (text: string) => string;
  /** Names the neutraliser's version; part of the hash. */
  readonly neutraliseId: string;
  readonly duck?: DuckOptions;
}

/** Increase it whenever the result of building changes. */
const version = 1;

/** Reads, cleans and numbers a data set. Throws DataError for missing, corrupt or empty data. */
export async function buildDataset(options: BuildOptions): Promise<Dataset> {
  const { report, dropped, items, logged, columns } = await readAndClean(options);
  const sequences = buildSequences(columns, items);
  const hash = hashJson({
    version,
    source: { ...options.source, path: "" },
    files: await Promise.all(report.files.map(async (f) => [basename(f), await sha256File(f)])),
    ...(report.content === undefined ? {} : { content: report.content }),
    prepare: options.prepare,
    catalogue: options.catalogue ?? "interacted",
    neutralise: options.neutraliseId,
  });
  return {
    name: options.name,
    items,
    sequences,
    ...(logged ? { impressions: logged.impressions } : {}),
    hash,
    stats: {
      ...statistics(items, sequences, report.rowsRead, dropped),
      hasClock: report.hasClock,
      ...(logged ? { impressions: logged.stats } : {}),
      notes: report.notes,
    },
  };
}

/** The part that needs DuckDB; its memory is freed once the sequences are built. */
async function readAndClean(options: BuildOptions) {
  const duck = await openDuck(options.duck);
  try {
    const quarantine = new Quarantine();
    const report = await loadRaw(duck, options.source, quarantine);
    quarantine.settle(options.maxBadShare ?? 0.01, options.quarantineFile);
    const twice = await describeTwice(duck);
    const { dropped: cleaned, strangers } = await prepare(duck, options.prepare, report.hasItems);
    if ((await duck.number("SELECT count(*) FROM user_counts")) === 0) throw nothingLeft(report, cleaned, strangers);
    const shown = report.hasImpressions === true ? await addShownItems(duck, report.hasItems) : "";
    const all = options.catalogue === "all" && report.hasItems ? "" : `WHERE n > 0${shown}`;
    await duck.run(`${rows("user_rows", "user", "WHERE n > 0")}; ${rows("item_rows", "item", all)};
      DROP TABLE user_codes; DROP TABLE item_codes; DROP TABLE user_counts; DROP TABLE item_counts`);
    const dropped = quarantine.count() > 0 ? { malformed: quarantine.count(), ...cleaned } : cleaned;
    const items = await readItems(duck, options.neutralise);
    const logged = report.hasImpressions === true ? await readImpressions(duck) : undefined;
    if (logged?.stats.slates === 0)
      throw new DataError(`No logged slate is left of ${logged.stats.read} (${describe(logged.stats.dropped)}).`, {
        advice: "A slate needs two candidates from the item file, and labels that differ.",
      });
    const notes = [...report.notes, ...twice, ...(strangers === undefined ? [] : [strangers])];
    return { report: { ...report, notes }, dropped, items, logged, columns: await readColumns(duck) };
  } finally {
    duck.close();
  }
}

/** A note on ids that have several texts. */
async function describeTwice(duck: Duck): Promise<string[]> {
  const texts = "hash(title, brand, categories, description)";
  const twice = await duck.number(
    `SELECT count(*) FROM (SELECT i FROM raw_items GROUP BY i HAVING count(*) > 1 AND min(${texts}) <> max(${texts}))`,
  );
  return twice === 0
    ? []
    : [`${twice} items occur in the item file several times with different texts; the first is used`];
}

/** The advice depends on the reason that dropped most rows. */
function nothingLeft(report: AdapterReport, dropped: Readonly<Record<string, number>>, strangers?: string): DataError {
  const [most = ""] = Object.entries(dropped).sort((a, b) => b[1] - a[1])[0] ?? [];
  const advice: Readonly<Record<string, string>> = {
    "unknown item":
      "Name columns with the same ids in data.columns.item and data.columns.id, or convert one to the other.",
    "below minimum rating": "Lower data.minRating.",
    "below k-core": "Lower data.minInteractions.",
  };
  return new DataError(
    `No interactions are left from ${report.rowsRead} rows read ` +
      `(${describe(dropped)})${strangers === undefined ? "" : `: ${strangers}`}.`,
    { advice: advice[most] ?? "Look at the data: gr2 data inspect." },
  );
}

/** Numbers ids by hash and counts their interactions: TABLE(id, c, row, n). */
const rows = (table: string, side: "user" | "item", condition: string): string =>
  `CREATE TEMP TABLE ${table} AS SELECT id, c, (row_number() OVER (ORDER BY md5(id), id) - 1)::INTEGER AS row, n
   FROM (SELECT id, c, coalesce(n, 0)::INTEGER AS n FROM ${side}_codes LEFT JOIN ${side}_counts USING (c)) ${condition}`;

const describe = (dropped: Readonly<Record<string, number>>): string =>
  Object.entries(dropped)
    .map(([reason, n]) => `${n} ${reason}`)
    .join(", ") || "none dropped";

async function readItems(duck: Duck, neutralise: (text: string) => string): Promise<Item[]> {
  const items: Item[] = [];
  await duck.each(
    `SELECT r.id, x.title, x.brand, x.categories, x.description FROM item_rows r
    LEFT JOIN (SELECT * FROM raw_items QUALIFY row_number() OVER (PARTITION BY i ORDER BY n) = 1) x ON x.i = r.id ORDER BY r.row`,
    (chunk) => {
      for (const [id, title, brand, categories, description] of chunk.getRows())
        items.push({
          id: itemId(String(id)),
          title: neutralise(String(title ?? "")),
          brand: neutralise(String(brand ?? "")),
          categories: (JSON.parse(String(categories ?? "[]")) as string[]).map(neutralise).filter((c) => c !== ""),
          description: neutralise(String(description ?? "")),
        });
    },
  );
  return items;
}

/** All sequences concatenated, in order of user row and time. */
interface Columns {
  readonly users: readonly UserId[];
  /** Index = user row. */
  readonly lengths: Int32Array;
  readonly items: Int32Array;
  readonly times: Float64Array;
}

async function readColumns(duck: Duck): Promise<Columns> {
  const users: UserId[] = [];
  await duck.each("SELECT id FROM user_rows ORDER BY row", (chunk) => {
    for (const [id] of chunk.getRows()) users.push(userId(String(id)));
  });
  const lengths = new Int32Array(users.length);
  await readNumbers(duck, "SELECT n FROM user_rows ORDER BY row", [lengths]);
  const total = await duck.number("SELECT sum(n) FROM user_rows");
  const items = new Int32Array(total);
  const times = new Float64Array(total);
  await duck.yieldMemory(items.byteLength + times.byteLength);
  await readNumbers(
    duck,
    `SELECT ir.row, t FROM clean JOIN user_rows ur ON ur.c = clean.u
      JOIN item_rows ir ON ir.c = clean.i AND ir.n > 0 ORDER BY ur.row, t`,
    [items, times],
  );
  return { users, lengths, items, times };
}

/**
 * Sequences are views into two shared arrays: at a million users, separate arrays would cost more than the data.
 */
function buildSequences(columns: Columns, items: readonly Item[]): UserSequence[] {
  let end = 0;
  return columns.users.map((user, row) => {
    const start = end;
    end += columns.lengths[row] as number;
    const sequence = { user, items: columns.items.subarray(start, end), times: columns.times.subarray(start, end) };
    breakTies(sequence, items);
    return sequence;
  });
}

/** Sorts a user's interactions with equal times by the tie-break, in place. */
function breakTies({ user, items: own, times }: UserSequence, items: readonly Item[]): void {
  for (let start = 0; start < own.length; ) {
    let end = start + 1;
    while (end < own.length && times[end] === times[start]) end++;
    if (end - start > 1) {
      const tied: { readonly row: number; readonly key: string }[] = [];
      for (let k = start; k < end; k++) {
        const row = own[k] as number;
        tied.push({ row, key: tieBreak(user, items[row]?.id ?? "") });
      }
      tied.sort((a, b) => (a.key < b.key ? -1 : 1));
      let k = start;
      for (const { row } of tied) own[k++] = row;
    }
    start = end;
  }
}

/** Statistics over finished rows. */
export function statistics(
  items: readonly Item[],
  sequences: readonly UserSequence[],
  rowsRead: number,
  dropped: Readonly<Record<string, number>>,
): DatasetStats {
  const lengths = Int32Array.from(sequences, (s) => s.items.length).sort();
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
