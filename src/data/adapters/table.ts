/**
 * Generic interactions and items with a column mapping; each file CSV, TSV, JSONL or Python literals a line (all may be
 * .gz) or Parquet. A column
 * that is named must exist; item fields that are not named are taken from columns of their own names, if there are any.
 * Example: `{kind: "table", path: "data/shop", interactions: "interactions.csv", items: "items.jsonl",
 * columns: {user: "user_id", item: "item_id", time: "timestamp"}, itemColumns: {id: "item_id", title: "title"}}`.
 */
import { join } from "node:path";
import { DataError } from "../../core/errors.ts";
import { type Duck, type Quarantine, requireFile, sqlText } from "../duck.ts";
import { detectFormat, type ItemColumns, listColumns, readItemTable } from "./items.ts";
import { locate, locateOrFail, type Wanted } from "./locate.ts";
import { asJsonLines, isPythonLines } from "./python-lines.ts";
import {
  type AdapterReport,
  type InteractionColumns,
  type Keep,
  readDelimited,
  readJsonl,
  readParquet,
  type TimeUnit,
  writeItems,
} from "./readers.ts";

export interface TableOptions {
  readonly kind: "table";
  /** Folder. */
  readonly path: string;
  /** File names within the folder. Default: interactions.* and, if there is one, items.* */
  readonly interactions?: string;
  readonly items?: string;
  /** Two columns under a header: an item's id in the interactions, then in the item file. */
  readonly itemIds?: string;
  readonly columns: InteractionColumns;
  readonly keep?: Keep;
  readonly itemColumns?: Partial<ItemColumns>;
  /** Splits categories given as one string. Default "|". */
  readonly categorySeparator?: string;
  readonly timeUnit?: TimeUnit;
  /** False when the time column is only a position in the user's sequence. Default: true if there is a time column. */
  readonly clock?: boolean;
}

const named = (what: string, stem: string, setting: string): Wanted => ({
  what,
  setting,
  patterns: [{ name: `${stem}.csv, .tsv, .jsonl (or .gz), .parquet`, fits: tableName(stem) }],
});
const tableName = (stem: string): RegExp => new RegExp(`^${stem}\\.((csv|tsv|jsonl|ndjson)(\\.gz)?|parquet)$`);

const defaultItemColumns: ItemColumns = {
  id: "item_id",
  title: "title",
  brand: "brand",
  categories: "categories",
  description: "description",
};

/** Without a time column, file order is time order. */
export async function loadTable(duck: Duck, options: TableOptions, quarantine: Quarantine): Promise<AdapterReport> {
  const { path } = options;
  const file =
    options.interactions === undefined
      ? locateOrFail(path, named("interactions", "interactions", "data.files.interactions"))
      : join(path, options.interactions);
  const itemFile =
    options.items === undefined ? locate(path, named("items", "items", "data.files.items")) : join(path, options.items);
  const rowsRead = await readInteractions(duck, file, options.columns, quarantine, options.timeUnit, options.keep);
  const others = rowsRead - quarantine.count(file) - (await duck.number("SELECT count(*) FROM raw_interactions"));
  const idFile = options.itemIds === undefined ? undefined : join(path, options.itemIds);
  if (idFile !== undefined) await translateItems(duck, idFile);
  if (itemFile !== undefined) {
    const there = await listColumns(duck, itemFile);
    const id = there.includes(options.columns.item) ? options.columns.item : defaultItemColumns.id;
    const columns = { ...defaultItemColumns, id, ...options.itemColumns };
    const named = Object.entries({ id: columns.id, ...options.itemColumns });
    for (const [role, name] of named.flatMap(([role, names]) => [names].flat().map((n) => [role, n] as const))) {
      if (!there.includes(name))
        throw new DataError(
          `${itemFile} has no column "${name}" (data.columns.${role}); it has ${there.map((n) => `"${n}"`).join(", ")}.`,
        );
    }
    await writeItems(duck, readItemTable(duck, itemFile, columns, quarantine, options.categorySeparator));
  }
  return {
    files: [file, idFile, itemFile].filter((f) => f !== undefined),
    rowsRead,
    hasItems: itemFile !== undefined,
    hasClock: (options.clock ?? true) && options.columns.time !== undefined,
    notes: [
      ...(others > 0 ? [`${others} of ${rowsRead} rows are left out by data.keep`] : []),
      ...(options.columns.time === undefined ? ["no time column: file order is time order"] : []),
      ...(itemFile === undefined ? ["no item file: items have no text"] : []),
    ],
  };
}

/** Gives interactions the item ids that the item file has. An id without a translation stays, and is an unknown item. */
async function translateItems(duck: Duck, file: string): Promise<void> {
  requireFile(file, "Item ids");
  try {
    await duck.run(`CREATE OR REPLACE TEMP TABLE item_ids AS SELECT #1 AS own, any_value(#2) AS theirs
      FROM read_csv(${sqlText(file)}, header=true, all_varchar=true) WHERE #1 IS NOT NULL GROUP BY #1;
      UPDATE raw_interactions SET i = theirs FROM item_ids WHERE own = i; DROP TABLE item_ids`);
  } catch (cause) {
    throw new DataError(`${file} is not a CSV of two columns under a header (data.files.itemIds).`, { cause });
  }
}

/** Reads an interaction file by its extension. */
export function readInteractions(
  duck: Duck,
  file: string,
  columns: InteractionColumns,
  quarantine: Quarantine,
  timeUnit: TimeUnit = "auto",
  keep?: Keep,
): Promise<number> {
  const format = detectFormat(file);
  if (format === "parquet") return readParquet(duck, file, columns, quarantine, timeUnit, keep);
  if (format === "jsonl" && isPythonLines(file))
    return asJsonLines(file, quarantine, (copy, q) => readJsonl(duck, copy, columns, q, timeUnit, keep));
  if (format === "jsonl") return readJsonl(duck, file, columns, quarantine, timeUnit, keep);
  return readDelimited(
    duck,
    file,
    { delimiter: format === "csv" ? "," : "\t", columns, timeUnit, ...(keep ? { keep } : {}) },
    quarantine,
  );
}
