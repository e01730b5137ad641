/**
 * Verifiable rewards (GR2 v1 §5, TR): pure functions of a parsed answer and its slate's labels, without a model. The
 * reward (kinds.ts, or a user's module) says what a readable answer is worth; this file adds the rest:
 *
 *   format      alpha, paid for a parseable answer: `conditional` only if it has more pairs in the right order than the
 *               input (one true item: R_rank > 0), or an ideal input order stays ideal (it was first and stays first);
 *               `unconditional` always (teaches copying the input order: kept for the experiment)
 *   dehacked    0 when a sub-optimal input order (a lower label above a higher one) is re-emitted
 *   invalid     the whole reward of an unparseable answer
 */
import type { Parsed } from "../prompts/parse.ts";
import { builtInReward, type KindOptions } from "./kinds.ts";
import type { Score } from "./reward.ts";

/** The settings of everything but the reward itself. */
export interface VerdictOptions {
  readonly format: "conditional" | "unconditional" | "none";
  readonly formatBonus: number;
  readonly dehacked: boolean;
  readonly invalid: number;
}

export interface RewardOptions extends VerdictOptions, KindOptions {}

export interface Verdict {
  readonly reward: number;
  /** Addends of `reward`. */
  readonly parts: { readonly ranking: number; readonly format: number; readonly invalid: number };
  /** Addends of `parts.ranking`, if the reward reports them. */
  readonly details: Readonly<Record<string, number>>;
  readonly valid: boolean;
  /** The answer repeats the input order. */
  readonly identity: boolean;
  /**
   * 0-based position of the target (highest label, first in the input) before and after; -1 after an unparseable
   * answer.
   */
  readonly before: number;
  readonly after: number;
  /** One sentence: why this number. Written on demand, since few answers of a run are looked at. */
  readonly because: string;
}

/** True if the labels never increase: nothing is left to gain. */
export function isIdeal(labels: readonly number[]): boolean {
  for (let i = 1; i < labels.length; i++) if ((labels[i] as number) > (labels[i - 1] as number)) return false;
  return true;
}

const noDetails: Verdict["details"] = {};

/**
 * The verdict of one of our rewards.
 * @param labels relevance (>= 0) of every candidate in the input order; one-hot where there is one true item
 * @throws RangeError when no candidate is relevant
 */
export function verify(parsed: Parsed, labels: readonly number[], options: RewardOptions): Verdict {
  return judge(parsed, labels, options, (order) => {
    const [score] = builtInReward(options).score([{ slate: { labels }, order }]);
    return score as Score;
  });
}

/**
 * @param labels as in verify
 * @param getScore what the reward says of a readable answer
 * @throws RangeError when no candidate is relevant
 */
export function judge(
  parsed: Parsed,
  labels: readonly number[],
  options: VerdictOptions,
  getScore: (order: readonly number[]) => Score,
): Verdict {
  const before = findBest(labels);
  if (!((labels[before] as number) > 0)) throw new RangeError("a slate without its true item cannot be rewarded");
  if (parsed.kind === "unparseable")
    return {
      reward: options.invalid,
      parts: { ranking: 0, format: 0, invalid: options.invalid },
      details: noDetails,
      valid: false,
      identity: false,
      before,
      after: -1,
      because: `unparseable (${parsed.reason}: ${parsed.detail}): ${options.invalid}`,
    };
  const { order } = parsed;
  const score = getScore(order);
  const answer = order.map((i) => labels[i] as number);
  const identity = order.every((c, i) => c === i);
  const ideal = isIdeal(labels);
  const gated = options.dehacked && identity && !ideal;
  const paid =
    options.format === "unconditional" ||
    (options.format === "conditional" && (pairsInOrder(answer) > pairsInOrder(labels) || (ideal && isIdeal(answer))));
  const format = paid ? options.formatBonus : 0;
  const ranking = gated ? 0 : score.value;
  const details = gated ? noDetails : (score.parts ?? noDetails);
  return new Ranked({ ranking, format, invalid: 0 }, details, identity, before, order.indexOf(before), () => {
    const formula = gated ? "sub-optimal input order re-emitted: 0" : (score.because ?? `reward ${score.value}`);
    return `${describeMoves(labels, answer)}: ${formula}; format ${format}`;
  });
}

/**
 * The verdict on a ranking. A class, because its sentence is rarely needed and defining an accessor on every object is
 * slow.
 */
class Ranked implements Verdict {
  readonly valid = true;
  readonly reward: number;
  readonly after: number;
  readonly parts: Verdict["parts"];
  readonly details: Verdict["details"];
  readonly identity: boolean;
  readonly before: number;
  readonly #sentence: () => string;

  constructor(
    parts: Verdict["parts"],
    details: Verdict["details"],
    identity: boolean,
    before: number,
    after: number,
    sentence: () => string,
  ) {
    this.reward = parts.ranking + parts.format;
    this.parts = parts;
    this.details = details;
    this.identity = identity;
    this.before = before;
    this.after = after;
    this.#sentence = sentence;
  }

  get because(): string {
    return this.#sentence();
  }
}

/** Positions of the positives, from 1. */
const findPositives = (labels: readonly number[]): number[] => labels.flatMap((l, i) => (l > 0 ? [i + 1] : []));

/** The first of the highest labels. */
function findBest(labels: readonly number[]): number {
  let best = 0;
  for (let i = 1; i < labels.length; i++) if ((labels[i] as number) > (labels[best] as number)) best = i;
  return best;
}

/** Number of candidate pairs with the better one first. AUC is their share of all pairs with unequal labels. */
function pairsInOrder(labels: readonly number[]): number {
  let pairs = 0;
  for (let i = 0; i < labels.length; i++)
    for (let j = i + 1; j < labels.length; j++) if ((labels[i] as number) > (labels[j] as number)) pairs++;
  return pairs;
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
