/** What the worker is asked about boosted trees, and what it answers. */
import type { Matrix } from "./model-types.ts";

export interface TreesConfig {
  readonly maxTrees: number;
  readonly learningRate: number;
  readonly leaves: number;
  readonly minLeafRows: number;
  readonly l2: number;
  /** Share of the features, drawn anew for every tree. */
  readonly featureShare: number;
  readonly maxBins: number;
  /** Ranks that count, in training and in the NDCG used for early stopping. */
  readonly top: number;
  /** Trees without a better NDCG before training stops. */
  readonly patience: number;
  readonly seed: number;
}

export interface FitTreesRequest {
  /** [rows, features]; NaN = unknown. */
  readonly features: Matrix;
  /** Relevance level of every row, from 0. */
  readonly labels: Int32Array;
  /** Gain of each level in NDCG. */
  readonly gains: readonly number[];
  /** Number of rows in each group, in order; they sum to all rows. */
  readonly groupSizes: Int32Array;
  /** Fold of each group, from 0; at least two, none empty. */
  readonly folds: Int32Array;
  readonly config: TreesConfig;
}

export interface FittedTrees {
  /** LightGBM's text format: without fold 0, without fold 1, …, on all groups. */
  readonly models: readonly string[];
  /** Loss reduction by each feature, in the last model. */
  readonly gains: readonly number[];
  /** In each model. */
  readonly trees: number;
  /** On the held-out folds, after each tree. */
  readonly ndcg: readonly number[];
}
