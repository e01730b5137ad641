/** A pre-ranker that a user brings: the interface of ours (types.ts), with what ours take from elsewhere handed over. */
import type { TrainingView } from "../data/split.ts";
import type { Item } from "../data/types.ts";
import type { FitPurpose, PreRanker } from "./types.ts";

/** All that it may learn from: sequences of item rows by user, empty for users that are held out. */
export interface Training extends TrainingView {
  /** Texts by item row. */
  readonly items: readonly Item[];
  /** Of the run: everything random derives from it. */
  readonly seed: number;
}

export type FittedPreRanker = Pick<PreRanker, "rankTop"> & Partial<Pick<PreRanker, "scale" | "floor" | "parameters">>;

export interface BroughtPreRanker {
  fit(training: Training, purpose: FitPurpose): FittedPreRanker | Promise<FittedPreRanker>;
}
