/**
 * Joins training rows of other systems (a history and its next item) back into one sequence per user:
 *   MiniOneRec   train|valid|test/NAME.csv (user_id, history_item_id as a Python list, item_id), index/NAME.item.json
 *   RecBole      NAME.train|valid|test.inter (user_id, item_id_list:token_seq, item_id:token), NAME.item
 * A user's rows overlap: each row's history ends where the previous row ended. There are no timestamps.
 */
import { existsSync } from "node:fs";
import { basename, join } from "node:path";
import { DataError } from "../../core/errors.ts";
import type { Duck, Quarantine } from "../duck.ts";
import { textLines } from "../records.ts";
import { requireFile } from "../text-file.ts";
import { readId } from "../values.ts";
import { cellSql, withFields } from "./fields.ts";
import { headerCells } from "./header.ts";
import { filesIn } from "./locate.ts";
import { parsePythonLiteral } from "./python-literal.ts";
import { type AdapterReport, appendInteraction, writeItems } from "./readers.ts";
import { recboleItems, recboleName } from "./recbole.ts";
import { keyedItems } from "./sequences.ts";

export interface NextItemOptions {
  readonly kind: "next-item";
  /** Folder with train, valid and test in it, or with NAME.train.inter and so on. */
  readonly path: string;
  /** One of the files of training rows, if there are several data sets: train/NAME.csv or NAME.train.inter. */
  readonly interactions?: string;
  /** Default: index/NAME.item.json, NAME.item.json or NAME.item. */
  readonly items?: string;
}

const parts = ["train", "valid", "test"] as const;
/** The files of rows in time order and, if any, of items; names within the folder. */
export interface NextItemFiles {
  readonly rows: readonly string[];
  readonly items?: string;
}

/**
 * Finds the files by name. `names`: the folder's files; those in train, valid, test and index as `train/NAME`.
 */
export function nextItemFiles(names: readonly string[], one?: string): NextItemFiles | undefined {
  const train = one ?? names.find((n) => /^train\/.*\.csv$|\.train\.inter$/.test(n));
  if (train === undefined) return undefined;
  const of = (part: string): string =>
    train.replace(/^train\//, `${part}/`).replace(/\.train\.inter$/, `.${part}.inter`);
  const stem = basename(train).replace(/(_5)?(_\d{4}-\d+-\d{4}-\d+)?\.csv$|\.train\.inter$/, "");
  const items = [`index/${stem}.item.json`, `${stem}.item.json`, `${stem}.item`].find((n) => names.includes(n));
  return { rows: parts.map(of).filter((n) => n === train || names.includes(n)), ...(items ? { items } : {}) };
}

export async function loadNextItem(
  duck: Duck,
  options: NextItemOptions,
  quarantine: Quarantine,
): Promise<AdapterReport> {
  const { path } = options;
  const inner = (folder: string): string[] =>
    existsSync(join(path, folder)) ? filesIn(join(path, folder)).map((n) => `${folder}/${n}`) : [];
  const found = nextItemFiles([...filesIn(path), ...[...parts, "index"].flatMap(inner)], options.interactions);
  if (found === undefined)
    throw new DataError(`${path} has neither train/*.csv nor *.train.inter.`, {
      advice: "Set data.path to the folder that contains train, valid and test, or the .inter files.",
    });
  const sequences = new Map<string, string[]>();
  let rowsRead = 0;
  for (const name of found.rows) {
    const file = join(path, name);
    requireFile(file, "Rows");
    const rows = name.endsWith(".inter") ? interRows(file) : csvRows(duck, file, quarantine);
    for await (const row of rows) {
      rowsRead++;
      const [user, ...items] = [row.user, ...row.history, row.item].map(readId);
      const reason =
        row.fault ??
        (user !== undefined && items.every((i) => i !== undefined)
          ? joinRow(sequences, user, items)
          : "no user id, or an item without an id");
      if (name.endsWith(".inter")) quarantine.saw(file, 1);
      if (reason !== undefined) quarantine.add({ file, line: row.line, reason, text: row.user });
    }
  }
  await append(duck, sequences);
  const items = options.items ?? found.items;
  if (items !== undefined) {
    const file = join(path, items);
    requireFile(file, "Items");
    await writeItems(
      duck,
      items.endsWith(".json")
        ? keyedItems(file, itemFields, quarantine)
        : recboleItems(file, "item_id", {}, quarantine),
    );
  }
  return {
    files: [...found.rows, ...(items ? [items] : [])].map((n) => join(path, n)),
    rowsRead,
    hasItems: items !== undefined,
    hasClock: false,
    notes: [
      "rows of a history and its next item are joined into one sequence per user; the position is the time",
      ...(items === undefined ? ["no item file: items have no text"] : []),
    ],
  };
}

const itemFields = {
  ...{ id: "item_id", title: "title", brand: "brand", categories: "categories", description: "description" },
};

interface Row {
  readonly line: number;
  readonly user: string;
  readonly history: readonly string[];
  readonly item: string;
  readonly fault?: string;
}

/**
 * Appends a row to the user's known sequence, or returns the reason why they do not match: the row's history must end
 * where the sequence ends, or one must begin with the other.
 */
function joinRow(sequences: Map<string, string[]>, user: string, row: readonly string[]): string | undefined {
  const known = sequences.get(user);
  if (known === undefined) {
    sequences.set(user, [...row]);
    return undefined;
  }
  const history = row.slice(0, -1);
  const offset = known.length - history.length;
  if (offset >= 0 && history.every((item, k) => known[offset + k] === item)) {
    known.push(row.at(-1) ?? "");
    return undefined;
  }
  const shorter = Math.min(known.length, row.length);
  for (let k = 0; k < shorter; k++)
    if (known[k] !== row[k]) return "its history does not continue the user's earlier rows";
  for (const item of row.slice(known.length)) known.push(item);
  return undefined;
}

/** RecBole's rows: `item_id_list:token_seq` is separated by spaces. */
async function* interRows(file: string): AsyncGenerator<Row> {
  const header = headerCells(file, "\t").map(recboleName);
  const at = (name: string): number => header.indexOf(name);
  const [user, list, item] = [at("user_id") < 0 ? at("session_id") : at("user_id"), at("item_id_list"), at("item_id")];
  if (user < 0 || list < 0 || item < 0)
    throw new DataError(`${file}:1 has no user_id, item_id_list and item_id; it has ${header.join(", ")}.`);
  for await (const found of linesAfterHeader(file)) {
    const { line } = found;
    if ("fault" in found) {
      yield { line, user: found.text, history: [], item: "", fault: found.fault };
      continue;
    }
    const text = found.value;
    const cells = text.split("\t");
    const history = (cells[list] ?? "").split(" ").filter((i) => i !== "");
    const fault = cells.length === header.length ? {} : { fault: `${cells.length} columns, expected ${header.length}` };
    yield { line, user: (cells[user] ?? "").trim(), history, item: (cells[item] ?? "").trim(), ...fault };
  }
}

async function* linesAfterHeader(file: string) {
  let header = true;
  for await (const batch of textLines(file))
    for (const found of batch) {
      if (!header) yield found;
      header = false;
    }
}

async function* csvRows(duck: Duck, file: string, quarantine: Quarantine): AsyncGenerator<Row> {
  const fields = { u: "user_id", h: "history_item_id", i: "item_id" };
  const rows = await withFields(duck, file, fields, quarantine, {}, async (source) => {
    const own = Object.keys(fields).map((f) => `${cellSql(f, source.types.get(f) ?? "VARCHAR")} AS ${f}`);
    await duck.run(`CREATE OR REPLACE TEMP TABLE staged AS
      SELECT row_number() OVER () AS n, ${source.line} AS line, ${own.join(", ")} FROM ${source.relation}`);
    if ((await source.settle()) === undefined) return undefined;
    return duck.rows("SELECT line, u, h, i FROM staged ORDER BY n");
  });
  await duck.run("DROP TABLE staged");
  for (const { line: at, u, h, i } of rows) {
    const line = Number(at);
    const row = { line, user: String(u ?? ""), item: String(i ?? ""), history: [] };
    try {
      const list = parsePythonLiteral(String(h ?? "[]"));
      if (u === null || i === null || !Array.isArray(list)) yield { ...row, fault: "no user, list of items or item" };
      else yield { ...row, history: list.map(String) };
    } catch {
      yield { ...row, fault: '"history_item_id" is not a list' };
    }
  }
}

async function append(duck: Duck, sequences: ReadonlyMap<string, readonly string[]>): Promise<void> {
  const appender = await duck.connection.createAppender("raw_interactions");
  try {
    for (const [user, items] of sequences)
      for (const [time, item] of items.entries()) appendInteraction(appender, { user, item, rating: null, time });
  } finally {
    appender.closeSync();
  }
}
