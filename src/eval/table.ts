/**
 * The results table of metrics.json: one row per system × slice × metric, one comparison per system × baseline × slice
 * × metric.
 *
 * Logged slates can have several positives: systems then give labels instead of ranks, and AUC is added to the metrics.
 *
 * Slices. `conditional`: slates whose true item is among the candidates. `end_to_end`: all slates; where the pre-ranker
 * missed, every system scores 0, unless it is a pre-ranker with a list of its own. User metrics are only in
 * `conditional`.
 */
import { type BootstrapOptions, PairedBootstrap } from "./bootstrap.ts";
import { gradedAuc, type MetricName, metricNames, metricsFromLabels, metricsFromRank } from "./metrics.ts";

export type Slice = "conditional" | "end_to_end";

export interface MetricRow {
  readonly system: string;
  readonly slice: Slice;
  /** A MetricName, or one that a recipe names. */
  readonly metric: string;
  readonly value: number;
  readonly ci_low: number;
  readonly ci_high: number;
  /** Slates. */
  readonly n: number;
}

export interface ComparisonRow {
  readonly system: string;
  readonly baseline: string;
  readonly slice: Slice;
  /** A MetricName, or one that a recipe names. */
  readonly metric: string;
  readonly delta: number;
  readonly relative: number;
  readonly ci_low: number;
  readonly ci_high: number;
  readonly p: number;
  readonly n: number;
}

/** What a system answered on each conditional slate, in the order of `TableInput.users`. */
export type SystemAnswers = {
  readonly system: string;
  /** If it has a list of its own: the target's rank in it for every slate, missed slates last. */
  readonly ownRanks?: readonly number[];
  /** Values of the recipe's own metrics on each conditional slate. Every system has the same metrics. */
  readonly brought?: Readonly<Record<string, readonly number[]>>;
} & (
  | {
      /** Rank of the target, from 1. Infinity: the answer did not contain it. */
      readonly ranks: readonly number[];
    }
  | {
      /** Labels of all candidates in the order of the answer; empty: there was no valid answer. */
      readonly labels: readonly (readonly number[])[];
    }
);

export interface TableInput {
  /** User row of each conditional slate. */
  readonly users: readonly number[];
  /** User row of each slate the pre-ranker missed; empty leaves out the end_to_end slice. */
  readonly missedUsers: readonly number[];
  readonly systems: readonly SystemAnswers[];
  /** What each system is compared with; names of absent systems are ignored. */
  readonly baselinesFor: (system: string) => readonly string[];
  readonly bootstrap?: Partial<BootstrapOptions>;
}

/** Computes rows and comparisons, both slices, all metrics. Throws RangeError on misaligned answers. */
export function resultsTable(input: TableInput): { rows: MetricRow[]; comparisons: ComparisonRow[] } {
  const rows: MetricRow[] = [];
  const comparisons: ComparisonRow[] = [];
  const slices: Slice[] = input.missedUsers.length > 0 ? ["conditional", "end_to_end"] : ["conditional"];
  const ours: readonly MetricName[] = input.systems.some(hasSeveralPositives) ? [...metricNames, "AUC"] : metricNames;
  const brought = Object.keys(input.systems[0]?.brought ?? {});
  for (const slice of slices) {
    // The value of a user's metric on a missed slate is unknown.
    const names: readonly string[] = slice === "conditional" ? [...ours, ...brought] : ours;
    const M = names.length;
    const users = slice === "conditional" ? input.users : [...input.users, ...input.missedUsers];
    const quantities = input.systems.flatMap((answers) => {
      const own = slice === "end_to_end" ? answers.ownRanks : undefined;
      const perSlate = own ? own.map(metricsFromRank) : metricValues(answers);
      const expected = own ? users.length : input.users.length;
      if (perSlate.length !== expected)
        throw new RangeError(`${answers.system} has ${perSlate.length} answers for ${expected} slates`);
      const columns = ours.map(() => new Float64Array(users.length));
      perSlate.forEach((values, k) => {
        columns.forEach((column, m) => {
          column[k] = values[m] ?? 0;
        });
      });
      const theirs = names.slice(ours.length).map((name) => Float64Array.from(answers.brought?.[name] ?? []));
      return [...columns, ...theirs].map((values) => ({ values }));
    });
    const bootstrap = new PairedBootstrap(users, quantities, input.bootstrap);
    input.systems.forEach(({ system }, s) => {
      names.forEach((metric, m) => {
        const e = bootstrap.estimate(s * M + m);
        rows.push({ system, slice, metric, value: e.value, ci_low: e.ciLow, ci_high: e.ciHigh, n: e.n });
      });
      for (const baseline of input.baselinesFor(system)) {
        const b = input.systems.findIndex((x) => x.system === baseline);
        if (b < 0 || baseline === system) continue;
        names.forEach((metric, m) => {
          const { ciLow, ciHigh, ...c } = bootstrap.compare(s * M + m, b * M + m);
          comparisons.push({ system, baseline, slice, metric, ...c, ci_low: ciLow, ci_high: ciHigh });
        });
      }
    });
  }
  return { rows, comparisons };
}

const hasSeveralPositives = (answers: SystemAnswers): boolean =>
  "labels" in answers && answers.labels.some((labels) => labels.filter((l) => l > 0).length > 1);

/** Metrics of each slate, in metricNames order, then AUC. */
const metricValues = (answers: SystemAnswers): readonly (readonly number[])[] =>
  "ranks" in answers
    ? answers.ranks.map(metricsFromRank)
    : answers.labels.map((labels) => [...metricsFromLabels(labels), gradedAuc(labels) ?? 0]);
