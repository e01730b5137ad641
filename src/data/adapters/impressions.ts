/**
 * Logged impressions: what an incumbent ranker showed, in its order, and what users chose. Fills raw_impressions, and
 * raw_interactions from an interactions table or, without one, from the log's own positives. Two shapes:
 *
 *   long   one row per item      slate, user, time, item, label >= 0, and position (from the top) or score or both
 *   wide   one row per request   user, time, candidates (in order), labels or positives, scores?   (lists as JSON text,
 *                                JSON arrays or Parquet LIST); chosen by naming the column of `candidates`
 *
 * The incumbent's order is given by the position, the order of `candidates`, or, if there is only a score, the score.
 *   raw_impressions(s BIGINT, u VARCHAR, i VARCHAR, t DOUBLE, k INTEGER, x DOUBLE, y DOUBLE)
 *     s: slate, its first row; t: seconds; k: position from 0; x: score, or -(k + 1); y: label
 */
import { DataError } from "../../core/errors.ts";
import { calendarFrom, implausibleSql, precisions, type TimeUnit } from "../clock.ts";
import { compareIds } from "../compare-ids.ts";
import { type Duck, type Quarantine, sqlName, sqlText } from "../duck.ts";
import type { Encoding } from "../text-file.ts";
import { areFloatsSql, idSql, isNoIdSql, withoutZerosSql } from "../values.ts";
import { cellSql, checkIds, isTime, type ReadOptions, withFields } from "./fields.ts";
import { type ItemColumns, listColumns, readItemTable } from "./items.ts";
import { type FileNames, filesNamed, given } from "./locate.ts";
import {
  type AdapterReport,
  chooseClock,
  type InteractionColumns,
  type Keep,
  mendFloats,
  readInteractions,
  writeItems,
} from "./readers.ts";
import { itemColumnsIn } from "./table.ts";

/** Columns of the log. `candidates` makes it wide; slate, item, position, score and label are then ignored. */
export interface ImpressionColumns {
  readonly user: string;
  readonly time: string;
  readonly slate?: string;
  readonly item?: string;
  readonly position?: string;
  readonly score?: string;
  readonly label?: string;
  readonly candidates?: string;
  readonly scores?: string;
  readonly labels?: string;
  readonly positives?: string;
}

export interface ImpressionsOptions {
  readonly kind: "impressions";
  /** Folder. */
  readonly path: string;
  /** File names within the folder. */
  readonly impressions: FileNames;
  /** The source of histories; without it they are the positives of the log. */
  readonly interactions?: FileNames;
  readonly items?: FileNames;
  readonly columns: ImpressionColumns;
  readonly interactionColumns?: InteractionColumns;
  readonly itemColumns?: Partial<ItemColumns>;
  /** Splits categories given as one string. Default "|". */
  readonly categorySeparator?: string;
  readonly timeUnit?: TimeUnit;
  /** Filters interactions. */
  readonly keep?: Keep;
  readonly encoding?: Encoding;
}

export async function loadImpressions(
  duck: Duck,
  options: ImpressionsOptions,
  quarantine: Quarantine,
): Promise<AdapterReport> {
  const { path, columns, timeUnit, keep, encoding, categorySeparator: separator } = options;
  const logs = filesNamed(path, options.impressions);
  const [file] = logs;
  if (file === undefined || logs.length > 1)
    throw new DataError(`data.files.impressions names ${logs.length} files; a log must be one file.`);
  const files = [file];
  const notes: string[] = [];
  let rowsRead = 0;
  if (options.interactions !== undefined) {
    const named = options.interactionColumns ?? {
      user: columns.user,
      item: columns.item ?? "item_id",
      time: columns.time,
    };
    for (const own of filesNamed(path, options.interactions)) {
      const read = await readInteractions(duck, own, named, quarantine, given({ timeUnit, keep, encoding }));
      rowsRead += read.rows;
      notes.push(...read.notes);
      files.push(own);
    }
  }
  const wide = columns.candidates !== undefined;
  rowsRead += await stageLog(
    duck,
    file,
    wide ? wideFields(columns) : longFields(columns),
    quarantine,
    given({ timeUnit, encoding }),
  );
  const known = options.interactions === undefined ? "" : "u NOT IN (SELECT DISTINCT u FROM raw_interactions)";
  if (wide) await takeWide(duck, file, columns, quarantine, known);
  else {
    await typeLong(duck, columns, known);
    await setAside(duck, file, quarantine);
    await duck.run(`${fromLong(columns)}; DROP TABLE typed; DROP TABLE staged`);
  }
  if (options.interactions === undefined)
    await duck.run("INSERT INTO raw_interactions SELECT u, i, y, t FROM raw_impressions WHERE y > 0");
  else notes.push(...(await alignClocks(duck)));
  for (const itemFile of options.items === undefined ? [] : filesNamed(path, options.items)) {
    const own = { columns: { item: columns.item ?? "item_id" }, ...given({ itemColumns: options.itemColumns }) };
    const itemColumns = itemColumnsIn(await listColumns(duck, itemFile, encoding), itemFile, own);
    await writeItems(duck, readItemTable(duck, itemFile, itemColumns, quarantine, given({ separator, encoding })));
    files.push(itemFile);
  }
  const unordered = !wide && columns.position === undefined && columns.score === undefined;
  return {
    files,
    rowsRead,
    hasItems: options.items !== undefined,
    hasImpressions: true,
    hasClock: true,
    notes: [
      ...notes,
      ...(unordered ? ["no position and no score: the order of the file is the incumbent's"] : []),
      ...(options.interactions === undefined ? ["no interactions table: histories are the log's own positives"] : []),
    ],
  };
}

/**
 * Fills raw_impressions from `staged` rows of a wide log: n, line, u, t, sec, c (candidates, a JSON list), y or p, x.
 * @param unknownUser SQL condition of rows whose user is refused; "" for none
 */
export async function takeWide(
  duck: Duck,
  file: string,
  columns: ImpressionColumns,
  quarantine: Quarantine,
  unknownUser = "",
): Promise<void> {
  await typeWide(duck, columns, unknownUser);
  await setAside(duck, file, quarantine);
  await duck.run(`${fromWide(columns)}; DROP TABLE typed; DROP TABLE staged`);
}

/**
 * `staged(n, line, FIELD VARCHAR ..., sec, q)`: the log's fields as text, with their times. Returns rows of the file.
 */
export function stageLog(
  duck: Duck,
  file: string,
  fields: Readonly<Record<string, string>>,
  quarantine: Quarantine,
  { timeUnit = "auto", ...options }: ReadOptions & { readonly timeUnit?: TimeUnit },
): Promise<number> {
  return withFields(duck, file, fields, quarantine, options, async (source) => {
    const ids = ["u", "i", "s"].filter((f) => f in fields);
    await checkIds(duck, file, source, ids);
    const clock = await chooseClock(duck, source, "t", timeUnit);
    const own = Object.keys(fields).map((f) => {
      const text = cellSql(sqlName(f), source.types.get(f) ?? "VARCHAR");
      return `${ids.includes(f) ? idSql(text) : text} AS ${sqlName(f)}`;
    });
    const number = isTime(source.types.get("t") ?? "") ? "NULL::DOUBLE" : "TRY_CAST(t AS DOUBLE)";
    await duck.run(`DROP TABLE IF EXISTS staged; CREATE TEMP TABLE staged AS
      SELECT row_number() OVER () AS n, ${source.line} AS line, ${own.join(", ")}, ${clock.seconds} AS sec,
        ${clock.kind}::UTINYINT AS q FROM (SELECT *, ${number} AS num FROM ${source.relation})`);
    const count = await source.settle();
    if (count === undefined) return undefined;
    await mendFloats(duck, "staged", ids);
    for (const id of ids) await duck.run(`UPDATE staged SET ${id} = NULL WHERE ${isNoIdSql(id)}`);
    const late = `coalesce(avg((sec >= ${calendarFrom})::INTEGER), 0)`;
    if ((await duck.number(`SELECT ${late} FROM staged`)) > 0.05)
      await duck.run(`UPDATE staged SET sec = NULL WHERE ${implausibleSql("sec", "q", timeUnit !== "auto")}`);
    return count.records + count.faults;
  });
}

/**
 * Interactions whose times are coarser than the slates' (days against seconds) are moved to the end of their day, hour,
 * minute or second: the earliest moment at which they have certainly happened. No slate then sees its own clicks. A
 * table may mix several precisions; the start of a day is inferred from most times: midnight of some time zone, in
 * summer and in winter.
 */
async function alignClocks(duck: Duck): Promise<string[]> {
  await refuseOtherClocks(duck);
  const [own, slates] = [await findClocks(duck, "raw_interactions"), await findClocks(duck, "raw_impressions")];
  const finest = slates.find((c) => c.alone >= oneClock)?.step ?? 0;
  const coarser = own.filter((c) => c.step > finest && c.step > 0);
  if (coarser.length === 0) return [];
  const byStep = [...coarser].sort((a, b) => b.step - a.step);
  await duck.run(`UPDATE raw_interactions SET t = CASE
    ${byStep.map((c) => `WHEN ${c.rows} THEN t + ${c.step} - 0.001`).join(" ")} ELSE t END`);
  const name = (s: number): string => precisions.find(([p]) => p === s)?.[1] ?? "fractions of a second";
  return byStep
    .filter((c) => c.alone > 0)
    .map(
      (c) =>
        `${c.alone > 0.995 ? "" : `${Math.round(100 * c.alone)} % of the `}` +
        `interactions are timed to ${name(c.step)}, slates to ${name(finest)}: ` +
        `${c.alone > 0.995 ? "an" : "such an"} ` +
        `interaction counts from the end of its ${name(c.step).replace("the ", "")} (UTC): no slate sees later interactions`,
    );
}

/** Throws DataError if it is unknown which interactions came before a slate. */
async function refuseOtherClocks(duck: Duck): Promise<void> {
  const [own, slates] = await duck.rows(`SELECT max(t) AS last FROM raw_interactions
    UNION ALL SELECT max(t) FROM raw_impressions`);
  const dates = [own, slates].map((r) => Number(r?.last) >= calendarFrom);
  const say = (what: string): DataError =>
    new DataError(`${what}: it is unknown which interactions came before a slate.`, {
      advice:
        "Use the same clock for both, or leave out data.files.interactions: histories are then the log's own clicks.",
    });
  if (dates[0] !== dates[1])
    throw say(
      `The times of ${dates[0] ? "interactions are dates, those of slates" : "slates are dates, those of interactions"} ` +
        `are numbers near 0`,
    );
  const [days] = dates[0]
    ? await duck.rows(`SELECT count(DISTINCT t) AS moments, avg((t % 86400 = 0)::INTEGER) AS midnight,
        avg((date_part('day', make_timestamp((t * 1e6)::BIGINT)) = 1)::INTEGER) AS months,
        avg((date_part('dow', make_timestamp((t * 1e6)::BIGINT)) = (SELECT mode(date_part('dow',
          make_timestamp((t * 1e6)::BIGINT))) FROM raw_interactions))::INTEGER) AS weeks FROM raw_interactions`)
    : [];
  if (days === undefined || Number(days.moments) < 2 || Number(days.midnight) < nearlyAll) return;
  for (const step of ["months", "weeks"])
    if (Number(days[step]) >= nearlyAll) throw say(`The times of interactions are days, nearly all ${step} apart`);
}

/** Minimum share of a table's rows for a precision to count; and minimum number, unless nearly all rows have it. */
const oneClock = 0.05;
const fewest = 20;
const nearlyAll = 0.9;

interface FoundClock {
  /** In seconds; 0 for fractions of a second. */
  readonly step: number;
  /** SQL: rows at least this coarse. */
  readonly rows: string;
  /** Share of the table's rows with exactly this precision. */
  readonly alone: number;
}

/** Precisions of a table's times, finest first; the rows of each are among those of the one before. */
async function findClocks(duck: Duck, table: string): Promise<FoundClock[]> {
  const all = await duck.number(`SELECT count(*) FROM ${table}`);
  if ((await duck.number(`SELECT count(DISTINCT t) FROM ${table}`)) < 2) return [];
  const found = [{ step: 0, rows: "true", count: all }];
  for (const [step] of [...precisions].reverse()) {
    const { rows, count } = found.at(-1) ?? { rows: "true", count: all };
    const rest = `round(t - ${step} * floor(t / ${step}), 6)`;
    const most = await duck.rows(
      `SELECT ${rest} AS rest, count(*) AS n FROM ${table} WHERE ${rows} GROUP BY ALL ORDER BY n DESC, rest LIMIT 2`,
    );
    const [first, second] = most.map((m) => ({ rest: Number(m.rest), n: Number(m.n) }));
    if (first === undefined) break;
    const isSummer = second !== undefined && step === 86_400 && Math.abs(first.rest - second.rest) % 82_800 === 3600;
    const rests = isSummer ? [first, second] : [first];
    const n = rests.reduce((sum, r) => sum + r.n, 0);
    if (n < nearlyAll * count && (n < fewest || n < (step <= 60 ? oneClock : 0.5) * count)) break;
    found.push({ step, rows: `(${rows}) AND ${rest} IN (${rests.map((r) => r.rest).join(", ")})`, count: n });
  }
  return found.map(({ step, rows, count }, k) => ({ step, rows, alone: (count - (found[k + 1]?.count ?? 0)) / all }));
}

const named = (fields: Readonly<Record<string, string | undefined>>): Record<string, string> =>
  Object.fromEntries(Object.entries(fields).filter((e): e is [string, string] => e[1] !== undefined));

const longFields = (c: ImpressionColumns): Record<string, string> =>
  named({
    s: c.slate ?? "slate_id",
    u: c.user,
    t: c.time,
    i: c.item ?? "item_id",
    y: c.label ?? "label",
    k: c.position,
    x: c.score,
  });

function wideFields(c: ImpressionColumns): Record<string, string> {
  if ((c.labels === undefined) === (c.positives === undefined))
    throw new DataError(
      "A log with data.columns.candidates needs either data.columns.labels or data.columns.positives.",
      {
        advice: "labels: a list of numbers, one per candidate; positives: a list of the ids that were clicked.",
      },
    );
  return named({ u: c.user, t: c.time, c: c.candidates, x: c.scores, y: c.labels, p: c.positives });
}

const noUser = "the user is not in the interactions table";

type Fault = readonly [when: string, reason: string];
/** SQL: the first fault that applies, or NULL. */
const describeFirst = (faults: readonly Fault[]): string =>
  `CASE ${faults.map(([when, reason]) => `WHEN ${when} THEN ${sqlText(reason)}`).join(" ")} END`;
const absent = (field: string, column: string): Fault => [`${field} IS NULL`, `no "${column}"`];
const notFinite = (x: string): string => `(${x} IS NULL OR NOT isfinite(${x}))`;

/** `typed`: staged rows with numbers, and the reason why a row cannot be used (`fault`), else NULL. */
async function typeLong(duck: Duck, c: ImpressionColumns, unknownUser: string): Promise<void> {
  const number = (field: string): string => `TRY_CAST(${field} AS DOUBLE)`;
  const faults: Fault[] = [
    absent("s", c.slate ?? "slate_id"),
    absent("u", c.user),
    absent("i", c.item ?? "item_id"),
    [notFinite("sec"), `"${c.time}" is not a time`],
    [`${notFinite("label")} OR label < 0`, `"${c.label ?? "label"}" is not a number >= 0`],
    ...(c.position === undefined ? [] : [[notFinite("place"), `"${c.position}" is not a number`] as const]),
    ...(c.score === undefined ? [] : [[notFinite("score"), `"${c.score}" is not a number`] as const]),
    ...(unknownUser === "" ? [] : [[unknownUser, noUser] as const]),
  ];
  await duck.run(`CREATE TEMP TABLE typed AS SELECT *, ${describeFirst(faults)} AS fault FROM (
    SELECT n, line, s, u, i, t, sec, ${number("y")} AS label,
      ${c.position === undefined ? "NULL::DOUBLE" : number("k")} AS place,
      ${c.score === undefined ? "NULL::DOUBLE" : number("x")} AS score FROM staged)`);
  const usable = "PARTITION BY s, fault IS NULL";
  // In sequence: a row that fails one check is ignored by the next.
  for (const [when, reason] of [
    [`first_value(u) OVER (${usable} ORDER BY n) <> u`, "the slate has rows of another user"],
    [`row_number() OVER (${usable}, i ORDER BY n) > 1`, "the item is in its slate twice"],
    [`count(*) OVER (${usable}) < 2`, "a slate of fewer than 2 candidates"],
  ] as const)
    await duck.run(`CREATE OR REPLACE TEMP TABLE typed AS
      SELECT * EXCLUDE (fault), coalesce(fault, CASE WHEN ${when} THEN ${sqlText(reason)} END) AS fault FROM typed`);
}

const fromLong = (c: ImpressionColumns): string => {
  const order = c.position !== undefined ? "place, n" : c.score !== undefined ? "score DESC, n" : "n";
  return `CREATE TABLE raw_impressions AS SELECT s, u, i, t, k, coalesce(score, -(k + 1))::DOUBLE AS x, y FROM (
    SELECT min(n) OVER (PARTITION BY s) AS s, u, i, min(sec) OVER (PARTITION BY s) AS t, score, label AS y,
      (row_number() OVER (PARTITION BY s ORDER BY ${order}) - 1)::INTEGER AS k
    FROM typed WHERE fault IS NULL)`;
};

/**
 * SQL: a list as JSON, whether written as JSON, in the syntax of Python, NumPy or Postgres, or separated by blanks,
 * commas, bars or semicolons. `mayBeOne`: a single word is a list of one.
 */
function jsonList(field: string, mayBeOne: boolean): string {
  const brackets = `regexp_replace(trim(${field}), '^[({](.*)[)}]$', '[\\1]', 's')`;
  const quotes = `CASE WHEN contains(${field}, '"') THEN ${brackets} ELSE replace(${brackets}, '''', '"') END`;
  const json = `regexp_replace(${quotes}, '"\\s+"', '", "', 'g')`;
  const isArray = (x: string): string => `json_valid(${x}) AND json_type(${x}) = 'ARRAY'`;
  const words = `string_split_regex(regexp_replace(${field}, '[\\[\\](){}''"]', '', 'g'), '[\\s,|;]+')`;
  return `CASE WHEN ${isArray(field)} THEN ${field}::JSON WHEN ${isArray(`(${json})`)} THEN (${json})::JSON
    WHEN ${mayBeOne} OR regexp_matches(trim(${field}), '[\\s,|;\\[({]') THEN to_json(list_filter(${words}, x -> x <> '')) END`;
}

async function typeWide(duck: Duck, c: ImpressionColumns, unknownUser: string): Promise<void> {
  const list = (field: string, type: "VARCHAR" | "DOUBLE", used: boolean): string =>
    !used
      ? `NULL::${type}[]`
      : type === "DOUBLE"
        ? `TRY_CAST(${jsonList(field, false)} AS DOUBLE[])`
        : `list_transform(TRY_CAST(${jsonList(field, field === "p")} AS VARCHAR[]), x -> ${idSql("x")})`;
  const notList = (field: string): string => `(${field} IS NULL OR list_aggregate(${field}, 'count') < len(${field}))`;
  const numbers = (field: string, column: string): Fault[] => [
    [`${notList(field)} OR NOT isfinite(coalesce(list_sum(${field}), 0))`, `"${column}" is not a list of numbers`],
    [`len(${field}) <> len(items)`, `"${column}" and "${c.candidates}" differ in length`],
  ];
  const faults: Fault[] = [
    absent("u", c.user),
    [notFinite("sec"), `"${c.time}" is not a time`],
    [notList("items"), `"${c.candidates}" is not a list`],
    [`len(list_filter(items, x -> ${isNoIdSql("x")})) > 0`, "a candidate without an id"],
    ["len(items) < 2", "a slate of fewer than 2 candidates"],
    ["len(list_distinct(items)) < len(items)", "an item is in the slate twice"],
    ...(c.labels === undefined ? [] : numbers("labels", c.labels)),
    ...(c.labels === undefined
      ? []
      : [["list_aggregate(labels, 'min') < 0", `"${c.labels}" contains a negative number`] as const]),
    ...(c.scores === undefined ? [] : numbers("scores", c.scores)),
    ...(c.positives === undefined ? [] : [[notList("positives"), `"${c.positives}" is not a list`] as const]),
    ...(c.positives === undefined
      ? []
      : [["NOT list_has_all(items, positives)", "a positive is not among the candidates"] as const]),
    ...(unknownUser === "" ? [] : [[unknownUser, noUser] as const]),
  ];
  await duck.run(`CREATE OR REPLACE TEMP TABLE lists AS
    SELECT n, line, u, t, sec, c AS i, ${list("c", "VARCHAR", true)} AS items,
      ${list("x", "DOUBLE", c.scores !== undefined)} AS scores, ${list("y", "DOUBLE", c.labels !== undefined)} AS labels,
      ${list("p", "VARCHAR", c.positives !== undefined)} AS positives FROM staged`);
  for (const ids of ["items", "positives"])
    if ((await duck.number(`SELECT ${areFloatsSql("x")}::INTEGER FROM (SELECT unnest(${ids}) AS x FROM lists)`)) === 1)
      await duck.run(`UPDATE lists SET ${ids} = list_transform(${ids}, x -> ${withoutZerosSql("x")})`);
  await duck.run(`CREATE TEMP TABLE typed AS SELECT *, ${describeFirst(faults)} AS fault FROM lists; DROP TABLE lists`);
}

const fromWide = (c: ImpressionColumns): string => `CREATE TABLE raw_impressions AS
  SELECT n AS s, u, items[k + 1] AS i, sec AS t, k::INTEGER AS k,
    ${c.scores === undefined ? "-(k + 1)::DOUBLE" : "scores[k + 1]"} AS x,
    ${c.labels === undefined ? "list_contains(positives, items[k + 1])::INTEGER::DOUBLE" : "labels[k + 1]"} AS y
  FROM (SELECT *, unnest(range(len(items))) AS k FROM typed WHERE fault IS NULL)`;

async function setAside(duck: Duck, file: string, quarantine: Quarantine): Promise<void> {
  const isNoUser = `(fault IS NOT DISTINCT FROM ${sqlText(noUser)})::INTEGER`;
  const strangers = await duck.number(`SELECT coalesce(avg(${isNoUser}), 0) FROM typed`);
  if (strangers > 0.5) {
    const here = { ids: "SELECT u AS id FROM typed WHERE u IS NOT NULL", name: "log" };
    const there = { ids: "SELECT u AS id FROM raw_interactions", name: "interactions table" };
    const ids = await compareIds(duck, here, there);
    throw new DataError(`${file}: ${noUser} in ${Math.round(100 * strangers)} % of the rows: ${ids}.`, {
      advice: "Name the columns that contain the same users (data.columns.user), or write the ids alike.",
    });
  }
  const bad = await duck.rows("SELECT line, fault, u, i, t FROM typed WHERE fault IS NOT NULL ORDER BY n");
  for (const b of bad)
    quarantine.add({ file, line: Number(b.line), reason: String(b.fault), text: JSON.stringify([b.u, b.i, b.t]) });
}
