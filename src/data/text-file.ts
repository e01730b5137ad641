/**
 * Decodes text files: compression (gzip, zstd) recognised by the first bytes, encodings (UTF-8, UTF-16, or a named
 * one), the byte-order mark; invalid lines are reported. Knows nothing about records.
 */
import { isUtf8 } from "node:buffer";
import { closeSync, createReadStream, openSync, readSync, statSync } from "node:fs";
import { createGunzip, gunzipSync, constants as zlibConstants } from "node:zlib";
import { Decompress } from "fzstd";
import { DataError } from "../core/errors.ts";

type Decoder = InstanceType<typeof TextDecoder>;

/** `auto`, or a label of the WHATWG encoding standard: utf-8, latin1, windows-1252, utf-16le, gbk, shift_jis, ... */
export type Encoding = string;

/** Whole lines of a file. */
export interface Block {
  readonly text: string;
  /** Lines, counted from 0 within the block, whose bytes are not UTF-8: their text is approximate. */
  readonly bad: readonly number[];
}

/** Longest line. */
const maxLineBytes = 64 * 2 ** 20;
const blockBytes = 2 ** 20;

type Compression = "none" | "gzip" | "zstd";

/** -1: any byte. */
const startsWith = (head: Uint8Array, ...bytes: readonly number[]): boolean =>
  bytes.every((b, k) => b === -1 || head[k] === b);

/** Formats that cannot be read as text here, by their first bytes. */
const foreign: readonly (readonly [name: string, bytes: readonly number[]])[] = [
  ["a zip archive", [0x50, 0x4b, 3, 4]],
  ["compressed with bzip2", [0x42, 0x5a, 0x68]],
  ["compressed with xz", [0xfd, 0x37, 0x7a, 0x58, 0x5a]],
  ["a 7z archive", [0x37, 0x7a, 0xbc, 0xaf, 0x27, 0x1c]],
  ["a Parquet file", [0x50, 0x41, 0x52, 0x31]],
  ["encoded in UTF-32", [0xff, 0xfe, 0, 0, -1, -1, 0, 0]], // else UTF-16 that begins with a NUL
  ["encoded in UTF-32", [0, 0, 0xfe, 0xff]],
];

/** A zstd frame, or a skippable one (RFC 8878), with which pzstd begins its files. */
const isZstd = (head: Uint8Array): boolean =>
  startsWith(head, 0x28, 0xb5, 0x2f, 0xfd) ||
  (((head[0] ?? 0) & 0xf0) === 0x50 && startsWith(head.subarray(1), 0x2a, 0x4d, 0x18));

function detectCompression(path: string, head: Uint8Array): Compression {
  if (startsWith(head, 0x1f, 0x8b)) return "gzip";
  if (isZstd(head)) return "zstd";
  const claimed = /\.gz$/i.test(path) ? "gzip" : /\.zst$/i.test(path) ? "zstd" : undefined;
  if (claimed !== undefined) throw new DataError(`${path} is not a valid ${claimed} file.`);
  return "none";
}

function refuseForeign(path: string, head: Uint8Array): void {
  const found = foreign.find(([, bytes]) => startsWith(head, ...bytes));
  if (found !== undefined)
    throw new DataError(`${path} is ${found[0]}, not a text file.`, {
      advice: found[0].includes("UTF-32") ? "Save it as UTF-8." : "Unpack it, or give it the matching file extension.",
    });
}

/** The encoding of a text, by its byte-order mark or, for UTF-16, by the positions of zeros; and the mark's length. */
function detectEncoding(
  path: string,
  head: Uint8Array,
  wanted: Encoding,
): { readonly name: string; readonly mark: number } {
  const [utf8, le, be] = [
    startsWith(head, 0xef, 0xbb, 0xbf),
    startsWith(head, 0xff, 0xfe),
    startsWith(head, 0xfe, 0xff),
  ];
  if (utf8) return { name: "utf-8", mark: 3 };
  if (le || be) return { name: le ? "utf-16le" : "utf-16be", mark: 2 };
  if (wanted !== "auto") {
    try {
      return { name: new TextDecoder(wanted).encoding, mark: 0 };
    } catch (cause) {
      throw new DataError(`${path}: unknown encoding "${wanted}".`, {
        cause,
        advice: "For example utf-8, latin1, windows-1252, utf-16le, gbk, shift_jis.",
      });
    }
  }
  const sample = head.subarray(0, 1024);
  const zeros = (odd: number): number => sample.filter((b, k) => b === 0 && k % 2 === odd).length;
  if (sample.length >= 4 && zeros(1) > 0.4 * (sample.length / 2) && zeros(0) === 0)
    return { name: "utf-16le", mark: 0 };
  if (sample.length >= 4 && zeros(0) > 0.4 * (sample.length / 2) && zeros(1) === 0)
    return { name: "utf-16be", mark: 0 };
  return { name: "utf-8", mark: 0 };
}

/** The first `bytes` of a file, undecoded. */
function firstBytes(path: string, bytes: number): Buffer {
  const buffer = Buffer.alloc(bytes);
  const fd = openSync(path, "r");
  try {
    return buffer.subarray(0, readSync(fd, buffer, 0, bytes, 0));
  } finally {
    closeSync(fd);
  }
}

export const isCompressed = (path: string): boolean => {
  const head = firstBytes(path, 4);
  return startsWith(head, 0x1f, 0x8b) || isZstd(head);
};

/** Throws DataError unless `path` is a readable, non-empty file. */
export function requireFile(path: string, what: string): void {
  const stat = statSync(path, { throwIfNoEntry: false });
  if (stat === undefined)
    throw new DataError(`${what}: cannot read ${path}.`, { advice: "Check data.path and its file names." });
  if (!stat.isFile()) throw new DataError(`${what}: ${path} is not a file.`);
  if (stat.size === 0) throw new DataError(`${what}: ${path} is empty.`);
}

/**
 * About the first `bytes` of a file as text: decompressed, decoded, without a byte-order mark. The last line may be cut
 * off.
 */
export function readStart(path: string, bytes = 65_536, encoding: Encoding = "auto"): string {
  const raw = firstBytes(path, bytes);
  const compression = detectCompression(path, raw);
  let head: Uint8Array = raw;
  try {
    if (compression === "gzip") head = gunzipSync(raw, { finishFlush: zlibConstants.Z_SYNC_FLUSH });
    if (compression === "zstd") head = unzstd(raw);
  } catch (cause) {
    throw new DataError(`${path} is not a valid ${compression} file.`, { cause });
  }
  refuseForeign(path, head);
  const { name, mark } = detectEncoding(path, head, encoding);
  return new TextDecoder(name).decode(head.subarray(mark), { stream: true });
}

/** As much of the beginning of a file as can be decompressed. */
function unzstd(head: Uint8Array): Uint8Array {
  const parts: Uint8Array[] = [];
  const stream = new Decompress((part) => parts.push(part));
  stream.push(head);
  return Buffer.concat(parts);
}

/** A file's bytes, decompressed. */
export async function* decompressed(path: string): AsyncGenerator<Buffer> {
  const compression = detectCompression(path, firstBytes(path, 8));
  const file = createReadStream(path, { highWaterMark: blockBytes });
  try {
    if (compression === "gzip") {
      const stream = file.pipe(createGunzip({ chunkSize: blockBytes }));
      file.on("error", (e) => stream.destroy(e));
      for await (const chunk of stream) yield chunk as Buffer;
    } else if (compression === "zstd") {
      const parts: Buffer[] = [];
      const stream = new Decompress((part) => parts.push(Buffer.from(part)));
      for await (const chunk of file) {
        stream.push(chunk as Buffer);
        yield* parts.splice(0);
      }
      stream.push(new Uint8Array(), true);
      yield* parts.splice(0);
    } else for await (const chunk of file) yield chunk as Buffer;
  } catch (cause) {
    if (cause instanceof DataError) throw cause;
    throw new DataError(
      `${path} is damaged${compression === "none" ? "" : `: its ${compression} data is incomplete or invalid`}.`,
      {
        cause,
      },
    );
  } finally {
    file.destroy();
  }
}

/** A text file in arbitrary pieces, for readers that ignore lines. Throws DataError if it is not valid. */
export async function* textPieces(path: string, encoding: Encoding = "auto"): AsyncGenerator<string> {
  let decoder: Decoder | undefined;
  try {
    for await (const chunk of decompressed(path)) {
      let bytes = chunk;
      if (decoder === undefined) {
        const { name, mark } = detectEncoding(path, chunk, encoding);
        decoder = new TextDecoder(name, { fatal: true });
        bytes = chunk.subarray(mark);
      }
      yield decoder.decode(bytes, { stream: true });
    }
    yield decoder?.decode() ?? "";
  } catch (cause) {
    if (cause instanceof DataError) throw cause;
    throw new DataError(`${path} is not UTF-8.`, { cause, advice: `Convert it, or name its encoding: data.encoding.` });
  }
}

/** A text file in blocks of whole lines (ended by \n, \r\n or \r), decompressed, decoded, without a byte-order mark. */
export async function* textBlocks(path: string, encoding: Encoding = "auto"): AsyncGenerator<Block> {
  let rest: Buffer = Buffer.alloc(0);
  let decoder: { readonly name: string; readonly mark: number } | undefined;
  let other: { readonly decoder: Decoder; rest: string } | undefined;
  for await (const chunk of decompressed(path)) {
    let bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    if (decoder === undefined) {
      if (bytes.length < 1024) {
        rest = bytes; // a stream may begin with a short piece; the rest is read after the loop
        continue;
      }
      [decoder, other, bytes] = begin(path, bytes, encoding);
    }
    if (other !== undefined) {
      rest = Buffer.alloc(0);
      const text = other.rest + other.decoder.decode(bytes, { stream: true });
      const end = endOfLines(text);
      other.rest = text.slice(end);
      if (end > 0) yield { text: text.slice(0, end), bad: [] };
      continue;
    }
    const end = endOfLines(bytes);
    rest = bytes.subarray(end);
    if (rest.length > maxLineBytes) throw new DataError(`${path}: a line is longer than ${maxLineBytes / 2 ** 20} MB.`);
    if (end > 0) yield decode(bytes.subarray(0, end));
  }
  if (decoder === undefined) [decoder, other, rest] = begin(path, rest, encoding);
  if (other !== undefined) {
    const text = other.rest + other.decoder.decode(rest);
    if (text !== "") yield { text, bad: [] };
  } else if (rest.length > 0) yield decode(rest);
}

function begin(
  path: string,
  bytes: Buffer,
  encoding: Encoding,
): [{ name: string; mark: number }, { decoder: Decoder; rest: string } | undefined, Buffer] {
  refuseForeign(path, bytes);
  const found = detectEncoding(path, bytes, encoding);
  const other = found.name === "utf-8" ? undefined : { decoder: new TextDecoder(found.name), rest: "" };
  return [found, other, bytes.subarray(found.mark)];
}

/** The end of the last whole line. A \r at the very end may be half of a \r\n. */
function endOfLines(text: Buffer | string): number {
  const newline = text.lastIndexOf("\n") + 1;
  if (newline > 0) return newline;
  return text.lastIndexOf("\r", text.length - 2) + 1;
}

function decode(bytes: Buffer): Block {
  if (isUtf8(bytes)) return { text: bytes.toString("utf8"), bad: [] };
  const bad: number[] = [];
  const parts: string[] = [];
  for (let start = 0, line = 0; start < bytes.length; line++) {
    const [lf, cr] = [bytes.indexOf(10, start), bytes.indexOf(13, start)];
    const first = lf < 0 ? cr : cr < 0 ? lf : Math.min(lf, cr);
    const end = first < 0 ? bytes.length : first === cr && lf === cr + 1 ? lf + 1 : first + 1;
    const own = bytes.subarray(start, end);
    const valid = isUtf8(own);
    if (!valid) bad.push(line);
    parts.push(own.toString(valid ? "utf8" : "latin1"));
    start = end;
  }
  return { text: parts.join(""), bad };
}

/**
 * Whether an uncompressed file is UTF-8 with only \n, without a byte-order mark, quotes, blank lines or NUL, for a
 * simple reader. Runs at the speed of the disk; stops at the first exception.
 */
export function isPlainText(path: string): boolean {
  const buffer = Buffer.alloc(4 * 2 ** 20);
  const fd = openSync(path, "r");
  let kept = 0;
  try {
    for (;;) {
      const read = readSync(fd, buffer, kept, buffer.length - kept, null);
      const bytes = buffer.subarray(0, kept + read);
      const lines = bytes.subarray(0, read === 0 ? bytes.length : bytes.lastIndexOf(10) + 1);
      if (lines.length === 0 && read > 0 && bytes.length === buffer.length) return false; // a very long line
      const begin = lines[0];
      if (begin === 10 || begin === 0xef) return false; // a blank line or a byte-order mark
      if (lines.includes(13) || lines.includes(34) || lines.includes(0) || lines.includes("\n\n")) return false;
      if (!isUtf8(lines)) return false;
      if (read === 0) return true;
      buffer.copyWithin(0, lines.length, bytes.length);
      kept = bytes.length - lines.length;
    }
  } finally {
    closeSync(fd);
  }
}
