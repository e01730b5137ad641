/** The beginning of a delimited file: its delimiter and the positions of columns. Reads nothing further. */
import { DataError } from "../../core/errors.ts";
import { delimitedHead } from "../records.ts";
import { type Encoding, readStart } from "../text-file.ts";

/** Delimiters that a file may use despite its name: `;` in half of Europe's .csv files. */
const separators = [",", ";", "\t", "|", "::"];

/** Cells of the first line that is not blank. */
export const headerCells = (file: string, delimiter: string, encoding: Encoding = "auto"): readonly string[] =>
  cellsIn(readStart(file, 65_536, encoding), delimiter);

function cellsIn(text: string, delimiter: string): readonly string[] {
  const [first] = delimitedHead(text, { delimiter, quoted: true });
  if (first !== undefined && "value" in first) return first.value;
  return (first?.text ?? text.split(/\r\n|\n|\r/)[0] ?? "").split(delimiter);
}

/** Number of records examined. */
const sampled = 50;

/**
 * The delimiter with which all needed columns exist and most records are as wide as the first; `usual` if several fit
 * equally well.
 * @param columns names, or numbers as "#0"; none: any that makes more than one cell
 */
export function detectDelimiter(text: string, usual: string, columns: readonly string[] = []): string {
  const head = text.split(/(?<=\n|\r(?!\n))/, sampled).join("");
  const found = [usual, ...separators.filter((s) => s !== usual)].map((separator) => {
    const records = delimitedHead(head, { delimiter: separator, quoted: true });
    const cells = cellsIn(head, separator);
    const names = new Set(cells.map((c) => c.trim()));
    const there = columns.every((c) => names.has(c) || (isNumbered(c) && Number(c.slice(1)) < cells.length));
    const even = records.filter((r) => "value" in r).length / Math.max(1, records.length);
    return { separator, fits: cells.length > 1 && there ? even : 0, width: cells.length };
  });
  const best = Math.max(...found.map((f) => f.fits));
  if (best > 0) return found.find((f) => f.fits === best)?.separator ?? usual;
  return columns.length > 0 ? detectDelimiter(text, usual) : usual;
}

/** Position of a column among `names`: by its name, or by its number in a file without a header ("#0"). */
export function columnIndex(column: string, names: readonly string[], where: string): number {
  const named = names.indexOf(column);
  const all = names.filter((n) => n === column).length;
  if (all > 1)
    throw new DataError(`${where} has ${all} columns "${column}".`, {
      advice: "Rename all but one: the name is ambiguous.",
    });
  if (named >= 0) return named;
  const number = /^#(\d+)$/.exec(column)?.[1];
  if (number === undefined)
    throw new DataError(`${where} has no column "${column}"; it has ${names.map((n) => `"${n}"`).join(", ")}.`);
  if (Number(number) >= names.length)
    throw new DataError(`${where} has ${names.length} columns and no column ${number}: numbers count from 0.`);
  return Number(number);
}

export const isNumbered = (column: string): boolean => /^#\d+$/.test(column);

/** Concatenated files repeat their headers. */
export const headerAgain = "a repeated header line";
