/**
 * Append-only JSONL of a run (metrics.jsonl, rollouts.jsonl). Every record carries its stage and `seq`, which only
 * grows. A resumed stage drops what it wrote after its cursor, so no step appears twice. Files may be larger than
 * memory: everything here streams.
 */
import {
  closeSync,
  existsSync,
  fstatSync,
  fsyncSync,
  openSync,
  readSync,
  renameSync,
  statSync,
  truncateSync,
} from "node:fs";
import { RunError } from "../core/errors.ts";
import { fileError, guarded, writeAll } from "./files.ts";

export interface LogRecord {
  readonly seq: number;
  readonly stage: string;
  readonly step: number;
}

/** One line of metrics.jsonl. `time`: seconds since the Unix epoch. */
export interface MetricsRecord extends LogRecord {
  readonly time: number;
  readonly values: Readonly<Record<string, number>>;
}

const chunkBytes = 1 << 20;
const newline = 0x0a;

export class RecordLog<T extends LogRecord = LogRecord> {
  readonly path: string;
  private fd: number | undefined;
  private last: number;

  /** Opens or creates the log; a line torn by a crash is cut off. */
  constructor(path: string) {
    this.path = path;
    const tail = lastLine(path);
    if (tail.torn) guarded("repair", path, () => truncateSync(path, tail.end));
    this.last = tail.line === undefined ? 0 : parse(tail.line, path).seq;
  }

  /** Number of the newest record, 0 if there is none. */
  get lastSeq(): number {
    return this.last;
  }

  /** Appends one record and returns it with its number. Visible to other processes at once, on disk after sync(). */
  append(record: Omit<T, "seq">): T {
    const numbered = { seq: this.last + 1, ...record } as unknown as T;
    guarded("append to", this.path, () => {
      this.fd ??= openSync(this.path, "a");
      writeAll(this.fd, Buffer.from(`${JSON.stringify(numbered)}\n`));
    });
    this.last++;
    return numbered;
  }

  /** Waits until everything appended is on disk; called before a cursor that refers to it is written. */
  sync(): void {
    const { fd } = this;
    if (fd !== undefined) guarded("write", this.path, () => fsyncSync(fd));
  }

  /** Drops a stage's records newer than `afterSeq` (0 = all of them). Their numbers are not reused. */
  dropStage(stage: string, afterSeq: number): void {
    const isDropped = (line: string) => {
      const r = parse(line, this.path);
      return r.stage === stage && r.seq > afterSeq;
    };
    let any = false;
    for (const line of streamLines(this.path)) {
      any = isDropped(line);
      if (any) break;
    }
    if (!any) return;
    this.close();
    const temporary = `${this.path}.${process.pid}.tmp`;
    guarded("rewrite", this.path, () => {
      const fd = openSync(temporary, "w");
      try {
        for (const line of streamLines(this.path)) if (!isDropped(line)) writeAll(fd, Buffer.from(`${line}\n`));
        fsyncSync(fd);
      } finally {
        closeSync(fd);
      }
      renameSync(temporary, this.path);
    });
  }

  close(): void {
    if (this.fd !== undefined) closeSync(this.fd);
    this.fd = undefined;
  }
}

/** All records of a log, oldest first; without an unfinished last line. Empty if the file does not exist. */
export function* readRecords<T extends LogRecord = LogRecord>(path: string): Generator<T> {
  for (const line of streamLines(path)) yield parse(line, path) as T;
}

function* streamLines(path: string): Generator<string> {
  if (!existsSync(path)) return;
  const fd = guarded("read", path, () => openSync(path, "r"));
  try {
    const chunk = Buffer.alloc(chunkBytes);
    let rest = Buffer.alloc(0);
    for (;;) {
      const n = readSync(fd, chunk, 0, chunkBytes, null);
      if (n === 0) return;
      const bytes = Buffer.concat([rest, chunk.subarray(0, n)]);
      let start = 0;
      for (let end = bytes.indexOf(newline); end !== -1; end = bytes.indexOf(newline, start)) {
        if (end > start) yield bytes.toString("utf8", start, end);
        start = end + 1;
      }
      rest = Buffer.from(bytes.subarray(start));
    }
  } catch (e) {
    throw fileError("read", path, e);
  } finally {
    closeSync(fd);
  }
}

/** The last complete line, where it ends, and whether an unfinished one follows. */
function lastLine(path: string): { line: string | undefined; end: number; torn: boolean } {
  if (!existsSync(path) || statSync(path).size === 0) return { line: undefined, end: 0, torn: false };
  const fd = guarded("read", path, () => openSync(path, "r"));
  try {
    const { size } = fstatSync(fd);
    for (let want = chunkBytes; ; want *= 4) {
      const from = Math.max(0, size - want);
      const tail = Buffer.alloc(size - from);
      for (let at = 0; at < tail.length; ) {
        const n = readSync(fd, tail, at, tail.length - at, from + at);
        if (n === 0) break;
        at += n;
      }
      const end = tail.lastIndexOf(newline) + 1;
      const start = end > 1 ? tail.lastIndexOf(newline, end - 2) + 1 : 0;
      if (start === 0 && from > 0) continue; // the line begins before the part read so far
      const line = end > 1 ? tail.toString("utf8", start, end - 1) : undefined;
      return { line: line === "" ? undefined : line, end: from + end, torn: end < tail.length };
    }
  } finally {
    closeSync(fd);
  }
}

function parse(line: string, path: string): LogRecord {
  try {
    return JSON.parse(line) as LogRecord;
  } catch (cause) {
    throw new RunError(`${path} has a line that is not JSON: ${line.slice(0, 80)}`, {
      cause,
      advice: "The file was damaged; rerun with --fresh, or remove the line.",
    });
  }
}
