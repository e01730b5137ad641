/**
 * How tests/table-fuzz.ts writes its tables: formats, separators, quotes, clocks, encodings, compressions,
 * and rows that are none.
 */
import { writeFileSync } from "node:fs";
import { gzipSync } from "node:zlib";
import { openDuck, sqlName, sqlText } from "../src/data/duck.ts";

export const formats = ["csv", "tsv", "semicolon", "jsonl", "json", "pretty", "python", "parquet"] as const;
export const clocks = ["s", "ms", "us", "ns", "s.0", "s|ms", "iso", "offset", "plain", "digits", "rfc"] as const;
export const badKinds = ["short", "time", "no user", "not UTF-8", "NUL", "open quote", "header"] as const;
export type BadKind = (typeof badKinds)[number];

export interface Form {
  readonly format: (typeof formats)[number];
  readonly clock: (typeof clocks)[number];
  /** Of the columns; the others come after. */
  readonly order: readonly number[];
  readonly note: readonly string[];
  readonly quoting: "needed" | "all";
  readonly end: "\n" | "\r\n" | "\r" | "mixed";
  readonly lastEnd: boolean;
  readonly blankLines: boolean;
  readonly encoding: "utf-8" | "mark" | "utf-16le" | "utf-16be" | "latin1";
  readonly compression: "none" | "gzip" | "members" | "zstd";
  readonly parts: number;
  /** Whether ids that are integers are numbers, where the format knows numbers. */
  readonly numbers: boolean;
  readonly decomposed: boolean;
  readonly list: "json" | "python" | "bars";
  /** Columns have numbers in place of names; delimited interactions only. */
  readonly headerless: boolean;
}

const iso = (t: number): string => new Date(1000 * t).toISOString();

export function writeTime(t: number, clock: Form["clock"], n: number): string {
  const digits = iso(t).replace(/\D/g, "").slice(0, 14);
  switch (clock) {
    case "s":
      return String(t);
    case "ms":
      return `${t}000`;
    case "us":
      return `${t}000000`;
    case "ns":
      return `${t}000000000`;
    case "s.0":
      return `${t}.0`;
    case "s|ms":
      return n % 2 === 0 ? String(t) : `${t}000`;
    case "iso":
      return iso(t);
    case "offset":
      return iso(t + 19_800).replace(".000Z", "+05:30");
    case "plain":
      return iso(t).slice(0, 19).replace("T", " ");
    case "digits":
      return digits;
    case "rfc":
      return new Date(1000 * t).toUTCString().replace("GMT", "+0000");
  }
}

const separators = { csv: ",", tsv: "\t", semicolon: ";" };
export const isDelimited = (f: Form["format"]): f is keyof typeof separators => f in separators;
const isNumeric = (id: string): boolean => /^(0|[1-9]\d*)$/.test(id);

export type Cell = string | readonly string[];

/** Records as text in a form. `broken`: lines that are none, after so many records. */
function writeText(
  names: readonly string[],
  records: readonly (readonly Cell[])[],
  form: Form,
  broken: ReadonlyMap<number, BadKind[]>,
): Buffer {
  const ends = (n: number): string => (form.end === "mixed" ? (["\n", "\r\n", "\r"][n % 3] as string) : form.end);
  const lines: string[] = [];
  const { format } = form;
  if (isDelimited(format)) {
    const separator = separators[format];
    const cell = (value: Cell): string => {
      const text = typeof value === "string" ? value : writeList(value, form.list);
      const needs = form.quoting === "all" || /["\n\r]/.test(text) || text.includes(separator);
      return needs ? `"${text.replaceAll('"', '""')}"` : text;
    };
    const header = names.map(cell).join(separator);
    if (!form.headerless) lines.push(header);
    records.forEach((r, n) => {
      lines.push(
        ...(broken.get(n) ?? []).map((kind) =>
          breakRow(
            kind,
            r.map((c) => (typeof c === "string" ? c : "")),
            separator,
            header,
          ),
        ),
      );
      lines.push(r.map(cell).join(separator));
    });
  } else {
    const objects = records.map((r) => writeObject(names, r, form));
    if (format === "json") lines.push(`[${objects.join(", ")}]`);
    else if (format === "pretty")
      lines.push(`[\n${objects.map((o) => JSON.stringify(JSON.parse(quoteLarge(o)), null, 2)).join(",\n")}\n]`);
    else
      objects.forEach((o, n) => {
        lines.push(
          ...(broken.get(n) ?? []).map((kind) =>
            kind === "no user"
              ? o.replace(
                  /(["'])user\1: ("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|\d+)/,
                  format === "python" ? "'user': None" : '"user": null',
                )
              : "{ this is no record",
          ),
        );
        lines.push(o);
      });
  }
  const blank = form.blankLines && format !== "pretty" && format !== "json";
  const text = lines
    .map((l, n) => (n === lines.length - 1 && !form.lastEnd ? l : l + ends(n) + (blank && n % 5 === 4 ? ends(n) : "")))
    .join("");
  return encode(text, form);
}

/** JSON.stringify would round them. */
const quoteLarge = (json: string): string => json.replace(/: (\d{16,})/g, ': "$1"');

function breakRow(kind: BadKind, cells: readonly string[], separator: string, header: string): string {
  const clean = cells.map((c) => c.replace(/[",;|\t\n\r]/g, ""));
  switch (kind) {
    case "short":
      return clean.slice(0, 2).join(separator);
    case "header":
      return header;
    case "NUL":
      return [`${clean[0]}\u0000`, ...clean.slice(1)].join(separator);
    case "not UTF-8":
      return [`${clean[0]}\ufffe`, ...clean.slice(1)].join(separator); // becomes a bad byte where it is encoded
    case "open quote":
      return [...clean.slice(0, -1), '"open'].join(separator);
    default:
      return clean.join(separator);
  }
}

const writeList = (list: readonly string[], how: Form["list"]): string =>
  how === "bars" ? list.join("|") : how === "json" ? JSON.stringify(list) : `[${list.map(python).join(", ")}]`;
const python = (s: string): string =>
  s.includes("'") && !s.includes('"')
    ? `"${s.replaceAll("\\", "\\\\").replaceAll("\n", "\\n")}"`
    : `'${s.replaceAll("\\", "\\\\").replaceAll("'", "\\'").replaceAll("\n", "\\n")}'`;

function writeObject(names: readonly string[], record: readonly Cell[], form: Form): string {
  const isPython = form.format === "python";
  const text = (s: string): string => (isPython ? python(s) : JSON.stringify(s));
  const pairs = names.map((name, k) => {
    const value = record[k] as Cell;
    if (typeof value !== "string") return `${text(name)}: [${value.map(text).join(", ")}]`;
    const bare = form.numbers && name !== "note" && name !== "title" && isNumeric(value);
    return `${text(name)}: ${bare ? value : text(value)}`;
  });
  return `{${pairs.join(", ")}}`;
}

function encode(text: string, form: Form): Buffer<ArrayBuffer> {
  switch (form.encoding) {
    case "utf-16le":
      return Buffer.from(`\ufeff${text}`, "utf16le");
    case "utf-16be":
      return Buffer.from(`\ufeff${text}`, "utf16le").swap16();
    case "latin1":
      return Buffer.from(text, "latin1");
    default: {
      const bytes = Buffer.from((form.encoding === "mark" ? "\ufeff" : "") + text);
      for (let at = bytes.indexOf("\ufffe"); at >= 0; at = bytes.indexOf("\ufffe"))
        bytes.write("\xff\xff\xff", at, "latin1");
      return bytes;
    }
  }
}

function compress(bytes: Buffer, how: Form["compression"]): Buffer {
  const half = bytes.length >> 1;
  if (how === "gzip") return gzipSync(bytes);
  if (how === "members") return Buffer.concat([gzipSync(bytes.subarray(0, half)), gzipSync(bytes.subarray(half))]);
  if (how === "none") return bytes;
  return Buffer.concat([rawZstd(bytes.subarray(0, half)), rawZstd(bytes.subarray(half))]);
}

/** A zstd frame of raw blocks (RFC 8878): window of 2 MB, no checksum. */
export function rawZstd(bytes: Buffer): Buffer {
  const parts: Buffer[] = [Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0, 0x58])];
  for (let at = 0; at === 0 || at < bytes.length; at += 65_536) {
    const block = bytes.subarray(at, at + 65_536);
    const head = (block.length << 3) | (at + 65_536 >= bytes.length ? 1 : 0);
    parts.push(Buffer.from([head & 255, (head >> 8) & 255, head >> 16]), block);
  }
  return Buffer.concat(parts);
}

export const extension = (form: Form): string => {
  const base = {
    csv: "csv",
    semicolon: "csv",
    tsv: "tsv",
    json: "json",
    pretty: "json",
    parquet: "parquet",
    jsonl: "jsonl",
    python: "jsonl",
  }[form.format];
  return form.format === "parquet"
    ? base
    : base + { none: "", gzip: ".gz", members: ".gz", zstd: ".zst" }[form.compression];
};

export async function writeTable(
  file: string,
  names: readonly string[],
  records: readonly (readonly Cell[])[],
  form: Form,
  broken: ReadonlyMap<number, BadKind[]>,
  at: { user: number; time: number },
): Promise<void> {
  if (form.format === "parquet") return writeParquet(file, names, records, form);
  // A row without a user, or with a time that is none, is a row like the others.
  const [spoiled, left] = [[] as (readonly Cell[])[], new Map<number, BadKind[]>()];
  records.forEach((r, n) => {
    for (const kind of broken.get(n) ?? []) {
      const column = kind === "time" ? at.time : kind === "no user" && isDelimited(form.format) ? at.user : undefined;
      if (column !== undefined) spoiled.push(r.map((c, k) => (k === column ? (kind === "time" ? "soon" : "") : c)));
      else left.set(spoiled.length, [...(left.get(spoiled.length) ?? []), kind]);
    }
    spoiled.push(r);
  });
  writeFileSync(file, compress(writeText(names, spoiled, form, left), form.compression));
}

async function writeParquet(
  file: string,
  names: readonly string[],
  records: readonly (readonly Cell[])[],
  form: Form,
): Promise<void> {
  const duck = await openDuck({ threads: 1 });
  const literal = (c: Cell): string =>
    typeof c === "string" ? sqlText(c) : `[${c.map(sqlText).join(", ")}]::VARCHAR[]`;
  try {
    const values = records.map((r) => `(${r.map(literal).join(", ")})`).join(", ");
    const typed = names.map((name, k) => {
      const all = records.map((r) => r[k] as Cell);
      const fits =
        form.numbers &&
        name !== "note" &&
        name !== "title" &&
        all.every((c) => typeof c === "string" && isNumeric(c) && c.length < 19);
      return `${sqlName(name)}${fits ? "::BIGINT" : ""} AS ${sqlName(name)}`;
    });
    await duck.run(
      `COPY (SELECT ${typed.join(", ")} FROM (VALUES ${values}) AS t(${names.map(sqlName).join(", ")})) TO ${sqlText(file)} (FORMAT parquet)`,
    );
  } finally {
    duck.close();
  }
}
