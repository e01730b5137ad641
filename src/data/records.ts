/**
 * Records of text files with their lines: delimited cells (RFC 4180 quotes) and JSON, one record per line or one array.
 * A fault costs only its own line: a quote that never closes swallows nothing. Assigns no meaning to columns.
 */
import { DataError } from "../core/errors.ts";
import { exactInteger, parsePythonLiteral } from "./adapters/python-literal.ts";
import { type Block, type Encoding, readStart, textBlocks, textPieces } from "./text-file.ts";

/** A record, or a malformed line. */
export type Found<T> =
  | { readonly line: number; readonly lines: number; readonly value: T }
  | { readonly line: number; readonly lines: number; readonly fault: string; readonly text: string };

export interface Dialect {
  readonly delimiter: string;
  /** Whether `"` quotes cells. */
  readonly quoted: boolean;
  /** Cells per record; default: that of the first one. */
  readonly width?: number;
}

const openQuote = "a quote opens and never closes";
const notUtf8 = "not UTF-8; if the file has another encoding, such as Latin-1, set data.encoding";
/** Longest record, in characters. */
const maxRecord = 8 * 2 ** 20;

/** Cells of one line on its own; undefined if a quote does not close on it. */
export function splitCells(line: string, dialect: Dialect): string[] | undefined {
  if (!dialect.quoted || !line.includes('"')) return line.split(dialect.delimiter);
  const parsed = quotedCells(line, 0, dialect.delimiter, lineEnds(line));
  return parsed.cells !== undefined && parsed.end === line.length ? parsed.cells : undefined;
}

interface Parsed {
  /** Undefined if a quote does not close (`open`), or closes in the middle of a later line. */
  readonly cells?: string[];
  readonly open: boolean;
  /** The end of the record: a line break or the end of the text. */
  readonly end: number;
  /** The first cell that contains a line break, if any. */
  readonly broken?: number;
}

/** Cells of the record that begins at `start`. Text after a closing quote makes the cell a literal, quotes and all. */
function quotedCells(text: string, start: number, delimiter: string, endOfLine: (from: number) => number): Parsed {
  const cells: string[] = [];
  let broken: number | undefined;
  let at = start;
  const isBreak = (ch: string | undefined): boolean => ch === "\n" || ch === "\r";
  const endOfCell = (from: number): number => {
    let end = text.indexOf(delimiter, from);
    if (end < 0) end = text.length;
    return Math.min(end, endOfLine(from));
  };
  for (;;) {
    let end: number;
    if (text[at] === '"') {
      const { close, escaped } = closingQuote(text, at + 1, delimiter);
      if (close < 0) return { open: true, end: text.length };
      const written = text.slice(at + 1, close);
      const inside = escaped ? written.replaceAll('\\"', '"') : written;
      const multiline = inside.includes("\n") || inside.includes("\r");
      const next = text[close + 1];
      if (next === undefined || isBreak(next) || text.startsWith(delimiter, close + 1)) {
        if (multiline) broken ??= cells.length;
        cells.push(inside.includes('""') ? inside.replaceAll('""', '"') : inside);
        end = close + 1;
      } else if (multiline) return { open: false, end: close };
      else {
        end = endOfCell(close + 1);
        cells.push(text.slice(at, end));
      }
    } else {
      end = endOfCell(at);
      cells.push(text.slice(at, end));
    }
    if (end >= text.length || isBreak(text[end]))
      return { cells, open: false, end, ...(broken === undefined ? {} : { broken }) };
    at = end + delimiter.length;
  }
}

/** Position of the closing quote, from `from` on: not doubled and not, as in MySQL's output, escaped by a backslash. */
function closingQuote(
  text: string,
  from: number,
  delimiter: string,
): { readonly close: number; readonly escaped: boolean } {
  let escaped = false;
  for (let close = text.indexOf('"', from); ; ) {
    const next = text[close + 1];
    if (close >= 0 && next === '"') close = text.indexOf('"', close + 2);
    else if (
      close > from &&
      text[close - 1] === "\\" &&
      next !== undefined &&
      next !== "\n" &&
      next !== "\r" &&
      !text.startsWith(delimiter, close + 1)
    ) {
      escaped = true;
      close = text.indexOf('"', close + 1);
    } else return { close, escaped };
  }
}

/** Finds line ends of a text. Remembers the next \r: a text without any is not searched again for every line. */
function lineEnds(text: string): (from: number) => number {
  let [asked, cr] = [0, text.indexOf("\r")];
  return (from) => {
    if (from < asked || (cr >= 0 && cr < from)) cr = text.indexOf("\r", from);
    asked = from;
    const lf = text.indexOf("\n", from);
    const end = lf < 0 ? text.length : lf;
    return cr >= 0 && cr < end ? cr : end;
  };
}

/**
 * What the cells of each column have in common so far, to distinguish a row from a line of prose: if a stray quote
 * happens to match a later one, the lines in between look like rows.
 */
class Profile {
  private readonly numeric: boolean[];
  private readonly wordlike: boolean[];
  private seen = 0;

  constructor(width: number) {
    this.numeric = new Array<boolean>(width).fill(true);
    this.wordlike = new Array<boolean>(width).fill(true);
  }

  learn(cells: readonly string[]): void {
    if (this.seen >= 200) return;
    this.seen++;
    for (const [k, cell] of cells.entries()) {
      if (cell === "") continue;
      if (this.numeric[k] === true && !/^-?[\d.:eE+-]+$/.test(cell)) this.numeric[k] = false;
      if (this.wordlike[k] === true && /\s/.test(cell)) this.wordlike[k] = false;
    }
  }

  fits(cells: readonly string[]): boolean {
    if (this.seen < 3 || cells.length !== this.numeric.length) return false;
    return cells.every(
      (cell, k) =>
        (this.numeric[k] !== true || cell === "" || /^"?-?[\d.:eE+-]*"?$/.test(cell)) &&
        (this.wordlike[k] !== true || !/\s/.test(cell)),
    );
  }
}

/** Whether a stray quote in one row and another in a later row enclose good rows. */
function enclosesRows(record: string, broken: number, dialect: Dialect, profile: Profile): boolean {
  const lines = record.split(/\r\n|\n|\r/).slice(1);
  if (broken === 0 && lines.length === 1) return false;
  return lines.every((line) => profile.fits(splitCells(line, dialect) ?? []));
}

/** Reads delimited text block by block. All records must be as wide as the first. */
class DelimitedReader {
  private readonly dialect: Dialect;
  private profile: Profile | undefined;
  private width = 0;
  private line = 1;
  private rest = "";
  private readonly bad = new Set<number>();

  constructor(dialect: Dialect) {
    this.dialect = dialect;
    if (dialect.width === undefined) return;
    [this.width, this.profile] = [dialect.width, new Profile(dialect.width)];
  }

  /** Records that end within the text so far; blank lines are skipped. `final`: nothing comes after. */
  take(block: Block, final: boolean): Found<string[]>[] {
    const held = this.rest === "" ? 0 : linesIn(this.rest);
    for (const k of block.bad) this.bad.add(this.line + held + k);
    const text = this.rest + block.text;
    const found: Found<string[]>[] = [];
    const endOfLine = lineEnds(text);
    const hasNul = text.includes("\u0000");
    let at = 0;
    while (at < text.length) {
      if (text.charCodeAt(at) === 0xfeff) at++; // the byte-order mark of a concatenated file
      const eol = endOfLine(at);
      const own = text.slice(at, eol);
      const read = this.recordAt(text, at, own, eol, endOfLine, final);
      if (read === undefined) break; // the rest comes with the next block
      const { lines, end } = read;
      if (own.charCodeAt(0) > 32 || own.trim() !== "" || lines > 1) {
        const fault = this.catchFault(read, hasNul && own.includes("\u0000"));
        if (fault === undefined && read.cells !== undefined) {
          if (this.profile === undefined)
            [this.width, this.profile] = [read.cells.length, new Profile(read.cells.length)];
          else this.profile.learn(read.cells);
          found.push({ line: this.line, lines, value: read.cells });
        } else found.push({ line: this.line, lines, fault: fault ?? openQuote, text: own });
      }
      this.line += lines;
      at = text[end] === "\r" && text[end + 1] === "\n" ? end + 2 : end + 1;
    }
    this.rest = text.slice(at);
    for (const k of this.bad) if (k < this.line) this.bad.delete(k);
    return found;
  }

  /** The record that begins at `at`; without cells if the line is malformed. Undefined if it does not end here. */
  private recordAt(
    text: string,
    at: number,
    own: string,
    eol: number,
    endOfLine: (from: number) => number,
    final: boolean,
  ): { readonly cells?: string[]; readonly end: number; readonly lines: number } | undefined {
    const { delimiter, quoted } = this.dialect;
    if (!quoted || !own.includes('"')) return { cells: own.split(delimiter), end: eol, lines: 1 };
    const { cells, open, end, broken } = quotedCells(text, at, delimiter, endOfLine);
    if (open && !final && text.length - at < maxRecord) return undefined;
    const none = { end: eol, lines: 1 };
    if (cells === undefined || end - at > maxRecord) return none;
    if (broken === undefined) return { cells, end, lines: 1 };
    if (this.width > 0 && cells.length !== this.width) return none;
    const record = text.slice(at, end);
    if (this.profile !== undefined && enclosesRows(record, broken, this.dialect, this.profile)) return none;
    return { cells, end, lines: linesIn(record) + 1 };
  }

  private catchFault({ cells, lines }: { readonly cells?: string[]; readonly lines: number }, hasNul: boolean) {
    for (let k = this.line; this.bad.size > 0 && k < this.line + lines; k++) if (this.bad.has(k)) return notUtf8;
    if (hasNul) return "contains a NUL byte";
    if (cells === undefined) return openQuote;
    return this.width > 0 && cells.length !== this.width
      ? `${cells.length} columns, expected ${this.width}`
      : undefined;
  }
}

/** Records of a delimited file, a few thousand at a time. */
export async function* delimitedRecords(
  path: string,
  dialect: Dialect,
  encoding: Encoding = "auto",
): AsyncGenerator<Found<string[]>[]> {
  const reader = new DelimitedReader(dialect);
  for await (const block of textBlocks(path, encoding)) yield reader.take(block, false);
  yield reader.take({ text: "", bad: [] }, true);
}

/** Records of the beginning of a text; the last one may be missing. */
export const delimitedHead = (text: string, dialect: Dialect): readonly Found<string[]>[] =>
  new DelimitedReader(dialect).take({ text, bad: [] }, false);

/** Cells per record without a header: the most common width of the first lines. */
export function findWidth(text: string, dialect: Dialect): number | undefined {
  const lines = text.split(/(?<=\n|\r(?!\n))/, 50);
  const found = [0, 1, 2, 3, 4].map((k) => {
    const good = delimitedHead(lines.slice(k).join(""), dialect).flatMap((r) => ("value" in r ? [r.value.length] : []));
    return { records: good.length, width: good[0] };
  });
  return found.sort((a, b) => b.records - a.records)[0]?.width;
}

/** Line breaks in a text. */
function linesIn(text: string): number {
  const endOfLine = lineEnds(text);
  let lines = 0;
  for (let at = endOfLine(0); at < text.length; at = endOfLine(at)) {
    lines++;
    at += text[at] === "\r" && text[at + 1] === "\n" ? 2 : 1;
  }
  return lines;
}

/** Lines of a text file without blank ones, a few thousand at a time. */
export async function* textLines(path: string, encoding: Encoding = "auto"): AsyncGenerator<Found<string>[]> {
  for await (const batch of delimitedRecords(path, { delimiter: "\u0000no delimiter", quoted: false }, encoding))
    yield batch.map((f) => ("fault" in f ? f : { line: f.line, lines: f.lines, value: f.value[0] ?? "" }));
}

/** Values of a JSON file: one per line, the elements of an array, or consecutive objects over several lines. */
export async function* jsonRecords(path: string, encoding: Encoding = "auto"): AsyncGenerator<Found<unknown>[]> {
  const head = readStart(path, 65_536, encoding).trimStart();
  if (head.startsWith("[")) yield* nestedRecords(path, encoding, 1);
  else if (/^\{[ \t]*\r?\n/.test(head)) yield* nestedRecords(path, encoding, 0);
  else
    for await (const batch of textLines(path, encoding))
      yield batch.map((f) => ("fault" in f ? f : parseFound(f.value, f.line, f.lines)));
}

function parseFound(text: string, line: number, lines: number): Found<unknown> {
  try {
    return { line, lines, value: parseRecord(text) };
  } catch {
    return { line, lines, fault: "not JSON", text };
  }
}

/** JSON, or a dict as printed by Python: {u'user': u'x', 'early': False}, as in the UCSD data sets. */
export function parseRecord(text: string): unknown {
  try {
    return parseJson(text);
  } catch (e) {
    if (!/^\s*\{/.test(text)) throw e;
    return parsePythonLiteral(text);
  }
}

/** Values at a bracket depth (0: consecutive objects, 1: elements of an array), streamed from files of any size. */
async function* nestedRecords(path: string, encoding: Encoding, base: 0 | 1): AsyncGenerator<Found<unknown>[]> {
  let [rest, at, line, depth, start, startLine, inText] = ["", 0, 1, 0, -1, 1, false];
  for await (const piece of textPieces(path, encoding)) {
    const text = rest + piece;
    const found: Found<unknown>[] = [];
    const take = (end: number): void => {
      const own = start < 0 ? "" : text.slice(start, end).trim();
      if (own !== "") found.push(parseFound(own, startLine, line - startLine + 1));
      start = -1;
    };
    for (; at < text.length; at++) {
      const ch = text[at] ?? "";
      if (ch === "\n") line++;
      const opens = ch === "[" || ch === "{";
      if (start < 0 && !inText && depth >= base && !/[\s,\]}]/.test(ch)) [start, startLine] = [at, line];
      if (inText) {
        if (ch === "\\") at++;
        else if (ch === '"') inText = false;
      } else if (ch === '"') inText = true;
      else if (opens) depth++;
      else if (ch === "]" || ch === "}") {
        depth--;
        if (depth === base) take(at + 1);
        else if (depth < base) take(at);
      } else if (ch === "," && depth === base) take(at);
    }
    const keep = start < 0 ? text.length : start;
    rest = text.slice(Math.min(keep, text.length));
    at -= keep;
    if (start >= 0) start = 0;
    if (rest.length > maxRecord)
      throw new DataError(`${path}:${startLine}: a record is longer than ${maxRecord / 2 ** 20} MB.`);
    if (found.length > 0) yield found;
  }
  if (depth !== 0 || start >= 0) throw new DataError(`${path} ends in the middle of its JSON.`);
}

/** Lenient JSON: integers of any size stay exact (as text); Python's NaN and infinities become null. */
export function parseJson(text: string): unknown {
  if (!/\d{16}/.test(text)) {
    try {
      return JSON.parse(text);
    } catch (e) {
      if (!/NaN|Infinity/.test(text)) throw e;
    }
  }
  const token = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|NaN|-?Infinity/g;
  return JSON.parse(
    text.replace(token, (t) =>
      t.endsWith("N") || t.endsWith("y") ? "null" : exactInteger(t) === undefined ? t : `"${exactInteger(t)}"`,
    ),
  );
}
