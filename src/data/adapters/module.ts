/**
 * Loads the records of a user's module into the raw tables. Their content is hashed on the way, as the data's identity
 * if there are no files.
 */
import { createHash, type Hash } from "node:crypto";
import type { BroughtInteraction, BroughtItem, BroughtSource } from "../brought.ts";
import type { Duck, Quarantine } from "../duck.ts";
import { readId } from "../values.ts";
import { type AdapterReport, appendInteraction, mendFloats, type RawItem, writeItems } from "./readers.ts";

export interface ModuleOptions {
  readonly kind: "module";
  readonly path: string;
  /** Hash of the module's code. */
  readonly identity: string;
  readonly load: (duck: Duck, quarantine: Quarantine) => Promise<AdapterReport>;
}

/** Takes records from a module in batches, each with a time limit. */
export type TakeRecords = <T>(source: Iterable<T> | AsyncIterable<T>) => AsyncIterable<readonly T[]>;

/** @param name of the module, for malformed records */
export async function loadRecords(
  duck: Duck,
  source: BroughtSource,
  quarantine: Quarantine,
  name: string,
  take: TakeRecords,
): Promise<AdapterReport> {
  const hash = createHash("sha256");
  const { rows, timed } = await appendInteractions(duck, take(source.interactions), quarantine, name, hash);
  await mendFloats(duck, "raw_interactions", ["u", "i"]);
  if (source.items) await writeItems(duck, toItems(take(source.items), quarantine, `${name} (items)`, hash));
  return {
    files: [],
    content: hash.digest("hex"),
    rowsRead: rows,
    hasItems: source.items !== undefined,
    hasClock: timed,
    notes: [
      ...(source.notes ?? []),
      ...(timed ? [] : ["no times: records are taken to be in time order"]),
      ...(source.items ? [] : ["no items: they have no text"]),
    ],
  };
}

async function appendInteractions(
  duck: Duck,
  batches: AsyncIterable<readonly BroughtInteraction[]>,
  quarantine: Quarantine,
  name: string,
  hash: Hash,
): Promise<{ rows: number; timed: boolean }> {
  const appender = await duck.connection.createAppender("raw_interactions");
  let rows = 0;
  let timed = false;
  try {
    for await (const batch of batches)
      for (const record of batch) {
        rows++;
        quarantine.saw(name, 1);
        if (rows === 1) timed = hasTime(record);
        const found = readInteraction(record, timed, rows);
        if (typeof found === "string") {
          quarantine.add({ file: name, line: rows, reason: found, text: JSON.stringify(record, plain) ?? "" });
          continue;
        }
        const { user, item, time, rating } = found;
        hash.update(`${JSON.stringify([user, item, time, rating])}\n`);
        appendInteraction(appender, { user, item, rating, time });
      }
  } finally {
    appender.closeSync();
  }
  return { rows, timed };
}

const plain = (_key: string, value: unknown): unknown => (typeof value === "bigint" ? String(value) : value);

const hasTime = (record: BroughtInteraction | null | undefined): boolean =>
  record?.time !== undefined && record.time !== null;

interface Read {
  readonly user: string;
  readonly item: string;
  readonly time: number;
  readonly rating: number | null;
}

/** The record, or what is wrong with it. @param timed whether the first record has a time, so all must */
function readInteraction(record: BroughtInteraction | null | undefined, timed: boolean, row: number): Read | string {
  const [user, item] = [readId(record?.user), readId(record?.item)];
  if (user === undefined) return "no user id";
  if (item === undefined) return "no item id";
  if (!timed && hasTime(record)) return "a time, although the first record has none";
  const time = timed ? (record?.time instanceof Date ? record.time.getTime() / 1000 : record?.time) : row;
  if (typeof time !== "number" || !Number.isFinite(time)) return "no time, in seconds or as a date";
  if (timed && Math.abs(time) > latest) return "a time that is not in seconds";
  const rating = record?.rating ?? null;
  if (rating !== null && !Number.isFinite(rating)) return "a rating that is not a number";
  return { user, item, time, rating };
}

/** The year 2200, in seconds. */
const latest = 7_258_118_400;

async function* toItems(
  batches: AsyncIterable<readonly BroughtItem[]>,
  quarantine: Quarantine,
  name: string,
  hash: Hash,
): AsyncGenerator<RawItem> {
  let row = 0;
  for await (const batch of batches)
    for (const record of batch) {
      row++;
      quarantine.saw(name, 1);
      const id = readId(record?.id);
      const { title, brand, categories, description } = record ?? {};
      const listed = categories ?? [];
      if (id === undefined || !Array.isArray(listed)) {
        const reason = id === undefined ? "no item id" : "categories are not a list";
        quarantine.add({ file: name, line: row, reason, text: JSON.stringify(record, plain) ?? "" });
        continue;
      }
      const text = (value: unknown): string => (value === undefined || value === null ? "" : String(value));
      const words = { title: text(title), brand: text(brand), description: text(description) };
      const item: RawItem = { id, ...words, categories: listed.map(String) };
      hash.update(`${JSON.stringify(item)}\n`);
      yield item;
    }
}
