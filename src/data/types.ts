/**
 * The data types that all later folders use. Items and users are addressed by row number (dense, from 0); the caller's
 * own ids appear only at the edges and never reach a model.
 */
import type { ItemId, UserId } from "../core/ids.ts";

export interface Item {
  readonly id: ItemId;
  /** Neutralised plain text: no markup, no special tokens (sid/sanitise). May be empty. */
  readonly title: string;
  readonly brand: string;
  /** General to specific, or a flat set of genres. */
  readonly categories: readonly string[];
  readonly description: string;
}

/** One user's interactions in time order; ties are broken by a hash of user and item, which a model cannot learn. */
export interface UserSequence {
  readonly user: UserId;
  /** Item rows, oldest first. */
  readonly items: Int32Array;
  /** Seconds, or positions if the data has no timestamps; non-decreasing. */
  readonly times: Float64Array;
}

/**
 * Slates that an incumbent ranker showed, by user row and time, flat: slate k is entries starts[k] … starts[k + 1] of
 * items, scores and labels. Every slate has at least two candidates and at least two different labels.
 */
export interface Impressions {
  /** User row of each slate. */
  readonly users: Int32Array;
  /** Seconds. */
  readonly times: Float64Array;
  /** One entry more than `users`. */
  readonly starts: Int32Array;
  /** Item rows in the incumbent's order; distinct within a slate. */
  readonly items: Int32Array;
  /** The incumbent's scores, or -rank if none were logged. */
  readonly scores: Float64Array;
  /** Relevance, ≥ 0; 0 = shown and not wanted. */
  readonly labels: Float64Array;
}

export interface Dataset {
  readonly name: string;
  readonly items: readonly Item[];
  /** Index = user row. */
  readonly sequences: readonly UserSequence[];
  /** Present if the source is a log of slates. */
  readonly impressions?: Impressions;
  /** SHA-256 over sources and the settings that shaped them. */
  readonly hash: string;
  readonly stats: DatasetStats;
}

export interface DatasetStats {
  readonly users: number;
  readonly items: number;
  readonly interactions: number;
  readonly rowsRead: number;
  /** Rows left out, by reason ("malformed", "duplicate", "unknown item", "below k-core", ...). */
  readonly dropped: Readonly<Record<string, number>>;
  readonly itemsWithoutText: number;
  /** Share of consecutive interactions of a user with equal time. */
  readonly tieShare: number;
  readonly lengthMean: number;
  readonly lengthMedian: number;
  readonly lengthMax: number;
  /** False when times are only positions: no global-time split, no recency. */
  readonly hasClock?: boolean;
  /** Present if the source is a log of slates: how many were read and kept, and why others were dropped. */
  readonly impressions?: {
    readonly read: number;
    readonly slates: number;
    readonly candidates: number;
    /** Slates left out, by reason. */
    readonly dropped: Readonly<Record<string, number>>;
    /** Candidates removed from slates: missing from the item file. */
    readonly unknownCandidates: number;
  };
  /** Choices made by the adapter that the user should know about. */
  readonly notes?: readonly string[];
}

/**
 * The four segments of every user's sequence, in time order:
 *   midtrain    the language model and the pre-ranker may learn from these
 *   rerank      training slates for SFT and RL: out of sample for both of them
 *   validation  calibration and model selection
 *   test        used once, at the end
 */
export const segments = ["midtrain", "rerank", "validation", "test"] as const;
export type Segment = (typeof segments)[number];

/** Positions [start, end) of each segment in one user's sequence. A segment may be empty. */
export interface UserSplit {
  readonly midtrainEnd: number;
  readonly rerankEnd: number;
  readonly validationEnd: number;
  readonly testEnd: number;
}

export interface SplitDataset {
  readonly dataset: Dataset;
  /** Times in seconds at which rerank, validation and test begin, if the split is by global time. */
  readonly cuts?: readonly [rerank: number, validation: number, test: number];
  /** Index = user row. */
  readonly splits: readonly UserSplit[];
}
