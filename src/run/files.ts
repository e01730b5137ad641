/** Files of a run folder: atomic writes, and file-system errors in plain words. */
import {
  accessSync,
  closeSync,
  constants,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeSync,
} from "node:fs";
import { dirname, resolve } from "node:path";
import { RunError } from "../core/errors.ts";

const advice: Readonly<Record<string, string>> = {
  ENOSPC:
    "The disk is full: free some space, or put the runs elsewhere with --root PATH. A rerun resumes where this one stopped.",
  EDQUOT: "The disk quota is used up: free some space, or put the runs elsewhere with --root PATH.",
  EACCES: "Check who owns the folder, or put the runs elsewhere with --root PATH.",
  EPERM: "Check who owns the folder, or put the runs elsewhere with --root PATH.",
  EROFS: "The file system is read-only: put the runs elsewhere with --root PATH.",
  EMFILE: "Too many open files: raise the limit with `ulimit -n 4096`.",
};

/** A RunError for a file-system error; anything else is returned unchanged. */
export function fileError(action: string, path: string, cause: unknown): unknown {
  const code = (cause as NodeJS.ErrnoException | undefined)?.code;
  if (code === undefined || typeof code !== "string") return cause;
  const reason: Record<string, string> = {
    ENOSPC: "no space left on the disk",
    EACCES: "permission denied",
    EROFS: "the file system is read-only",
    ENOTDIR: "part of the path is a file",
    EEXIST: "a file of that name exists",
    ENOENT: "it does not exist",
  };
  return new RunError(`cannot ${action} ${path}: ${reason[code] ?? code}`, { cause, advice: advice[code] });
}

/** Runs an action on a path and rethrows its file-system errors as RunErrors. */
export function guarded<T>(action: string, path: string, run: () => T): T {
  try {
    return run();
  } catch (e) {
    throw fileError(action, path, e);
  }
}

export function makeFolder(path: string): string {
  guarded("create the folder", path, () => {
    try {
      mkdirSync(path, { recursive: true });
    } catch (e) {
      // Inside a folder that is not writable, Node reports ENOENT; report the folder's own error instead.
      if ((e as NodeJS.ErrnoException).code === "ENOENT") accessSync(nearestFolder(path), constants.W_OK);
      throw e;
    }
  });
  return path;
}

const nearestFolder = (path: string): string => (existsSync(path) ? path : nearestFolder(dirname(resolve(path))));

/** Writes a whole file so that a reader sees the old or the new content, never a part: temp file, fsync, rename. */
export function writeAtomic(path: string, content: string | Uint8Array): void {
  const temporary = `${path}.${process.pid}.tmp`;
  guarded("write", path, () => {
    mkdirSync(dirname(path), { recursive: true });
    try {
      const fd = openSync(temporary, "w");
      try {
        writeAll(fd, typeof content === "string" ? Buffer.from(content) : content);
        fsyncSync(fd);
      } finally {
        closeSync(fd);
      }
      renameSync(temporary, path);
    } catch (e) {
      rmSync(temporary, { force: true });
      throw e;
    }
  });
}

/** writeSync may write only part of the bytes (when a disk fills up); this writes all of them. */
export function writeAll(fd: number, bytes: Uint8Array): void {
  for (let at = 0; at < bytes.byteLength; ) at += writeSync(fd, bytes, at);
}

/** For files that people read; artifacts/files.ts writes those of stages. */
export const writePrettyJson = (path: string, value: unknown): void =>
  writeAtomic(path, `${JSON.stringify(value, null, 2)}\n`);

/** The parsed content of a JSON file; undefined if it is missing or damaged (and must be made again). */
export function tryReadJson(path: string): unknown {
  try {
    return JSON.parse(readFileSync(path, "utf8")) as unknown;
  } catch (e) {
    const code = (e as NodeJS.ErrnoException).code;
    if (e instanceof SyntaxError || code === "ENOENT" || code === "ENOTDIR") return undefined;
    throw fileError("read", path, e);
  }
}
