/**
 * Generic interactions and items with a column mapping; each file CSV, TSV, JSONL (all may be .gz) or Parquet.
 * Example: `{kind: "table", path: "data/industrial", interactions: "interactions.csv", items: "items.jsonl",
 * columns: {user: "user_id", item: "item_id", time: "timestamp"}, itemColumns: {id: "item_id", title: "title"}}`.
 */
import { join } from "node:path";
import type { Duck, Quarantine } from "../duck.ts";
import { formatOf, type ItemColumns, readItemTable } from "./items.ts";
import {
  type AdapterReport,
  type InteractionColumns,
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
  /** File names within the folder. */
  readonly interactions: string;
  readonly items?: string;
  readonly columns: InteractionColumns;
  readonly itemColumns?: ItemColumns;
  /** Splits categories given as one string. Default "|". */
  readonly categorySeparator?: string;
  readonly timeUnit?: TimeUnit;
  /** False when the time column is only a position in the user's sequence. Default: true if there is a time column. */
  readonly clock?: boolean;
}

/** Without a time column, file order is time order. */
export async function loadTable(duck: Duck, options: TableOptions, quarantine: Quarantine): Promise<AdapterReport> {
  const file = join(options.path, options.interactions);
  const rowsRead = await readInteractions(duck, file, options.columns, quarantine, options.timeUnit);
  const files = [file];
  if (options.items !== undefined) {
    const itemFile = join(options.path, options.items);
    const columns = options.itemColumns ?? {
      id: "item_id",
      title: "title",
      brand: "brand",
      categories: "categories",
      description: "description",
    };
    await writeItems(duck, readItemTable(duck, itemFile, columns, quarantine, options.categorySeparator));
    files.push(itemFile);
  }
  return {
    files,
    rowsRead,
    hasItems: options.items !== undefined,
    hasClock: options.clock ?? options.columns.time !== undefined,
    notes: options.columns.time === undefined ? ["no time column: file order is time order"] : [],
  };
}

/** Reads an interaction file by its extension. */
export function readInteractions(
  duck: Duck,
  file: string,
  columns: InteractionColumns,
  quarantine: Quarantine,
  timeUnit: TimeUnit = "auto",
): Promise<number> {
  const format = formatOf(file);
  if (format === "parquet") return readParquet(duck, file, columns, quarantine, timeUnit);
  if (format === "jsonl") return readJsonl(duck, file, columns, quarantine, timeUnit);
  return readDelimited(duck, file, { delimiter: format === "csv" ? "," : "\t", columns, timeUnit }, quarantine);
}
