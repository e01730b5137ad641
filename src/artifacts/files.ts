/**
 * Files that stages pass to each other: small JSON, flat typed arrays. Each is written whole or not at all, so to a
 * resumed stage a file that exists is complete.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { CheckpointError } from "../core/errors.ts";
import { writeAtomic } from "../run/files.ts";
import type { Matrix } from "../worker/types.ts";

function read(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (cause) {
    throw new CheckpointError(`${path}: cannot be read (${(cause as NodeJS.ErrnoException).code ?? cause})`, {
      cause,
      advice: "Rerun the stage that writes it: gr2 pipeline --from STAGE.",
    });
  }
}

export function readJson<T>(path: string): T {
  try {
    return JSON.parse(read(path).toString("utf8")) as T;
  } catch (cause) {
    if (cause instanceof CheckpointError) throw cause;
    throw new CheckpointError(`${path}: not valid JSON`, {
      cause,
      advice: "Delete it and rerun the stage that writes it.",
    });
  }
}

export const writeJson = (path: string, value: unknown): void => writeAtomic(path, JSON.stringify(value));

/** JSONL, one value per line. */
export const writeLines = (path: string, values: readonly unknown[]): void =>
  writeAtomic(path, values.map((v) => `${JSON.stringify(v)}\n`).join(""));

export function readLines<T>(path: string): T[] {
  const body = read(path).toString("utf8");
  return body
    .split("\n")
    .filter((line) => line !== "")
    .map((line, i) => {
      try {
        return JSON.parse(line) as T;
      } catch (cause) {
        throw new CheckpointError(`${path}:${i + 1}: not valid JSON`, { cause });
      }
    });
}

/** Float32 matrix: an 8-byte header (rows, cols as uint32 little-endian), then rows x cols values. */
export function writeMatrix(path: string, m: Matrix): void {
  const head = Buffer.alloc(8);
  head.writeUInt32LE(m.rows, 0);
  head.writeUInt32LE(m.cols, 4);
  writeAtomic(path, Buffer.concat([head, Buffer.from(m.data.buffer, m.data.byteOffset, m.data.byteLength)]));
}

export function readMatrix(path: string): Matrix {
  const bytes = read(path);
  const rows = bytes.readUInt32LE(0);
  const cols = bytes.readUInt32LE(4);
  if (bytes.length !== 8 + rows * cols * 4) throw new CheckpointError(`${path}: damaged (${bytes.length} bytes)`);
  return { rows, cols, data: new Float32Array(Uint8Array.prototype.slice.call(bytes, 8).buffer) };
}

/** Lists of numbers by name: NAME.json has names and lengths in order, NAME.f64 the exact numbers. */
export function writeScores(dir: string, name: string, scores: ReadonlyMap<string, readonly number[]>): void {
  const flat = Float64Array.from([...scores.values()].flat());
  writeAtomic(join(dir, `${name}.f64`), Buffer.from(flat.buffer));
  writeJson(join(dir, `${name}.json`), {
    names: [...scores.keys()],
    lengths: [...scores.values()].map((s) => s.length),
  });
}

export function readScores(dir: string, name: string): Readonly<Record<string, readonly number[]>> {
  const { names, lengths } = readJson<{ names: readonly string[]; lengths: readonly number[] }>(
    join(dir, `${name}.json`),
  );
  const bytes = read(join(dir, `${name}.f64`));
  const total = lengths.reduce((a, b) => a + b, 0);
  if (bytes.length !== 8 * total) throw new CheckpointError(`${join(dir, name)}.f64: damaged (${bytes.length} bytes)`);
  const flat = new Float64Array(Uint8Array.prototype.slice.call(bytes).buffer);
  let at = 0;
  return Object.fromEntries(
    names.map((key, k): [string, readonly number[]] => {
      const from = at;
      at += lengths[k] as number;
      return [key, Array.from(flat.subarray(from, at))];
    }),
  );
}
