/**
 * Token documents of next-item training: windows over users' items, cut and batched; for mid-training, replay and
 * SASRec.
 */
import type { Config } from "../config/schema.ts";
import { Rng } from "../core/rng.ts";
import type { TrainingView } from "../data/split.ts";
import type { Encoder } from "../prompts/pieces.ts";
import { sequentialTask } from "../prompts/tasks.ts";

/** A training document: the first token is given, the rest are learned. */
export type Document = readonly number[];

/** Windows over a sequence, the last one flush with its end. */
export function windows(length: number, size: number, stride: number, offset: number): [start: number, end: number][] {
  if (length < 2) return [];
  const out: [number, number][] = [];
  for (let end = length; end > 1; end -= stride) {
    out.push([Math.max(0, end - size), end]);
    if (end - size <= 0) break;
    if (out.length === 1 && offset > 0) end += stride - offset; // every epoch cuts at other positions
  }
  return out;
}

/**
 * Next-item windows of one epoch over the users' learnable items.
 * @param known number of a user's items that the model has already learned: windows with nothing else are left out
 */
export function sequentialDocuments(
  config: Config,
  view: Pick<TrainingView, "sequences" | "times">,
  encoder: Encoder,
  epoch: number,
  known: (user: number) => number = () => 0,
): Document[] {
  const { windowItems, windowStride, shuffleTies } = config.midtrain;
  const rng = Rng.of(config.seed, "windows", epoch);
  return view.sequences.flatMap((sequence, user) => {
    const items = shuffleTies ? withShuffledTies(sequence, view.times[user] as Float64Array, rng) : sequence;
    const cuts = windows(items.length, windowItems, windowStride, rng.int(windowStride));
    return cuts
      .filter(([, end]) => end > known(user))
      .map(([start, end]) => encoder.encode(sequentialTask(items.subarray(start, end))));
  });
}

/** The items, with every run of equal times shuffled. */
export function withShuffledTies(items: Int32Array, times: Float64Array, rng: Rng): Int32Array {
  const out = items.slice();
  for (let start = 0, end = 0; start < out.length; start = end) {
    end = start + 1;
    while (end < out.length && times[end] === times[start]) end++;
    if (end - start > 1) out.set(rng.shuffle(Array.from(out.subarray(start, end))), start);
  }
  return out;
}

export function intoBatches(documents: readonly Document[], batchTokens: number): Document[][] {
  const out: Document[][] = [];
  let batch: Document[] = [];
  let tokens = 0;
  for (const document of documents) {
    if (document.length < 2) continue;
    if (batch.length > 0 && tokens + document.length > batchTokens) {
      out.push(batch);
      batch = [];
      tokens = 0;
    }
    batch.push(document);
    tokens += document.length;
  }
  if (batch.length > 0) out.push(batch);
  return out;
}

/**
 * One batch of next-token learning: every token but each document's first counts the same; the loss is their mean,
 * nats.
 */
export function learnDocuments(documents: readonly Document[]) {
  const targets = documents.reduce((n, d) => n + d.length - 1, 0);
  return {
    batch: { groups: documents.map((d) => ({ prompt: d.slice(0, 1), responses: [d.slice(1)] })) },
    weights: new Float32Array(targets).fill(1 / targets),
    loss: { kind: "cross_entropy" as const },
  };
}
