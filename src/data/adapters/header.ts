/** The beginning of a delimited file: what separates its cells, and which column is where. Reads nothing further. */
import { DataError } from "../../core/errors.ts";
import { delimitedHead } from "../records.ts";
import { type Encoding, readStart } from "../text-file.ts";

/** What may separate cells where the name of the file says something else: `;` in half of Europe's .csv files. */
const separators = [",", ";", "\t", "|", "::"];

/** Cells of the first line that is not blank. */
export const headerCells = (file: string, delimiter: string, encoding: Encoding = "auto"): readonly string[] =>
  cellsIn(readStart(file, 65_536, encoding), delimiter);

function cellsIn(text: string, delimiter: string): readonly string[] {
  const [first] = delimitedHead(text, { delimiter, quoted: true });
  if (first !== undefined && "value" in first) return first.value;
  return (first?.text ?? text.split(/\r\n|\n|\r/)[0] ?? "").split(delimiter);
}

/** `usual`, or what makes more than one cell of the first line where that does not. */
export function detectDelimiter(text: string, usual: string): string {
  if (cellsIn(text, usual).length > 1) return usual;
  const counts = separators.map((s) => ({ s, cells: cellsIn(text, s).length })).sort((a, b) => b.cells - a.cells);
  return counts[0] !== undefined && counts[0].cells > 1 ? counts[0].s : usual;
}

/** Where a column is among `names`: by its name, or by its number in a file without a header ("#0"). */
export function columnIndex(column: string, names: readonly string[], where: string): number {
  const named = names.indexOf(column);
  const all = names.filter((n) => n === column).length;
  if (all > 1)
    throw new DataError(`${where} has ${all} columns "${column}".`, {
      advice: "Rename all but one: which of them is meant cannot be told.",
    });
  if (named >= 0) return named;
  const number = /^#(\d+)$/.exec(column)?.[1];
  if (number === undefined)
    throw new DataError(`${where} has no column "${column}"; it has ${names.map((n) => `"${n}"`).join(", ")}.`);
  if (Number(number) >= names.length)
    throw new DataError(`${where} has ${names.length} columns, so none with the number ${number}: they count from 0.`);
  return Number(number);
}

export const isNumbered = (column: string): boolean => /^#\d+$/.test(column);

/** Files that were put together keep their headers. */
export const headerAgain = "the header stands here again";
