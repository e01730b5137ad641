/**
 * A built Dataset on disk: a folder of ordinary Parquet files, and `dataset.json`, written
 * last. Keyed by content: dataset.json contains the hash of the data set and of every file; a mismatch is a DataError.
 *
 *   interactions.parquet   user INTEGER, item INTEGER (rows of the next two), time DOUBLE;
 *                          sorted by user row, then time
 *   items.parquet          row INTEGER, id, title, brand VARCHAR, categories VARCHAR[], description VARCHAR
 *   users.parquet          row INTEGER, id VARCHAR
 *   impressions.parquet    if there is a log of slates (data/impressions)
 */
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DOUBLE, type DuckDBListValue, INTEGER, LIST, listValue, VARCHAR } from "@duckdb/node-api";
import { DataError } from "../core/errors.ts";
import { sha256File } from "../core/hash.ts";
import { itemId, type UserId, userId } from "../core/ids.ts";
import { type Duck, openDuck, sqlText } from "./duck.ts";
import { impressionColumns, readSavedImpressions } from "./impressions.ts";
import { type ParquetFile, writeParquet } from "./parquet.ts";
import type { Dataset, DatasetStats, Item, UserSequence } from "./types.ts";

interface CacheHead {
  readonly format: typeof format;
  readonly name: string;
  readonly hash: string;
  readonly stats: DatasetStats;
  readonly files: {
    readonly interactions: ParquetFile;
    readonly items: ParquetFile;
    readonly users: ParquetFile;
    /** `candidates`: total over all slates. */
    readonly impressions?: ParquetFile & { readonly candidates: number };
  };
}

const format = 2;
/** Rows are streamed; one thread preserves their order: equal data gives equal bytes. */
const duckOptions = { memoryMb: 256, threads: 1 };

/**
 * Writes the data set into `folder`, each file atomically and without a copy of the data in memory; returns the paths.
 */
export async function saveDataset(dataset: Dataset, folder: string): Promise<readonly string[]> {
  const { sequences, items, impressions } = dataset;
  mkdirSync(folder, { recursive: true });
  const path = (name: string): string => join(folder, `${name}.parquet`);
  const duck = await openDuck(duckOptions);
  let files: CacheHead["files"];
  try {
    const rowNumber = { name: "row", type: INTEGER, at: (row: number) => row };
    const text = (name: string, of: (item: Item) => string) => ({
      name,
      type: VARCHAR,
      at: (row: number) => of(items[row] as Item),
    });
    const interactions = sequences.reduce((sum, s) => sum + s.items.length, 0);
    files = {
      interactions: await writeParquet(duck, path("interactions"), interactions, [
        { name: "user", type: INTEGER, at: inOrder(sequences, (_own, _k, user) => user) },
        { name: "item", type: INTEGER, at: inOrder(sequences, (own, k) => own.items[k] as number) },
        { name: "time", type: DOUBLE, at: inOrder(sequences, (own, k) => own.times[k] as number) },
      ]),
      items: await writeParquet(duck, path("items"), items.length, [
        rowNumber,
        text("id", (item) => item.id),
        text("title", (item) => item.title),
        text("brand", (item) => item.brand),
        { name: "categories", type: LIST(VARCHAR), at: (row) => listValue(items[row]?.categories ?? []) },
        text("description", (item) => item.description),
      ]),
      users: await writeParquet(duck, path("users"), sequences.length, [
        rowNumber,
        { name: "id", type: VARCHAR, at: (row) => sequences[row]?.user as UserId },
      ]),
      ...(impressions && {
        impressions: {
          ...(await writeParquet(duck, path("impressions"), impressions.users.length, impressionColumns(impressions))),
          candidates: impressions.items.length,
        },
      }),
    };
  } finally {
    duck.close();
  }
  const { name, hash, stats } = dataset;
  const head = join(folder, "dataset.json");
  writeFileSync(`${head}.${process.pid}.tmp`, JSON.stringify({ format, name, hash, stats, files } satisfies CacheHead));
  renameSync(`${head}.${process.pid}.tmp`, head);
  return [head, ...Object.keys(files).map(path)];
}

/** The value of `of` for the interaction in each row of interactions.parquet; rows must be requested in order. */
function inOrder(
  sequences: readonly UserSequence[],
  of: (own: UserSequence, position: number, user: number) => number,
): (row: number) => number {
  let [user, start] = [0, 0];
  return (row) => {
    let own = sequences[user] as UserSequence;
    while (row - start >= own.items.length) {
      start += own.items.length;
      own = sequences[++user] as UserSequence;
    }
    return of(own, row - start, user);
  };
}

/** Reads what saveDataset wrote. Throws DataError naming a missing or damaged file. */
export async function loadDataset(folder: string): Promise<Dataset> {
  const { files, name, hash, stats } = readHead(join(folder, "dataset.json"));
  for (const [file, { sha256 }] of Object.entries(files) as [string, ParquetFile][])
    await verify(join(folder, `${file}.parquet`), sha256);
  const from = (file: string): string => `read_parquet(${sqlText(join(folder, `${file}.parquet`))})`;
  const duck = await openDuck(duckOptions);
  try {
    return {
      name,
      items: await readItems(duck, from("items")),
      sequences: await readSequences(duck, from("users"), from("interactions"), files.interactions.rows),
      ...(files.impressions && {
        impressions: await readSavedImpressions(duck, from("impressions"), files.impressions),
      }),
      hash,
      stats,
    };
  } finally {
    duck.close();
  }
}

const advice = "Rerun the data stage (--fresh).";

function readHead(path: string): CacheHead {
  let head: CacheHead;
  try {
    head = JSON.parse(readFileSync(path, "utf8")) as CacheHead;
  } catch (cause) {
    throw new DataError(`The data cache ${path} cannot be read.`, { cause, advice });
  }
  if (head.format !== format) throw new DataError(`The data cache ${path} does not have format ${format}.`, { advice });
  return head;
}

async function verify(path: string, sha256: string): Promise<void> {
  if (!existsSync(path)) throw new DataError(`The data cache ${path} cannot be read: it is missing.`, { advice });
  if ((await sha256File(path)) !== sha256) throw new DataError(`The data cache ${path} is damaged.`, { advice });
}

async function readItems(duck: Duck, file: string): Promise<Item[]> {
  const items: Item[] = [];
  await duck.each(`SELECT id, title, brand, categories, description FROM ${file}`, (chunk) => {
    const [ids = [], titles = [], brands = [], categories = [], descriptions = []] = chunk.getColumns();
    for (const [k, id] of ids.entries())
      items.push({
        id: itemId(String(id)),
        title: String(titles[k]),
        brand: String(brands[k]),
        categories: (categories[k] as DuckDBListValue).items.map(String),
        description: String(descriptions[k]),
      });
  });
  return items;
}

/** Sequences are views into two shared arrays. */
async function readSequences(duck: Duck, users: string, interactions: string, total: number): Promise<UserSequence[]> {
  const names: UserId[] = [];
  await duck.each(`SELECT id FROM ${users}`, (chunk) => {
    for (const id of chunk.getColumnValues(0)) names.push(userId(String(id)));
  });
  const [items, times, lengths] = [new Int32Array(total), new Float64Array(total), new Int32Array(names.length)];
  let at = 0;
  await duck.each(`SELECT "user", item, time FROM ${interactions}`, (chunk) => {
    const { rowCount } = chunk;
    const [user, item, time] = [0, 1, 2].map((c) => chunk.getColumnVector(c));
    for (let k = 0; k < rowCount; k++, at++) {
      const row = user?.getItem(k) as number;
      lengths[row] = (lengths[row] as number) + 1;
      items[at] = item?.getItem(k) as number;
      times[at] = time?.getItem(k) as number;
    }
  });
  let end = 0;
  return names.map((user, row) => {
    const start = end;
    end += lengths[row] as number;
    return { user, items: items.subarray(start, end), times: times.subarray(start, end) };
  });
}
