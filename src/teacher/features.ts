/**
 * What the statistical teacher looks at: statistics of the training view (midtrain, or what the caller allows) and, for
 * one slate, a feature row a candidate. Never sees the answer: a SlateView has none.
 *
 * Shapes: N candidates, F features; features_NF row-major, each column centred and scaled within the slate (z) so that
 * only differences between candidates count; the position prior is left as it is.
 */
import type { TrainingView } from "../data/split.ts";
import type { Dataset } from "../data/types.ts";
import { type Neighbours, neighboursOf } from "../prerank/neighbours.ts";
import type { Slate } from "../prerank/types.ts";
import { fitLatentFactors, type LatentFactors, latentAffinity } from "./latent.ts";

/** A slate without its answer. */
export type SlateView = Pick<Slate, "id" | "user" | "position" | "segment" | "candidates" | "scores">;

/** Drops the answer; what is handed to a teacher that must not know it. */
export const viewOf = ({ id, user, position, segment, candidates, scores }: Slate): SlateView => ({
  id,
  user,
  position,
  segment,
  candidates,
  scores,
});

export const featureNames = [
  "log position",
  "pre-rank score",
  "pre-rank score squared",
  "log popularity",
  "popularity against history's",
  "recent popularity",
  "co-occurrence with last 1",
  "co-occurrence with last 3",
  "co-occurrence with last 20",
  "strongest co-occurrence of last 20",
  "transition from last",
  "transition from last 3",
  "category overlap with last 3",
  "category overlap with last 20",
  "latent affinity of all history",
  "latent affinity of last 20",
  "latent affinity of last 5",
  "year closeness",
  "popularity by history length",
] as const;

export const numFeatures = featureNames.length;

const window = 10;
const decay = 0.8;
const shrinkage = 10;
const recentShare = 0.05;

/** Training statistics in a form fast to ask. Build once. */
export class TeacherStatistics {
  readonly dataset: Dataset;
  readonly latent: LatentFactors;
  private readonly neighbours: Neighbours;
  /** Inverse document frequency a category name. */
  private readonly categoryWeight = new Map<string, number>();
  private readonly categorySets: readonly ReadonlySet<string>[];
  private readonly itemTimes: readonly Float64Array[];
  private readonly recentSpan: number;
  /** A four-digit year in brackets in the title; NaN without one. */
  private readonly years: readonly number[];

  constructor(dataset: Dataset, training: TrainingView) {
    this.dataset = dataset;
    this.neighbours = neighboursOf(training, window, decay);
    this.latent = fitLatentFactors(training);
    this.years = dataset.items.map((i) => Number(/\((\d{4})\)/.exec(i.title)?.[1] ?? Number.NaN));
    this.categorySets = dataset.items.map((i) => new Set(i.categories));
    for (const set of this.categorySets)
      for (const c of set) this.categoryWeight.set(c, (this.categoryWeight.get(c) ?? 0) + 1);
    for (const [c, n] of this.categoryWeight) this.categoryWeight.set(c, Math.log(1 + dataset.items.length / n));
    const byItem: number[][] = dataset.items.map(() => []);
    let [first, last] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
    training.sequences.forEach((items, user) => {
      for (let p = 0; p < items.length; p++) {
        const t = training.times[user]?.[p] ?? 0;
        byItem[items[p] ?? 0]?.push(t);
        first = Math.min(first, t);
        last = Math.max(last, t);
      }
    });
    this.itemTimes = byItem.map((times) => Float64Array.from(times).sort());
    this.recentSpan = last > first ? (last - first) * recentShare : 0;
  }

  popularity(item: number): number {
    return this.neighbours.counts[item] ?? 0;
  }

  /** Direct transitions from → to. */
  transitions(from: number, to: number): number {
    const k = this.find(from, to);
    return k < 0 ? 0 : (this.neighbours.transitions[k] ?? 0);
  }

  /** Shrunk cosine of co-occurrence within the window. */
  similarity(a: number, b: number): number {
    const k = this.find(a, b);
    if (k < 0) return 0;
    return (this.neighbours.cooccurrence[k] ?? 0) / (Math.sqrt(this.popularity(a) * this.popularity(b)) + shrinkage);
  }

  /** Share of the rarer-weighs-more category mass that two items have in common (weighted Jaccard). */
  categoryOverlap(a: number, b: number): number {
    const [A, B] = [this.categorySets[a], this.categorySets[b]];
    if (A === undefined || B === undefined || A.size === 0 || B.size === 0) return 0;
    let [both, either] = [0, 0];
    for (const c of A) {
      const w = this.categoryWeight.get(c) ?? 0;
      either += w;
      if (B.has(c)) both += w;
    }
    for (const c of B) if (!A.has(c)) either += this.categoryWeight.get(c) ?? 0;
    return either === 0 ? 0 : both / either;
  }

  categoriesOf(item: number): ReadonlySet<string> {
    return this.categorySets[item] ?? new Set();
  }

  /** −|year − mean year of history| / spread; 0 where the titles have no years. */
  yearCloseness(item: number, history: Int32Array): number {
    const years = Array.from(history, (h) => this.years[h] ?? Number.NaN).filter((y) => !Number.isNaN(y));
    const year = this.years[item] ?? Number.NaN;
    if (years.length === 0 || Number.isNaN(year)) return 0;
    const mean = years.reduce((a, b) => a + b, 0) / years.length;
    const spread = Math.sqrt(years.reduce((a, y) => a + (y - mean) ** 2, 0) / years.length);
    return -Math.abs(year - mean) / (spread + 3);
  }

  /** Training interactions of the item in the span before `time`; 0 where the data has no usable clock. */
  recentPopularity(item: number, time: number): number {
    const times = this.itemTimes[item];
    if (times === undefined || this.recentSpan === 0) return 0;
    return countBelow(times, time) - countBelow(times, time - this.recentSpan);
  }

  private find(row: number, column: number): number {
    const { starts, columns } = this.neighbours;
    let [low, high] = [starts[row] ?? 0, (starts[row + 1] ?? 0) - 1];
    while (low <= high) {
      const middle = (low + high) >> 1;
      const c = columns[middle] as number;
      if (c === column) return middle;
      if (c < column) low = middle + 1;
      else high = middle - 1;
    }
    return -1;
  }
}

function countBelow(sorted: Float64Array, limit: number): number {
  let [low, high] = [0, sorted.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((sorted[middle] as number) < limit) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** features_NF of a slate. The clock is the last history item's: the answer's own time is not used. */
export function featuresOf(statistics: TeacherStatistics, slate: SlateView): Float64Array {
  const sequence = statistics.dataset.sequences[slate.user];
  const history = sequence?.items.subarray(Math.max(0, slate.position - 20), slate.position) ?? new Int32Array();
  const now = sequence?.times[slate.position - 1] ?? 0;
  const N = slate.candidates.length;
  const features_NF = new Float64Array(N * numFeatures);
  const usual = history.reduce((s, h) => s + Math.log1p(statistics.popularity(h)), 0) / Math.max(1, history.length);
  const all = sequence?.items.subarray(0, slate.position) ?? new Int32Array();
  const affinities = [all, history, history.subarray(-5)].map((h) =>
    latentAffinity(statistics.latent, h, slate.candidates),
  );
  const recent = history.subarray(-10);
  slate.candidates.forEach((c, i) => {
    const age = (k: number): number => history.length - 1 - k;
    const together = { 1: 0, 3: 0, 20: 0, best: 0 };
    const after = { 1: 0, 3: 0 };
    const overlap = { 3: 0, 20: 0 };
    history.forEach((h, k) => {
      const similar = statistics.similarity(h, c);
      const shared = statistics.categoryOverlap(h, c);
      together[20] += similar;
      overlap[20] += shared;
      together.best = Math.max(together.best, similar);
      if (age(k) >= 3) return;
      const steps = statistics.transitions(h, c);
      together[3] += similar;
      overlap[3] += shared;
      after[3] += steps;
      if (age(k) === 0) {
        together[1] = similar;
        after[1] = steps;
      }
    });
    const popularity = Math.log1p(statistics.popularity(c));
    const score = slate.scores[i] ?? 0;
    const row = [
      Math.log(i + 1),
      score,
      0,
      popularity,
      Math.abs(popularity - usual),
      Math.log1p(statistics.recentPopularity(c, now)),
      Math.sqrt(together[1]),
      Math.sqrt(together[3]),
      Math.sqrt(together[20]),
      Math.sqrt(together.best),
      Math.log1p(after[1]),
      Math.log1p(after[3]),
      overlap[3],
      overlap[20],
      affinities[0]?.[i] ?? 0,
      affinities[1]?.[i] ?? 0,
      affinities[2]?.[i] ?? 0,
      statistics.yearCloseness(c, recent),
      0,
    ];
    features_NF.set(row, i * numFeatures);
  });
  standardise(features_NF, N, slate.position);
  return features_NF;
}

/** z-scores within the slate for all columns but the position; products are made of z-scores. */
function standardise(features_NF: Float64Array, N: number, historyLength: number): void {
  const F = numFeatures;
  for (let f = 1; f < F; f++) {
    let mean = 0;
    for (let i = 0; i < N; i++) mean += (features_NF[i * F + f] ?? 0) / N;
    let variance = 0;
    for (let i = 0; i < N; i++) variance += ((features_NF[i * F + f] ?? 0) - mean) ** 2 / N;
    const scale = variance > 1e-18 ? 1 / Math.sqrt(variance) : 0;
    for (let i = 0; i < N; i++) features_NF[i * F + f] = ((features_NF[i * F + f] ?? 0) - mean) * scale;
  }
  for (let i = 0; i < N; i++) {
    features_NF[i * F + 2] = (features_NF[i * F + 1] ?? 0) ** 2;
    features_NF[i * F + F - 1] = (features_NF[i * F + 3] ?? 0) * (Math.log1p(historyLength) - 4);
  }
}
