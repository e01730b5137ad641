/**
 * Shared readers under the adapters: delimited text, JSONL and Parquet into raw_interactions; any rows into raw_items.
 * DuckDB parses interactions (parallel, out of core); item files are parsed in Node, where their odd shapes are easier.
 */
import { DataError } from "../../core/errors.ts";
import {
  type Duck,
  type Quarantine,
  quarantineLimit,
  readNumbers,
  readStart,
  requireFile,
  sqlName,
  sqlText,
  streamLines,
} from "../duck.ts";

/** One item before neutralisation. Absent text is "" or []. */
export interface RawItem {
  readonly id: string;
  readonly title: string;
  readonly brand: string;
  readonly categories: readonly string[];
  readonly description: string;
}

/** What an adapter did. */
export interface AdapterReport {
  /** Every file read, for the content hash. */
  readonly files: readonly string[];
  /** Interaction rows read, malformed ones included. */
  readonly rowsRead: number;
  /** Whether an item file was given; if so, interactions of unknown items are dropped. */
  readonly hasItems: boolean;
  /** Whether raw_impressions was filled: logged slates (adapters/impressions). */
  readonly hasImpressions?: boolean;
  /** False when `t` is only a position in the file or sequence. */
  readonly hasClock: boolean;
  /** Choices the adapter made that the user should know of. */
  readonly notes: readonly string[];
}

/** Names of columns that hold each field. `rating` and `time` may be absent. */
export interface InteractionColumns {
  readonly user: string;
  readonly item: string;
  readonly rating?: string;
  readonly time?: string;
}

/** Only rows with one of these values in each of these columns are interactions. */
export type Keep = Readonly<Record<string, readonly string[]>>;

export interface DelimitedSpec {
  readonly delimiter: string;
  /** Column names, when the file has no header line. */
  readonly names?: readonly string[];
  /** Maps a header cell to its column name (RecBole's `name:type`). */
  readonly rename?: (cell: string) => string;
  /** Whether `"` quotes values. Default true. */
  readonly quoted?: boolean;
  readonly columns: InteractionColumns;
  readonly keep?: Keep;
  /** `auto` (default): numbers are seconds, 13-digit numbers milliseconds, other text ISO 8601 (UTC unless it names an offset). */
  readonly timeUnit?: TimeUnit;
}

export type TimeUnit = "auto" | "seconds" | "milliseconds" | "iso";

const dropStaged = "DROP TABLE IF EXISTS rejects; DROP TABLE IF EXISTS reject_scans; DROP TABLE IF EXISTS staged";

const firstRows = (file: string): string[] => readStart(file).split(/\r?\n/).slice(0, 50);

/** Times as people write them, beside ISO 8601: Goodreads' (`Fri Sep 08 10:44:24 -0700 2017`) and MIND's (`11/15/2019 8:55:22 AM`). */
const writtenTimes = ["%a %b %d %H:%M:%S %z %Y", "%m/%d/%Y %I:%M:%S %p"];
const sqlList = (values: readonly string[]): string => `[${values.map(sqlText).join(", ")}]`;

/** SQL: whether a row is one of those that are kept. */
const keptSql = (keep: Keep | undefined, field: (column: string) => string): string =>
  Object.entries(keep ?? {})
    .map(([column, values]) => `coalesce(list_contains(${sqlList(values)}, ${field(column)}::VARCHAR), false)`)
    .join(" AND ") || "true";

/** SQL that turns the expression `x` (VARCHAR or native) into seconds, or NULL. */
export function timeSql(x: string, unit: TimeUnit, sample: string | undefined): string {
  const kind =
    unit !== "auto"
      ? unit
      : sample === undefined || /^-?\d+(\.\d+)?([eE][+-]?\d+)?$/.test(sample.trim())
        ? /^\d{13}$/.test(sample?.trim() ?? "")
          ? "milliseconds"
          : "seconds"
        : "iso";
  if (kind === "iso")
    return `coalesce(epoch(TRY_CAST(${x} AS TIMESTAMPTZ)), epoch(try_strptime(${x}::VARCHAR, ${sqlList(writtenTimes)})))`;
  return kind === "milliseconds" ? `TRY_CAST(${x} AS DOUBLE) / 1000` : `TRY_CAST(${x} AS DOUBLE)`;
}

/** Cells of a line; with quotes the delimiter is one character, which may stand inside them. */
function splitCells(line: string, delimiter: string, quoted: boolean): string[] {
  if (!quoted) return line.split(delimiter);
  const cells = line.matchAll(new RegExp(`(?:^|${delimiter})(?:"((?:[^"]|"")*)"|([^${delimiter}]*))`, "g"));
  return Array.from(cells, ([, inQuotes, plain]) => inQuotes?.replaceAll('""', '"') ?? plain ?? "");
}

/** Reads one delimited interaction file. Returns rows read; malformed rows go to `quarantine`. */
export async function readDelimited(
  duck: Duck,
  file: string,
  spec: DelimitedSpec,
  quarantine: Quarantine,
): Promise<number> {
  requireFile(file, "Interactions");
  const quoted = spec.quoted ?? true;
  const rows = firstRows(file);
  const header = spec.names === undefined;
  const rename = spec.rename ?? ((c: string) => c.trim());
  const names = spec.names ?? splitCells(rows[0] ?? "", spec.delimiter, quoted).map(rename);
  const column = (name: string): string => {
    if (!names.includes(name))
      throw new DataError(`${file}:1 has no column "${name}"; it has ${names.map((n) => `"${n}"`).join(", ")}.`);
    return name;
  };
  const { user, item, rating, time } = spec.columns;
  const timeName = time === undefined ? undefined : column(time);
  const sample =
    timeName === undefined
      ? undefined
      : splitCells(rows[header ? 1 : 0] ?? "", spec.delimiter, quoted)[names.indexOf(timeName)];
  const columns = names.map((n, k) => `${sqlText(k === names.indexOf(n) ? n : `${n}__${k}`)}: 'VARCHAR'`).join(", ");
  const source = `read_csv(${sqlText(file)}, delim=${sqlText(spec.delimiter)}, header=${header}, auto_detect=false,
    quote=${quoted ? "'\"'" : "''"}, escape=${quoted ? "'\"'" : "''"}, columns={${columns}}, store_rejects=true,
    rejects_table='rejects', rejects_scan='reject_scans')`;
  const select = `SELECT ${sqlName(column(user))} AS u, ${sqlName(column(item))} AS i,
    ${rating === undefined ? "NULL::DOUBLE" : `TRY_CAST(${sqlName(column(rating))} AS DOUBLE)`} AS r,
    ${timeName === undefined ? "(row_number() OVER ())::DOUBLE" : timeSql(sqlName(timeName), spec.timeUnit ?? "auto", sample)} AS t,
    ${keptSql(spec.keep, (name) => sqlName(column(name)))} AS kept FROM ${source}`;
  await duck.run(dropStaged);
  try {
    await duck.run(`CREATE TEMP TABLE staged AS ${select}`);
  } catch (cause) {
    if (cause instanceof DataError) throw cause;
    throw new DataError(`${file} cannot be read: ${cause instanceof Error ? cause.message.split("\n")[0] : cause}`, {
      cause,
    });
  }
  return moveStaged(duck, file, quarantine, {
    unusable: unusableSql(rating),
    line: `row_number() OVER () + ${header ? 1 : 0}`,
    describe: ({ u, i, r, t }) => ({
      reason:
        u === null
          ? "no user id"
          : i === null
            ? "no item id"
            : t === null
              ? "time is not a number"
              : "rating is not a number",
      text: [u, i, r, t].map((v) => String(v ?? "")).join(spec.delimiter),
    }),
  });
}

/** Condition on staged rows that cannot be used. */
const unusableSql = (rating: string | undefined): string =>
  `u IS NULL OR i IS NULL OR t IS NULL OR NOT isfinite(t)${rating === undefined ? "" : " OR r IS NULL"}`;

interface StagedRows {
  readonly unusable: string;
  /** SQL of a row's line, counted without the lines that DuckDB could not parse. */
  readonly line: string;
  /** Why a row cannot be used, and how it is shown. */
  readonly describe: (row: Readonly<Record<string, unknown>>) => { readonly reason: string; readonly text: string };
}

/**
 * Moves the usable rows of `staged` to raw_interactions, the others and the lines that DuckDB could not parse (`rejects`)
 * to the quarantine: all are counted, the first described. Returns how many rows the file had.
 */
async function moveStaged(duck: Duck, file: string, quarantine: Quarantine, staged: StagedRows): Promise<number> {
  const rejected = new Float64Array(await duck.number("SELECT count(DISTINCT line) FROM rejects"));
  await readNumbers(duck, "SELECT DISTINCT line::DOUBLE AS line FROM rejects ORDER BY line", [rejected]);
  const rows = await duck.number("SELECT count(*) FROM staged");
  const numUnusable = await duck.number(`SELECT count(*) FROM staged WHERE ${staged.unusable}`);
  if (rejected.length + numUnusable > 0) {
    const unparsed = await duck.rows(`SELECT line, min(error_message) AS reason, min(csv_line) AS text FROM rejects
      GROUP BY line ORDER BY line LIMIT ${quarantineLimit}`);
    const unusable = await duck.rows(`SELECT * FROM (SELECT *, ${staged.line} AS line FROM staged)
      WHERE ${staged.unusable} ORDER BY line LIMIT ${quarantineLimit}`);
    const described = [
      ...unparsed.map((r) => ({ file, line: Number(r.line), reason: String(r.reason), text: String(r.text).trim() })),
      ...unusable.map((r) => ({ file, line: toLineNumber(Number(r.line), rejected), ...staged.describe(r) })),
    ].sort((a, b) => a.line - b.line);
    quarantine.addMany(file, rejected.length + numUnusable, described);
    await duck.run(`DELETE FROM staged WHERE ${staged.unusable}`);
  }
  await duck.run("DELETE FROM staged WHERE NOT kept; ALTER TABLE staged DROP COLUMN kept");
  quarantine.saw(file, rejected.length + rows);
  // The first file's rows stay where they are: a copy would double what has to fit into memory.
  const first = (await duck.number("SELECT count(*) FROM raw_interactions")) === 0;
  await duck.run(
    first
      ? "DROP TABLE raw_interactions; ALTER TABLE staged RENAME TO raw_interactions"
      : "INSERT INTO raw_interactions SELECT u, i, r, t FROM staged; DROP TABLE staged",
  );
  return rejected.length + rows;
}

/** Line of what would be line `n` if the lines `rejected` (ascending) were not there. */
export function toLineNumber(n: number, rejected: ArrayLike<number>): number {
  let [low, high] = [0, rejected.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((rejected[middle] as number) - middle <= n) low = middle + 1;
    else high = middle;
  }
  return n + low;
}

/** Reads one JSONL[.gz] interaction file, a JSON object a line. */
export async function readJsonl(
  duck: Duck,
  file: string,
  columns: InteractionColumns,
  quarantine: Quarantine,
  timeUnit: TimeUnit = "auto",
  keep?: Keep,
): Promise<number> {
  requireFile(file, "Interactions");
  const field = (name: string): string => `json_extract_string(j, ${sqlText(`$."${name}"`)})`;
  let sample: string | undefined;
  if (columns.time !== undefined) {
    try {
      sample = String((JSON.parse(firstRows(file)[0] ?? "{}") as Record<string, unknown>)[columns.time] ?? "");
    } catch {
      sample = undefined;
    }
  }
  const time = columns.time === undefined ? "n::DOUBLE" : timeSql(field(columns.time), timeUnit, sample);
  await duck.run(dropStaged);
  try {
    await duck.run(`CREATE TEMP TABLE staged AS
      SELECT ${field(columns.user)} AS u, ${field(columns.item)} AS i,
        ${columns.rating === undefined ? "NULL::DOUBLE" : `TRY_CAST(${field(columns.rating)} AS DOUBLE)`} AS r,
        ${time} AS t, ${keptSql(keep, field)} AS kept, n, CASE WHEN j IS NULL THEN l END AS broken
      FROM (SELECT l, n, TRY_CAST(l AS JSON) AS j FROM (
        SELECT l, row_number() OVER () AS n FROM read_csv(${sqlText(file)}, delim='\u0001', header=false,
          auto_detect=false, quote='', escape='', columns={'l': 'VARCHAR'}, null_padding=true, max_line_size=16777216,
          store_rejects=true, rejects_table='rejects', rejects_scan='reject_scans'))
        WHERE l IS NOT NULL)`);
  } catch (cause) {
    if (cause instanceof DataError) throw cause;
    throw new DataError(`${file} cannot be read: ${cause instanceof Error ? cause.message.split("\n")[0] : cause}`, {
      cause,
    });
  }
  return moveStaged(duck, file, quarantine, {
    unusable: unusableSql(columns.rating),
    line: "n",
    describe: ({ u, i, r, t, broken }) => ({
      reason:
        broken !== null
          ? "not JSON"
          : u === null
            ? `no "${columns.user}"`
            : i === null
              ? `no "${columns.item}"`
              : t === null
                ? `"${columns.time}" is not a time`
                : `"${columns.rating}" is not a number`,
      text: String(broken ?? JSON.stringify([u, i, r, t])),
    }),
  });
}

/** Reads one Parquet interaction file; `line` of a bad row is its row number. */
export async function readParquet(
  duck: Duck,
  file: string,
  columns: InteractionColumns,
  quarantine: Quarantine,
  timeUnit: TimeUnit = "auto",
  keep?: Keep,
): Promise<number> {
  requireFile(file, "Interactions");
  const source = `read_parquet(${sqlText(file)})`;
  let types: Map<string, string>;
  let sample: string | undefined;
  try {
    types = new Map(
      (await duck.rows(`DESCRIBE SELECT * FROM ${source}`)).map((r) => [String(r.column_name), String(r.column_type)]),
    );
    for (const name of [...Object.values(columns), ...Object.keys(keep ?? {})]) {
      if (!types.has(name))
        throw new DataError(`${file} has no column "${name}"; it has ${[...types.keys()].join(", ")}.`);
    }
    if (columns.time !== undefined)
      sample = String((await duck.rows(`SELECT ${sqlName(columns.time)}::VARCHAR AS t FROM ${source} LIMIT 1`))[0]?.t);
  } catch (cause) {
    if (cause instanceof DataError) throw cause;
    throw new DataError(`${file} is not a readable Parquet file.`, { cause });
  }
  const time =
    columns.time === undefined
      ? "(row_number() OVER ())::DOUBLE"
      : /TIMESTAMP|DATE/.test(types.get(columns.time) ?? "")
        ? `epoch(${sqlName(columns.time)})`
        : timeSql(sqlName(columns.time), timeUnit, sample);
  await duck.run(`${dropStaged}; CREATE TEMP TABLE rejects(line BIGINT, error_message VARCHAR, csv_line VARCHAR);
    CREATE TEMP TABLE staged AS
    SELECT ${sqlName(columns.user)}::VARCHAR AS u, ${sqlName(columns.item)}::VARCHAR AS i,
      ${columns.rating === undefined ? "NULL::DOUBLE" : `TRY_CAST(${sqlName(columns.rating)} AS DOUBLE)`} AS r, ${time} AS t,
      ${keptSql(keep, sqlName)} AS kept FROM ${source}`);
  return moveStaged(duck, file, quarantine, {
    unusable: unusableSql(columns.rating),
    line: "row_number() OVER ()",
    describe: ({ u, i, r, t }) => ({ reason: "missing value", text: JSON.stringify([u, i, r, t]) }),
  });
}

/** Appends items to raw_items in the order given. */
export async function writeItems(duck: Duck, items: AsyncIterable<RawItem> | Iterable<RawItem>): Promise<number> {
  const appender = await duck.connection.createAppender("raw_items");
  let n = 0;
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
  return n;
}

/** What a parser says of a line that ends within quotes; the next line may then belong to it. */
export const unterminated = "unterminated quote";
/** Lines of one quoted text at most. */
const maxJoined = 50;

/**
 * Lines of an item file handed to `parse`, which returns an item or the reason why the line is malformed. A line that is
 * `unterminated` is tried again with the next ones; if that does not end either, it alone is malformed.
 */
export async function* itemLines(
  file: string,
  quarantine: Quarantine,
  parse: (text: string, line: number) => RawItem | string,
  options: { skipHeader?: boolean; encoding?: "utf8" | "latin1" } = {},
): AsyncGenerator<RawItem> {
  requireFile(file, "Items");
  let held: { line: number; text: string }[] = [];
  function* settle(atEnd: boolean): Generator<RawItem> {
    for (let k = 1; held[0] !== undefined && k <= held.length; ) {
      const { line, text } = held[0];
      const joined = held.slice(0, k);
      const item = parse(k === 1 ? text : joined.map((h) => h.text).join("\n"), line);
      if (item === unterminated && (k < held.length || (!atEnd && k < maxJoined))) {
        k++;
        continue;
      }
      quarantine.saw(file, 1);
      if (typeof item !== "string") yield item;
      else quarantine.add({ file, line, reason: item, text });
      held = held.slice(item === unterminated ? 1 : k);
      k = 1;
    }
  }
  for await (const { line, text } of streamLines(file, options.encoding ?? "utf8")) {
    if (line === 1 && options.skipHeader === true) continue;
    held.push({ line, text });
    yield* settle(false);
  }
  yield* settle(true);
}
