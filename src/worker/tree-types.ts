/** What the worker is asked about boosted trees, and what it answers. */
import type { Matrix } from "./model-types.ts";

export interface TreesConfig {
  readonly maxTrees: number;
  readonly learningRate: number;
  readonly leaves: number;
  readonly minLeafRows: number;
  readonly l2: number;
  /** Of the features, drawn anew for every tree. */
  readonly featureShare: number;
  readonly maxBins: number;
  /** Ranks that count in training and in the NDCG that stops it. */
  readonly top: number;
  /** Trees without a better NDCG before it stops. */
  readonly patience: number;
  readonly seed: number;
}

export interface FitTreesRequest {
  /** [rows, features]; NaN = not known. */
  readonly features: Matrix;
  /** Level of relevance of every row, from 0. */
  readonly labels: Int32Array;
  /** Of each level, in NDCG. */
  readonly gains: readonly number[];
  /** Rows of every group, in order; they add up to all. */
  readonly groupSizes: Int32Array;
  /** Of every group, from 0; two at least, none empty. */
  readonly folds: Int32Array;
  readonly config: TreesConfig;
}

export interface FittedTrees {
  /** LightGBM's text format: without fold 0, without fold 1, …, on all groups. */
  readonly models: readonly string[];
  /** Loss that each feature took away in the last of them. */
  readonly gains: readonly number[];
  /** Of every model. */
  readonly trees: number;
  /** On the folds left out, after each tree tried. */
  readonly ndcg: readonly number[];
}
