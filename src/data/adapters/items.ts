/** Reading item files of any layout with a field mapping: CSV, TSV, JSONL[.gz], Parquet. Values become plain RawItems. */
import { DataError } from "../../core/errors.ts";
import { type Duck, type Quarantine, readStart, requireFile, sqlText } from "../duck.ts";
import { isPythonLines } from "./python-lines.ts";
import { parsePythonLiteral } from "./python-literal.ts";
import { itemLines, type RawItem, unterminated } from "./readers.ts";

/** Which field holds what; all but `id` may be absent. */
export interface ItemColumns {
  readonly id: string;
  readonly title?: string;
  readonly brand?: string;
  /** One column, or several whose values come one after the other. */
  readonly categories?: string | readonly string[];
  readonly description?: string | readonly string[];
}

export type TableFormat = "csv" | "tsv" | "jsonl" | "parquet";

/** Format by file name, `.gz` aside. */
export function detectFormat(file: string): TableFormat {
  const name = file.toLowerCase().replace(/\.gz$/, "");
  if (name.endsWith(".csv")) return "csv";
  if (name.endsWith(".tsv")) return "tsv";
  if (name.endsWith(".jsonl") || name.endsWith(".json") || name.endsWith(".ndjson")) return "jsonl";
  if (name.endsWith(".parquet")) return "parquet";
  throw new DataError(`${file}: unknown format; expected .csv, .tsv, .jsonl (each may end in .gz) or .parquet.`);
}

/** Column names of a table; of JSONL, every key that the records in its first 64 KB have. */
export async function listColumns(duck: Duck, file: string): Promise<string[]> {
  requireFile(file, "Items");
  const format = detectFormat(file);
  if (format === "parquet") {
    try {
      const rows = await duck.rows(`DESCRIBE SELECT * FROM read_parquet(${sqlText(file)})`);
      return rows.map((r) => String(r.column_name));
    } catch (cause) {
      throw new DataError(`${file} is not a readable Parquet file.`, { cause });
    }
  }
  const lines = readStart(file).split(/\r?\n/);
  if (format !== "jsonl") return parseDelimited(lines[0] ?? "", format === "csv" ? "," : "\t") ?? [];
  const parse = isPythonLines(file) ? parsePythonLiteral : (text: string): unknown => JSON.parse(text);
  const keys = lines.flatMap((line) => {
    try {
      const record: unknown = parse(line);
      return typeof record === "object" && record !== null ? Object.keys(record) : [];
    } catch {
      return []; // cut off at the end of the head, or malformed: reading it will tell
    }
  });
  return [...new Set(keys)];
}

/** Items of `file`, in file order. `separator` splits categories given as one string (default "|"). */
export async function* readItemTable(
  duck: Duck,
  file: string,
  columns: ItemColumns,
  quarantine: Quarantine,
  separator = "|",
): AsyncGenerator<RawItem> {
  requireFile(file, "Items");
  const format = detectFormat(file);
  const toItem = (record: Readonly<Record<string, unknown>>): RawItem | string => makeItem(record, columns, separator);
  if (format === "jsonl") {
    const python = isPythonLines(file);
    const parse = python ? parsePythonLiteral : (text: string): unknown => JSON.parse(text);
    yield* itemLines(file, quarantine, (text) => {
      try {
        return toItem(parse(text) as Record<string, unknown>);
      } catch {
        return python ? "not a Python literal" : "not JSON";
      }
    });
    return;
  }
  if (format !== "parquet") {
    const delimiter = format === "csv" ? "," : "\t";
    const header = parseDelimited(readStart(file).split(/\r?\n/)[0] ?? "", delimiter) ?? [];
    if (!header.includes(columns.id)) throw new DataError(`${file}:1 has no column "${columns.id}".`);
    yield* itemLines(
      file,
      quarantine,
      (text) => {
        const cells = parseDelimited(text, delimiter);
        if (cells === undefined) return unterminated;
        if (cells.length !== header.length) return `${cells.length} columns, expected ${header.length}`;
        return toItem(Object.fromEntries(header.map((name, k) => [name, cells[k] ?? ""])));
      },
      { skipHeader: true },
    );
    return;
  }
  let rows: Record<string, unknown>[];
  try {
    rows = await duck.rows(`SELECT * FROM read_parquet(${sqlText(file)})`);
  } catch (cause) {
    throw new DataError(`${file} is not a readable Parquet file.`, { cause });
  }
  quarantine.saw(file, rows.length);
  for (const [k, row] of rows.entries()) {
    const item = toItem(row);
    if (typeof item !== "string") yield item;
    else quarantine.add({ file, line: k + 1, reason: item, text: "" });
  }
}

/** One record as an item, or the reason why it cannot be one. */
export function makeItem(
  record: Readonly<Record<string, unknown>>,
  columns: ItemColumns,
  separator: string,
): RawItem | string {
  const value = (name: string | readonly string[] | undefined): unknown =>
    name === undefined ? undefined : typeof name === "string" ? record[name] : name.map((n) => record[n]);
  const id = value(columns.id);
  if (id === undefined || id === null || id === "") return `no "${columns.id}"`;
  return {
    id: String(id),
    title: toText(value(columns.title)),
    brand: toText(value(columns.brand)),
    categories: splitList(value(columns.categories), separator),
    description: toText(value(columns.description)),
  };
}

/** Text of a string, number or (nested) list of them; anything else is "". */
export function toText(value: unknown): string {
  if (typeof value === "string") return value.trim();
  if (typeof value === "number" || typeof value === "bigint") return String(value);
  if (Array.isArray(value))
    return value
      .map(toText)
      .filter((s) => s !== "")
      .join(" ");
  return "";
}

/** A list, however it is written: nested lists are flattened, strings split; duplicates and blanks go. */
export function splitList(value: unknown, separator: string): string[] {
  const flat = (v: unknown): string[] =>
    Array.isArray(v)
      ? v.flatMap(flat)
      : typeof v === "string"
        ? v.split(separator)
        : typeof v === "number"
          ? [String(v)]
          : [];
  return [...new Set(flat(value).map((s) => s.trim()))].filter((s) => s !== "" && s !== "(no genres listed)");
}

/**
 * Cells of one line with RFC 4180 quotes; undefined when a quote does not end on the line. Text behind a closing quote is
 * let pass on a line of its own (`"Foo" bar`); in lines that were joined it means that they do not belong together.
 */
export function parseDelimited(line: string, delimiter: string): string[] | undefined {
  if (!line.includes('"')) return line.split(delimiter);
  const joined = line.includes("\n");
  const cells: string[] = [];
  let cell = "";
  let quoted = false;
  for (let k = 0; k < line.length; k++) {
    const ch = line[k] ?? "";
    if (quoted) {
      if (ch !== '"') cell += ch;
      else if (line[k + 1] === '"') {
        cell += '"';
        k++;
      } else if (joined && ![undefined, delimiter].includes(line[k + 1])) return undefined;
      else quoted = false;
    } else if (ch === '"' && cell === "") quoted = true;
    else if (ch === delimiter) {
      cells.push(cell);
      cell = "";
    } else cell += ch;
  }
  cells.push(cell);
  return quoted ? undefined : cells;
}
