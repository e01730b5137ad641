/** What evaluation leaves: results.json, the priors of systems that answer in one pass, and the run's metrics.json. */
import { join } from "node:path";
import type { Recommendation } from "../eval/recommend.ts";
import type { SystemEntry } from "../eval/systems.ts";
import type { ComparisonRow, MetricRow } from "../eval/table.ts";
import type { Prior } from "../policy/prior.ts";

/** What the report and the command line print. */
export interface Results {
  readonly rows: readonly MetricRow[];
  readonly comparisons: readonly ComparisonRow[];
  readonly health: Readonly<Record<string, number>>;
  /** Problems of a policy's answers, in sentences; absent in results of earlier versions. */
  readonly alarms?: readonly string[];
  /** The recommended system, and every system's N@5 on the validation slates it was chosen on. */
  readonly selected: { readonly system: string; readonly validation: Readonly<Record<string, number>> };
  readonly recommendation: Recommendation;
  /** The fused pre-ranker with the highest N@5 on validation, misses included; all systems are compared with it. */
  readonly best_preranker?: string;
  /** An entry for every system in `rows`. */
  readonly systems: readonly SystemEntry[];
}

/** Name in metrics.jsonl of a system's seconds per request; stage evaluate. */
export const requestSeconds = (system: string): string => `seconds_${system}`;

/** By system that scores: its prior, fitted on all of validation. */
export type DirectPriors = Readonly<Record<string, Prior>>;

export const priorsFile = (dir: string): string => join(dir, "priors.json");

/** What a finished pipeline leaves in metrics.json. */
export interface Metrics extends Results {
  readonly schema: "gr2.metrics/2";
  readonly run: string;
  readonly config_hash: string;
  readonly seed: number;
  /** Seconds of each stage, as measured when it ran. */
  readonly timings: Readonly<Record<string, number>>;
  /** Model milliseconds per test slate, by system, in the evaluation's batches; measured, not compared between runs. */
  readonly request_ms: Readonly<Record<string, number>>;
}
