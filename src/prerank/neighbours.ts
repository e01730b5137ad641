/** Sparse item-item counts over a TrainingView, in compressed rows. Shared by item-kNN and the statistical teacher. */
import type { TrainingView } from "../data/split.ts";

/** Row i's neighbours are entries starts[i] … starts[i+1] of the arrays, columns ascending. */
export interface Neighbours {
  readonly starts: Int32Array;
  readonly columns: Int32Array;
  /** Σ decay^(distance-1) over pairs within the window, both directions. */
  readonly cooccurrence: Float64Array;
  /** How often the column's item came directly after the row's item. */
  readonly transitions: Float64Array;
  /** Interactions of each item. */
  readonly counts: Float64Array;
}

/** Counts pairs (i, j), i ≠ j, at most `window` steps apart in a user's sequence. */
export function countNeighbours(training: TrainingView, window: number, decay: number): Neighbours {
  const { numItems, sequences } = training;
  const counts = new Float64Array(numItems);
  const degree = new Int32Array(numItems + 1);
  eachPair(sequences, window, (a, b) => {
    degree[a + 1] = (degree[a + 1] ?? 0) + 1;
    degree[b + 1] = (degree[b + 1] ?? 0) + 1;
  });
  for (const s of sequences) for (const i of s) counts[i] = (counts[i] ?? 0) + 1;
  for (let i = 0; i < numItems; i++) degree[i + 1] = (degree[i + 1] ?? 0) + (degree[i] ?? 0);
  const size = degree[numItems] ?? 0;
  const other = new Int32Array(size);
  /** Distance, positive when `other` comes later. */
  const step = new Int32Array(size);
  const next = degree.slice();
  eachPair(sequences, window, (a, b, distance) => {
    const ka = next[a] ?? 0;
    const kb = next[b] ?? 0;
    other[ka] = b;
    step[ka] = distance;
    next[a] = ka + 1;
    other[kb] = a;
    step[kb] = -distance;
    next[b] = kb + 1;
  });
  const weightAt = Float64Array.from({ length: window + 1 }, (_, d) => decay ** (d - 1));
  return merge(numItems, degree, other, step, weightAt, counts);
}

/** Calls `visit(earlier, later, distance)` for every pair. An item's pair with itself is left out. */
function eachPair(
  sequences: readonly Int32Array[],
  window: number,
  visit: (a: number, b: number, distance: number) => void,
): void {
  for (const s of sequences) {
    for (let q = 1; q < s.length; q++) {
      const b = s[q] as number;
      for (let p = Math.max(0, q - window); p < q; p++) {
        const a = s[p] as number;
        if (a !== b) visit(a, b, q - p);
      }
    }
  }
}

function merge(
  numItems: number,
  degree: Int32Array,
  other: Int32Array,
  step: Int32Array,
  weightAt: Float64Array,
  counts: Float64Array,
): Neighbours {
  const starts = new Int32Array(numItems + 1);
  const columns = new Int32Array(other.length);
  const cooccurrence = new Float64Array(other.length);
  const transitions = new Float64Array(other.length);
  const weight = new Float64Array(numItems);
  const direct = new Float64Array(numItems);
  let at = 0;
  for (let i = 0; i < numItems; i++) {
    const row = other.subarray(degree[i] ?? 0, degree[i + 1] ?? 0);
    for (let k = 0; k < row.length; k++) {
      const j = row[k] as number;
      const d = step[(degree[i] ?? 0) + k] as number;
      weight[j] = (weight[j] ?? 0) + (weightAt[Math.abs(d)] ?? 0);
      if (d === 1) direct[j] = (direct[j] ?? 0) + 1;
    }
    const sorted = row.slice().sort();
    for (let k = 0; k < sorted.length; k++) {
      const j = sorted[k] as number;
      if (k > 0 && sorted[k - 1] === j) continue;
      columns[at] = j;
      cooccurrence[at] = weight[j] ?? 0;
      transitions[at] = direct[j] ?? 0;
      weight[j] = 0;
      direct[j] = 0;
      at++;
    }
    starts[i + 1] = at;
  }
  return {
    starts,
    columns: columns.slice(0, at),
    cooccurrence: cooccurrence.slice(0, at),
    transitions: transitions.slice(0, at),
    counts,
  };
}
