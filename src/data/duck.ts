/**
 * DuckDB for data/: opens an in-process database with limited memory, reads numeric columns directly into typed arrays,
 * and collects malformed rows with file and line. Adapters and prepare.ts decide what the values mean.
 *
 * Tables that every adapter fills:
 *   raw_interactions(u VARCHAR, i VARCHAR, r DOUBLE, t DOUBLE)      r: rating or NULL;
 *                                                                   t: seconds or position in the file
 *   raw_items(i, title, brand, categories, description, n)          categories: JSON list; n: order read, from 0
 */
import { rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type DuckDBConnection, type DuckDBDataChunk, DuckDBInstance } from "@duckdb/node-api";
import { DataError } from "../core/errors.ts";

/** Limits for DuckDB. Beyond `memoryMb` it spills to a folder in the system's temporary folder. */
export interface DuckOptions {
  /** Megabytes, default 1000; the process grows to about 1.5 times that. */
  readonly memoryMb?: number;
  /** Default 2. */
  readonly threads?: number;
  /** Maximum megabytes spilled; default: the free disk space. */
  readonly spillMb?: number;
}

export interface Duck {
  readonly connection: DuckDBConnection;
  /**
   * Runs a statement. Like all methods, throws DataError if memory or disk is full, and passes other DuckDB errors on.
   */
  run(sql: string): Promise<void>;
  /** Rows as plain objects; bigint columns arrive as bigint. For small results. */
  rows(sql: string): Promise<Record<string, unknown>[]>;
  /** Streams a result of any length to `take`, a few thousand rows at a time. */
  each(sql: string, take: (chunk: DuckDBDataChunk) => void): Promise<void>;
  /** First column of the first row as a number. */
  number(sql: string): Promise<number>;
  /** Releases up to `bytes` of its memory to the caller but keeps a quarter; it spills more from then on. */
  yieldMemory(bytes: number): Promise<void>;
  /** Frees memory and removes spilled files. */
  close(): void;
}

let opened = 0;

/** Opens an in-memory database with the two raw tables. */
export async function openDuck(options: DuckOptions = {}): Promise<Duck> {
  const memoryMb = options.memoryMb ?? 1000;
  const spill = join(tmpdir(), `gr2-duckdb-${process.pid}-${opened++}`);
  const removeSpill = (): void => rmSync(spill, { recursive: true, force: true });
  const instance = await DuckDBInstance.create(":memory:", {
    memory_limit: `${memoryMb}MB`,
    threads: String(options.threads ?? 2),
    temp_directory: spill,
    // Memory that a step no longer needs is returned to the system immediately, not when the allocator decides.
    allocator_flush_threshold: "16MB",
    allocator_bulk_deallocation_flush_threshold: "64MB",
    autoinstall_known_extensions: "false",
  });
  process.once("exit", removeSpill); // Ctrl-C during a statement
  const connection = await instance.connect();
  const explained = async <T>(work: Promise<T>): Promise<T> => {
    try {
      return await work;
    } catch (cause) {
      throw outOfRoom(cause, spill) ?? cause;
    }
  };
  const duck: Duck = {
    connection,
    async run(sql) {
      await explained(connection.run(sql));
    },
    async rows(sql) {
      return (await explained(connection.runAndReadAll(sql))).getRowObjectsJS() as Record<string, unknown>[];
    },
    async each(sql, take) {
      const result = await explained(connection.stream(sql));
      for (;;) {
        const chunk = await explained(result.fetchChunk());
        if (chunk === null || chunk.rowCount === 0) return;
        take(chunk);
      }
    },
    async number(sql) {
      const row = (await explained(connection.runAndReadAll(sql))).getRowsJS()[0];
      return Number(row?.[0] ?? Number.NaN);
    },
    async yieldMemory(bytes) {
      const left = Math.round(Math.max(memoryMb / 4, memoryMb - bytes / 2 ** 20));
      // DuckDB refuses if it cannot spill that much; the old limit then stays.
      await connection.run(`SET memory_limit = '${left}MB'`).catch(() => undefined);
    },
    close() {
      connection.closeSync();
      instance.closeSync();
      removeSpill();
      process.removeListener("exit", removeSpill);
    },
  };
  if (options.spillMb !== undefined) await duck.run(`SET max_temp_directory_size = '${options.spillMb}MB'`);
  await duck.run("SET TimeZone = 'UTC'"); // times without an offset are the same on every machine
  await duck.run("CREATE TABLE raw_interactions(u VARCHAR, i VARCHAR, r DOUBLE, t DOUBLE)");
  await duck.run(
    `CREATE TABLE raw_items(
      i VARCHAR, title VARCHAR, brand VARCHAR, categories VARCHAR, description VARCHAR, n INTEGER)`,
  );
  return duck;
}

/** A DataError with advice for a full disk or too little memory; undefined for any other error. */
function outOfRoom(cause: unknown, spill: string): DataError | undefined {
  const message = cause instanceof Error ? cause.message : "";
  if (/No space left|max_temp_directory_size/.test(message))
    return new DataError(
      `The disk is full: the data does not fit into memory, and its temporary files do not fit into ${spill}.`,
      {
        cause,
        advice:
          "Free some space (about three times the size of the uncompressed data), " +
          "or set TMPDIR to a folder on a larger disk.",
      },
    );
  if (/Out of Memory/i.test(message))
    return new DataError(`The data does not fit into DuckDB's memory limit: ${message.split("\n")[0]}`, { cause });
  return undefined;
}

/** Quotes a string as a SQL literal. */
export const sqlText = (s: string): string => `'${s.replaceAll("'", "''")}'`;
/** Quotes a name as a SQL identifier. */
export const sqlName = (s: string): string => `"${s.replaceAll('"', '""')}"`;

/** A row that could not be used. `line` counts from 1; for Parquet it is the row number. */
export interface BadRow {
  readonly file: string;
  readonly line: number;
  readonly reason: string;
  /** The row as in the file, cut at 500 characters. */
  readonly text: string;
}

/** Maximum number of malformed rows that are described. */
export const quarantineLimit = 10_000;

/** Collects malformed rows: all are counted by file, the first `quarantineLimit` kept for the quarantine file. */
export class Quarantine {
  private rows: BadRow[] = [];
  private readonly bad = new Map<string, number>();
  private readonly read = new Map<string, number>();

  /** The first rows: by file in reading order, then by line. */
  get kept(): readonly BadRow[] {
    const files = [...this.bad.keys()];
    this.rows.sort((a, b) => files.indexOf(a.file) - files.indexOf(b.file) || a.line - b.line);
    this.rows = this.rows.slice(0, quarantineLimit);
    return this.rows;
  }

  /** Adds `lines` lines read from `file` (rows, for Parquet), malformed ones included. */
  saw(file: string, lines: number): void {
    this.read.set(file, (this.read.get(file) ?? 0) + lines);
  }

  add(row: BadRow): void {
    this.addMany(row.file, 1, [row]);
  }

  /** Counts `count` malformed rows of `file`; `rows` are the first of them. */
  addMany(file: string, count: number, rows: readonly BadRow[]): void {
    this.bad.set(file, this.count(file) + count);
    for (const row of rows) this.rows.push({ ...row, text: row.text.slice(0, 500) });
    if (this.rows.length > 4 * quarantineLimit) void this.kept; // drops later rows
  }

  /** Malformed rows of one file, or of all. */
  count(file?: string): number {
    if (file !== undefined) return this.bad.get(file) ?? 0;
    return [...this.bad.values()].reduce((a, b) => a + b, 0);
  }

  /**
   * Writes the kept rows, if any, as JSONL to `path`, if given; throws DataError if a file has more than `maxShare`.
   */
  settle(maxShare: number, path: string | undefined): void {
    if (this.bad.size === 0) return;
    const { kept } = this;
    if (path !== undefined) writeFileSync(path, kept.map((r) => `${JSON.stringify(r)}\n`).join(""));
    for (const [file, count] of this.bad) {
      const rows = Math.max(count, this.read.get(file) ?? 0);
      if (count / rows <= maxShare) continue;
      const first = kept.find((r) => r.file === file);
      throw new DataError(
        `${count} of ${rows} rows are malformed (${(100 * (count / rows)).toFixed(2)} %, ` +
          `allowed ${(100 * maxShare).toFixed(2)} %); ` +
          `the first is ${file}:${first?.line}: ${first?.reason}.`,
        {
          advice:
            `${path === undefined ? "" : `${kept.length < this.count() ? `The first ${kept.length}` : "All of them"} are in ${path}. `}` +
            `Correct the file or raise data.maxBadShare.`,
        },
      );
    }
  }
}

/** Streams a query of numeric columns (INTEGER or DOUBLE, no NULLs) of known length into typed arrays. */
export async function readNumbers(
  duck: Duck,
  sql: string,
  into: readonly (Int32Array | Float64Array)[],
): Promise<number> {
  let offset = 0;
  await duck.each(sql, (chunk) => {
    const { rowCount } = chunk;
    for (const [c, target] of into.entries()) {
      const vector = chunk.getColumnVector(c);
      for (let k = 0; k < rowCount; k++) target[offset + k] = vector.getItem(k) as number;
    }
    offset += rowCount;
  });
  return offset;
}
