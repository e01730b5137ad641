/** A slate: one re-ranking problem. Built by a pre-ranker that has not seen the answer. */
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

/** Scores every item for a history; the one interface of popularity, item-kNN, SASRec and the generative pre-ranker. */
export interface PreRanker {
  readonly name: string;
  /** Best `n` item rows not in `exclude`, with scores, best first; ties by item row hash, never by row order. */
  top(history: Int32Array, n: number, exclude: ReadonlySet<number>): { items: number[]; scores: number[] };
}
