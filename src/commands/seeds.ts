/** Results of one recipe over several seeds (gr2.seeds/1): each system with both levels of uncertainty. */
import { readTestAnswers } from "../artifacts/orders.ts";
import type { Metrics } from "../artifacts/results.ts";
import type { Uncertain } from "../eval/across-runs.ts";
import type { Slice } from "../eval/table.ts";
import { RunFolder } from "../run/run-folder.ts";
import { type SlateMetric, summariseRuns } from "./compare.ts";

export interface SeedRun {
  readonly name: string;
  readonly metrics: Metrics;
}

export interface SeedsSummary {
  readonly schema: "gr2.seeds/1";
  readonly name: string;
  readonly metric: SlateMetric;
  readonly runs: readonly { readonly run: string; readonly seed: number; readonly recommended: string }[];
  /** Empty if the runs share no test slate. */
  readonly slices: readonly {
    readonly slice: Slice;
    /** By run. */
    readonly slates: readonly number[];
    readonly users: number;
    readonly systems: readonly {
      readonly system: string;
      readonly value: Uncertain;
      /** Its difference to the pre-rank in the same run. */
      readonly over_prerank: Uncertain;
    }[];
  }[];
}

/** The name of one seed's run. */
export const seedRun = (name: string, seed: number): string => `${name}-seed${seed}`;

export function summariseSeeds(
  root: string,
  name: string,
  runs: readonly SeedRun[],
  metric: SlateMetric,
  resamples: number,
): SeedsSummary {
  const answers = runs.map((r) => readTestAnswers(RunFolder.view(root, r.name)));
  const all = runs.map((_, i) => i);
  return {
    schema: "gr2.seeds/1",
    name,
    metric,
    runs: runs.map(({ name: run, metrics }) => ({
      run,
      seed: metrics.seed,
      recommended: metrics.recommendation.system,
    })),
    slices: summariseRuns(answers, metric, resamples).map(({ slice, slates, users, statistics }) => ({
      slice,
      slates,
      users,
      systems: statistics.commonSystems().map((system) => ({
        system,
        value: statistics.estimate(all, system),
        over_prerank: statistics.estimate(all, system, "prerank"),
      })),
    })),
  };
}
