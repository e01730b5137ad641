/**
 * Verifiable rewards (GR2 v1 §5, TR): pure functions of a parsed answer and the slate. No model is asked.
 *
 *   promotion   R_rank = (rank_pre(x*) - rank_re(x*)) / N
 *   ndcg        NDCG@k of the answer - NDCG@k of the input order (one relevant item: 1 / log2(rank + 1))
 *   format      alpha, paid for a parseable answer: `conditional` only if R_rank > 0, or the target was first and stays
 *               first; `unconditional` always (teaches copying the input order: kept for the experiment)
 *   dehacked    no ranking reward when a sub-optimal input order is re-emitted unchanged
 *   invalid     the whole reward of an unparseable answer
 */
import type { Parsed } from "../prompts/parse.ts";

export interface RewardOptions {
  readonly kind: "rank-promotion" | "ndcg";
  readonly ndcgK: number;
  readonly format: "conditional" | "unconditional" | "none";
  readonly formatBonus: number;
  readonly dehacked: boolean;
  readonly invalid: number;
}

export interface Verdict {
  readonly reward: number;
  /** Addends of `reward`. */
  readonly parts: { readonly ranking: number; readonly format: number; readonly invalid: number };
  readonly valid: boolean;
  /** The answer repeats the input order. */
  readonly identity: boolean;
  /** 0-based place of the target before and after; -1 after an unparseable answer. */
  readonly before: number;
  readonly after: number;
  /** One sentence: why this number. */
  readonly because: string;
}

const gain = (rank: number, k: number): number => (rank < k ? 1 / Math.log2(rank + 2) : 0);

/** @param targetIndex index of the true item in the input order; must be a candidate */
export function verify(parsed: Parsed, targetIndex: number, options: RewardOptions): Verdict {
  if (targetIndex < 0) throw new RangeError("a slate without its true item cannot be rewarded");
  if (parsed.kind === "unparseable")
    return {
      reward: options.invalid,
      parts: { ranking: 0, format: 0, invalid: options.invalid },
      valid: false,
      identity: false,
      before: targetIndex,
      after: -1,
      because: `unparseable (${parsed.reason}: ${parsed.detail}): ${options.invalid}`,
    };
  const n = parsed.order.length;
  const after = parsed.order.indexOf(targetIndex);
  const identity = parsed.order.every((c, i) => c === i);
  const promotion = (targetIndex - after) / n;
  const raw =
    options.kind === "rank-promotion" ? promotion : gain(after, options.ndcgK) - gain(targetIndex, options.ndcgK);
  const gated = options.dehacked && identity && targetIndex !== 0;
  const ranking = gated ? 0 : raw;
  const earned = promotion > 0 || (targetIndex === 0 && after === 0);
  const paid = options.format === "unconditional" || (options.format === "conditional" && earned);
  const format = paid ? options.formatBonus : 0;
  const move = `true item from place ${targetIndex + 1} to ${after + 1} of ${n}`;
  const formula =
    options.kind === "rank-promotion"
      ? `(${targetIndex + 1} - ${after + 1}) / ${n} = ${raw.toFixed(4)}`
      : `NDCG@${options.ndcgK} ${gain(targetIndex, options.ndcgK).toFixed(4)} -> ${gain(after, options.ndcgK).toFixed(4)} = ${raw.toFixed(4)}`;
  return {
    reward: ranking + format,
    parts: { ranking, format, invalid: 0 },
    valid: true,
    identity,
    before: targetIndex,
    after,
    because: `${move}: ${gated ? "sub-optimal input order re-emitted: 0" : formula}; format ${format}`,
  };
}

/**
 * DAPO's soft overlong punishment (DAPO eq. 13): 0 up to `limit - buffer` tokens, then linearly to -1 at `limit`.
 * Added to the reward of the response.
 */
export function overlongPenalty(length: number, limit: number, buffer: number): number {
  if (buffer <= 0 || length <= limit - buffer) return 0;
  return length >= limit ? -1 : (limit - buffer - length) / buffer;
}
