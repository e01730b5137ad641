/**
 * Packing between typed arrays and the little-endian bytes of worker.proto. No network, no model.
 * Shape suffixes: G groups, R responses, T response tokens (targets).
 */
import { endianness } from "node:os";
import { WorkerError } from "../core/errors.ts";
import type * as pb from "./generated/gr2/v1/worker.ts";
import type { GroupBatch, IntMatrix, Matrix, PermutationConstraint, TokenIds } from "./types.ts";

if (endianness() !== "LE") throw new Error("GR2 needs a little-endian machine: tensors travel in host byte order");

/** The bytes of a typed array, without a copy. The array must not change until the message is sent. */
export const toBytes = (a: Int32Array | Float32Array): Buffer => Buffer.from(a.buffer, a.byteOffset, a.byteLength);

export const intBytes = (values: TokenIds): Buffer =>
  toBytes(values instanceof Int32Array ? values : Int32Array.from(values));

export const floatBytes = (values: readonly number[] | Float32Array): Buffer =>
  toBytes(values instanceof Float32Array ? values : Float32Array.from(values));

/** A view if the bytes happen to be aligned, else a copy: a decoded field may start at any offset of its message. */
function aligned(bytes: Uint8Array, field: string): { buffer: ArrayBuffer; offset: number; length: number } {
  if (bytes.byteLength % 4 !== 0) {
    throw new WorkerError(`the worker sent ${bytes.byteLength} bytes of ${field}, which is not a multiple of 4`, {
      retryable: false,
    });
  }
  if (bytes.byteOffset % 4 === 0) {
    return { buffer: bytes.buffer as ArrayBuffer, offset: bytes.byteOffset, length: bytes.byteLength / 4 };
  }
  const copy = Uint8Array.from(bytes);
  return { buffer: copy.buffer as ArrayBuffer, offset: 0, length: copy.byteLength / 4 };
}

export function toInt32(bytes: Uint8Array, field = "int32 data"): Int32Array {
  const { buffer, offset, length } = aligned(bytes, field);
  return new Int32Array(buffer, offset, length);
}

export function toFloat32(bytes: Uint8Array, field = "float32 data"): Float32Array {
  const { buffer, offset, length } = aligned(bytes, field);
  return new Float32Array(buffer, offset, length);
}

/** Concatenated token lists and the length of each. */
export function packRagged(lists: readonly TokenIds[]): { flat: Int32Array; lengths: Int32Array } {
  let total = 0;
  for (const l of lists) total += l.length;
  const flat = new Int32Array(total);
  const lengths = new Int32Array(lists.length);
  let at = 0;
  for (const [i, l] of lists.entries()) {
    flat.set(l, at);
    lengths[i] = l.length;
    at += l.length;
  }
  return { flat, lengths };
}

/** Response tokens in a batch: the length of every per-target array that belongs to it. */
export function numTargets(batch: GroupBatch): number {
  let n = 0;
  for (const g of batch.groups) for (const r of g.responses) n += r.length;
  return n;
}

export function packBatch(batch: GroupBatch): pb.GroupBatch {
  const lists: TokenIds[] = [];
  const promptLengths = new Int32Array(batch.groups.length);
  const groupSizes = new Int32Array(batch.groups.length);
  const responseLengths: number[] = [];
  for (const [g, { prompt, responses }] of batch.groups.entries()) {
    if (prompt.length === 0 || responses.length === 0) {
      throw new RangeError(`group ${g} of the batch has ${prompt.length === 0 ? "an empty prompt" : "no responses"}`);
    }
    promptLengths[g] = prompt.length;
    groupSizes[g] = responses.length;
    lists.push(prompt);
    for (const r of responses) {
      if (r.length === 0) throw new RangeError(`group ${g} of the batch has an empty response`);
      lists.push(r);
      responseLengths.push(r.length);
    }
  }
  return {
    tokens: toBytes(packRagged(lists).flat),
    promptLengths: toBytes(promptLengths),
    groupSizes: toBytes(groupSizes),
    responseLengths: intBytes(responseLengths),
  };
}

/** `numGroups`: groups of the batch or prompts of the request; the constraint must have one entry for each. */
export function packConstraint(constraint: PermutationConstraint, numGroups: number): pb.PermutationConstraint {
  if (constraint.groups.length !== numGroups) {
    throw new RangeError(`the constraint has ${constraint.groups.length} entries for ${numGroups} groups`);
  }
  const counts = new Int32Array(numGroups);
  const lists: TokenIds[] = [];
  const prior: number[] = [];
  for (const [g, group] of constraint.groups.entries()) {
    counts[g] = group.sequences.length;
    if (group.prior && group.prior.length !== group.sequences.length) {
      throw new RangeError(
        `constraint entry ${g} has ${group.prior.length} priors for ${group.sequences.length} sequences`,
      );
    }
    for (const [j, s] of group.sequences.entries()) {
      lists.push(s);
      prior.push(group.prior?.[j] ?? 0);
    }
  }
  const { flat, lengths } = packRagged(lists);
  return {
    sequenceCounts: toBytes(counts),
    sequenceLengths: toBytes(lengths),
    sequenceTokens: toBytes(flat),
    prior: floatBytes(prior),
    scale: constraint.scale ?? 1,
    trigger: Array.from(constraint.trigger ?? []),
    separator: Array.from(constraint.separator ?? []),
    terminator: Array.from(constraint.terminator ?? []),
    maxSequences: constraint.maxSequences ?? 0,
    wholeSequences: constraint.wholeSequences ?? false,
    maxFreeTokens: constraint.maxFreeTokens ?? 0,
  };
}

export const packMatrix = (m: Matrix): pb.Matrix => ({ rows: m.rows, cols: m.cols, data: toBytes(m.data) });
export const packIntMatrix = (m: IntMatrix): pb.IntMatrix => ({ rows: m.rows, cols: m.cols, data: toBytes(m.data) });

function shape(m: { rows: number; cols: number; data: Uint8Array } | undefined, field: string) {
  if (!m) throw new WorkerError(`the worker's answer lacks ${field}`, { retryable: false });
  if (m.rows * m.cols * 4 !== m.data.byteLength) {
    throw new WorkerError(`the worker sent ${m.data.byteLength} bytes for a ${m.rows} x ${m.cols} matrix (${field})`, {
      retryable: false,
    });
  }
  return m;
}

export function unpackMatrix(m: pb.Matrix | undefined, field: string): Matrix {
  const { rows, cols, data } = shape(m, field);
  return { rows, cols, data: toFloat32(data, field) };
}

export function unpackIntMatrix(m: pb.IntMatrix | undefined, field: string): IntMatrix {
  const { rows, cols, data } = shape(m, field);
  return { rows, cols, data: toInt32(data, field) };
}
