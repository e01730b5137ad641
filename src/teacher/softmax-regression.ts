/**
 * Listwise (conditional) logistic regression: P(target = j | slate) = softmax_j(w·x_j), one slate one observation.
 * Maximises Σ Σ_j truth_j log P(j) − ½·l2·|w|² by Newton's method; concave, so the optimum is unique and the fit deterministic.
 */

export interface Observation {
  /** [N × F], row-major. */
  readonly features_NF: Float64Array;
  /** 1 for the target, or shares that add up to 1 over several positives. */
  readonly truth_N: readonly number[];
}

/** Returns w_F. An empty sample gives zeros. */
export function fitSoftmaxRegression(
  observations: readonly Observation[],
  F: number,
  l2: number,
  maxIterations = 25,
): Float64Array {
  const w = new Float64Array(F);
  for (let iteration = 0; iteration < maxIterations; iteration++) {
    const { gradient, hessian } = derivatives(observations, w, l2);
    const step = solve(hessian, gradient);
    let size = 0;
    for (let f = 0; f < F; f++) {
      w[f] = (w[f] ?? 0) + (step[f] ?? 0);
      size = Math.max(size, Math.abs(step[f] ?? 0));
    }
    if (size < 1e-8) break;
  }
  return w;
}

/** w·x_j for each candidate. */
export function linearScores(features_NF: Float64Array, w: Float64Array): number[] {
  const F = w.length;
  return Array.from({ length: features_NF.length / F }, (_, i) => {
    let s = 0;
    for (let f = 0; f < F; f++) s += (w[f] as number) * (features_NF[i * F + f] as number);
    return s;
  });
}

/** Softmax of scores / temperature, computed without overflow. */
export function softmax(scores: readonly number[], temperature = 1): number[] {
  const top = Math.max(...scores);
  const weights = scores.map((s) => Math.exp((s - top) / temperature));
  const sum = weights.reduce((a, b) => a + b, 0);
  return weights.map((x) => x / sum);
}

/** Gradient of the objective and the negated Hessian (positive definite for l2 > 0), row-major F × F. */
function derivatives(observations: readonly Observation[], w: Float64Array, l2: number) {
  const F = w.length;
  const gradient = Float64Array.from(w, (x) => -l2 * x);
  const hessian = new Float64Array(F * F);
  const mean = new Float64Array(F);
  const truth = new Float64Array(F);
  for (let f = 0; f < F; f++) hessian[f * F + f] = l2;
  for (const { features_NF: x, truth_N } of observations) {
    const p = softmax(linearScores(x, w));
    mean.fill(0);
    truth.fill(0);
    for (let i = 0; i < p.length; i++)
      for (let f = 0; f < F; f++) {
        mean[f] = (mean[f] as number) + (p[i] as number) * (x[i * F + f] as number);
        truth[f] = (truth[f] as number) + (truth_N[i] as number) * (x[i * F + f] as number);
      }
    for (let f = 0; f < F; f++) gradient[f] = (gradient[f] as number) + (truth[f] as number) - (mean[f] as number);
    for (let i = 0; i < p.length; i++) {
      for (let f = 0; f < F; f++) {
        const df = (p[i] as number) * ((x[i * F + f] as number) - (mean[f] as number));
        for (let g = 0; g <= f; g++)
          hessian[f * F + g] = (hessian[f * F + g] as number) + df * ((x[i * F + g] as number) - (mean[g] as number));
      }
    }
  }
  for (let f = 0; f < F; f++) for (let g = 0; g < f; g++) hessian[g * F + f] = hessian[f * F + g] as number;
  return { gradient, hessian };
}

/** Solves A x = b for a symmetric positive definite A by Cholesky; a tiny ridge keeps degenerate columns at zero. */
function solve(A: Float64Array, b: Float64Array): Float64Array {
  const n = b.length;
  const L = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      let s = (A[i * n + j] as number) + (i === j ? 1e-9 : 0);
      for (let k = 0; k < j; k++) s -= (L[i * n + k] as number) * (L[j * n + k] as number);
      L[i * n + j] = i === j ? Math.sqrt(Math.max(s, 1e-12)) : s / (L[j * n + j] as number);
    }
  }
  const x = b.slice();
  for (let i = 0; i < n; i++) {
    for (let k = 0; k < i; k++) x[i] = (x[i] as number) - (L[i * n + k] as number) * (x[k] as number);
    x[i] = (x[i] as number) / (L[i * n + i] as number);
  }
  for (let i = n - 1; i >= 0; i--) {
    for (let k = i + 1; k < n; k++) x[i] = (x[i] as number) - (L[k * n + i] as number) * (x[k] as number);
    x[i] = (x[i] as number) / (L[i * n + i] as number);
  }
  return x;
}
