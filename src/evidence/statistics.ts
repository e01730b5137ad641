/**
 * Statistics of a training view about items and pairs of items: popularity, co-occurrence, transitions, latent factors,
 * times of choice. The caller decides whose sequences the view holds; features.ts uses them.
 */
import type { TrainingView } from "../data/split.ts";
import { countNeighbours, type Neighbours } from "../prerank/neighbours.ts";
import { fitLatentFactors, type LatentFactors } from "./latent.ts";

const window = 10;
const decay = 0.8;
const shrinkage = 10;
/** Share of the view's time span that counts as recent. */
const recentShare = 0.05;

/** Build once per view. Memory: one entry per co-occurring pair. */
export class Statistics {
  readonly numItems: number;
  readonly neighbours: Neighbours;
  /** For entry (row i, column j) of the neighbours: how often i came directly after j. */
  readonly transitionsBack: Float64Array;
  readonly latent: LatentFactors;
  readonly logPopularity_I: Float64Array;
  /** Interactions per item and unit of time in the whole view; 0 without a clock. */
  readonly recentSpan: number;
  readonly totalSpan: number;
  private readonly itemTimes: readonly Float64Array[];

  /** @param hasClock false: the times only order a user's interactions */
  constructor(view: TrainingView, hasClock: boolean) {
    this.numItems = view.numItems;
    this.neighbours = countNeighbours(view, window, decay);
    this.transitionsBack = transposed(this.neighbours);
    this.latent = fitLatentFactors(view);
    this.logPopularity_I = Float64Array.from(this.neighbours.counts, (n) => Math.log1p(n));
    const byItem: number[][] = Array.from({ length: view.numItems }, () => []);
    let [first, last] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
    view.sequences.forEach((items, user) => {
      const times = view.times[user];
      for (let p = 0; p < items.length; p++) {
        const t = times?.[p] ?? 0;
        byItem[items[p] as number]?.push(t);
        first = Math.min(first, t);
        last = Math.max(last, t);
      }
    });
    this.itemTimes = byItem.map((times) => Float64Array.from(times).sort());
    this.totalSpan = hasClock && last > first ? last - first : 0;
    this.recentSpan = this.totalSpan * recentShare;
  }

  /** Interactions of the item. */
  popularity(item: number): number {
    return this.neighbours.counts[item] ?? 0;
  }

  /** Direct transitions from → to. */
  transitions(from: number, to: number): number {
    const k = this.find(from, to);
    return k < 0 ? 0 : (this.neighbours.transitions[k] as number);
  }

  /** Shrunk cosine of co-occurrence within the window. */
  similarity(a: number, b: number): number {
    const k = this.find(a, b);
    return k < 0 ? 0 : this.similarityAt(k, a, b);
  }

  /** The same for entry k = (a, b) of the neighbours. */
  similarityAt(k: number, a: number, b: number): number {
    const { cooccurrence, counts } = this.neighbours;
    return (cooccurrence[k] as number) / (Math.sqrt((counts[a] as number) * (counts[b] as number)) + shrinkage);
  }

  /** Times of the item's interactions, ascending. */
  getTimes(item: number): Float64Array {
    return this.itemTimes[item] ?? none;
  }

  /** Index of entry (row, column) in the neighbours; -1: the two never occur together. */
  find(row: number, column: number): number {
    const { starts, columns } = this.neighbours;
    let low = starts[row] ?? 0;
    let high = (starts[row + 1] ?? 0) - 1;
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

const none = new Float64Array();

/** Transitions with rows and columns exchanged, on the same (symmetric) entries. */
function transposed({ starts, columns, transitions }: Neighbours): Float64Array {
  const out = new Float64Array(transitions.length);
  const next = starts.slice();
  for (let i = 0; i + 1 < starts.length; i++)
    for (let k = starts[i] as number; k < (starts[i + 1] as number); k++) {
      const j = columns[k] as number;
      const at = next[j] as number; // rows come in ascending order, and so do the columns of row j
      out[at] = transitions[k] as number;
      next[j] = at + 1;
    }
  return out;
}
