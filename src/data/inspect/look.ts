/**
 * A first look at a folder: the format of each file, from its head only (256 KB; Parquet: 200 rows), and its columns.
 * Does not guess roles or layouts.
 */
import { readdirSync, statSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { DataError } from "../../core/errors.ts";
import { cellSql, parquetColumns } from "../adapters/fields.ts";
import { detectDelimiter } from "../adapters/header.ts";
import { filesIn } from "../adapters/locate.ts";
import { parsePythonLiteral } from "../adapters/python-literal.ts";
import { type Duck, sqlName, sqlText } from "../duck.ts";
import { delimitedHead, parseJson, splitCells } from "../records.ts";
import { isCompressed, readStart } from "../text-file.ts";

export type FileFormat =
  | "csv"
  | "tsv"
  | "jsonl"
  | "python lines"
  | "json object"
  | "sequence lines"
  | "parquet"
  | "text"
  | "unreadable";

/** The kind of a column's values. */
export type ColumnKind =
  | "whole numbers"
  | "numbers"
  | "seconds"
  | "milliseconds"
  | "microseconds"
  | "nanoseconds"
  | "days as YYYYMMDD"
  | "dates"
  | "lists"
  | "text"
  | "empty";

export interface ColumnView {
  readonly name: string;
  readonly kind: ColumnKind;
  /** Share of missing values in the sampled rows. */
  readonly missing: number;
  /** Different values among the sampled rows. */
  readonly distinct: number;
  /** Up to three values as text. */
  readonly examples: readonly string[];
}

export interface FileView {
  readonly name: string;
  readonly bytes: number;
  readonly format: FileFormat;
  /** Records in the head; empty for text. */
  readonly records: readonly Readonly<Record<string, unknown>>[];
  readonly columns: readonly ColumnView[];
  /** Lines of the head, complete ones only. */
  readonly lines: readonly string[];
  /** Total rows: exact for Parquet, else estimated from size and line length; undefined if neither is cheap. */
  readonly rows?: number;
  /** Why a table cannot be read unchanged. */
  readonly problem?: string;
}

export interface FolderView {
  readonly folder: string;
  readonly files: readonly FileView[];
  /** The file that the path names, if it is a file. */
  readonly only?: string;
  /** Subfolders, for a hint. */
  readonly subfolders: readonly string[];
}

const headBytes = 1 << 18;
const maxFiles = 40;
/** Folders with parts of one data set: their files are examined too, as `train/NAME`. */
const partFolders = /^(train|valid|test|index)$/;
const maxRecords = 2000;

/** Looks at a folder, or at a file and its neighbours. Throws DataError if it does not exist. */
export async function lookAt(duck: Duck, path: string): Promise<FolderView> {
  const full = resolve(path);
  const stat = statSync(full, { throwIfNoEntry: false });
  if (stat === undefined)
    throw new DataError(`${path}: there is no such file or folder.`, { advice: "Name the folder of the data." });
  const folder = stat.isDirectory() ? full : dirname(full);
  const subfolders = listSubfolders(folder);
  const names = filesIn(folder).slice(0, maxFiles);
  for (const inner of subfolders.filter((f) => partFolders.test(f)))
    names.push(
      ...filesIn(join(folder, inner))
        .slice(0, maxFiles)
        .map((n) => `${inner}/${n}`),
    );
  const files: FileView[] = [];
  for (const name of names) files.push(await lookAtFile(duck, folder, name));
  return {
    folder,
    files,
    subfolders,
    ...(stat.isDirectory() ? {} : { only: basename(full) }),
  };
}

const listSubfolders = (folder: string): string[] =>
  readdirSync(folder, { withFileTypes: true })
    .filter((e) => e.isDirectory() && !e.name.startsWith("."))
    .map((e) => e.name)
    .sort();

async function lookAtFile(duck: Duck, folder: string, name: string): Promise<FileView> {
  const path = join(folder, name);
  const bytes = statSync(path, { throwIfNoEntry: false })?.size ?? 0;
  const base = { name, bytes, records: [], columns: [], lines: [] };
  if (bytes === 0) return { ...base, format: "unreadable", problem: "empty" };
  try {
    if (/\.(parquet|pq)$/i.test(name)) return await lookAtParquet(duck, path, base);
    if (/\.(zip|7z|bz2|xz|tar|tgz|pkl|npy|npz|pt|bin|safetensors|png|jpe?g|pdf)$/i.test(name))
      return { ...base, format: "unreadable", problem: "not a text file; unpack it first" };
    const head = readStart(path, headBytes);
    if (head.includes("\u0000")) return { ...base, format: "unreadable", problem: "not a text file" };
    const compressed = isCompressed(path);
    const whole = head.length > 0 && bytes <= headBytes && !compressed;
    const all = head.split(/\r\n|\n|\r/);
    const lines = (whole || all.length === 1 ? all : all.slice(0, -1)).filter((l) => l.trim() !== "");
    const rows = compressed
      ? undefined
      : whole
        ? lines.length
        : Math.round((bytes / Buffer.byteLength(head)) * all.length);
    return { ...base, lines, ...lookAtText(name, lines, head), ...(rows === undefined ? {} : { rows }) };
  } catch (e) {
    return {
      ...base,
      format: "unreadable",
      problem: e instanceof Error ? (e.message.split("\n")[0] ?? "") : "unreadable",
    };
  }
}

async function lookAtParquet(
  duck: Duck,
  path: string,
  base: Pick<FileView, "name" | "bytes" | "lines">,
): Promise<FileView> {
  const types = await parquetColumns(duck, path);
  const table = `read_parquet(${sqlText(path)}, binary_as_string=true)`;
  const select = [...types].map(([name, type]) => `${cellSql(sqlName(name), type)} AS ${sqlName(name)}`);
  const records = await duck.rows(`SELECT ${select.join(", ")} FROM ${table} LIMIT 200`);
  const rows = await duck.number(`SELECT count(*) FROM ${table}`);
  return { ...base, format: "parquet", records, columns: columnViews(records, [...types.keys()]), rows };
}

function lookAtText(name: string, lines: readonly string[], head: string): Omit<FileView, "name" | "bytes" | "lines"> {
  const none = { records: [], columns: [] };
  const first = lines[0] ?? "";
  if (/^\s*\{/.test(first)) {
    const json = parseRecords(lines, parseJson);
    if (json.length > 0) return { format: "jsonl", records: json, columns: columnViews(json) };
    const python = parseRecords(lines, parsePythonLiteral);
    if (python.length > 0) return { format: "python lines", records: python, columns: columnViews(python) };
    return { ...none, format: "json object" };
  }
  if (/^\s*\[/.test(head)) {
    const records = arrayHead(head);
    return records.length > 0
      ? { format: "jsonl", records, columns: columnViews(records) }
      : { ...none, format: "json object" };
  }
  const stem = name.toLowerCase().replace(/\.(gz|zst)$/, "");
  if (/\.(csv|tsv|tab|dat|inter|item)$/.test(stem)) {
    const usual = stem.endsWith(".csv") ? "," : "\t";
    const quoted = !/\.(inter|item)$/.test(stem);
    const delimiter = quoted ? detectDelimiter(head, usual) : usual;
    const dialect = { delimiter, quoted };
    const cells = (splitCells(first, dialect) ?? first.split(delimiter)).map((c) => c.trim());
    const headerless = isRow(cells);
    const header = headerless ? cells.map((_, k) => `#${k}`) : cells;
    const records = delimitedHead(head.endsWith("\n") ? head : `${head}\n`, dialect)
      .slice(headerless ? 0 : 1, maxRecords)
      .flatMap((found) =>
        "fault" in found ? [] : [Object.fromEntries(header.map((h, k) => [h, found.value[k] ?? ""]))],
      );
    const problem = tableProblem(header, records, first);
    return {
      format: usual === "," ? "csv" : "tsv",
      records,
      columns: columnViews(records, header),
      ...(problem === undefined ? {} : { problem }),
    };
  }
  return { ...none, format: isSequenceFile(lines) ? "sequence lines" : "text" };
}

/** Whether the first line is a row, not a header: a quarter of its cells are numbers or dates, none is a usual name. */
const isRow = (cells: readonly string[]): boolean =>
  cells.length > 1 &&
  !cells.some((c) => /^(user|item|title|name|rating|time|timestamp|.*id)$/i.test(c)) &&
  cells.filter((c) => /^-?\d+(\.\d+)?$|^\d{4}-\d\d-\d\d/.test(c)).length >= cells.length / 4;

function tableProblem(header: readonly string[], records: readonly object[], first: string): string | undefined {
  if (header.length === 1 && /[;|\t]/.test(first)) return "only one column: the file uses another separator";
  if (header.some((h) => h.trim() === "")) return "a column has no name";
  return records.length === 0 ? "a header without rows" : undefined;
}

/** The first elements of a JSON array that may be cut off: the text is closed after its last whole element. */
function arrayHead(head: string): Record<string, unknown>[] {
  for (let end = head.lastIndexOf("}"), tries = 0; end > 0 && tries < 50; end = head.lastIndexOf("}", end - 1), tries++)
    try {
      const list = parseJson(`${head.slice(0, end + 1)}]`);
      if (Array.isArray(list))
        return list
          .filter((r): r is Record<string, unknown> => typeof r === "object" && r !== null && !Array.isArray(r))
          .slice(0, maxRecords);
    } catch {
      // cut off within a nested object: end earlier
    }
  return [];
}

function parseRecords(lines: readonly string[], parse: (line: string) => unknown): Record<string, unknown>[] {
  const out: Record<string, unknown>[] = [];
  for (const line of lines.slice(0, maxRecords)) {
    try {
      const record = parse(line);
      if (typeof record === "object" && record !== null && !Array.isArray(record))
        out.push(record as Record<string, unknown>);
    } catch {
      // a malformed line among good ones; reading the file will report it
    }
  }
  return out.length >= lines.slice(0, maxRecords).length / 2 ? out : [];
}

/** One line per user: its id, then at least one item id, no other characters; users differ. */
function isSequenceFile(lines: readonly string[]): boolean {
  const rows = lines.slice(0, 200).map((l) => l.trim().split(/[ \t]+/));
  const users = new Set(rows.map((r) => r[0]));
  const long = rows.filter((r) => r.length >= 3).length;
  const plain = rows.every((r) => r.length >= 2 && r.every((cell) => /^[A-Za-z0-9_-]{1,40}$/.test(cell)));
  const idLike = rows.every((r) => r.every((cell) => /\d/.test(cell)));
  return rows.length > 0 && plain && idLike && users.size === rows.length && long >= rows.length / 2;
}

const isMissing = (v: unknown): boolean =>
  v === undefined || v === null || v === "" || (Array.isArray(v) && v.length === 0);

export function columnViews(
  records: readonly Readonly<Record<string, unknown>>[],
  names: readonly string[] = [...new Set(records.flatMap((r) => Object.keys(r)))],
): ColumnView[] {
  return names.map((name) => {
    const values = records.map((r) => r[name]).filter((v) => !isMissing(v));
    const texts = values.map((v) => (typeof v === "object" ? JSON.stringify(v) : String(v)));
    return {
      name,
      kind: detectKind(values, texts),
      missing: records.length === 0 ? 0 : 1 - values.length / records.length,
      distinct: new Set(texts).size,
      examples: [...new Set(texts)].slice(0, 3),
    };
  });
}

/** 2023-11-15T10:00, 15/11/2023 10:00, 15-Nov-23, Nov 15, 2023, Wed Nov 15 10:00:00 +0000 2023 */
const dateForms =
  /^(\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}.*)?|\d{1,2}([/.-])\d{1,2}\3(\d{4}|\d\d)( \d.*)?|([A-Z][a-z]{2},? )?(\d{1,2}[ /-])?(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*[ /-].*\d\d.*)$/;

/** The kind of nearly all values: one malformed value in twenty does not change a column's kind. */
function detectKind(values: readonly unknown[], texts: readonly string[]): ColumnKind {
  if (values.length === 0) return "empty";
  const nearlyAll = (n: number): boolean => n >= 0.95 * values.length;
  const isList = (v: unknown): boolean => Array.isArray(v) || (typeof v === "string" && /^\s*\[.*\]\s*$/s.test(v));
  if (nearlyAll(values.filter(isList).length)) return "lists";
  const numeric = texts.filter((t) => /^-?\d+(\.\d+)?(e[+-]?\d+)?$/i.test(t.trim()));
  if (nearlyAll(numeric.length)) {
    const within = (low: number, high: number): number =>
      numeric.filter((t) => Number(t) >= low && Number(t) < high).length;
    // Between 1985 and 2100.
    if (nearlyAll(within(4.7e8, 4.1e9))) return "seconds";
    if (nearlyAll(within(4.7e11, 4.1e12))) return "milliseconds";
    if (nearlyAll(within(4.7e14, 4.1e15))) return "microseconds";
    if (nearlyAll(within(4.7e17, 4.1e18))) return "nanoseconds";
    const days = numeric.filter((t) => /^(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])$/.test(t.trim()));
    if (nearlyAll(days.length)) return "days as YYYYMMDD";
    return numeric.every((t) => /^-?\d+$/.test(t.trim())) ? "whole numbers" : "numbers";
  }
  return nearlyAll(texts.filter((t) => dateForms.test(t.trim())).length) ? "dates" : "text";
}
