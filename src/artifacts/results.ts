/** What evaluation leaves: results.json, the priors of the systems that answer in one pass, and metrics.json of the run. */
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
  /** What is wrong with the answers of a policy, in sentences; absent in results of an earlier version. */
  readonly alarms?: readonly string[];
  /** The recommended system, and every system's N@5 on the validation slates it was chosen on. */
  readonly selected: { readonly system: string; readonly validation: Readonly<Record<string, number>> };
  readonly recommendation: Recommendation;
  /** Of several fused pre-rankers the one with the highest N@5 on validation, misses included; all are compared with it. */
  readonly best_preranker?: string;
  /** What is known of every system in `rows`. */
  readonly systems: readonly SystemEntry[];
}

/** Under which name metrics.jsonl has the seconds per request of a system; stage evaluate. */
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
  /** Milliseconds of the model per test slate, by system, in batches as the evaluation asked it; as measured, not compared. */
  readonly request_ms: Readonly<Record<string, number>>;
}
