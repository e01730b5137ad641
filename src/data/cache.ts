/**
 * A built Dataset on disk: `NAME.json` (items, users, statistics) and `NAME.bin` (little-endian arrays). Keyed by content:
 * the file carries the data set's hash and the hash of its own bytes, and a mismatch is a DataError, never a guess.
 *
 *   bin = lengths Int32[users] · items Int32[interactions] · padding to 8 bytes · times Float64[interactions]
 *   and of a log of slates  · times Float64[slates] · scores, labels Float64[candidates] · users Int32[slates]
 *                           · starts Int32[slates + 1] · items Int32[candidates]
 */
import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { DataError } from "../core/errors.ts";
import { sha256 } from "../core/hash.ts";
import type { UserId } from "../core/ids.ts";
import type { Dataset, DatasetStats, Impressions, Item } from "./types.ts";

interface CacheHead {
  readonly format: 1;
  readonly name: string;
  readonly hash: string;
  readonly stats: DatasetStats;
  readonly users: readonly UserId[];
  readonly items: readonly Item[];
  /** Numbers of slates and candidates of a log. */
  readonly impressions?: { readonly slates: number; readonly candidates: number };
  readonly binSha256: string;
}

/** Writes `base`.bin, then `base`.json, each atomically; returns both paths. */
export function saveDataset(dataset: Dataset, base: string): readonly string[] {
  const lengths = Int32Array.from(dataset.sequences, (s) => s.items.length);
  const total = lengths.reduce((a, b) => a + b, 0);
  const timesAt = align(4 * (lengths.length + total));
  const logged = dataset.impressions ? partsOf(dataset.impressions) : [];
  const bytes = new Uint8Array(timesAt + 8 * total + logged.reduce((sum, a) => sum + a.byteLength, 0));
  bytes.set(bytesOf(lengths), 0);
  let at = 0;
  for (const s of dataset.sequences) {
    bytes.set(bytesOf(s.items), 4 * (lengths.length + at));
    bytes.set(bytesOf(s.times), timesAt + 8 * at);
    at += s.items.length;
  }
  let end = timesAt + 8 * total;
  for (const part of logged) {
    bytes.set(bytesOf(part), end);
    end += part.byteLength;
  }
  const log = dataset.impressions;
  const head: CacheHead = {
    format: 1,
    name: dataset.name,
    hash: dataset.hash,
    stats: dataset.stats,
    users: dataset.sequences.map((s) => s.user),
    items: dataset.items,
    ...(log ? { impressions: { slates: log.users.length, candidates: log.items.length } } : {}),
    binSha256: sha256(bytes),
  };
  mkdirSync(dirname(base), { recursive: true });
  writeAtomically(`${base}.bin`, bytes);
  writeAtomically(`${base}.json`, JSON.stringify(head));
  return [`${base}.json`, `${base}.bin`];
}

/** Reads what saveDataset wrote. Throws DataError when a file is missing or damaged. */
export function loadDataset(base: string): Dataset {
  let head: CacheHead;
  let file: Buffer;
  try {
    head = JSON.parse(readFileSync(`${base}.json`, "utf8")) as CacheHead;
    file = readFileSync(`${base}.bin`);
  } catch (cause) {
    throw new DataError(`The data cache ${base} cannot be read.`, {
      cause,
      advice: "Run the data stage again (--fresh).",
    });
  }
  if (head.format !== 1 || sha256(file) !== head.binSha256)
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
  const logged = head.impressions && impressionsAt(bytes, align(4 * (numUsers + total)) + 8 * total, head.impressions);
  return {
    name: head.name,
    items: head.items,
    sequences,
    ...(logged ? { impressions: logged } : {}),
    hash: head.hash,
    stats: head.stats,
  };
}

/** In the order of the file: eight-byte numbers first, so that every array stands aligned. */
const partsOf = (i: Impressions) => [i.times, i.scores, i.labels, i.users, i.starts, i.items];

function impressionsAt(
  bytes: ArrayBuffer,
  start: number,
  { slates, candidates }: { readonly slates: number; readonly candidates: number },
): Impressions {
  let at = start;
  const next = (size: number): number => {
    at += size;
    return at - size;
  };
  const doubles = (n: number): Float64Array => new Float64Array(bytes, next(8 * n), n);
  const integers = (n: number): Int32Array => new Int32Array(bytes, next(4 * n), n);
  return {
    times: doubles(slates),
    scores: doubles(candidates),
    labels: doubles(candidates),
    users: integers(slates),
    starts: integers(slates + 1),
    items: integers(candidates),
  };
}

const align = (bytes: number): number => Math.ceil(bytes / 8) * 8;

const bytesOf = (a: Int32Array | Float64Array): Uint8Array => new Uint8Array(a.buffer, a.byteOffset, a.byteLength);

function writeAtomically(path: string, data: string | Uint8Array): void {
  writeFileSync(`${path}.${process.pid}.tmp`, data);
  renameSync(`${path}.${process.pid}.tmp`, path);
}
