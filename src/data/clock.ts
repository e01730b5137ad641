/**
 * Converts times of any unit to seconds: the format of a column is inferred from a sample, the unit of each number from
 * its magnitude, and a time in an impossible year is rejected. Also compares the precision of two tables' times. SQL
 * only.
 */
import { sqlText } from "./duck.ts";

const timeUnits = ["auto", "seconds", "milliseconds", "microseconds", "nanoseconds", "iso"] as const;
export type TimeUnit = (typeof timeUnits)[number];

/** From these numbers on, the next unit applies: 1e11 seconds is the year 5138, 1e11 milliseconds is 1973. */
const magnitudes: readonly (readonly [unit: Exclude<TimeUnit, "auto" | "iso">, below: number, perSecond: number])[] = [
  ["seconds", 1e11, 1],
  ["milliseconds", 1e14, 1e3],
  ["microseconds", 1e17, 1e6],
  ["nanoseconds", Number.POSITIVE_INFINITY, 1e9],
];

/** The format of a column's times. */
export interface Clock {
  /** SQL: seconds since 1970 of the value, or NULL. */
  readonly seconds: string;
  /** SQL: which of `kinds` the value is, as a small number. */
  readonly kind: string;
  /** How ambiguous dates are read. */
  readonly order?: "day first" | "month first";
}

/** Values of Clock.kind, by index. */
export const kinds = ["seconds", "milliseconds", "microseconds", "nanoseconds", "dates"] as const;

/** Dates without separators, as numbers: 20231115, 2023111522, 202311152213, 20231115221320. */
const compact: readonly (readonly [digits: number, format: string])[] = [
  [8, "%Y%m%d"],
  [10, "%Y%m%d%H"],
  [12, "%Y%m%d%H%M"],
  [14, "%Y%m%d%H%M%S"],
];
/** A format with more than this share of the sample is the column's: some rows may be bad. */
const most = 0.5;
const compactPattern = /^(19[7-9]\d|20\d\d)(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(([01]\d|2[0-3])([0-5]\d([0-5]\d)?)?)?$/;

/** 15112023 or 11152023, which would sort wrongly as numbers. */
export const yearLast = /^(0?[1-9]|[12]\d|3[01])(0[1-9]|[12]\d|3[01])(19|20)\d\d$/;

/** Unambiguous date formats that are not ISO 8601. */
const formats = [
  ...["%a %b %d %H:%M:%S %z %Y", "%a, %d %b %Y %H:%M:%S %z", "%d/%b/%Y:%H:%M:%S %z", "%b %d, %Y", "%B %d, %Y"],
  ...["%m %d, %Y", "%d %b %Y", "%d %B %Y", "%d-%b-%Y", "%d-%b-%y", "%b %d, %Y %I:%M:%S %p", "%Y.%m.%d"],
  ...["%Y-%m-%dT%H", "%Y-%m-%d %H", "%Y%m%dT%H%M%S", "%Y-%m-%d %I:%M:%S %p"],
];
/** Formats whose order of day and month only the whole column reveals. */
const slashed: readonly (readonly [separator: string, rest: string])[] = [
  ["/", ""],
  ["/", " %H:%M"],
  ["/", " %H:%M:%S"],
  ["/", " %I:%M:%S %p"],
  ["/", " %I:%M %p"],
  [".", ""],
  [".", " %H:%M"],
  [".", " %H:%M:%S"],
  ["-", ""],
  ["-", " %H:%M"],
  ["-", " %H:%M:%S"],
];

const numeric = /^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$/;

/** SQL of a list of formats. */
const list = (all: readonly string[]): string => `[${all.map(sqlText).join(", ")}]`;

/**
 * @param x SQL of the value
 * @param number SQL of the value as DOUBLE, NULL if it is not a number
 * @param sample values of the column as text, without the missing ones
 * @param isText whether `x` is VARCHAR; otherwise it is a number
 */
export function guessClock(x: string, number: string, unit: TimeUnit, sample: readonly string[], isText = true): Clock {
  if (unit !== "auto" && unit !== "iso") {
    const [, , perSecond] = magnitudes.find(([name]) => name === unit) ?? magnitudes[0] ?? ["", 0, 1];
    return { seconds: `${number} / ${perSecond}`, kind: `${kinds.indexOf(unit)}` };
  }
  const values = sample.map((v) => v.trim().replace(/\.0+$/, ""));
  if (values.filter((v) => yearLast.test(v)).length > most * values.length)
    return { seconds: "NULL::DOUBLE", kind: "4" };
  const format = compact.find(
    ([digits]) => values.filter((v) => v.length === digits && compactPattern.test(v)).length > most * values.length,
  )?.[1];
  if (format !== undefined) {
    const text = isText ? `split_part(trim(${x}), '.', 1)` : `${x}::BIGINT::VARCHAR`;
    return { seconds: `epoch(try_strptime(${text}, ${sqlText(format)}))`, kind: "4" };
  }
  const ofNumber = `CASE ${magnitudes
    .map(([, below, perSecond]) => {
      const value = perSecond === 1 ? number : `${number} / ${perSecond}`;
      return below === Number.POSITIVE_INFINITY ? `ELSE ${value}` : `WHEN abs(${number}) < ${below} THEN ${value}`;
    })
    .join(" ")} END`;
  const kindOfNumber = `CASE ${magnitudes
    .map(([, below], k) =>
      below === Number.POSITIVE_INFINITY ? `ELSE ${k}` : `WHEN abs(${number}) < ${below} THEN ${k}`,
    )
    .join(" ")} END`;
  if (!isText) return { seconds: ofNumber, kind: kindOfNumber };
  const { seconds: ofText, ...order } = textSql(
    x,
    sample.filter((v) => !numeric.test(v)),
  );
  if (unit === "iso") return { seconds: ofText, kind: "4", ...order };
  return {
    ...order,
    seconds: `CASE WHEN ${number} IS NULL THEN ${ofText} ELSE ${ofNumber} END`,
    kind: `CASE WHEN ${number} IS NULL THEN 4 ELSE ${kindOfNumber} END`,
  };
}

/** SQL: seconds of a date given as text. */
function textSql(x: string, sample: readonly string[]): Pick<Clock, "seconds" | "order"> {
  const strptime = (all: readonly string[]): string => `epoch(try_strptime(trim(${x}), ${list(all)}))`;
  const slashed = slashedFormats(sample);
  if (slashed !== undefined) return { seconds: strptime(slashed.formats), order: slashed.order };
  return { seconds: `coalesce(epoch(TRY_CAST(${x} AS TIMESTAMPTZ)), ${strptime(formats)})` };
}

/**
 * Formats of dates such as 15/11/2023, if the sample shows which number is the day; else undefined, and such dates are
 * not times.
 */
function slashedFormats(
  sample: readonly string[],
): { readonly formats: readonly string[]; readonly order: "day first" | "month first" } | undefined {
  const parts = sample.map((v) => /^\s*(\d{1,2})([/.-])(\d{1,2})\2(\d{4}|\d\d)\b/.exec(v)).filter((p) => p !== null);
  if (parts.length === 0 || parts.length <= most * sample.length) return undefined;
  const largest = (k: number): number => parts.reduce((max, p) => Math.max(max, Number(p[k])), 0);
  const [first, second] = [largest(1), largest(3)];
  const dayFirst = first > 12 && second <= 12;
  const american = parts.every((p) => /\b[AP]M\b/i.test(p.input)); // 11/9/2019 8:55:22 AM
  const monthFirst = first <= 12 && (second > 12 || american);
  if (dayFirst === monthFirst) return undefined;
  const separator = parts[0]?.[2] ?? "/";
  const year = (parts[0]?.[4] ?? "").length === 4 ? "%Y" : "%y";
  const all = slashed.flatMap(([s, rest]) =>
    s === separator ? [`${dayFirst ? `%d${s}%m` : `%m${s}%d`}${s}${year}${rest}`] : [],
  );
  return { formats: all, order: dayFirst ? "day first" : "month first" };
}

/** A column whose times all are earlier (1980) has its own origin: seconds of a session, days. */
export const calendarFrom = 3.2e8;
/** The earliest time for a number, 1971: numbers near 0 are missing values. */
const firstNumber = 3.2e7;
/** 1900-01-02; the day before means "unknown". */
const firstDate = -2_208_902_400;
/** 2100-01-01. */
const end = 4_102_444_800;

/** The year 9999 means "never". As a number in too small a unit, it looks like a day in January 1978. */
const never = [253_370_764, 253_402_301] as const;

/** SQL: whether the seconds `t` of kind `q` are in an impossible year. `unitGiven`: numbers may be early. */
export const implausibleSql = (t: string, q: string, unitGiven: boolean): string =>
  `(${t} >= ${end} OR ${t} < ${firstDate}${
    unitGiven ? "" : ` OR (${q} < 4 AND (${t} < ${firstNumber} OR ${t} BETWEEN ${never[0]} AND ${never[1]}))`
  })`;

/** The date of a time in seconds; for any number. */
export function dateText(seconds: number): string {
  const date = new Date(1000 * seconds);
  if (!Number.isNaN(date.getTime())) return date.toISOString().slice(0, 10);
  return `${seconds} s, not a date`;
}

/** Precisions of times, in seconds, coarsest first; with names. */
export const precisions: readonly (readonly [seconds: number, name: string])[] = [
  [86_400, "the day"],
  [3600, "the hour"],
  [60, "the minute"],
  [1, "the second"],
];
