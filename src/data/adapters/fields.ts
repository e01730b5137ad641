/**
 * Named columns of a table file of any format as a relation in DuckDB, one row per record, in file order. A plain CSV
 * without quotes and other difficulties is read by DuckDB itself, in parallel; all other text by data/records.ts, which
 * defines what a record is. Assigns no meaning: callers convert the values, and quarantine unusable rows.
 */
import { basename } from "node:path";
import type { DuckDBAppender } from "@duckdb/node-api";
import { DataError } from "../../core/errors.ts";
import { type Duck, type Quarantine, sqlName, sqlText } from "../duck.ts";
import { delimitedRecords, type Found, findWidth, jsonRecords } from "../records.ts";
import { type Encoding, isCompressed, isPlainText, readStart, requireFile } from "../text-file.ts";
import { columnIndex, detectDelimiter, headerAgain, isNumbered } from "./header.ts";

export type TableFormat = "csv" | "tsv" | "jsonl" | "parquet";

/** Format by file name, ignoring compression. */
export function detectFormat(file: string): TableFormat {
  const name = file.toLowerCase().replace(/\.(gz|zst)$/, "");
  if (name.endsWith(".csv")) return "csv";
  if (/\.(tsv|tab|txt|dat|data)$/.test(name)) return "tsv";
  if (name.endsWith(".jsonl") || name.endsWith(".json") || name.endsWith(".ndjson")) return "jsonl";
  if (name.endsWith(".parquet") || name.endsWith(".pq")) return "parquet";
  throw new DataError(
    `${file}: unknown format; expected .csv, .tsv, .txt, .dat, .json, ` +
      `.jsonl (each may end in .gz or .zst) or .parquet.`,
  );
}

/** The value of a record's field, or of one within it: "user.id". */
export function valueAt(record: Readonly<Record<string, unknown>>, column: string): unknown {
  if (Object.hasOwn(record, column)) return record[column];
  if (!column.includes(".")) return undefined;
  return column
    .split(".")
    .reduce<unknown>(
      (node, key) =>
        typeof node === "object" && node !== null && Object.hasOwn(node, key)
          ? (node as Record<string, unknown>)[key]
          : undefined,
      record,
    );
}

/** How to read a file, as far as its name does not say. */
export interface ReadOptions {
  readonly delimiter?: string;
  /** Column names, when the file has no header line. */
  readonly names?: readonly string[];
  /** Maps a header cell to its column name (RecBole's `name:type`). */
  readonly rename?: (cell: string) => string;
  /** Whether `"` quotes values. Default true. */
  readonly quoted?: boolean;
  /** Default auto. */
  readonly encoding?: Encoding;
}

export interface Fields {
  /** SQL of a relation whose columns are the fields. */
  readonly relation: string;
  /** SQL type of each field: VARCHAR, or Parquet's own type. */
  readonly types: ReadonlyMap<string, string>;
  /** SQL of the line of each row, in file order; needs a scan of the whole relation. */
  readonly line: string;
  /** The header cell of each field; undefined without a header. */
  readonly header?: Readonly<Record<string, string>>;
  /** Notes for the user. */
  readonly notes: readonly string[];
  /** Counts records and malformed lines; undefined: some could not be read. Call it after the relation was read. */
  readonly settle: () => Promise<{ readonly records: number; readonly faults: number } | undefined>;
}

/**
 * Opens a file for `use`, which must read the relation to its end before it calls settle, and return undefined if
 * settle does: the file is then read again, more slowly.
 */
export async function withFields<T>(
  duck: Duck,
  file: string,
  fields: Readonly<Record<string, string>>,
  quarantine: Quarantine,
  options: ReadOptions,
  use: (fields: Fields) => Promise<T | undefined>,
): Promise<T> {
  requireFile(file, "Data");
  const explained = async (work: () => Promise<T | undefined>): Promise<T | undefined> => {
    try {
      return await work();
    } catch (cause) {
      if (cause instanceof DataError) throw cause;
      throw new DataError(`${file} cannot be read: ${cause instanceof Error ? cause.message.split("\n")[0] : cause}`, {
        cause,
      });
    }
  };
  const format = options.delimiter === undefined ? detectFormat(file) : "csv";
  if (format === "parquet") {
    const result = await explained(async () => use(await openParquet(duck, file, fields, quarantine)));
    if (result === undefined) throw new DataError(`${file} cannot be read.`);
    return result;
  }
  if (format !== "jsonl") {
    const fast = openFast(duck, file, fields, quarantine, options, format);
    if (fast !== undefined) {
      const result = await explained(() => use(fast));
      if (result !== undefined) return result;
    }
  }
  const result = await explained(async () => use(await openSlow(duck, file, fields, quarantine, options, format)));
  if (result === undefined) throw new DataError(`${file} cannot be read.`);
  await duck.run("DROP TABLE IF EXISTS cells");
  return result;
}

const usualDelimiter = { csv: ",", tsv: "\t" };

/** The delimiter of a file, and a note if it is unusual. */
function chooseDelimiter(file: string, format: "csv" | "tsv", columns: readonly string[], options: ReadOptions) {
  const usual = options.delimiter ?? usualDelimiter[format];
  const delimiter = options.delimiter ?? findDelimiter(file, format, columns, options.encoding);
  const notes = delimiter === usual ? [] : [`${basename(file)}: cells are separated by ${nameDelimiter(delimiter)}`];
  return { delimiter, notes };
}

const nameDelimiter = (d: string): string => (d === "\t" ? "tabs" : JSON.stringify(d));

/** The delimiter of a delimited file that has these columns. */
export const findDelimiter = (
  file: string,
  format: "csv" | "tsv",
  columns: readonly string[],
  encoding: Encoding = "auto",
): string => detectDelimiter(readStart(file, 65_536, encoding), usualDelimiter[format], columns);

/** Columns of a header line, in order. */
function readHeader(cells: readonly string[], options: ReadOptions): readonly string[] {
  const rename = options.rename ?? ((c: string) => c.trim());
  return options.names ?? cells.map(rename);
}

/** Whether columns are named by number ("#0"): the file has no header. Throws DataError if only some are. */
function byNumber(fields: Readonly<Record<string, string>>): boolean {
  const columns = Object.values(fields);
  const numbered = columns.filter(isNumbered);
  if (numbered.length > 0 && numbered.length < columns.length)
    throw new DataError(
      `data.columns names some columns of one file by number and others by name: ${columns.join(", ")}.`,
      {
        advice: "Numbers (from 0) are for files without a header line; then all columns of the file need one.",
      },
    );
  return numbered.length > 0;
}

const indexFields = (fields: Readonly<Record<string, string>>, names: readonly string[], where: string): number[] =>
  Object.values(fields).map((column) => columnIndex(column, names, where));

function openFast(
  duck: Duck,
  file: string,
  fields: Readonly<Record<string, string>>,
  quarantine: Quarantine,
  options: ReadOptions,
  format: "csv" | "tsv",
): Fields | undefined {
  if (options.encoding !== undefined && options.encoding !== "auto") return undefined;
  if (isCompressed(file)) return undefined;
  if (!isPlainText(file)) return undefined;
  const { delimiter, notes } = chooseDelimiter(file, format, Object.values(fields), options);
  const first = readStart(file).split("\n")[0] ?? "";
  const cells = first.split(delimiter);
  const headerless = options.names !== undefined || byNumber(fields);
  if (headerless && findWidth(readStart(file), { delimiter, quoted: false }) !== cells.length) return undefined;
  const names = readHeader(cells, options);
  if (options.names !== undefined && options.names.length !== cells.length) return undefined;
  const all = cells.map((_, k) => `${sqlText(`c${k}`)}: 'VARCHAR'`).join(", ");
  const at = indexFields(fields, names, `${file}:1`);
  const own = Object.keys(fields).map((field, k) => `c${at[k]} AS ${sqlName(field)}`);
  const rejects = "DROP TABLE IF EXISTS rejects; DROP TABLE IF EXISTS reject_scans";
  return {
    relation: `(SELECT ${own.join(", ")} FROM read_csv(${sqlText(file)}, delim=${sqlText(delimiter)},
      header=${!headerless}, auto_detect=false, quote='', escape='', columns={${all}}, store_rejects=true,
      rejects_table='rejects', rejects_scan='reject_scans'))`,
    types: new Map(Object.keys(fields).map((f) => [f, "VARCHAR"])),
    line: `row_number() OVER () + ${headerless ? 0 : 1}`,
    ...(headerless
      ? {}
      : { header: Object.fromEntries(Object.keys(fields).map((f, k) => [f, cells[at[k] ?? 0] ?? ""])) }),
    notes,
    async settle() {
      const faulty = (await duck.number("SELECT count(*) FROM rejects")) > 0;
      await duck.run(rejects);
      if (faulty) return undefined;
      const records = await duck.number("SELECT count(*) FROM staged");
      quarantine.saw(file, records);
      return { records, faults: 0 };
    },
  };
}

async function openSlow(
  duck: Duck,
  file: string,
  fields: Readonly<Record<string, string>>,
  quarantine: Quarantine,
  options: ReadOptions,
  format: "csv" | "tsv" | "jsonl",
): Promise<Fields> {
  const names = Object.keys(fields);
  await duck.run(`DROP TABLE IF EXISTS cells; CREATE TEMP TABLE cells(line BIGINT, lines INTEGER,
    ${names.map((f) => `${sqlName(f)} VARCHAR`).join(", ")})`);
  const appender = await duck.connection.createAppender("cells");
  let [records, faults] = [0, 0];
  const { delimiter, notes } =
    format === "jsonl" ? { delimiter: "", notes: [] } : chooseDelimiter(file, format, Object.values(fields), options);
  const batches =
    format === "jsonl" ? jsonFields(file, fields, options) : delimitedFields(file, fields, options, delimiter);
  try {
    for await (const batch of batches) {
      let lines = 0;
      for (const found of batch) {
        lines += found.lines;
        if ("fault" in found) {
          faults++;
          quarantine.add({ file, line: found.line, reason: found.fault, text: found.text });
          continue;
        }
        records++;
        appender.appendBigInt(BigInt(found.line));
        appender.appendInteger(found.lines);
        for (const value of found.value) append(appender, value);
        appender.endRow();
      }
      quarantine.saw(file, lines);
    }
  } finally {
    appender.closeSync();
  }
  return {
    relation: "cells",
    types: new Map(names.map((f) => [f, "VARCHAR"])),
    line: "line",
    notes,
    settle: async () => ({ records, faults }),
  };
}

function append(appender: DuckDBAppender, value: string | undefined): void {
  if (value === undefined || value === "") appender.appendNull();
  else appender.appendVarchar(value);
}

async function* delimitedFields(
  file: string,
  fields: Readonly<Record<string, string>>,
  options: ReadOptions,
  delimiter: string,
): AsyncGenerator<Found<(string | undefined)[]>[]> {
  const headerless = options.names !== undefined || byNumber(fields);
  const dialect = { delimiter, quoted: options.quoted ?? true };
  const width = headerless ? findWidth(readStart(file, 65_536, options.encoding), dialect) : undefined;
  let at: readonly number[] | undefined;
  let header: readonly string[] = [];
  for await (const batch of delimitedRecords(file, { ...dialect, ...(width ? { width } : {}) }, options.encoding)) {
    const out: Found<(string | undefined)[]>[] = [];
    for (const found of batch) {
      if (at === undefined && "fault" in found && !headerless)
        throw new DataError(`${file}:${found.line}: the header line cannot be read: ${found.fault}.`);
      if (at === undefined && "value" in found) {
        at = indexFields(fields, readHeader(found.value, options), `${file}:${found.line}`);
        if (!headerless) {
          header = found.value;
          continue;
        }
      }
      if ("fault" in found) out.push(found);
      else if (at === undefined) continue;
      else if (header.length > 0 && found.value.every((cell, k) => cell === header[k]))
        out.push({ line: found.line, lines: found.lines, fault: headerAgain, text: header.join(delimiter) });
      else out.push({ ...found, value: at.map((k) => found.value[k]) });
    }
    yield out;
  }
}

async function* jsonFields(
  file: string,
  fields: Readonly<Record<string, string>>,
  options: ReadOptions,
): AsyncGenerator<Found<(string | undefined)[]>[]> {
  const columns = Object.entries(fields).map(([field, column]) => ({ column, isId: idFields.includes(field) }));
  for await (const batch of jsonRecords(file, options.encoding))
    yield batch.map((found) => {
      if ("fault" in found) return found;
      const record = found.value;
      if (typeof record !== "object" || record === null || Array.isArray(record))
        return { line: found.line, lines: found.lines, fault: "not a JSON object", text: JSON.stringify(record) };
      return {
        ...found,
        value: columns.map((c) => toCell(valueAt(record as Record<string, unknown>, c.column), c.isId)),
      };
    });
}

/** Fields that contain an id; a list or an object is not one. */
const idFields = ["u", "i", "s"];

/** A JSON value as the text of a cell; lists and objects as JSON. */
function toCell(value: unknown, isId = false): string | undefined {
  if (value === undefined || value === null) return undefined;
  if (typeof value !== "object") return String(value);
  const keys = Object.keys(value);
  if (!Array.isArray(value) && keys.length === 1 && keys[0]?.startsWith("$") === true)
    return toCell((value as Record<string, unknown>)[keys[0]], isId); // MongoDB's {"$oid": ...}
  return isId ? undefined : JSON.stringify(value);
}

async function openParquet(
  duck: Duck,
  file: string,
  fields: Readonly<Record<string, string>>,
  quarantine: Quarantine,
): Promise<Fields> {
  const table = `read_parquet(${sqlText(file)}, binary_as_string=true)`;
  const found = await findParquet(duck, file, Object.values(fields));
  const own = Object.entries(fields).map(([field, column]) => `${found.get(column)?.sql} AS ${sqlName(field)}`);
  return {
    relation: `(SELECT ${own.join(", ")} FROM ${table})`,
    types: new Map(Object.entries(fields).map(([field, column]) => [field, found.get(column)?.type ?? "VARCHAR"])),
    line: "row_number() OVER ()",
    notes: [],
    async settle() {
      const records = await duck.number(`SELECT count(*) FROM ${table}`);
      quarantine.saw(file, records);
      return { records, faults: 0 };
    },
  };
}

/** Columns by name, by number ("#0") or within a struct ("info.title"). Throws DataError for a missing column. */
export async function findParquet(
  duck: Duck,
  file: string,
  columns: readonly string[],
): Promise<ReadonlyMap<string, { readonly sql: string; readonly type: string }>> {
  const known = await parquetColumns(duck, file);
  const names = [...known.keys()];
  const found = new Map<string, { sql: string; type: string }>();
  for (const column of columns) {
    const [outer = "", ...inner] = column.split(".");
    if (!known.has(column) && inner.length > 0 && known.get(outer)?.startsWith("STRUCT") === true) {
      const sql = [outer, ...inner].map(sqlName).join(".");
      const type = await duck
        .rows(`DESCRIBE SELECT ${sql} AS x FROM read_parquet(${sqlText(file)}, binary_as_string=true)`)
        .then((rows) => String(rows[0]?.column_type))
        .catch(() => undefined);
      if (type !== undefined) {
        found.set(column, { sql, type });
        continue;
      }
    }
    const name = names[columnIndex(column, names, file)] ?? column;
    found.set(column, { sql: sqlName(name), type: known.get(name) ?? "VARCHAR" });
  }
  return found;
}

/** Column -> SQL type. Throws DataError if it is not a Parquet file. */
export async function parquetColumns(duck: Duck, file: string): Promise<ReadonlyMap<string, string>> {
  try {
    const rows = await duck.rows(`DESCRIBE SELECT * FROM read_parquet(${sqlText(file)}, binary_as_string=true)`);
    return new Map(rows.map((r) => [String(r.column_name), String(r.column_type)]));
  } catch (cause) {
    if (cause instanceof DataError) throw cause;
    throw new DataError(`${file} is not a readable Parquet file.`, { cause });
  }
}

const isNested = (type: string): boolean => /\[\d*\]$|^(STRUCT|MAP|UNION|LIST)/.test(type);
/** Whether a Parquet column is numeric. */
export const isNumber = (type: string): boolean =>
  /^(U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|U?INTEGER|DOUBLE|FLOAT|REAL|DECIMAL.*)$/.test(type);
export const isTime = (type: string): boolean => /^(TIMESTAMP|DATE)/.test(type);

/**
 * SQL: a value of any type as text: whole numbers exact, whether or not they are floating point; nested ones as JSON.
 */
export function cellSql(x: string, type: string): string {
  if (type === "VARCHAR") return x;
  if (isNested(type)) return `to_json(${x})::VARCHAR`;
  if (type === "DOUBLE" || type === "FLOAT")
    return `CASE WHEN NOT isfinite(${x}) THEN NULL WHEN ${x} = trunc(${x}) AND abs(${x}) < 9007199254740992
      THEN ${x}::BIGINT::VARCHAR ELSE ${x}::VARCHAR END`;
  if (type.startsWith("DECIMAL")) return `regexp_replace(${x}::VARCHAR, '\\.0+$', '')`;
  return `${x}::VARCHAR`;
}

/** Throws if ids are lists or structs, or floating-point numbers so large that digits are lost. */
export async function checkIds(duck: Duck, file: string, fields: Fields, ids: readonly string[]): Promise<void> {
  for (const field of ids) {
    const type = fields.types.get(field) ?? "";
    if (isNested(type))
      throw new DataError(`${file}: ids are of type ${type}, which cannot be an id.`, {
        advice: "Name another column.",
      });
    if (type !== "DOUBLE" && type !== "FLOAT") continue;
    const limit = type === "DOUBLE" ? 2 ** 53 : 2 ** 24;
    const x = sqlName(field);
    const largest = await duck.number(
      `SELECT coalesce(max(abs(${x})), 0) FROM ${fields.relation} WHERE isfinite(${x})`,
    );
    if (largest >= limit)
      throw new DataError(
        `${file}: ids up to ${largest} are stored as floating-point numbers (${type}), ` +
          `which are exact only below ${limit}: different ids have become equal.`,
        { advice: "Write the column as integers or text." },
      );
  }
}
