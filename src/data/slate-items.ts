/**
 * A slate as whoever brings a reward, a metric, a baseline or a teacher sees it:
 * items with their texts, no row numbers.
 */
import type { Item } from "./types.ts";

export interface SlateItems {
  /** Opaque; as in slates, rollouts and messages. */
  readonly id: string;
  /** The user's latest items before the slate, oldest first: as many as prompts.historyItems. */
  readonly history: readonly Item[];
  /** In the order of the pre-rank, best first. */
  readonly candidates: readonly Item[];
  /** The pre-ranker's scores of the candidates. */
  readonly scores: readonly number[];
}

/** A slate with its answer. */
export interface LabelledSlate extends SlateItems {
  /** Relevance of every candidate, 0 = not relevant; where there is one true item, 1 for it. */
  readonly labels: readonly number[];
}
