/**
 * Paired bootstrap over users. Slates of one user are not independent, so users are drawn, with all their slates; the
 * estimate stays the mean over slates. One resample serves every system, metric and comparison, so all are paired:
 *
 *   draw U users with replacement:  mean*(s, m) = Σ_u w_u · sum(s, m, u) / Σ_u w_u · n_u
 *   interval: percentiles of mean*, or of mean*(s) − mean*(baseline)
 *   p = 2 · min(share of Δ* ≤ 0, share of Δ* ≥ 0), with one added to counts and draws; at most 1
 */
import { Rng } from "../core/rng.ts";

export interface BootstrapOptions {
  /** Default 10,000. */
  readonly resamples: number;
  readonly seed: number;
  /** Default .95. */
  readonly level: number;
}

const defaultBootstrap: BootstrapOptions = { resamples: 10_000, seed: 0, level: 0.95 };

/** Values of one quantity (a system's metric) on each slate, aligned with `users`. */
export interface PerSlate {
  readonly values: Float64Array | readonly number[];
}

export interface Estimate {
  readonly value: number;
  readonly ciLow: number;
  readonly ciHigh: number;
  /** Slates. */
  readonly n: number;
}

export interface Comparison {
  /** Mean of a − mean of b. */
  readonly delta: number;
  /** delta / mean of b; 0 when that mean is 0. */
  readonly relative: number;
  readonly ciLow: number;
  readonly ciHigh: number;
  /** Two-sided. */
  readonly p: number;
  readonly n: number;
}

/** Resampled means of several quantities on the same slates. Build once, then query any interval or difference. */
export class PairedBootstrap {
  readonly numSlates: number;
  readonly numUsers: number;
  private readonly means: Float64Array;
  /** draws[q * resamples + b] */
  private readonly draws: Float64Array;
  private readonly options: BootstrapOptions;

  /**
   * @param users user of each slate (any integers)
   * @param quantities values of each quantity on each slate, all of users' length
   */
  constructor(users: readonly number[], quantities: readonly PerSlate[], options: Partial<BootstrapOptions> = {}) {
    this.options = { ...defaultBootstrap, ...options };
    const rows = new Map<number, number>();
    for (const u of users) if (!rows.has(u)) rows.set(u, rows.size);
    const [Q, U, B] = [quantities.length, rows.size, this.options.resamples];
    this.numSlates = users.length;
    this.numUsers = U;
    const sums = new Float64Array(U * Q);
    const counts = new Float64Array(U);
    this.means = new Float64Array(Q);
    for (const { values } of quantities)
      if (values.length !== users.length)
        throw new RangeError(`a quantity has ${values.length} values for ${users.length} slates`);
    for (let k = 0; k < users.length; k++) {
      const u = rows.get(users[k] ?? 0) ?? 0;
      counts[u] = (counts[u] ?? 0) + 1;
      for (let q = 0; q < Q; q++) sums[u * Q + q] = (sums[u * Q + q] ?? 0) + (quantities[q]?.values[k] ?? 0);
    }
    for (let u = 0; u < U; u++)
      for (let q = 0; q < Q; q++) this.means[q] = (this.means[q] ?? 0) + (sums[u * Q + q] ?? 0);
    for (let q = 0; q < Q; q++) this.means[q] = (this.means[q] ?? 0) / Math.max(1, users.length);
    this.draws = resample(sums, counts, Q, B, this.options.seed);
  }

  /** Mean of quantity q with its percentile interval. An empty sample gives zeros. */
  estimate(q: number): Estimate {
    const value = this.numSlates === 0 ? 0 : (this.means[q] ?? 0);
    const [ciLow, ciHigh] = this.interval(this.of(q).slice());
    return { value, ciLow, ciHigh, n: this.numSlates };
  }

  /** Quantity a minus quantity b, paired. */
  compare(a: number, b: number): Comparison {
    const [of, than] = [this.of(a), this.of(b)];
    const deltas = new Float64Array(of.length);
    let [below, above] = [0, 0];
    for (let i = 0; i < deltas.length; i++) {
      const d = (of[i] ?? 0) - (than[i] ?? 0);
      deltas[i] = d;
      if (d <= 0) below++;
      if (d >= 0) above++;
    }
    const base = this.means[b] ?? 0;
    const delta = this.numSlates === 0 ? 0 : (this.means[a] ?? 0) - base;
    const [ciLow, ciHigh] = this.interval(deltas);
    const p = Math.min(1, (2 * (Math.min(below, above) + 1)) / (deltas.length + 1));
    return { delta, relative: base === 0 ? 0 : delta / base, ciLow, ciHigh, p, n: this.numSlates };
  }

  /**
   * A function of the quantities' means with its percentile interval: a ratio, an average over runs, a difference of
   * averages.
   */
  statistic(of: (mean: (q: number) => number) => number): Estimate {
    const B = this.options.resamples;
    const drawn = new Float64Array(B);
    for (let b = 0; b < B; b++) drawn[b] = of((q) => this.draws[q * B + b] ?? 0);
    const [ciLow, ciHigh] = this.interval(drawn);
    return { value: of((q) => this.mean(q)), ciLow, ciHigh, n: this.numSlates };
  }

  /** Mean of quantity q over the slates, not resampled; 0 without slates. */
  mean(q: number): number {
    return this.numSlates === 0 ? 0 : (this.means[q] ?? 0);
  }

  private of(q: number): Float64Array {
    const B = this.options.resamples;
    return this.draws.subarray(q * B, (q + 1) * B);
  }

  /** Linear interpolation between order statistics, as NumPy's percentile. */
  private interval(values: Float64Array): [number, number] {
    if (this.numSlates === 0) return [0, 0];
    values.sort();
    const at = (share: number): number => {
      const x = share * (values.length - 1);
      const low = Math.floor(x);
      const [a, b] = [values[low] ?? 0, values[Math.min(low + 1, values.length - 1)] ?? 0];
      return a + (b - a) * (x - low);
    };
    const tail = (1 - this.options.level) / 2;
    return [at(tail), at(1 - tail)];
  }
}

/** Resampled means, [Q × B]. sums_UQ row-major; counts_U. */
function resample(sums_UQ: Float64Array, counts_U: Float64Array, Q: number, B: number, seed: number): Float64Array {
  const U = counts_U.length;
  const draws = new Float64Array(Q * B);
  if (U === 0) return draws;
  const rng = Rng.of(seed, "paired-bootstrap");
  const total = new Float64Array(Q);
  const times = new Int32Array(U);
  for (let b = 0; b < B; b++) {
    times.fill(0);
    for (let k = 0; k < U; k++) {
      const u = rng.int(U);
      times[u] = (times[u] as number) + 1;
    }
    total.fill(0);
    let n = 0;
    for (let u = 0; u < U; u++) {
      const w = times[u] as number;
      if (w === 0) continue;
      n += w * (counts_U[u] as number);
      const row = u * Q;
      for (let q = 0; q < Q; q++) total[q] = (total[q] as number) + w * (sums_UQ[row + q] as number);
    }
    for (let q = 0; q < Q; q++) draws[q * B + b] = (total[q] as number) / n;
  }
  return draws;
}
