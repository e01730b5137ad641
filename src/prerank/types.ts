/** A slate: one re-ranking problem. Built by a pre-ranker that has not seen the answer. */
import type { TrainingView } from "../data/split.ts";
import type { Segment } from "../data/types.ts";

export interface Slate {
  /** Stable, opaque: a hash of data set, user row and position. Never derived from text, never shown to a model. */
  readonly id: string;
  /** User row. */
  readonly user: number;
  /** Position of the answer in the user's sequence; the history is everything before it. */
  readonly position: number;
  readonly segment: Segment;
  /** Item rows, in the order of the stage before (best first), N of them. */
  readonly candidates: readonly number[];
  /** The pre-ranker's scores, same order, non-increasing. */
  readonly scores: readonly number[];
  /** The true next item's row. */
  readonly target: number;
  /** Index of the target among the candidates; -1: the pre-ranker missed it (counts as a miss end to end). */
  readonly targetIndex: number;
}

/** Item rows, best first, and their scores. */
export interface Ranked {
  readonly items: readonly number[];
  readonly scores: readonly number[];
}

/** `unseen`: items of the history are not ranked; `allow`: they may come again. */
export type Repeats = "unseen" | "allow";

/** Ranks all items for a history; the one interface of popularity, item-kNN, SASRec and the generative pre-ranker. */
export interface PreRanker {
  readonly name: string;
  /** Numbers it stores: weights of a model, entries of a table. */
  readonly parameters: number;
  /** The best `n` items for every history, in order; fewer where fewer are left. Ties never by row order. */
  topOf(histories: readonly Int32Array[], n: number, repeats: Repeats): Promise<readonly Ranked[]>;
}

/** Learns from a view, and from nothing else of the data. A later fit may take an earlier one's place in the worker. */
export type FitPreRanker = (training: TrainingView) => PreRanker | Promise<PreRanker>;

const none: ReadonlySet<number> = new Set();

/** A pre-ranker that takes one history at a time. */
export const oneByOne = (
  name: string,
  parameters: number,
  top: (history: Int32Array, n: number, exclude: ReadonlySet<number>) => Ranked,
): PreRanker => ({
  name,
  parameters,
  topOf: (histories, n, repeats) =>
    Promise.resolve(histories.map((h) => top(h, n, repeats === "unseen" ? new Set(h) : none))),
});
