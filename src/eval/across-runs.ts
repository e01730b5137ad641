/**
 * Systems of several runs on the same test slates, with both levels of uncertainty. For runs s = 1..S of one recipe:
 *
 *   value   mean over s of the system's mean over slates, or of its difference to a baseline in the same run
 *   users   paired bootstrap over users with the runs fixed: how much other users would change
 *   seeds   value ± t(S−1) · sd over s / √S: how much other seeds would change; needs two runs
 *   both    the two half widths, added in quadrature. Slightly too wide: the user × seed interaction is in both
 *
 * A comparison of two groups of runs uses Welch's standard error and degrees of freedom for seeds.
 */
import { type BootstrapOptions, type Estimate, PairedBootstrap } from "./bootstrap.ts";
import type { Slice } from "./table.ts";

/** Scores of one run's systems, aligned with the slates that all runs share. */
export interface RunValues {
  /** 1 where the slate holds its true item in this run, else 0. */
  readonly holds: ArrayLike<number>;
  /** By system; where `holds` is 0 only a system with a list of its own has a value. */
  readonly systems: ReadonlyMap<string, ArrayLike<number>>;
}

export type Interval = readonly [low: number, high: number];

export interface Uncertain {
  readonly value: number;
  /** One value per run; absent when two groups are compared. */
  readonly runs?: readonly number[];
  readonly users: Interval;
  readonly seeds?: Interval;
  readonly both?: Interval;
}

export class RunStatistics {
  private readonly runs: readonly RunValues[];
  private readonly slice: Slice;
  private readonly bootstrap: PairedBootstrap;
  /** Quantity of each run's `holds`, and of its systems. */
  private readonly holds: readonly number[];
  private readonly quantity: readonly ReadonlyMap<string, number>[];

  /** @param users user of each slate */
  constructor(users: readonly number[], runs: readonly RunValues[], slice: Slice, options: Partial<BootstrapOptions>) {
    this.runs = runs;
    this.slice = slice;
    const quantities: { values: Float64Array }[] = [];
    const add = (values: Float64Array): number => quantities.push({ values }) - 1;
    this.holds = runs.map((run) => add(Float64Array.from(run.holds)));
    this.quantity = runs.map(
      ({ holds, systems }) =>
        new Map(
          [...systems].map(([system, values]) => [
            system,
            add(Float64Array.from(values, (v, i) => (slice === "conditional" ? v * (holds[i] ?? 0) : v))),
          ]),
        ),
    );
    this.bootstrap = new PairedBootstrap(users, quantities, options);
  }

  /** Systems that all runs have, in the first run's order. */
  commonSystems(): string[] {
    const [first, ...others] = this.runs;
    return [...(first?.systems.keys() ?? [])].filter((system) => others.every((run) => run.systems.has(system)));
  }

  /** A system's value over some of the runs, or its difference to a baseline in the same run. */
  estimate(runs: readonly number[], system: string, baseline?: string): Uncertain {
    const inRun = (mean: Means, run: number): number =>
      this.mean(mean, run, system) - (baseline === undefined ? 0 : this.mean(mean, run, baseline));
    const values = runs.map((run) => inRun((q) => this.bootstrap.mean(q), run));
    const users = this.bootstrap.statistic((mean) => average(runs.map((run) => inRun(mean, run))));
    return { ...levels(users, values.length > 1 ? spread(values) : undefined), runs: values };
  }

  /** A system over the runs `a` minus the same system over the runs `b`. */
  compare(a: readonly number[], b: readonly number[], system: string): Uncertain {
    const over = (mean: Means, runs: readonly number[]): number =>
      average(runs.map((run) => this.mean(mean, run, system)));
    const users = this.bootstrap.statistic((mean) => over(mean, a) - over(mean, b));
    const [left, right] = [this.estimate(a, system).runs ?? [], this.estimate(b, system).runs ?? []];
    return levels(users, left.length > 1 && right.length > 1 ? welch(left, right) : undefined);
  }

  private mean(mean: Means, run: number, system: string): number {
    const q = this.quantity[run]?.get(system);
    if (q === undefined) throw new RangeError(`run ${run} has no system ${system}`);
    if (this.slice === "end_to_end") return mean(q);
    const share = mean(this.holds[run] ?? -1);
    return share === 0 ? 0 : mean(q) / share;
  }
}

type Means = (q: number) => number;

/** Standard error and degrees of freedom. */
interface Spread {
  readonly error: number;
  readonly freedom: number;
}

function levels({ value, ciLow, ciHigh }: Estimate, seeds: Spread | undefined): Uncertain {
  const users: Interval = [ciLow, ciHigh];
  if (!seeds) return { value, users };
  const half = studentT(seeds.freedom) * seeds.error;
  return {
    value,
    users,
    seeds: [value - half, value + half],
    both: [value - Math.hypot(value - ciLow, half), value + Math.hypot(ciHigh - value, half)],
  };
}

const average = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / Math.max(1, values.length);

/** Sample variance, n − 1 in the denominator. */
function variance(values: readonly number[]): number {
  const m = average(values);
  return values.reduce((sum, v) => sum + (v - m) ** 2, 0) / (values.length - 1);
}

const spread = (values: readonly number[]): Spread => ({
  error: Math.sqrt(variance(values) / values.length),
  freedom: values.length - 1,
});

function welch(a: readonly number[], b: readonly number[]): Spread {
  const [va, vb] = [variance(a) / a.length, variance(b) / b.length];
  const freedom =
    va + vb === 0 ? a.length + b.length - 2 : (va + vb) ** 2 / (va ** 2 / (a.length - 1) + vb ** 2 / (b.length - 1));
  return { error: Math.sqrt(va + vb), freedom };
}

/** 97.5 % quantiles of Student's t for 1 to 30 degrees of freedom. */
const quantiles = [
  ...[12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228],
  ...[2.201, 2.179, 2.16, 2.145, 2.131, 2.12, 2.11, 2.101, 2.093, 2.086],
  ...[2.08, 2.074, 2.069, 2.064, 2.06, 2.056, 2.052, 2.048, 2.045, 2.042],
];

/** Between two entries the larger one, so the interval is wider; above 30 the last. */
export const studentT = (freedom: number): number =>
  quantiles[Math.min(quantiles.length, Math.max(1, Math.floor(freedom))) - 1] ?? Number.NaN;
