/**
 * The results table of metrics.json: one row a system × slice × metric, one comparison a system × baseline × slice × metric.
 *
 * Slices. `conditional`: slates whose true item is among the candidates. `end_to_end`: all slates; where the pre-ranker
 * missed, every system scores 0.
 */
import { type BootstrapOptions, PairedBootstrap } from "./bootstrap.ts";
import { type MetricName, metricNames, metricsOfRank } from "./metrics.ts";

export type Slice = "conditional" | "end_to_end";

export interface MetricRow {
  readonly system: string;
  readonly slice: Slice;
  readonly metric: MetricName;
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
  readonly metric: MetricName;
  readonly delta: number;
  readonly relative: number;
  readonly ci_low: number;
  readonly ci_high: number;
  readonly p: number;
  readonly n: number;
}

/** What a system answered: the target's rank (from 1) on each conditional slate, in the order of `TableInput.users`. */
export interface SystemRanks {
  readonly system: string;
  /** Infinity: the answer did not contain the target. */
  readonly ranks: readonly number[];
}

export interface TableInput {
  /** User row of each conditional slate. */
  readonly users: readonly number[];
  /** User row of each slate the pre-ranker missed; empty leaves out the end_to_end slice. */
  readonly missedUsers: readonly number[];
  readonly systems: readonly SystemRanks[];
  /** Each system is compared with these, when present among the systems. */
  readonly baselines: readonly string[];
  readonly bootstrap?: Partial<BootstrapOptions>;
}

/** Computes rows and comparisons, both slices, all six metrics. Throws RangeError on misaligned ranks. */
export function resultsTable(input: TableInput): { rows: MetricRow[]; comparisons: ComparisonRow[] } {
  const rows: MetricRow[] = [];
  const comparisons: ComparisonRow[] = [];
  const slices: Slice[] = input.missedUsers.length > 0 ? ["conditional", "end_to_end"] : ["conditional"];
  const M = metricNames.length;
  for (const slice of slices) {
    const users = slice === "conditional" ? input.users : [...input.users, ...input.missedUsers];
    const quantities = input.systems.flatMap(({ system, ranks }) => {
      if (ranks.length !== input.users.length)
        throw new RangeError(`${system} has ${ranks.length} ranks for ${input.users.length} slates`);
      const columns = metricNames.map(() => new Float64Array(users.length));
      ranks.forEach((rank, k) => {
        const values = metricsOfRank(rank);
        columns.forEach((column, m) => {
          column[k] = values[m] ?? 0;
        });
      });
      return columns.map((values) => ({ values }));
    });
    const bootstrap = new PairedBootstrap(users, quantities, input.bootstrap);
    input.systems.forEach(({ system }, s) => {
      metricNames.forEach((metric, m) => {
        const e = bootstrap.estimate(s * M + m);
        rows.push({ system, slice, metric, value: e.value, ci_low: e.ciLow, ci_high: e.ciHigh, n: e.n });
      });
      for (const baseline of input.baselines) {
        const b = input.systems.findIndex((x) => x.system === baseline);
        if (b < 0 || baseline === system) continue;
        metricNames.forEach((metric, m) => {
          const { ciLow, ciHigh, ...c } = bootstrap.compare(s * M + m, b * M + m);
          comparisons.push({ system, baseline, slice, metric, ...c, ci_low: ciLow, ci_high: ciHigh });
        });
      }
    });
  }
  return { rows, comparisons };
}
