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
  /** 0-based position of the target (highest label, first in the input) before and after; -1 after an unparseable answer. */
  readonly before: number;
  readonly after: number;
  /** One sentence: why this number. Written when it is asked for: few of the answers of a run are looked at. */
  readonly because: string;
}

/** Labels from best to worst: nothing is left to gain. */
export function isIdeal(labels: readonly number[]): boolean {
  for (let i = 1; i < labels.length; i++) if ((labels[i] as number) > (labels[i - 1] as number)) return false;
  return true;
}

/**
 * @param labels relevance (>= 0) of every candidate in the input order; one-hot where there is one true item
 * @throws RangeError when no candidate is relevant
 */
export function verify(parsed: Parsed, labels: readonly number[], options: RewardOptions): Verdict {
  const before = findBest(labels);
  if (!((labels[before] as number) > 0)) throw new RangeError("a slate without its true item cannot be rewarded");
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
  const { order } = parsed;
  const answer = order.map((i) => labels[i] as number);
  const identity = order.every((c, i) => c === i);
  const ideal = isIdeal(labels);
  const gated = options.dehacked && identity && !ideal;
  const ranking = gated ? 0 : measured(labels, answer, options);
  const paid =
    options.format === "unconditional" ||
    (options.format === "conditional" && (pairsInOrder(answer) > pairsInOrder(labels) || (ideal && isIdeal(answer))));
  const format = paid ? options.formatBonus : 0;
  return new Ranked({ ranking, format, invalid: 0 }, identity, before, order.indexOf(before), () => {
    const formula = gated ? "sub-optimal input order re-emitted: 0" : renderFormula(labels, answer, ranking, options);
    return `${describeMoves(labels, answer)}: ${formula}; format ${format}`;
  });
}

/** The verdict on a ranking. A class, because its sentence is rarely asked for and an accessor of every object is slow to make. */
class Ranked implements Verdict {
  readonly valid = true;
  readonly reward: number;
  readonly after: number;
  readonly parts: Verdict["parts"];
  readonly identity: boolean;
  readonly before: number;
  readonly #sentence: () => string;

  constructor(parts: Verdict["parts"], identity: boolean, before: number, after: number, sentence: () => string) {
    this.reward = parts.ranking + parts.format;
    this.parts = parts;
    this.identity = identity;
    this.before = before;
    this.after = after;
    this.#sentence = sentence;
  }

  get because(): string {
    return this.#sentence();
  }
}

/** Places of the positives, from 1. */
const findPositives = (labels: readonly number[]): number[] => labels.flatMap((l, i) => (l > 0 ? [i + 1] : []));

/** The first of the highest labels. */
function findBest(labels: readonly number[]): number {
  let best = 0;
  for (let i = 1; i < labels.length; i++) if ((labels[i] as number) > (labels[best] as number)) best = i;
  return best;
}

/** Pairs of candidates of which the better one stands first. AUC is their share of the pairs of unequal labels. */
function pairsInOrder(labels: readonly number[]): number {
  let pairs = 0;
  for (let i = 0; i < labels.length; i++)
    for (let j = i + 1; j < labels.length; j++) if ((labels[i] as number) > (labels[j] as number)) pairs++;
  return pairs;
}

/** Mean position of the positives, from 1. */
function meanPosition(labels: readonly number[]): number {
  let [sum, count] = [0, 0];
  for (let i = 0; i < labels.length; i++) {
    if ((labels[i] as number) > 0) {
      sum += i + 1;
      count++;
    }
  }
  return sum / count;
}

/** AUC or NDCG@K of labels in rank order. Slates without two different labels have no pair to get wrong. */
const computeMetric = (labels: readonly number[], { kind, ndcgK }: RewardOptions): number =>
  kind === "auc" ? (gradedAuc(labels) ?? 0) : gradedNdcg(labels, ndcgK);

/** The ranking reward before any gate. */
function measured(input: readonly number[], answer: readonly number[], options: RewardOptions): number {
  if (options.kind === "rank-promotion") return (meanPosition(input) - meanPosition(answer)) / input.length;
  return computeMetric(answer, options) - (options.dehacked ? 0 : computeMetric(input, options));
}

/** The arithmetic of `measured`. */
function renderFormula(
  input: readonly number[],
  answer: readonly number[],
  value: number,
  options: RewardOptions,
): string {
  if (options.kind === "rank-promotion") {
    const mean = (labels: readonly number[]): string => String(Number(meanPosition(labels).toFixed(4)));
    return `(${mean(input)} - ${mean(answer)}) / ${input.length} = ${value.toFixed(4)}`;
  }
  const name = options.kind === "auc" ? "AUC" : `NDCG@${options.ndcgK}`;
  if (options.dehacked) return `${name} ${value.toFixed(4)}`;
  const [from, to] = [computeMetric(input, options), computeMetric(answer, options)];
  return `${name} ${from.toFixed(4)} -> ${to.toFixed(4)} = ${value.toFixed(4)}`;
}

function describeMoves(input: readonly number[], answer: readonly number[]): string {
  const [from, to] = [findPositives(input), findPositives(answer)];
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
