/**
 * Readers shared by the adapters: interactions of any table into raw_interactions, items of any reader into raw_items.
 * Decides whether a row is usable: it needs ids, a time in a plausible year, and a finite rating.
 */
import type { DuckDBAppender } from "@duckdb/node-api";
import { DataError } from "../../core/errors.ts";
import {
  type Clock,
  calendarFrom,
  dateText,
  guessClock,
  implausibleSql,
  kinds,
  type TimeUnit,
  yearLast,
} from "../clock.ts";
import { type Duck, type Quarantine, quarantineLimit, sqlName, sqlText } from "../duck.ts";
import { type Found, textLines } from "../records.ts";
import { type Encoding, requireFile } from "../text-file.ts";
import { areFloatsSql, idSql, isNoIdSql, readId, withoutZerosSql } from "../values.ts";
import { cellSql, checkIds, type Fields, isNumber, isTime, type ReadOptions, withFields } from "./fields.ts";
import { headerAgain } from "./header.ts";

/** One item before neutralisation. Absent text is "" or []. */
export interface RawItem {
  readonly id: string;
  readonly title: string;
  readonly brand: string;
  readonly categories: readonly string[];
  readonly description: string;
}

/** The result of an adapter. */
export interface AdapterReport {
  /** Every file read, for the content hash. */
  readonly files: readonly string[];
  /** Hash of records that are in no file. */
  readonly content?: string;
  /** Interaction rows read, malformed ones included. */
  readonly rowsRead: number;
  /** Whether an item file was given; if so, interactions of unknown items are dropped. */
  readonly hasItems: boolean;
  /** Whether raw_impressions was filled: logged slates (adapters/impressions). */
  readonly hasImpressions?: boolean;
  /** False when `t` is only a position in the file or sequence. */
  readonly hasClock: boolean;
  /** Choices made by the adapter that the user should know about. */
  readonly notes: readonly string[];
}

/** Column names of the fields. `rating` and `time` may be absent. */
export interface InteractionColumns {
  readonly user: string;
  readonly item: string;
  readonly rating?: string;
  readonly time?: string;
}

/** Reads only rows whose column has one of these values. */
export type Keep = Readonly<Record<string, readonly (string | number | boolean)[]>>;

export interface InteractionOptions extends ReadOptions {
  /** Default auto: numbers by their magnitude, other text ISO 8601 (UTC unless it names an offset). */
  readonly timeUnit?: TimeUnit;
  readonly keep?: Keep;
}

/** The result of reading a file of interactions. */
export interface InteractionsRead {
  /** Rows, malformed ones included. */
  readonly rows: number;
  /** Notes for the user. */
  readonly notes: readonly string[];
}

/** Reads one file of interactions of any format. Without a time column, rows are taken to be in time order. */
export function readInteractions(
  duck: Duck,
  file: string,
  columns: InteractionColumns,
  quarantine: Quarantine,
  options: InteractionOptions = {},
): Promise<InteractionsRead> {
  const { user, item, rating, time } = columns;
  const keep = Object.entries(options.keep ?? {});
  const fields = {
    u: user,
    i: item,
    ...(rating === undefined ? {} : { r: rating }),
    ...(time === undefined ? {} : { t: time }),
    ...Object.fromEntries(keep.map(([column], k) => [`k${k}`, column])),
  };
  return withFields(duck, file, fields, quarantine, options, async (source) => {
    await checkIds(duck, file, source, ["u", "i"]);
    const clock = time === undefined ? undefined : await chooseClock(duck, source, "t", options.timeUnit ?? "auto");
    const after = clock === undefined ? await duck.number("SELECT coalesce(max(t), 0) FROM raw_interactions") : 0;
    const kept = keep.map(([, values], k) => keptSql(`k${k}`, source.types.get(`k${k}`) ?? "VARCHAR", values));
    await duck.run(`DROP TABLE IF EXISTS staged; CREATE TEMP TABLE staged AS SELECT
      ${idOfSql(source, "u")} AS u, ${idOfSql(source, "i")} AS i,
      ${rating === undefined ? "NULL::DOUBLE" : "TRY_CAST(r AS DOUBLE)"} AS r,
      ${clock === undefined ? `(row_number() OVER () + ${after})::DOUBLE` : clock.seconds} AS t,
      ${clock === undefined ? "0" : clock.kind}::UTINYINT AS q
      , ${kept.length === 0 ? "true" : `(${kept.join(" AND ")})`} AS kept FROM ${withNumber(source, time !== undefined)}`);
    const count = await source.settle();
    if (count === undefined) return undefined;
    await setAside(duck, file, source, columns, options.timeUnit ?? "auto", quarantine);
    const notes = [...source.notes, ...(await dropOthers(duck, file, keep))];
    await mendFloats(duck, "staged", ["u", "i"]);
    if (time !== undefined) notes.push(...(await describeTimes(duck, file, time, clock?.order)));
    await moveStaged(duck);
    return { rows: count.records + count.faults, notes };
  });
}

/** The relation with `num`, the time as a number. */
const withNumber = (source: Fields, hasTime: boolean): string =>
  hasTime && !isTime(source.types.get("t") ?? "")
    ? `(SELECT *, TRY_CAST(t AS DOUBLE) AS num FROM ${source.relation})`
    : source.relation;

/** SQL: a field as an id. */
function idOfSql(source: Fields, field: string): string {
  const type = source.types.get(field) ?? "VARCHAR";
  return type === "VARCHAR" ? idSql(field) : cellSql(field, type);
}

/** Rows sampled to infer the format of times. */
const sampleRows = 5000;

/** The format of a field's times, from the first rows that have one. */
export async function chooseClock(duck: Duck, source: Fields, field: string, unit: TimeUnit): Promise<Clock> {
  const type = source.types.get(field) ?? "VARCHAR";
  const x = sqlName(field);
  if (isTime(type)) return { seconds: `epoch(${x})`, kind: "4" };
  if (type !== "VARCHAR" && !isNumber(type))
    throw new DataError(`The time column has type ${type}, which is not a time.`, {
      advice: "Name a different column in data.columns.time.",
    });
  const sample = await duck.rows(
    `SELECT ${cellSql(x, type)} AS t FROM ${source.relation} WHERE ${x} IS NOT NULL LIMIT ${sampleRows}`,
  );
  return guessClock(
    x,
    "num",
    unit,
    sample.map((r) => String(r.t)),
    type === "VARCHAR",
  );
}

function keptSql(field: string, type: string, values: readonly (string | number | boolean)[]): string {
  const texts = values.map((v) => sqlText(String(v)));
  const cell = `trim(${cellSql(sqlName(field), type)})`;
  const x = values.every((v) => typeof v === "boolean") ? `lower(${cell})` : cell; // pandas writes True
  return `coalesce(${x} IN (${texts.join(", ")}) OR regexp_replace(${x}, '\\.0+$', '') IN (${texts.join(", ")}), false)`;
}

/** Ids that went through floating point lose their ".0", if all ids of the column have it. */
export async function mendFloats(duck: Duck, table: string, columns: readonly string[]): Promise<void> {
  for (const x of columns) {
    if ((await duck.number(`SELECT count(*) FROM ${table} WHERE suffix(${x}, '.0')`)) === 0) continue;
    if ((await duck.number(`SELECT ${areFloatsSql(x)}::INTEGER FROM ${table}`)) === 1)
      await duck.run(`UPDATE ${table} SET ${x} = ${withoutZerosSql(x)} WHERE ${x} LIKE '%.%'`);
  }
}

/** Notes on the units of times, unless all are plain seconds. */
async function describeTimes(duck: Duck, file: string, column: string, order?: string): Promise<string[]> {
  const found = await duck.rows(
    "SELECT q, count(*) AS n FROM staged WHERE t IS NOT NULL GROUP BY q ORDER BY n DESC, q",
  );
  const [first, ...others] = found.map((r) => ({ kind: kinds[Number(r.q)] ?? "seconds", n: Number(r.n) }));
  const name = `${file.split("/").at(-1)}, column "${column}"`;
  if (first === undefined) return [];
  if (others.length > 0)
    return [
      `${name} contains times in several units, each read by its own magnitude: ` +
        `${[first, ...others].map((f) => `${f.n} in ${f.kind}`).join(", ")}`,
    ];
  return [`${name}: times in ${first.kind}${order === undefined ? "" : `, ${order}`}`];
}

/** Moves unusable rows to the quarantine: all are counted, the first ones described. */
async function setAside(
  duck: Duck,
  file: string,
  source: Fields,
  columns: InteractionColumns,
  unit: TimeUnit,
  quarantine: Quarantine,
): Promise<void> {
  const { rating, time } = columns;
  const late = `coalesce(avg((t >= ${calendarFrom})::INTEGER), 0)`;
  const isCalendar = time !== undefined && (await duck.number(`SELECT ${late} FROM staged`)) > 0.05;
  const { header } = source;
  const faults = [
    header === undefined
      ? "false"
      : `u = ${sqlText(readId(header.u) ?? "")} AND i = ${sqlText(readId(header.i) ?? "")}`,
    isNoIdSql("u"),
    isNoIdSql("i"),
    "t IS NULL OR NOT isfinite(t)",
    isCalendar ? implausibleSql("t", "q", unit !== "auto") : "false",
    rating === undefined ? "false" : "r IS NULL OR NOT isfinite(r)",
  ];
  const unusable = `kept AND (${faults.map((f) => `(${f})`).join(" OR ")})`;
  const count = await duck.number(`SELECT count(*) FROM staged WHERE ${unusable}`);
  if (count === 0) return;
  const own = ["u", "i", ...(time === undefined ? [] : ["t"]), ...(rating === undefined ? [] : ["r"])];
  const raw = own.map((f) => `${cellSql(f, source.types.get(f) ?? "VARCHAR")} AS raw_${f}`);
  const rows = await duck.rows(`SELECT s.fault, s.t, x.* EXCLUDE (n) FROM
    (SELECT n, t, CASE ${faults.map((f, k) => `WHEN ${f} THEN ${k}`).join(" ")} END AS fault
      FROM (SELECT *, row_number() OVER () AS n FROM staged) WHERE ${unusable} ORDER BY n LIMIT ${quarantineLimit}) s
    JOIN (SELECT row_number() OVER () AS n, ${source.line} AS line, ${raw.join(", ")} FROM ${source.relation}) x
    USING (n) ORDER BY n`);
  const name = (role: keyof InteractionColumns): string => `"${columns[role]}"`;
  const parseReason = (r: Readonly<Record<string, unknown>>): string =>
    [
      () => headerAgain,
      () => noId("user", name("user"), r.raw_u),
      () => noId("item", name("item"), r.raw_i),
      () => notATime(name("time"), r.raw_t),
      () => `${name("time")} is ${show(r.raw_t)}, which would be in ${dateText(Number(r.t))}`,
      () => `rating is not a number: ${name("rating")} is ${show(r.raw_r)}`,
    ][Number(r.fault)]?.() ?? "unusable";
  const described = rows.map((r) => ({
    file,
    line: Number(r.line),
    reason: parseReason(r),
    text: own.map((f) => String(r[`raw_${f}`] ?? "")).join(","),
  }));
  quarantine.addMany(file, count, described);
  await duck.run(`DELETE FROM staged WHERE ${unusable}`);
}

const show = (value: unknown): string =>
  value === null || value === undefined ? "empty" : JSON.stringify(String(value));
const noId = (what: string, column: string, value: unknown): string => `no ${what} id: ${column} is ${show(value)}`;
const notATime = (column: string, value: unknown): string =>
  `time is neither a number nor a date: ${column} is ${show(value)}${
    /^\s*\d{1,2}([/.-])\d{1,2}\1\d{2,4}/.test(String(value))
      ? ", in which day and month are ambiguous; write it as ISO 8601"
      : yearLast.test(String(value).trim())
        ? ", a date whose year comes last; write it as 2023-11-15 or 20231115"
        : ""
  }`;

/** Drops the rows that data.keep does not select. */
async function dropOthers(duck: Duck, file: string, keep: readonly (readonly [string, readonly unknown[]])[]) {
  if (keep.length === 0) return [];
  const rows = await duck.number("SELECT count(*) FROM staged");
  const left = await duck.number("SELECT count(*) FROM staged WHERE kept");
  const what = keep.map(([column, values]) => `${column}: ${values.join(" or ")}`).join(", ");
  if (left === 0)
    throw new DataError(`${file}: none of ${rows} rows has ${what} (data.keep).`, {
      advice: "List the column's values with gr2 data inspect.",
    });
  if (left === rows) return [];
  await duck.run("DELETE FROM staged WHERE NOT kept");
  return [`${rows - left} of ${rows} rows were dropped by data.keep`];
}

/** Adds a row to raw_interactions through its appender. */
export function appendInteraction(
  appender: DuckDBAppender,
  row: { user: string; item: string; rating: number | null; time: number },
): void {
  appender.appendVarchar(row.user);
  appender.appendVarchar(row.item);
  if (row.rating === null) appender.appendNull();
  else appender.appendDouble(row.rating);
  appender.appendDouble(row.time);
  appender.endRow();
}

/** Adds the usable rows to raw_interactions, without copying the first file's rows, which would double the memory. */
async function moveStaged(duck: Duck): Promise<void> {
  const first = (await duck.number("SELECT count(*) FROM raw_interactions")) === 0;
  await duck.run(
    first
      ? `ALTER TABLE staged DROP q; ALTER TABLE staged DROP kept; DROP TABLE raw_interactions;
         ALTER TABLE staged RENAME TO raw_interactions`
      : "INSERT INTO raw_interactions SELECT u, i, r, t FROM staged; DROP TABLE staged",
  );
}

/** Appends items to raw_items in the order given. */
export async function writeItems(duck: Duck, items: AsyncIterable<RawItem> | Iterable<RawItem>): Promise<number> {
  const appender = await duck.connection.createAppender("raw_items");
  let n = await duck.number("SELECT count(*) FROM raw_items");
  try {
    for await (const item of items) {
      appender.appendVarchar(item.id);
      appender.appendVarchar(item.title);
      appender.appendVarchar(item.brand);
      appender.appendVarchar(JSON.stringify(item.categories));
      appender.appendVarchar(item.description);
      appender.appendInteger(n++);
      appender.endRow();
    }
  } finally {
    appender.closeSync();
  }
  await mendFloats(duck, "raw_items", ["i"]);
  return n;
}

/** Passes records to `toItem`, which returns an item, the reason why it is not one, or undefined to skip it. */
export async function* takeItems<T>(
  file: string,
  quarantine: Quarantine,
  batches: AsyncIterable<readonly Found<T>[]>,
  toItem: (value: T) => RawItem | string | undefined,
): AsyncGenerator<RawItem> {
  for await (const batch of batches)
    for (const found of batch) {
      const { line } = found;
      const item = "fault" in found ? found.fault : toItem(found.value);
      if (item === undefined) continue;
      quarantine.saw(file, found.lines);
      if (typeof item !== "string") yield item;
      else {
        const text = "fault" in found ? found.text : JSON.stringify(found.value);
        quarantine.add({ file, line, reason: item, text });
      }
    }
}

/** Passes lines of an item file to `parse`, which returns an item or the reason why the line is malformed. */
export async function* itemLines(
  file: string,
  quarantine: Quarantine,
  parse: (text: string) => RawItem | string,
  options: { skipHeader?: boolean; encoding?: Encoding } = {},
): AsyncGenerator<RawItem> {
  requireFile(file, "Items");
  let header = options.skipHeader === true;
  yield* takeItems(file, quarantine, textLines(file, options.encoding), (text) => {
    if (!header) return parse(text);
    header = false;
    return undefined;
  });
}
