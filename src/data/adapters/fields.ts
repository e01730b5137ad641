/**
 * Named columns of any table file as text, with their place in the file: `staged(n, broken, FIELD VARCHAR, ...)`.
 * `n` counts rows from 1; `broken` is the line where it was not JSON; a JSON array or Parquet LIST is JSON text.
 * Owns no meaning: whoever stages them types them, and sends what cannot be used to the quarantine.
 */
import { DataError } from "../../core/errors.ts";
import { type Duck, type Quarantine, readStart, requireFile, sqlName, sqlText } from "../duck.ts";
import { detectFormat, parseDelimited } from "./items.ts";
import { toLineNumber } from "./readers.ts";

export interface StagedFields {
  /** Rows of the file, those that could not be parsed included. */
  readonly rows: number;
  /** Line in the file of row `n`; of Parquet, the row itself. */
  readonly toLineNumber: (n: number) => number;
}

/** How a CSV or TSV departs from a header line and quotes. */
export interface TextForm {
  /** Column names, where there is no header line. */
  readonly names?: readonly string[];
  /** Whether `"` quotes values. Default true. */
  readonly quoted?: boolean;
}

/**
 * @param fields column of the file for each field
 * @throws DataError when the file cannot be read or lacks a column
 */
export async function stageFields(
  duck: Duck,
  file: string,
  fields: Readonly<Record<string, string>>,
  quarantine: Quarantine,
  form: TextForm = {},
): Promise<StagedFields> {
  requireFile(file, "Impressions");
  const format = detectFormat(file);
  const names = Object.entries(fields);
  const require = (known: readonly string[], where: string): void => {
    for (const [, column] of names)
      if (!known.includes(column))
        throw new DataError(`${where} has no column "${column}"; it has ${known.join(", ")}.`);
  };
  let source: string;
  let header = 0;
  if (format === "parquet") {
    const table = `read_parquet(${sqlText(file)})`;
    const columns = await read(file, () => duck.rows(`DESCRIBE SELECT * FROM ${table}`));
    require(columns.map((c) => String(c.column_name)), file);
    const isList = new Set(columns.filter((c) => /\[\d*\]$/.test(String(c.column_type))).map((c) => c.column_name));
    const text = (column: string): string =>
      isList.has(column) ? `to_json(${sqlName(column)})::VARCHAR` : `${sqlName(column)}::VARCHAR`;
    source = `SELECT row_number() OVER () AS n, NULL::VARCHAR AS broken,
      ${names.map(([field, column]) => `${text(column)} AS ${sqlName(field)}`).join(", ")} FROM ${table}`;
  } else if (format === "jsonl") {
    const text = (column: string): string => `json_extract_string(j, ${sqlText(`$."${column}"`)})`;
    source = `SELECT n, CASE WHEN j IS NULL THEN l END AS broken,
      ${names.map(([field, column]) => `${text(column)} AS ${sqlName(field)}`).join(", ")}
      FROM (SELECT l, n, TRY_CAST(l AS JSON) AS j FROM (
        SELECT l, row_number() OVER () AS n FROM read_csv(${sqlText(file)}, delim='\u0001', header=false,
          auto_detect=false, quote='', escape='', columns={'l': 'VARCHAR'}, null_padding=true, max_line_size=16777216,
          store_rejects=true, rejects_table='rejects', rejects_scan='reject_scans')) WHERE l IS NOT NULL)`;
  } else {
    header = form.names === undefined ? 1 : 0;
    const delimiter = format === "csv" ? "," : "\t";
    const first = parseDelimited(readStart(file).split(/\r?\n/)[0] ?? "", delimiter) ?? [];
    const cells = form.names ?? first.map((c) => c.trim());
    const quote = (form.quoted ?? true) ? "'\"'" : "''";
    require(cells, `${file}:1`);
    const columns = cells.map((c, k) => `${sqlText(k === cells.indexOf(c) ? c : `${c}__${k}`)}: 'VARCHAR'`).join(", ");
    source = `SELECT row_number() OVER () AS n, NULL::VARCHAR AS broken,
      ${names.map(([field, column]) => `${sqlName(column)} AS ${sqlName(field)}`).join(", ")}
      FROM read_csv(${sqlText(file)}, delim=${sqlText(delimiter)}, header=${header === 1}, auto_detect=false, quote=${quote}, escape=${quote},
        columns={${columns}}, store_rejects=true, rejects_table='rejects', rejects_scan='reject_scans')`;
  }
  await duck.run("DROP TABLE IF EXISTS rejects; DROP TABLE IF EXISTS reject_scans; DROP TABLE IF EXISTS staged");
  await read(file, () => duck.run(`CREATE TEMP TABLE staged AS ${source}`));
  const unparsed =
    format === "parquet"
      ? []
      : await duck.rows(`SELECT line, min(error_message) AS reason, min(csv_line) AS text FROM rejects
          GROUP BY line ORDER BY line`);
  for (const r of unparsed)
    quarantine.add({ file, line: Number(r.line), reason: String(r.reason), text: String(r.text).trim() });
  const rejected = unparsed.map((r) => Number(r.line));
  const rows = rejected.length + (await duck.number("SELECT count(*) FROM staged"));
  quarantine.saw(file, rows);
  return { rows, toLineNumber: (n) => toLineNumber(n + header, rejected) };
}

async function read<T>(file: string, what: () => Promise<T>): Promise<T> {
  try {
    return await what();
  } catch (cause) {
    if (cause instanceof DataError) throw cause;
    throw new DataError(`${file} cannot be read: ${cause instanceof Error ? cause.message.split("\n")[0] : cause}`, {
      cause,
    });
  }
}
