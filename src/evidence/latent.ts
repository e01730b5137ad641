/**
 * Latent factors of who-interacted-with-what: the leading right singular vectors V of the binary user × item matrix
 * (PureSVD: Cremonesi et al. 2010). Affinity of a history H to item j = Σ_{h∈H} V_h · V_j; rotation of V changes
 * nothing. The same iteration finds the principal axes of item embeddings.
 */
import { Rng } from "../core/rng.ts";
import type { TrainingView } from "../data/split.ts";

export interface LatentFactors {
  readonly dimensions: number;
  /** V, [items × dimensions], row-major, orthonormal columns. */
  readonly factors_ID: Float64Array;
}

/** Subspace iteration: V ← orth(AᵀA V). Deterministic; O(iterations · interactions · dimensions). */
export function fitLatentFactors(training: TrainingView, dimensions = 16, iterations = 12): LatentFactors {
  const { numItems } = training;
  const D = Math.min(dimensions, numItems);
  const users = training.sequences.map((s) => Int32Array.from(new Set(s)));
  const rng = Rng.of(0, "latent-factors");
  let V = Float64Array.from({ length: numItems * D }, () => rng.uniform() - 0.5);
  orthonormalise(V, numItems, D);
  const projected = new Float64Array(D);
  for (let k = 0; k < iterations; k++) {
    const next = new Float64Array(numItems * D);
    for (const items of users) {
      projected.fill(0);
      for (const i of items)
        for (let d = 0; d < D; d++) projected[d] = (projected[d] as number) + (V[i * D + d] as number);
      for (const i of items)
        for (let d = 0; d < D; d++) next[i * D + d] = (next[i * D + d] as number) + (projected[d] as number);
    }
    orthonormalise(next, numItems, D);
    V = next;
  }
  return { dimensions: D, factors_ID: V };
}

/** Most rows used for principal axes, spread evenly. */
const axisRows = 20_000;

/**
 * The leading `dims` principal axes of the rows of data_RC, [cols × dims], row-major, orthonormal columns, by subspace
 * iteration on the covariance. Deterministic.
 */
export function principalAxes(
  data_RC: Float32Array,
  rows: number,
  cols: number,
  mean_C: Float64Array,
  dims: number,
  iterations = 20,
): Float64Array {
  const covariance = new Float64Array(cols * cols);
  const step = Math.max(1, Math.ceil(rows / axisRows));
  const x = new Float64Array(cols);
  for (let r = 0; r < rows; r += step) {
    for (let c = 0; c < cols; c++) x[c] = (data_RC[r * cols + c] as number) - (mean_C[c] as number);
    for (let a = 0; a < cols; a++) {
      const xa = x[a] as number;
      const row = a * cols;
      for (let b = 0; b <= a; b++) covariance[row + b] = (covariance[row + b] as number) + xa * (x[b] as number);
    }
  }
  for (let a = 0; a < cols; a++)
    for (let b = 0; b < a; b++) covariance[b * cols + a] = covariance[a * cols + b] as number;
  const rng = Rng.of(0, "principal-axes");
  let V = Float64Array.from({ length: cols * dims }, () => rng.uniform() - 0.5);
  orthonormalise(V, cols, dims);
  for (let k = 0; k < iterations; k++) {
    const next = new Float64Array(cols * dims);
    for (let a = 0; a < cols; a++)
      for (let b = 0; b < cols; b++) {
        const w = covariance[a * cols + b] as number;
        for (let d = 0; d < dims; d++)
          next[a * dims + d] = (next[a * dims + d] as number) + w * (V[b * dims + d] as number);
      }
    orthonormalise(next, cols, dims);
    V = next;
  }
  return V;
}

/** Modified Gram–Schmidt on the columns; a linearly dependent column becomes zero. */
function orthonormalise(V: Float64Array, rows: number, D: number): void {
  for (let d = 0; d < D; d++) {
    let before = 0;
    for (let i = 0; i < rows; i++) before += (V[i * D + d] as number) ** 2;
    for (let e = 0; e < d; e++) {
      let dot = 0;
      for (let i = 0; i < rows; i++) dot += (V[i * D + d] as number) * (V[i * D + e] as number);
      for (let i = 0; i < rows; i++) V[i * D + d] = (V[i * D + d] as number) - dot * (V[i * D + e] as number);
    }
    let norm = 0;
    for (let i = 0; i < rows; i++) norm += (V[i * D + d] as number) ** 2;
    const scale = norm > 1e-18 * Math.max(1, before) ? 1 / Math.sqrt(norm) : 0;
    for (let i = 0; i < rows; i++) V[i * D + d] = (V[i * D + d] as number) * scale;
  }
}
