/**
 * Converts bytes to a JSON value, within limits: size is checked before bytes are kept, depth and number of values
 * before parsing; invalid UTF-8 is refused.
 */
import type { IncomingMessage } from "node:http";
import { promisify } from "node:util";
import { gunzip as gunzipWithCallback } from "node:zlib";
import type { LimitSettings } from "../../config/schema/serve-http.ts";
import { Refusal } from "../request/types.ts";
import { Problem } from "./problem.ts";

/** The client disconnected before its request was complete. */
export class ClientGone extends Error {}

/** Throws if the headers already show that the body cannot be read. */
export function checkHeaders(req: IncomingMessage, limits: Pick<LimitSettings, "maxRequestBytes">): void {
  const { "content-type": type, "content-encoding": encoding, "content-length": length } = req.headers;
  if (!/^application\/json\s*(;\s*charset\s*=\s*"?utf-8"?\s*)?$/i.test(type ?? ""))
    throw new Problem("unsupported_media", "The body must be JSON in UTF-8: Content-Type: application/json.");
  if (encoding !== undefined && encoding !== "identity" && encoding !== "gzip")
    throw new Problem("unsupported_media", "Bodies may only be compressed with gzip.", {
      headers: { "accept-encoding": "gzip" },
    });
  if (length !== undefined && Number(length) > limits.maxRequestBytes) throw tooLarge(limits.maxRequestBytes);
}

const tooLarge = (most: number): Refusal => new Refusal("too_large", `The body has more than ${most} bytes.`);

/** Reserves bytes before they are kept; a negative number releases bytes that are not needed. May throw a Refusal. */
export type Take = (bytes: number, chunk?: Buffer) => void;

/** The whole body, uncompressed, up to a maximum size. @throws Refusal, Problem, ClientGone */
export async function readBody(req: IncomingMessage, maxBytes: number, take: Take): Promise<Buffer> {
  const sent = await readSent(req, maxBytes, take);
  return req.headers["content-encoding"] === "gzip" ? gunzip(sent, maxBytes, take) : sent;
}

const unzip = promisify(gunzipWithCallback) as (bytes: Buffer, options: { maxOutputLength: number }) => Promise<Buffer>;
/** The largest expansion of a deflated byte. */
const mostPerByte = 1032;

async function gunzip(sent: Buffer, maxBytes: number, take: Take): Promise<Buffer> {
  const reserved = Math.min(maxBytes, mostPerByte * sent.length);
  take(reserved);
  try {
    const body = await unzip(sent, { maxOutputLength: maxBytes });
    take(body.length - reserved);
    return body;
  } catch (e) {
    if (e instanceof Error && "code" in e && e.code === "ERR_BUFFER_TOO_LARGE") throw tooLarge(maxBytes);
    throw new Problem("syntax", "The body is not gzip, although its Content-Encoding says so.");
  }
}

async function readSent(req: IncomingMessage, maxBytes: number, take: Take): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  try {
    for await (const chunk of req.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
      size += chunk.length;
      if (size > maxBytes) throw tooLarge(maxBytes);
      take(chunk.length, chunk);
      chunks.push(chunk);
    }
  } catch (e) {
    if (e instanceof Refusal) throw e;
    throw new ClientGone("the request was cut off", { cause: e });
  }
  return Buffer.concat(chunks, size);
}

/**
 * Reads and discards the rest of a refused request: the client gets the answer instead of a reset connection.
 * @returns its first bytes
 */
export async function discardBody(req: IncomingMessage, maxBytes: number, timeoutMs: number): Promise<Buffer> {
  let first = Buffer.alloc(0);
  if (req.complete || req.destroyed) return first;
  let size = 0;
  await new Promise<void>((resolve) => {
    const timer = setTimeout(done, timeoutMs);
    function done(): void {
      clearTimeout(timer);
      req.off("data", count);
      req.pause();
      resolve();
    }
    function count(chunk: Buffer): void {
      size += chunk.length;
      if (first.length < maxPeeked) first = Buffer.concat([first, chunk]).subarray(0, maxPeeked);
      if (size > maxBytes) done();
    }
    req.on("data", count);
    req.once("end", done);
    req.once("error", done);
    req.once("close", done);
    req.resume();
  });
  return first;
}

/** Limits of a JSON text. */
export interface JsonLimits {
  /** Depth of nested lists and objects. */
  readonly maxDepth: number;
  /** Members of all lists and objects together. */
  readonly maxValues: number;
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: false });

/** The JSON value in these bytes. Throws Problem "syntax", or Refusal "too_large" beyond the limits. */
export function parseJson(bytes: Buffer, limits: JsonLimits): unknown {
  let text: string;
  try {
    text = utf8.decode(bytes);
  } catch {
    throw new Problem("syntax", "The body is not UTF-8.");
  }
  checkShape(bytes, limits);
  try {
    return JSON.parse(text) as unknown;
  } catch {
    throw new Problem("syntax", text.trim() === "" ? "The body is empty." : "The body is not JSON.");
  }
}

/**
 * Top-level keys in the first bytes of a JSON object, with the values that are short texts. Used to recognise the
 * dialect of a request that is refused before it is read, or cannot be read. Undefined if the bytes do not begin an
 * object.
 */
export function peekObject(bytes: Buffer): Readonly<Record<string, unknown>> | undefined {
  const text = bytes.toString("latin1", 0, maxPeeked);
  if (!/^\s*\{/.test(text)) return undefined;
  const keys: Record<string, unknown> = {};
  let depth = 0;
  const tokens = text.matchAll(/"([^"\\]{1,40})"\s*:\s*(?:"([^"\\]{0,60})")?|"(?:[^"\\]|\\.?)*(?:"|$)|[[\]{}]/gs);
  for (const [token, key, value] of tokens) {
    if (token === "{" || token === "[") depth++;
    else if (token === "}" || token === "]") depth--;
    else if (key !== undefined && depth === 1) keys[key] = value;
  }
  return keys;
}

/** Bytes of a body used to recognise its dialect. */
const maxPeeked = 16_384;

const quote = 0x22;
const backslash = 0x5c;
const comma = 0x2c;
const opening = new Set([0x5b, 0x7b]);
const closing = new Set([0x5d, 0x7d]);

/** One pass over the bytes; structure is ASCII, and outside strings nothing else matters. */
function checkShape(bytes: Buffer, { maxDepth, maxValues }: JsonLimits): void {
  let depth = 0;
  let numValues = 1;
  let inString = false;
  for (let i = 0; i < bytes.length; i++) {
    const byte = bytes[i] as number;
    if (inString) {
      if (byte === backslash) i++;
      else if (byte === quote) inString = false;
    } else if (byte === quote) inString = true;
    else if (opening.has(byte)) {
      numValues++;
      if (++depth > maxDepth) throw new Refusal("too_large", `The body is nested deeper than ${maxDepth} levels.`);
    } else if (closing.has(byte)) depth--;
    else if (byte === comma) numValues++;
    if (numValues > maxValues) throw new Refusal("too_large", `The body has more than ${maxValues} values.`);
  }
}
