/**
 * A slate: one re-ranking problem, from a pre-ranker that has not seen the answer or from the log of an incumbent
 * ranker.
 */
import type { TrainingView } from "../data/split.ts";
import type { Segment } from "../data/types.ts";

export interface Slate {
  /**
   * Stable, opaque: a hash of data set, user row and position (or index in the log). Not derived from text, never shown
   * to a model.
   */
  readonly id: string;
  /** User row. */
  readonly user: number;
  /** The history is everything before this position of the user's sequence; unless logged, the answer is at it. */
  readonly position: number;
  readonly segment: Segment;
  /** Item rows, in the previous stage's order (best first), N of them. */
  readonly candidates: readonly number[];
  /** The previous stage's scores, same order; non-increasing unless an incumbent's order departs from its scores. */
  readonly scores: readonly number[];
  /**
   * If the previous stage is fused: each pre-ranker's own score of every candidate, by its name, same order; null where
   * it has none. Every slate of a run has the same names. `scores` stays the fused score, which defines the order.
   */
  readonly experts?: Readonly<Record<string, readonly (number | null)[]>>;
  /** The true next item's row; for a logged slate, the item at targetIndex. */
  readonly target: number;
  /**
   * Index of the target among the candidates; -1: the pre-ranker missed it (counts as a miss end to end). For a logged
   * slate: the candidate with the highest label, the first in input order if several have it; never -1.
   */
  readonly targetIndex: number;
  /**
   * Graded relevance of every candidate, same order, ≥ 0 (0 = not relevant). Absent: 1 for the target, 0 for the
   * others.
   */
  readonly labels?: readonly number[];
  /** When a logged slate was shown, seconds. */
  readonly time?: number;
  /**
   * The target's rank among all items by each pre-ranker, from 1; null = not in its list. Reveals the answer: for
   * tables only.
   */
  readonly targetRanks?: Readonly<Record<string, number | null>>;
}

/** Relevance of every candidate in input order: as logged, else 1 for the target; all zeros for a miss. */
export const slateLabels = (slate: Pick<Slate, "candidates" | "targetIndex" | "labels">): readonly number[] =>
  slate.labels ?? slate.candidates.map((_, i) => (i === slate.targetIndex ? 1 : 0));

/** The truth as a distribution over candidates, in proportion to their labels; all zeros for a miss. */
export function targetDistribution(slate: Pick<Slate, "candidates" | "targetIndex" | "labels">): readonly number[] {
  const labels = slateLabels(slate);
  const sum = labels.reduce((a, b) => a + b, 0);
  return sum === 0 ? labels : labels.map((l) => l / sum);
}

/** Item rows, best first, and their scores. */
export interface Ranked {
  readonly items: readonly number[] | Int32Array;
  readonly scores: readonly number[] | Float64Array;
}

/** `unseen`: items of the history are not ranked; `allow`: they may come again. */
export type Repeats = "unseen" | "allow";

/** Ranks all items for a history; the one interface of popularity, item-kNN, SASRec and the generative pre-ranker. */
export interface PreRanker {
  readonly name: string;
  /** Numbers it stores: weights of a model, entries of a table. */
  readonly parameters: number;
  /**
   * How its scores become additive: log for positive shares, counts or similarities; none for log-probabilities and the
   * like.
   */
  readonly scale: "log" | "none";
  /** Scores at or below it only fill up the list and do not depend on the history; absent = no such scores. */
  readonly floor?: number;
  /**
   * The best `n` items for every history, in order; fewer if fewer are left. Row order never breaks ties.
   * @param users row of each history's user, for scores computed elsewhere
   */
  rankTop(
    histories: readonly Int32Array[],
    n: number,
    repeats: Repeats,
    users?: readonly number[],
  ): Promise<readonly Ranked[]>;
}

/** What a fit is for: its name for seeds and files, and the users it will make slates for. */
export interface FitPurpose {
  readonly name: string;
  readonly asks: (user: number) => boolean;
}

/** Learns from a view and from no other data. A later fit may replace an earlier one in the worker. */
export type FitPreRanker = (training: TrainingView, purpose: FitPurpose) => PreRanker | Promise<PreRanker>;

const none: ReadonlySet<number> = new Set();

/** A pre-ranker that takes one history at a time. */
export const oneByOne = (
  about: Omit<PreRanker, "rankTop">,
  top: (history: Int32Array, n: number, exclude: ReadonlySet<number>, user: number | undefined) => Ranked,
): PreRanker => ({
  ...about,
  rankTop: (histories, n, repeats, users) =>
    Promise.resolve(histories.map((h, i) => top(h, n, repeats === "unseen" ? new Set(h) : none, users?.[i]))),
});
