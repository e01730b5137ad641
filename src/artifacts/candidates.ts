/** How good a run's pre-rankers are: recall.json of stage candidates, or of stage slates if the LM is one of them. */
import { join } from "node:path";
import type { Segment } from "../data/types.ts";
import { type ExpertNames, needsLanguageModel } from "../prerank/experts.ts";
import type { Fusion } from "../prerank/fuse.ts";
import type { ListMetrics } from "../prerank/lists.ts";

/** The stage that makes a recipe's slates and stores its fitted pre-rankers. */
export const proposingStage = (prerank: ExpertNames): "candidates" | "slates" =>
  needsLanguageModel(prerank) ? "slates" : "candidates";

/** Weights of one of SASRec's fits. */
export const sasrecState = (dir: string, fit: string): string => join(dir, `sasrec-${fit}`);

export const recallFile = (dir: string): string => join(dir, "recall.json");

export interface CandidatesReport {
  /** N. */
  readonly candidates: number;
  readonly kind: string;
  /** Whose lists the slates are made from: `fused`, or one pre-ranker. */
  readonly chosen: string;
  /** The fused pre-ranker with the highest N@10 on validation, or the only one. Results are compared with it. */
  readonly bestSingle: string;
  /** Weights of the fused score. */
  readonly fusion?: Fusion;
  /** By segment and pre-ranker, over all positions. */
  readonly metrics: Readonly<Partial<Record<Segment, Readonly<Record<string, ListMetrics>>>>>;
  /** The chosen order minus the best single pre-ranker's, all positions, paired over users. */
  readonly comparisons: readonly {
    readonly segment: Segment;
    readonly metric: string;
    readonly delta: number;
    readonly ciLow: number;
    readonly ciHigh: number;
  }[];
}
