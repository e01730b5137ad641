/** A user's own pre-ranker: the same interface as ours (types.ts), plus the data that ours get elsewhere. */
import type { TrainingView } from "../data/split.ts";
import type { Item } from "../data/types.ts";
import type { FitPurpose, PreRanker } from "./types.ts";

/** Everything it may learn from: sequences of item rows by user, empty for held-out users. */
export interface Training extends TrainingView {
  /** Texts by item row. */
  readonly items: readonly Item[];
  /** The run's seed, from which everything random derives. */
  readonly seed: number;
}

export type FittedPreRanker = Pick<PreRanker, "rankTop"> & Partial<Pick<PreRanker, "scale" | "floor" | "parameters">>;

export interface BroughtPreRanker {
  fit(training: Training, purpose: FitPurpose): FittedPreRanker | Promise<FittedPreRanker>;
}
