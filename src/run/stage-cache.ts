/**
 * Decides whether a stage must run. Its key is the hash of its slice of the config, the code it uses and the keys of
 * its inputs; stages/STAGE/done.json records the key it finished with and what it wrote.
 *   same key, outputs intact      → nothing to do
 *   same key, not finished        → resume from cursor.json, if the stage left one
 *   other key, or damaged outputs → empty the folder and run
 * The run itself (run.ts) adds logging, telemetry and the manifest.
 */
import { copyFileSync, linkSync, readdirSync, rmSync, statSync } from "node:fs";
import { dirname, join, relative, sep } from "node:path";
import { hashJson, sha256File } from "../core/hash.ts";
import { guarded, makeFolder, tryReadJson, writePrettyJson } from "./files.ts";

/** Output files above this size are verified by size and modification time, not by content. */
const rehashLimitBytes = 64 * 2 ** 20;
/** Not outputs: bookkeeping, and `work/` (scratch space and checkpoints of an unfinished stage). */
const notOutputs: ReadonlySet<string> = new Set(["done.json", "cursor.json", "work"]);

export interface OutputFile {
  readonly sha256: string;
  readonly bytes: number;
  readonly mtimeMs: number;
}

export interface Done {
  readonly key: string;
  /** By path relative to the stage's folder, with forward slashes. */
  readonly outputs: Readonly<Record<string, OutputFile>>;
  readonly seconds: number;
  readonly peakBytes: number;
  readonly finished: string;
}

/** Where a stage stopped. `value` is the stage's own; the sequence numbers tell which log records it covers. */
export interface Cursor {
  readonly key: string;
  readonly value: unknown;
  readonly metricsSeq: number;
  readonly rolloutsSeq: number;
  /** Spent on the stage so far, over all attempts. */
  readonly seconds: number;
}

export interface KeyParts {
  readonly name: string;
  /** The part of the compiled config that this stage reads. Anything JSON can hold. */
  readonly config: unknown;
  /** Hash of the source files this stage uses (code-hash.ts). */
  readonly code: string;
  /** By name: keys of earlier stages, hashes of data files. */
  readonly inputs: Readonly<Record<string, string>>;
}

export const stageKey = (parts: KeyParts): string =>
  hashJson({ name: parts.name, config: parts.config ?? null, code: parts.code, inputs: parts.inputs });

/** The finished state of a stage folder if it was made with this key and nothing is missing or damaged. */
export async function finishedWith(folder: string, key: string): Promise<Done | undefined> {
  const done = tryReadJson(join(folder, "done.json")) as Done | undefined;
  if (done?.key !== key) return undefined;
  for (const [path, expected] of Object.entries(done.outputs)) {
    if (!(await isIntact(join(folder, path), expected))) return undefined;
  }
  return done;
}

async function isIntact(path: string, expected: OutputFile): Promise<boolean> {
  const stat = statSync(path, { throwIfNoEntry: false });
  if (!stat?.isFile() || stat.size !== expected.bytes) return false;
  if (stat.size > rehashLimitBytes && Math.abs(stat.mtimeMs - expected.mtimeMs) < 1) return true;
  return (await sha256File(path)) === expected.sha256;
}

/**
 * Makes a stage folder ready to run with this key and returns where an earlier, unfinished attempt with the same key
 * stopped. Anything left by another key, or by an attempt without a cursor, is removed.
 */
export function prepare(folder: string, key: string): Cursor | undefined {
  const cursor = tryReadJson(join(folder, "cursor.json")) as Cursor | undefined;
  const finishedBefore = tryReadJson(join(folder, "done.json")) !== undefined; // finished once, so its outputs are damaged
  if (cursor?.key === key && !finishedBefore) return cursor;
  clear(folder);
  return undefined;
}

/** Removes everything a stage left. */
export function clear(folder: string): void {
  // done.json first: if this is interrupted, the stage counts as not finished.
  guarded("remove", folder, () => {
    rmSync(join(folder, "done.json"), { force: true });
    rmSync(folder, { recursive: true, force: true });
  });
  makeFolder(folder);
}

export const saveCursor = (folder: string, cursor: Cursor): void =>
  writePrettyJson(join(folder, "cursor.json"), cursor);

/**
 * Reuses the stage folder of another run that finished with the same key: by hard links, which survive the deletion of
 * either run, or by copies where the file system has no links. Undefined if a file is damaged.
 */
export async function takeOver(folder: string, done: Done, from: string): Promise<Done | undefined> {
  clear(folder);
  guarded("copy a finished stage into", folder, () => {
    for (const name of Object.keys(done.outputs)) {
      makeFolder(dirname(join(folder, name)));
      linkOrCopy(join(from, name), join(folder, name));
    }
  });
  writePrettyJson(join(folder, "done.json"), done);
  return finishedWith(folder, done.key);
}

function linkOrCopy(from: string, to: string): void {
  try {
    linkSync(from, to);
  } catch (e) {
    const code = (e as NodeJS.ErrnoException).code ?? "";
    if (!["EPERM", "EXDEV", "EMLINK", "ENOTSUP", "EOPNOTSUPP"].includes(code)) throw e;
    copyFileSync(from, to);
  }
}

/** Records what the stage wrote, then drops its cursor and scratch space. */
export async function finish(folder: string, key: string, cost: { seconds: number; peakBytes: number }): Promise<Done> {
  const outputs: Record<string, OutputFile> = {};
  for (const path of files(folder).sort()) {
    const stat = statSync(path);
    const name = relative(folder, path).split(sep).join("/");
    outputs[name] = { sha256: await sha256File(path), bytes: stat.size, mtimeMs: stat.mtimeMs };
  }
  const done: Done = { key, outputs, ...cost, finished: new Date().toISOString() };
  writePrettyJson(join(folder, "done.json"), done);
  guarded("remove", folder, () => {
    rmSync(join(folder, "cursor.json"), { force: true });
    rmSync(join(folder, "work"), { recursive: true, force: true });
  });
  return done;
}

function files(folder: string, top = true): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((e) => {
    if (top && notOutputs.has(e.name)) return [];
    if (e.name.endsWith(".tmp")) return [];
    const path = join(folder, e.name);
    return e.isDirectory() ? files(path, false) : [path];
  });
}
