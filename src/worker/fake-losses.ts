/**
 * FakeWorker's losses, target by target, and the alternatives of a target. A loss moves the logits of options; the
 * effect of normalisation on all other logits is left out.
 */
import type { Option } from "./fake-model.ts";
import type { Loss, TopTokens } from "./types.ts";

export interface LossAtTarget {
  readonly value: number;
  /** Derivative with respect to the logit of each option that is moved. */
  readonly pushes: readonly (readonly [Option, number])[];
  /** Sums over targets. */
  readonly metrics: Readonly<Record<string, number>>;
}

/** @param open all options there were, computed only if needed */
export function lossAt(loss: Loss, target: number, taken: Option, open: () => readonly Option[]): LossAtTarget {
  if (loss.kind === "cross_entropy")
    return { value: -taken.logprob, pushes: [[taken, -1]], metrics: { nll: -taken.logprob } };
  if (loss.kind === "distill") return forwardKl(loss.teacher, target, open());
  const ratio = Math.exp(taken.logprob - (loss.oldLogprobs[target] as number));
  const advantage = loss.advantages[target] as number;
  const bounded = Math.min(1 + loss.clipHigh, Math.max(1 - loss.clipLow, ratio));
  const surrogate = Math.min(ratio * advantage, bounded * advantage);
  const clipped = surrogate < ratio * advantage;
  return {
    value: -surrogate,
    pushes: clipped ? [] : [[taken, -ratio * advantage]],
    metrics: { clip_high_share: Number(clipped) },
  };
}

/** Sum over the teacher's alternatives, with all others taken as one, of q (log q - log p). */
function forwardKl({ ids, logprobs }: TopTokens, target: number, open: readonly Option[]): LossAtTarget {
  const byId = new Map(open.map((option) => [option.id, option]));
  const pushes: [Option, number][] = [];
  let [value, p, q] = [0, 0, 0];
  for (let at = target * ids.cols; at < (target + 1) * ids.cols; at++) {
    const option = byId.get(ids.data[at] as number);
    const logq = logprobs.data[at] as number;
    if (!option) continue;
    p += Math.exp(option.logprob);
    q += Math.exp(logq);
    value += Math.exp(logq) * (logq - option.logprob);
    pushes.push([option, Math.exp(option.logprob) - Math.exp(logq)]);
  }
  const rest = pushes.length < open.length ? Math.max(0, 1 - q) : 0;
  if (rest > 0 && p < 1) value += rest * (Math.log(rest) - Math.log(1 - p));
  return { value, pushes, metrics: { forward_kl: value, teacher_rest: rest } };
}

/** Empty rows for the alternatives of every target. */
export const emptyTop = (targets: number, k: number): TopTokens => ({
  ids: { rows: targets, cols: k, data: new Int32Array(targets * k).fill(-1) },
  logprobs: { rows: targets, cols: k, data: new Float32Array(targets * k).fill(-Infinity) },
});

/** Writes the likeliest options into a target's row. */
export function fillTop({ ids, logprobs }: TopTokens, target: number, open: readonly Option[]): void {
  const likeliest = [...open].sort((a, b) => b.logprob - a.logprob).slice(0, ids.cols);
  for (const [i, { id, logprob }] of likeliest.entries()) {
    ids.data[target * ids.cols + i] = id;
    logprobs.data[target * ids.cols + i] = logprob;
  }
}
