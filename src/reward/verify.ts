/**
 * Verifiable rewards (GR2 v1 §5, TR): pure functions of a parsed answer and the labels of its slate. No model is asked.
 *
 *   promotion   R_rank = (rank_pre(x*) - rank_re(x*)) / N; of several positives their mean, whatever their labels
 *   ndcg        graded NDCG@k of the answer - that of the input order (one true item: 1 / log2(rank + 1))
 *   auc         share of (higher label, lower label) pairs in the right order - that of the input order
 *   format      alpha, paid for a parseable answer: `conditional` only if it has more pairs in the right order than the
 *               input (one true item: R_rank > 0), or an ideal input order stays ideal (it was first and stays first);
 *               `unconditional` always (teaches copying the input order: kept for the experiment)
 *   dehacked    ndcg, auc: the answer's own value (TR), nothing subtracted, but 0 when a sub-optimal input order (a lower
 *               label above a higher one) is re-emitted. Where the input's value is subtracted, a copy gains 0 anyway, so
 *               the gate alone would change nothing; promotion is such a difference and stays as it is
 *   invalid     the whole reward of an unparseable answer
 */
import { gradedAuc, gradedNdcg } from "../eval/metrics.ts";
import type { Parsed } from "../prompts/parse.ts";

export interface RewardOptions {
  readonly kind: "rank-promotion" | "ndcg" | "auc";
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
  /** 0-based place of the target (highest label, first in the input) before and after; -1 after an unparseable answer. */
  readonly before: number;
  readonly after: number;
  /** One sentence: why this number. Written when it is asked for: few of the answers of a run are looked at. */
  readonly because: string;
}

/** Labels from best to worst: nothing is left to gain. */
export const isIdeal = (labels: readonly number[]): boolean =>
  labels.every((l, i) => i === 0 || l <= (labels[i - 1] as number));

/**
 * @param labels relevance (>= 0) of every candidate in the input order; one-hot where there is one true item
 * @throws RangeError when no candidate is relevant
 */
export function verify(parsed: Parsed, labels: readonly number[], options: RewardOptions): Verdict {
  const before = labels.indexOf(Math.max(...labels));
  if (!labels.some((l) => l > 0)) throw new RangeError("a slate without its true item cannot be rewarded");
  if (parsed.kind === "unparseable")
    return {
      reward: options.invalid,
      parts: { ranking: 0, format: 0, invalid: options.invalid },
      valid: false,
      identity: false,
      before,
      after: -1,
      because: `unparseable (${parsed.reason}: ${parsed.detail}): ${options.invalid}`,
    };
  const answer = parsed.order.map((i) => labels[i] as number);
  const identity = parsed.order.every((c, i) => c === i);
  const measured = measures(labels, answer, options);
  const gated = options.dehacked && identity && !isIdeal(labels);
  const ranking = gated ? 0 : measured.value;
  const earned = aucOf(answer) > aucOf(labels) || (isIdeal(labels) && isIdeal(answer));
  const paid = options.format === "unconditional" || (options.format === "conditional" && earned);
  const format = paid ? options.formatBonus : 0;
  return {
    reward: ranking + format,
    parts: { ranking, format, invalid: 0 },
    valid: true,
    identity,
    before,
    after: parsed.order.indexOf(before),
    get because() {
      const formula = gated ? "sub-optimal input order re-emitted: 0" : measured.formula();
      return `${movesOf(labels, answer)}: ${formula}; format ${format}`;
    },
  };
}

/** Places of the positives, from 1. */
const placesOf = (labels: readonly number[]): number[] => labels.flatMap((l, i) => (l > 0 ? [i + 1] : []));

/** Slates without two different labels have no pair to get wrong. */
const aucOf = (labels: readonly number[]): number => gradedAuc(labels) ?? 0;

/** The ranking reward before any gate, with its arithmetic. */
function measures(
  input: readonly number[],
  answer: readonly number[],
  { kind, ndcgK, dehacked }: RewardOptions,
): { value: number; formula: () => string } {
  if (kind === "rank-promotion") {
    const mean = (labels: readonly number[]): number => {
      const places = placesOf(labels);
      return places.reduce((a, b) => a + b, 0) / places.length;
    };
    const value = (mean(input) - mean(answer)) / input.length;
    const place = (labels: readonly number[]): string => String(Number(mean(labels).toFixed(4)));
    return { value, formula: () => `(${place(input)} - ${place(answer)}) / ${input.length} = ${value.toFixed(4)}` };
  }
  const measure = (labels: readonly number[]): number => (kind === "auc" ? aucOf(labels) : gradedNdcg(labels, ndcgK));
  const [from, to] = [measure(input), measure(answer)];
  const name = kind === "auc" ? "AUC" : `NDCG@${ndcgK}`;
  if (dehacked) return { value: to, formula: () => `${name} ${to.toFixed(4)}` };
  return {
    value: to - from,
    formula: () => `${name} ${from.toFixed(4)} -> ${to.toFixed(4)} = ${(to - from).toFixed(4)}`,
  };
}

function movesOf(input: readonly number[], answer: readonly number[]): string {
  const [from, to] = [placesOf(input), placesOf(answer)];
  return from.length === 1
    ? `true item from place ${from[0]} to ${to[0]} of ${input.length}`
    : `${from.length} positives from places ${from.join(", ")} to ${to.join(", ")} of ${input.length}`;
}

/**
 * DAPO's soft overlong punishment (DAPO eq. 13): 0 up to `limit - buffer` tokens, then linearly to -1 at `limit`.
 * Added to the reward of the response.
 */
export function overlongPenalty(length: number, limit: number, buffer: number): number {
  if (buffer <= 0 || length <= limit - buffer) return 0;
  return length >= limit ? -1 : (limit - buffer - length) / buffer;
}
