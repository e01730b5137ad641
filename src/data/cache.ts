/**
 * A built Dataset on disk: `NAME.json` (items, users, statistics) and `NAME.bin` (little-endian arrays). Keyed by content:
 * the file carries the data set's hash and the hash of its own bytes, and a mismatch is a DataError, never a guess.
 *
 *   bin = lengths Int32[users] · items Int32[interactions] · padding to 8 bytes · times Float64[interactions]
 *   A log of slates lies next to it in `NAME.impressions.bin` (data/impressions).
 */
import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { DataError } from "../core/errors.ts";
import { sha256 } from "../core/hash.ts";
import type { UserId } from "../core/ids.ts";
import { type ImpressionsSize, impressionsFrom, impressionsTo } from "./impressions.ts";
import type { Dataset, DatasetStats, Item } from "./types.ts";

interface CacheHead {
  readonly format: 1;
  readonly name: string;
  readonly hash: string;
  readonly stats: DatasetStats;
  readonly users: readonly UserId[];
  readonly items: readonly Item[];
  readonly binSha256: string;
  readonly impressions?: ImpressionsSize & { readonly sha256: string };
}

/** Writes `base`.bin, then `base`.json, each atomically; returns both paths. */
export function saveDataset(dataset: Dataset, base: string): readonly string[] {
  const lengths = Int32Array.from(dataset.sequences, (s) => s.items.length);
  const total = lengths.reduce((a, b) => a + b, 0);
  const timesAt = align(4 * (lengths.length + total));
  const bytes = new Uint8Array(timesAt + 8 * total);
  bytes.set(bytesOf(lengths), 0);
  let at = 0;
  for (const s of dataset.sequences) {
    bytes.set(bytesOf(s.items), 4 * (lengths.length + at));
    bytes.set(bytesOf(s.times), timesAt + 8 * at);
    at += s.items.length;
  }
  const logged = dataset.impressions && impressionsTo(dataset.impressions);
  const head: CacheHead = {
    format: 1,
    name: dataset.name,
    hash: dataset.hash,
    stats: dataset.stats,
    users: dataset.sequences.map((s) => s.user),
    items: dataset.items,
    binSha256: sha256(bytes),
    ...(logged ? { impressions: { ...logged.size, sha256: sha256(logged.bytes) } } : {}),
  };
  mkdirSync(dirname(base), { recursive: true });
  writeAtomically(`${base}.bin`, bytes);
  if (logged) writeAtomically(`${base}.impressions.bin`, logged.bytes);
  writeAtomically(`${base}.json`, JSON.stringify(head));
  return [`${base}.json`, `${base}.bin`, ...(logged ? [`${base}.impressions.bin`] : [])];
}

/** Reads what saveDataset wrote. Throws DataError when a file is missing or damaged. */
export function loadDataset(base: string): Dataset {
  let head: CacheHead;
  let file: Buffer;
  let log: Buffer | undefined;
  try {
    head = JSON.parse(readFileSync(`${base}.json`, "utf8")) as CacheHead;
    file = readFileSync(`${base}.bin`);
    if (head.impressions) log = readFileSync(`${base}.impressions.bin`);
  } catch (cause) {
    throw new DataError(`The data cache ${base} cannot be read.`, {
      cause,
      advice: "Run the data stage again (--fresh).",
    });
  }
  if (head.format !== 1 || sha256(file) !== head.binSha256 || (log && sha256(log) !== head.impressions?.sha256))
    throw new DataError(`The data cache ${base} is damaged.`, { advice: "Run the data stage again (--fresh)." });
  const bytes = new Uint8Array(file).buffer;
  const numUsers = head.users.length;
  const lengths = new Int32Array(bytes, 0, numUsers);
  const total = lengths.reduce((a, b) => a + b, 0);
  const items = new Int32Array(bytes, 4 * numUsers, total);
  const times = new Float64Array(bytes, align(4 * (numUsers + total)), total);
  let at = 0;
  const sequences = head.users.map((user, u) => {
    const [start, end] = [at, at + (lengths[u] ?? 0)];
    at = end;
    return { user, items: items.subarray(start, end), times: times.subarray(start, end) };
  });
  return {
    name: head.name,
    items: head.items,
    sequences,
    ...(log && head.impressions ? { impressions: impressionsFrom(log, head.impressions) } : {}),
    hash: head.hash,
    stats: head.stats,
  };
}

const align = (bytes: number): number => Math.ceil(bytes / 8) * 8;

const bytesOf = (a: Int32Array | Float64Array): Uint8Array => new Uint8Array(a.buffer, a.byteOffset, a.byteLength);

function writeAtomically(path: string, data: string | Uint8Array): void {
  writeFileSync(`${path}.${process.pid}.tmp`, data);
  renameSync(`${path}.${process.pid}.tmp`, path);
}
