/**
 * Converts a value of any reader (text of a cell, JSON, Python literal, Parquet) to an id, a text or a list. The same
 * rules exist for whole columns in SQL (`idSql`, `isNoIdSql`, `plainColumnSql`); a property test checks that both
 * agree.
 */
import { parsePythonLiteral } from "./adapters/python-literal.ts";
import { sqlText } from "./duck.ts";
import { parseJson } from "./records.ts";

/** Words that programs write for missing values. */
const nothing = ["nan", "NaN", "NAN", "null", "NULL", "Null", "None", "\\N", "<NA>", "NaT"];
const isNothing = new Set(nothing);
/** Characters stripped from both ends of an id. */
const blank = " \t\n\r\u00a0\u2000\u2002\u2003\u2009\u200b\u3000\ufeff";
const outerBlank = new RegExp(`^[${blank}]+|[${blank}]+$`, "g");

/** An id as text: trimmed, composed (NFC); undefined if missing. */
export function readId(value: unknown): string | undefined {
  const plain = unwrapped(value);
  if (typeof plain === "string") {
    const id = trimmed(plain).normalize("NFC");
    return id === "" || isNothing.has(id) ? undefined : id;
  }
  if (typeof plain === "number") return Number.isFinite(plain) ? String(plain) : undefined;
  return typeof plain === "bigint" || typeof plain === "boolean" ? String(plain) : undefined;
}

const trimmed = (text: string): string => text.replace(outerBlank, "");

/**
 * SQL: the id in the VARCHAR `x`, including "" and words for missing values. Most are ASCII without blanks: unchanged.
 */
export const idSql = (x: string): string =>
  `CASE WHEN strlen(${x}) = length(${x}) AND ${x} >= '!' AND ${[" ", "\t", "\n", "\r"]
    .map((b) => `NOT suffix(${x}, ${sqlText(b)})`)
    .join(" AND ")} THEN ${x} ELSE nfc_normalize(trim(${x}, ${sqlText(blank)})) END`;
/** SQL: whether an id of idSql is missing. */
export const isNoIdSql = (x: string): string =>
  `(${x} IS NULL OR (strlen(${x}) <= 4 AND ${x} IN ('', ${nothing.map(sqlText).join(", ")})))`;

/**
 * Whole numbers that went through floating point: 101.0 is 101, if all ids of a column have this form. SQL: whether
 * they do.
 */
export const areFloatsSql = (x: string): string =>
  `(coalesce(bool_or(suffix(${x}, '.0')), false)
    AND coalesce(bool_and(regexp_full_match(${x}, '-?\\d+(\\.0+)?')), false))`;
export const withoutZerosSql = (x: string): string => `split_part(${x}, '.', 1)`;

/** MongoDB's extended JSON: {"$oid": "..."}, {"$numberLong": "..."}, {"$date": ...}. */
function unwrapped(value: unknown): unknown {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return value;
  const entries = Object.entries(value);
  const [key, inner] = entries[0] ?? ["", undefined];
  return entries.length === 1 && key.startsWith("$") ? unwrapped(inner) : value;
}

/** Text of a value: lists as their texts joined by spaces; objects as the texts of their values; "" if missing. */
export function toText(value: unknown): string {
  const plain = unwrapped(quotedList(value));
  if (typeof plain === "string") return isNothing.has(plain) ? "" : plain.trim();
  if (typeof plain === "number") return Number.isFinite(plain) ? String(plain) : "";
  if (typeof plain === "bigint" || typeof plain === "boolean") return String(plain);
  if (plain instanceof Date) return plain.toISOString();
  if (typeof plain !== "object" || plain === null) return "";
  return (Array.isArray(plain) ? plain : Object.values(plain))
    .map(toText)
    .filter((s) => s !== "")
    .join(" ");
}

/** A list in any notation: nested lists are flattened, strings split, objects named; duplicates and blanks dropped. */
export function splitList(value: unknown, separator: string): string[] {
  const flat = (v: unknown): string[] => {
    const plain = unwrapped(anyList(v));
    if (Array.isArray(plain)) return plain.flatMap(flat);
    if (typeof plain === "string") return plain.split(separator);
    return typeof plain === "object" && plain !== null ? flat(nameElement(plain)) : [toText(plain)];
  };
  return [...new Set(flat(value).map((s) => s.trim()))].filter(
    (s) => s !== "" && s !== "(no genres listed)" && !isNothing.has(s),
  );
}

/** The name of an object in a list: {"id": 16, "name": "Animation"}. */
function nameElement(element: object): unknown {
  const entries = Object.entries(element);
  for (const key of ["name", "title", "label", "value", "category", "tag", "text"]) {
    const found = entries.find(([k]) => k.toLowerCase() === key);
    if (found !== undefined) return found[1];
  }
  return entries.map(([, v]) => v);
}

/** Parses a text that is a list of texts in JSON, Python or NumPy; returns anything else unchanged. */
function quotedList(value: unknown): unknown {
  if (typeof value !== "string" || !/^\s*\[\s*["'u{].*\]\s*$/s.test(value)) return value;
  return firstParse(value.trim(), [parseJson, parsePythonLiteral, quotedWords]) ?? value;
}

/** The same for a column of lists: numbers, tuples, sets, objects and bare words, [Home, Lamp], count as well. */
function anyList(value: unknown): unknown {
  if (typeof value !== "string" || !/^\s*(\[.*\]|\(.*,.*\)|\{.*\})\s*$/s.test(value)) return value;
  const text = value.trim();
  const list = text.startsWith("{") ? `[${text.slice(1, -1)}]` : text; // a Python set or a Postgres array
  const parsers = [parseJson, parsePythonLiteral, quotedWords, bareWords];
  return firstParse(text, parsers) ?? (list === text ? undefined : firstParse(list, parsers)) ?? value;
}

function firstParse(text: string, parsers: readonly ((text: string) => unknown)[]): object | undefined {
  for (const parse of parsers)
    try {
      const found = parse(text);
      if (typeof found === "object" && found !== null) return found;
    } catch {
      // a text in brackets, or another notation
    }
  return undefined;
}

/** NumPy's ['a' 'b']. */
function quotedWords(text: string): readonly string[] | undefined {
  if (!/^\[\s*('[^']*'|"[^"]*")(\s+('[^']*'|"[^"]*"))*\s*\]$/.test(text)) return undefined;
  return Array.from(text.matchAll(/'([^']*)'|"([^"]*)"/g), ([, a, b]) => a ?? b ?? "");
}

/** [Home, Lamp], and Postgres' Home,"Arts, Crafts" */
function bareWords(text: string): readonly string[] | undefined {
  const inner = text.slice(1, -1).trim();
  if (!text.startsWith("[") || /[[\]{}]/.test(inner)) return undefined;
  return Array.from(inner.matchAll(/\s*(?:"([^"]*)"|([^,]+))\s*(?:,|$)/g), ([, a, b]) => (a ?? b ?? "").trim());
}
