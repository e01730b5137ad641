/**
 * Writes Parquet files from memory: DuckDB requests the table in blocks while it writes, so nothing is copied whole.
 * Owns neither meaning nor layout (data/cache does). Equal rows give equal bytes if the database has one thread.
 */
import { renameSync, rmSync } from "node:fs";
import { basename } from "node:path";
import { DuckDBTableFunction, type DuckDBType, type DuckDBValue } from "@duckdb/node-api";
import { DataError } from "../core/errors.ts";
import { sha256File } from "../core/hash.ts";
import { type Duck, sqlName, sqlText } from "./duck.ts";

export interface Column {
  readonly name: string;
  readonly type: DuckDBType;
  /** Called once per row, in order. */
  readonly at: (row: number) => DuckDBValue;
}

export interface ParquetFile {
  readonly rows: number;
  readonly sha256: string;
}

const blockRows = 2048;
/** No dictionaries: they treat 0 and -0 as equal. Numbers are smaller as differences (version 2). */
const options = "FORMAT parquet, PARQUET_VERSION v2, DICTIONARY_SIZE_LIMIT 0, CODEC zstd, USE_TMP_FILE false";

/**
 * Writes the columns' values for rows 0 … rows - 1, atomically. Throws DataError on failure. Call once per database and
 * file name.
 */
export async function writeParquet(
  duck: Duck,
  path: string,
  rows: number,
  columns: readonly Column[],
): Promise<ParquetFile> {
  const source = `rows of ${basename(path)}`;
  let written = 0;
  duck.connection.registerTableFunction(
    DuckDBTableFunction.create({
      name: source,
      bindFunction: (info) => {
        for (const { name, type } of columns) info.addResultColumn(name, type);
      },
      initFunction: () => {},
      mainFunction: (_info, block) => {
        const count = Math.min(blockRows, rows - written);
        block.rowCount = count; // 0: the end
        if (count === 0) return;
        for (const [c, { at }] of columns.entries()) {
          const vector = block.getColumnVector(c);
          for (let k = 0; k < count; k++) vector.setItem(k, at(written + k));
          vector.flush();
        }
        written += count;
      },
    }),
  );
  const unfinished = `${path}.${process.pid}.tmp`;
  try {
    await duck.connection.run(`COPY (FROM ${sqlName(source)}()) TO ${sqlText(unfinished)} (${options})`);
    const sha256 = await sha256File(unfinished);
    renameSync(unfinished, path);
    return { rows, sha256 };
  } catch (cause) {
    rmSync(unfinished, { force: true });
    throw new DataError(`Cannot write ${path}: ${cause instanceof Error ? cause.message.split("\n")[0] : cause}`, {
      cause,
      advice: "Check the free disk space and the permissions of the folder.",
    });
  }
}
