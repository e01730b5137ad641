/**
 * The field's sequence files (TIGER, P5, S3-Rec, IDGenRec, OneRec-Think): one line per user, `user item item ...`, in
 * time order; there are no times, the position is the time. Items, if any, are in one of the layouts published with it:
 *   items.jsonl                  one record per line (item_id, title, brand, categories, description)
 *   *.pretrain.json, *.item.json one JSON object, item id -> record; categories may be one string "A > B > C"
 *   item_plain_text.txt          `item text ...`, one line per item
 *   *_item2attributes.json       one JSON object, item id -> list of attributes (S3-Rec); they become categories
 * Example: `{kind: "sequences", path: "data/beauty"}`.
 */
import { join } from "node:path";
import { DataError } from "../../core/errors.ts";
import type { Duck, Quarantine } from "../duck.ts";
import { parseJson, textLines } from "../records.ts";
import { readStart, requireFile, textPieces } from "../text-file.ts";
import { readId } from "../values.ts";
import { type ItemColumns, makeItem, readItemTable } from "./items.ts";
import { locate, locateOrFail, type Wanted } from "./locate.ts";
import { type AdapterReport, appendInteraction, itemLines, type RawItem, writeItems } from "./readers.ts";

export interface SequencesOptions {
  readonly kind: "sequences";
  /** Folder. */
  readonly path: string;
  /** Default: found by its usual name. */
  readonly interactions?: string;
  /** Default: found by its usual name; without one items have no text. */
  readonly items?: string;
  /** Fields of the item file with other names. */
  readonly itemColumns?: Partial<ItemColumns>;
}

const sequenceFile: Wanted = {
  what: "sequences",
  setting: "data.files.interactions",
  patterns: [
    { name: "sequential_data.txt", fits: /^sequential_data(_processed)?\.txt$/ },
    { name: "user_sequence.txt", fits: /^user_sequences?\.txt$/ },
    { name: "*.txt", fits: /^(?!item_|README|LICEN).*\.txt$/i },
  ],
};

const sequenceItems: Wanted = {
  what: "items",
  setting: "data.files.items",
  patterns: [
    { name: "items.jsonl", fits: /^items?\.jsonl(\.gz)?$/ },
    { name: "*.pretrain.json", fits: /\.pretrain\.json$/ },
    { name: "*.item.json", fits: /\.item\.json$/ },
    { name: "item_plain_text.txt", fits: /^item_plain_text\.txt$/ },
    { name: "*_item2attributes.json", fits: /item2attributes\.json$/ },
  ],
};

const itemColumns: ItemColumns = {
  id: "item_id",
  title: "title",
  brand: "brand",
  categories: "categories",
  description: "description",
};

export async function loadSequences(
  duck: Duck,
  options: SequencesOptions,
  quarantine: Quarantine,
): Promise<AdapterReport> {
  const { path } = options;
  const file = options.interactions === undefined ? locateOrFail(path, sequenceFile) : join(path, options.interactions);
  requireFile(file, "Sequences");
  const rowsRead = await readSequenceLines(duck, file, quarantine);
  const itemFile = options.items === undefined ? locate(path, sequenceItems) : join(path, options.items);
  if (itemFile !== undefined)
    await writeItems(duck, parseSequenceItems(duck, itemFile, { ...itemColumns, ...options.itemColumns }, quarantine));
  return {
    files: itemFile === undefined ? [file] : [file, itemFile],
    rowsRead,
    hasItems: itemFile !== undefined,
    hasClock: false,
    notes: [
      "no timestamps: the position in the line is the time",
      ...(itemFile === undefined ? ["no item file: items have no text"] : []),
    ],
  };
}

async function readSequenceLines(duck: Duck, file: string, quarantine: Quarantine): Promise<number> {
  const appender = await duck.connection.createAppender("raw_interactions");
  const users = new Set<string>();
  let rowsRead = 0;
  try {
    for await (const batch of textLines(file))
      for (const found of batch) {
        quarantine.saw(file, 1);
        if ("fault" in found) {
          rowsRead++;
          quarantine.add({ file, line: found.line, reason: found.fault, text: found.text });
          continue;
        }
        const { line, value: text } = found;
        const [user, ...items] = text
          .trim()
          .normalize("NFC")
          .split(/[ \t]+/);
        rowsRead += Math.max(1, items.length);
        const reason =
          user === undefined || items.length === 0
            ? "a user without items"
            : users.has(user)
              ? `user ${user} already has a line`
              : undefined;
        if (reason !== undefined || user === undefined) {
          quarantine.add({ file, line, reason: reason ?? "empty", text });
          continue;
        }
        users.add(user);
        for (const [time, item] of items.entries()) appendInteraction(appender, { user, item, rating: null, time });
      }
  } finally {
    appender.closeSync();
  }
  return rowsRead;
}

/** Items of any layout above, distinguished by name and first character. */
export function parseSequenceItems(
  duck: Duck,
  file: string,
  columns: ItemColumns,
  quarantine: Quarantine,
): AsyncGenerator<RawItem> {
  requireFile(file, "Items");
  if (file.endsWith(".txt")) return plainTextItems(file, quarantine);
  if (file.endsWith(".json") && !isJsonLines(file, columns.id)) return keyedItems(file, columns, quarantine);
  return readItemTable(duck, file, columns, quarantine);
}

/** Whether every line is a record `{"item_id": ...}`; otherwise the file is one object. */
const isJsonLines = (file: string, id: string): boolean => {
  try {
    const first: unknown = parseJson(readStart(file).split(/\r\n|\n|\r/)[0] ?? "");
    return typeof first === "object" && first !== null && id in first;
  } catch {
    return false;
  }
};

const plainTextItems = (file: string, quarantine: Quarantine): AsyncGenerator<RawItem> =>
  itemLines(file, quarantine, (text) => {
    const [, id = "", title = ""] = /^\s*(\S+)\s*(.*)$/.exec(text) ?? [];
    const own = readId(id);
    return own === undefined
      ? "no item id"
      : { id: own, title: title.trim(), brand: "", categories: [], description: "" };
  });

export async function* keyedItems(file: string, columns: ItemColumns, quarantine: Quarantine): AsyncGenerator<RawItem> {
  let tree: unknown;
  try {
    const pieces: string[] = [];
    for await (const piece of textPieces(file)) pieces.push(piece);
    tree = parseJson(pieces.join(""));
  } catch (cause) {
    throw new DataError(`${file} is neither one JSON object nor one JSON record per line.`, { cause });
  }
  if (typeof tree !== "object" || tree === null || Array.isArray(tree))
    throw new DataError(`${file} must contain one JSON object, item id -> item.`);
  for (const [k, [id, value]] of Object.entries(tree).entries()) {
    quarantine.saw(file, 1);
    const record = Array.isArray(value) ? { categories: value } : value;
    const item =
      typeof record === "object" && record !== null
        ? makeItem({ ...record, [columns.id]: id }, columns, " > ")
        : "not a record or a list";
    if (typeof item !== "string") yield item;
    else quarantine.add({ file, line: k + 1, reason: item, text: JSON.stringify(value) ?? "" });
  }
}
