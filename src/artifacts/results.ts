/** What evaluation leaves: results.json, the priors of the systems that answer in one pass, and metrics.json of the run. */
import { join } from "node:path";
import type { ComparisonRow, MetricRow } from "../eval/table.ts";
import type { Prior } from "../policy/prior.ts";

/** What the report and the command line print. */
export interface Results {
  readonly rows: readonly MetricRow[];
  readonly comparisons: readonly ComparisonRow[];
  readonly health: Readonly<Record<string, number>>;
  /** The system with the best validation N@5 among GR2's (controls left out). */
  readonly selected: { readonly system: string; readonly validation: Readonly<Record<string, number>> };
}

/** By direct system: the prior its likelihood is weighed with, fitted on all of validation. */
export type DirectPriors = Readonly<Record<string, Prior>>;

export const priorsFile = (dir: string): string => join(dir, "priors.json");

/** What a finished pipeline leaves in metrics.json. */
export interface Metrics extends Results {
  readonly schema: "gr2.metrics/1";
  readonly run: string;
  readonly config_hash: string;
  readonly seed: number;
  /** Seconds of each stage, as measured when it ran. */
  readonly timings: Readonly<Record<string, number>>;
}
