/**
 * What to know about a data set before trusting a result on it: lengths, popularity, repeats, ties, missing text, time,
 * and how much of each segment is new to the models trained before it. Pure; numbers only, no text of items.
 *
 *   Gini = 1 - 2 · area under the curve (share of items, rarest first -> share of interactions);
 *   0 = all equally popular
 */
import { allowedFor } from "./leakage.ts";
import { segmentRange } from "./split.ts";
import { type DatasetStats, type Segment, type SplitDataset, segments } from "./types.ts";

export interface SegmentStatistics {
  readonly segment: Segment;
  readonly interactions: number;
  /** Users with at least one interaction in it. */
  readonly users: number;
  /** Distinct items. */
  readonly items: number;
  /** Its items that are in no segment used to train the pre-ranker of its slates; 0 for midtrain. */
  readonly coldItems: number;
  /** Interactions with those items: a pre-ranker that knows only interactions cannot propose them. */
  readonly coldInteractions: number;
}

export interface DataStatistics {
  readonly schema: "gr2.data-statistics/1";
  readonly name: string;
  readonly users: number;
  readonly items: number;
  readonly interactions: number;
  readonly rowsRead: number;
  /** Rows left out, by reason. */
  readonly dropped: Readonly<Record<string, number>>;
  /** Choices made by the adapter. */
  readonly notes: readonly string[];
  readonly lengths: {
    readonly mean: number;
    /** Minimum, quartiles, 90th percentile, maximum. */
    readonly quantiles: readonly [min: number, q25: number, median: number, q75: number, q90: number, max: number];
    /** Users whose sequence has from..to interactions. */
    readonly histogram: readonly { readonly from: number; readonly to: number; readonly users: number }[];
  };
  readonly popularity: {
    readonly gini: number;
    /** Share of interactions with the most popular tenth of the items. */
    readonly topTenth: number;
    /** Items without interactions (data.catalogue: all). */
    readonly unused: number;
    /** Share of interactions with the most popular share of items, from (0, 0) to (1, 1). */
    readonly curve: readonly { readonly items: number; readonly interactions: number }[];
  };
  /** Share of interactions whose user had the item before. */
  readonly repeatShare: number;
  /** Share of steps within a sequence with equal times: their order means nothing. */
  readonly tieShare: number;
  readonly itemsWithoutTitle: number;
  readonly itemsWithoutText: number;
  /** Unix seconds; null without timestamps. */
  readonly time: { readonly first: number; readonly last: number } | null;
  readonly segments: readonly SegmentStatistics[];
}

export function dataStatistics(data: SplitDataset): DataStatistics {
  const { dataset } = data;
  const { stats } = dataset;
  const lengths = dataset.sequences.map((s) => s.items.length).sort((a, b) => a - b);
  return {
    schema: "gr2.data-statistics/1",
    name: dataset.name,
    users: stats.users,
    items: stats.items,
    interactions: stats.interactions,
    rowsRead: stats.rowsRead,
    dropped: stats.dropped,
    notes: stats.notes ?? [],
    lengths: { mean: stats.lengthMean, quantiles: computeQuantiles(lengths), histogram: buildHistogram(lengths) },
    popularity: measurePopularity(data),
    repeatShare: repeatShare(data, stats.interactions),
    tieShare: stats.tieShare,
    itemsWithoutTitle: dataset.items.filter((i) => i.title === "").length,
    itemsWithoutText: stats.itemsWithoutText,
    time: timeRange(data, stats),
    segments: segments.map((s) => segmentStatistics(data, s)),
  };
}

function computeQuantiles(sorted: readonly number[]): DataStatistics["lengths"]["quantiles"] {
  const at = (q: number): number => sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? 0;
  return [at(0), at(0.25), at(0.5), at(0.75), at(0.9), at(1)];
}

/** Bins that double: 1, 2, 3-4, 5-8, 9-16, ..., from the first that contains a user. */
function buildHistogram(sorted: readonly number[]): DataStatistics["lengths"]["histogram"] {
  const bins: { from: number; to: number; users: number }[] = [];
  for (let from = 1, to = 1; from <= (sorted.at(-1) ?? 0); from = to + 1, to *= 2)
    bins.push({ from, to, users: sorted.filter((n) => n >= from && n <= to).length });
  return bins.slice(bins.findIndex((b) => b.users > 0));
}

const curvePoints = 40;

function measurePopularity({ dataset }: SplitDataset): DataStatistics["popularity"] {
  const counts = new Float64Array(dataset.items.length);
  for (const { items } of dataset.sequences) for (const i of items) counts[i] = (counts[i] ?? 0) + 1;
  const falling = counts.sort().reverse();
  const total = Math.max(
    1,
    falling.reduce((a, b) => a + b, 0),
  );
  const n = Math.max(1, falling.length);
  const cumulative = new Float64Array(falling.length + 1);
  falling.forEach((c, k) => {
    cumulative[k + 1] = (cumulative[k] ?? 0) + c / total;
  });
  // Trapezoids under the most-popular-first curve; mirrored, it is the rarest-first curve.
  let area = 0;
  for (let k = 0; k < falling.length; k++) area += ((cumulative[k] ?? 0) + (cumulative[k + 1] ?? 0)) / (2 * n);
  const points = new Set(Array.from({ length: curvePoints + 1 }, (_, k) => Math.round((n * k) / curvePoints)));
  return {
    gini: falling.length === 0 ? 0 : 2 * area - 1,
    topTenth: cumulative[Math.ceil(n / 10)] ?? 0,
    unused: falling.filter((c) => c === 0).length,
    curve: [...points].map((k) => ({ items: k / n, interactions: cumulative[k] ?? 0 })),
  };
}

function repeatShare({ dataset }: SplitDataset, interactions: number): number {
  const distinct = dataset.sequences.reduce((n, s) => n + new Set(s.items).size, 0);
  return interactions === 0 ? 0 : (interactions - distinct) / interactions;
}

function timeRange({ dataset }: SplitDataset, stats: DatasetStats): DataStatistics["time"] {
  if (stats.hasClock === false) return null;
  let [first, last] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
  for (const { times } of dataset.sequences) {
    first = Math.min(first, times[0] ?? first);
    last = Math.max(last, times.at(-1) ?? last);
  }
  return first <= last ? { first, last } : null;
}

/** Compares `segment` with everything its slates' pre-ranker is trained on. */
function segmentStatistics(data: SplitDataset, segment: Segment): SegmentStatistics {
  const known = new Set<number>();
  if (segment !== "midtrain")
    data.dataset.sequences.forEach(({ items }, user) => {
      const s = data.splits[user];
      if (s) for (const i of items.subarray(0, segmentRange(s, allowedFor(segment))[1])) known.add(i);
    });
  const seen = new Set<number>();
  const cold = new Set<number>();
  let [interactions, users, coldInteractions] = [0, 0, 0];
  data.dataset.sequences.forEach(({ items }, user) => {
    const s = data.splits[user];
    const part = s ? items.subarray(...segmentRange(s, segment)) : new Int32Array();
    interactions += part.length;
    if (part.length > 0) users++;
    for (const i of part) {
      seen.add(i);
      if (segment === "midtrain" || known.has(i)) continue;
      cold.add(i);
      coldInteractions++;
    }
  });
  return { segment, interactions, users, items: seen.size, coldItems: cold.size, coldInteractions };
}
