/** Reading item files of any layout with a field mapping: CSV, TSV, JSON, Parquet. Values become plain RawItems. */
import { DataError } from "../../core/errors.ts";
import { type Duck, type Quarantine, sqlText } from "../duck.ts";
import { delimitedRecords, type Found, jsonRecords, parseJson, parseRecord } from "../records.ts";
import { type Encoding, readStart, requireFile } from "../text-file.ts";
import { readId, splitList, toText } from "../values.ts";
import { cellSql, detectFormat, findDelimiter, findParquet, parquetColumns, valueAt } from "./fields.ts";
import { columnIndex, headerAgain, headerCells, isNumbered } from "./header.ts";
import { type RawItem, takeItems } from "./readers.ts";

/** Column names of the fields; all but `id` may be absent. */
export interface ItemColumns {
  readonly id: string;
  readonly title?: string;
  readonly brand?: string;
  /** One column, or several whose values are joined in order. */
  readonly categories?: string | readonly string[];
  readonly description?: string | readonly string[];
}

/** Column names of a table; for JSON, every key of the records in the first 64 KB. */
export async function listColumns(duck: Duck, file: string, encoding: Encoding = "auto"): Promise<readonly string[]> {
  requireFile(file, "Items");
  const format = detectFormat(file);
  if (format === "parquet") return [...(await parquetColumns(duck, file)).keys()];
  if (format !== "jsonl")
    return headerCells(file, findDelimiter(file, format, [], encoding), encoding).map((c) => c.trim());
  return jsonKeys(readStart(file, 65_536, encoding));
}

/** Keys of the objects at the beginning of a JSON text, which may be cut off. */
function jsonKeys(head: string): readonly string[] {
  const keys = new Set<string>();
  for (const line of head.split(/\r\n|\n|\r/)) {
    try {
      const record = parseRecord(line.replace(/^\s*\[?\s*|\s*[,\]]?\s*$/g, ""));
      if (typeof record === "object" && record !== null) for (const key of Object.keys(record)) keys.add(key);
    } catch {
      // an object over several lines, or one that is cut off: collect its keys one by one
      for (const [, key] of line.matchAll(/"((?:[^"\\]|\\.)*)"\s*:/g)) keys.add(String(key));
    }
  }
  return [...keys];
}

/** All named columns. */
export const namesIn = (columns: Partial<ItemColumns>): string[] => Object.values(columns).flat();

/** Options for reading an item file, besides its columns. */
export interface ItemOptions {
  /** Splits categories given as one string. Default "|". */
  readonly separator?: string;
  readonly encoding?: Encoding;
}

/** Items of `file`, in file order. */
export async function* readItemTable(
  duck: Duck,
  file: string,
  columns: ItemColumns,
  quarantine: Quarantine,
  options: ItemOptions = {},
): AsyncGenerator<RawItem> {
  requireFile(file, "Items");
  const format = detectFormat(file);
  const toItem = (record: Readonly<Record<string, unknown>>): RawItem | string =>
    makeItem(record, columns, options.separator ?? "|");
  if (format === "jsonl")
    yield* takeItems(file, quarantine, jsonRecords(file, options.encoding), (value) =>
      typeof value === "object" && value !== null && !Array.isArray(value)
        ? toItem(value as Record<string, unknown>)
        : "not a JSON object",
    );
  else if (format === "parquet") yield* takeItems(file, quarantine, parquetRecords(duck, file, columns), toItem);
  else {
    const dialect = {
      delimiter: findDelimiter(
        file,
        format,
        isNumbered(columns.id) ? namesIn(columns) : [columns.id],
        options.encoding,
      ),
      quoted: true,
    };
    const headerless = isNumbered(columns.id);
    let at: Readonly<Record<string, number>> | undefined;
    let header: readonly string[] = [];
    const whereColumns = (names: readonly string[]): Record<string, number> => {
      const own = namesIn(columns).filter((c) => c === columns.id || headerless || names.includes(c));
      return Object.fromEntries(own.map((c) => [c, columnIndex(c, names, `${file}:1`)]));
    };
    yield* takeItems(file, quarantine, delimitedRecords(file, dialect, options.encoding), (cells) => {
      if (at === undefined) {
        at = whereColumns(cells.map((c) => c.trim()));
        if (!headerless) {
          header = cells;
          return undefined;
        }
      }
      if (header.length > 0 && cells.every((cell, k) => cell === header[k])) return headerAgain;
      return toItem(Object.fromEntries(Object.entries(at).map(([name, k]) => [name, cells[k] ?? ""])));
    });
  }
}

/** A column or, before a dot, the struct that may contain it. */
const isThere = (column: string, types: ReadonlyMap<string, string>): boolean =>
  types.has(column) || types.has(column.split(".")[0] ?? column);

/** The requested columns of a Parquet file; nested values parsed. */
async function* parquetRecords(
  duck: Duck,
  file: string,
  columns: ItemColumns,
): AsyncGenerator<Found<Record<string, unknown>>[]> {
  const types = await parquetColumns(duck, file);
  const wanted = [...new Set(namesIn(columns))].filter((c) => c === columns.id || isNumbered(c) || isThere(c, types));
  const found = [...(await findParquet(duck, file, wanted))];
  const names = found.map(([name]) => name);
  const select = found.map(([, { sql, type }]) => cellSql(sql, type));
  const nested = found.map(([, { type }]) => /\[\d*\]$|^(STRUCT|MAP)/.test(type));
  let rows: readonly (readonly unknown[])[];
  try {
    const sql = `SELECT ${select.join(", ")} FROM read_parquet(${sqlText(file)}, binary_as_string=true)`;
    rows = (await duck.connection.runAndReadAll(sql)).getRowsJS();
  } catch (cause) {
    throw new DataError(`${file} is not a readable Parquet file.`, { cause });
  }
  yield rows.map((row, k) => ({
    line: k + 1,
    lines: 1,
    value: Object.fromEntries(
      names.map((name, c) => [name, nested[c] && typeof row[c] === "string" ? parseJson(row[c]) : row[c]]),
    ),
  }));
}

/** One record as an item, or the reason why it is not one. */
export function makeItem(
  record: Readonly<Record<string, unknown>>,
  columns: ItemColumns,
  separator: string,
): RawItem | string {
  const value = (names: string | readonly string[] | undefined): unknown =>
    names === undefined || typeof names === "string"
      ? valueAt(record, names ?? "")
      : names.map((name) => valueAt(record, name));
  const id = readId(value(columns.id));
  if (id === undefined) return `no "${columns.id}"`;
  return {
    id,
    title: toText(value(columns.title)),
    brand: toText(value(columns.brand)),
    categories: splitList(value(columns.categories), separator),
    description: toText(value(columns.description)),
  };
}
