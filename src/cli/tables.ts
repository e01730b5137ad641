/** Tables with a title, as text for a terminal or as Markdown; each command defines its own `--json` object. */
import pc from "picocolors";
import { columns } from "./format.ts";

export interface Table {
  readonly title: string;
  /** The first row is the header; the first column is left-aligned. */
  readonly rows: readonly (readonly string[])[];
  readonly note?: string;
}

export type Format = "text" | "markdown";

export const renderTables = (tables: readonly Table[], format: Format): string =>
  tables.map(format === "text" ? renderText : renderMarkdown).join("\n\n");

function renderText({ title, rows, note }: Table): string {
  const [head = "", ...body] = columns(rows).split("\n");
  return [pc.bold(title), head, ...body, ...(note ? [pc.dim(note)] : [])].join("\n");
}

function renderMarkdown({ title, rows, note }: Table): string {
  const [head = [], ...body] = rows.map((row) => row.map((cell) => cell.replaceAll("|", "\\|").replaceAll("\n", " ")));
  const line = (cells: readonly string[]): string => `| ${cells.join(" | ")} |`;
  const rule = head.map((_, c) => (c === 0 ? "---" : "--:"));
  return [`**${title}**`, "", line(head), line(rule), ...body.map(line), ...(note ? ["", note] : [])].join("\n");
}

/** A difference with its sign: +0.0123, −0.0010. */
export const signed = (x: number): string => `${x < 0 ? "−" : "+"}${Math.abs(x).toFixed(4)}`;

export const signedInterval = ([low, high]: readonly [number, number]): string => `[${signed(low)}, ${signed(high)}]`;
