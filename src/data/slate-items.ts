/** A slate as a user's reward, metric, baseline or teacher sees it: items with their texts, no row numbers. */
import type { Item } from "./types.ts";

export interface SlateItems {
  /** Opaque id, the same as in slates, rollouts and messages. */
  readonly id: string;
  /** The user's latest items before the slate, oldest first; at most prompts.historyItems. */
  readonly history: readonly Item[];
  /** In pre-rank order, best first. */
  readonly candidates: readonly Item[];
  /** The pre-ranker's scores of the candidates. */
  readonly scores: readonly number[];
}

/** A slate with its answer. */
export interface LabelledSlate extends SlateItems {
  /** Relevance of every candidate, 0 = not relevant; 1 for a single true item. */
  readonly labels: readonly number[];
}
