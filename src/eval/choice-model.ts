/**
 * Conditional logit (McFadden): p(candidate j of a slate) = softmax_j(w . f_j), fitted by Newton's method with an L2
 * penalty. Convex, deterministic, few weights. It calibrates the direct mode and the pre-rank prior (a learned
 * weight for the LM's log-likelihood and one per pre-rank position) and ranks by features for the statistical teacher.
 *
 * Shapes: S slates, N candidates, K features.
 */

export interface ChoiceExample {
  /** Row-major [N, K]. */
  readonly features_NK: Float64Array;
  readonly numCandidates: number;
  /** What was chosen: 1 for one candidate, or shares over several that sum to 1 (soft labels). */
  readonly truth_N: readonly number[];
}

export interface ChoiceModel {
  readonly names: readonly string[];
  readonly weights: readonly number[];
}

/** w . f_j for every candidate. */
export function choiceScores(weights: readonly number[], features_NK: Float64Array, numCandidates: number): number[] {
  const k = weights.length;
  return Array.from({ length: numCandidates }, (_, j) => {
    let sum = 0;
    for (let f = 0; f < k; f++) sum += (weights[f] as number) * (features_NK[j * k + f] as number);
    return sum;
  });
}

export function softmax(scores: readonly number[]): number[] {
  const max = Math.max(...scores);
  const exp = scores.map((s) => Math.exp(s - max));
  const sum = exp.reduce((a, b) => a + b, 0);
  return exp.map((e) => e / sum);
}

/** Solves A x = b for a symmetric positive definite A (Cholesky); K is a few dozen at most. */
function solve(a_KK: Float64Array, b_K: Float64Array, k: number): Float64Array {
  const l = new Float64Array(k * k);
  for (let i = 0; i < k; i++)
    for (let j = 0; j <= i; j++) {
      let sum = a_KK[i * k + j] as number;
      for (let m = 0; m < j; m++) sum -= (l[i * k + m] as number) * (l[j * k + m] as number);
      l[i * k + j] = i === j ? Math.sqrt(Math.max(sum, 1e-12)) : sum / (l[j * k + j] as number);
    }
  const y = new Float64Array(k);
  for (let i = 0; i < k; i++) {
    let sum = b_K[i] as number;
    for (let m = 0; m < i; m++) sum -= (l[i * k + m] as number) * (y[m] as number);
    y[i] = sum / (l[i * k + i] as number);
  }
  const x = new Float64Array(k);
  for (let i = k - 1; i >= 0; i--) {
    let sum = y[i] as number;
    for (let m = i + 1; m < k; m++) sum -= (l[m * k + i] as number) * (x[m] as number);
    x[i] = sum / (l[i * k + i] as number);
  }
  return x;
}

/** Mean negative log-likelihood + l2/2 |w - centre|^2 (per-slate mean). */
function objective(
  examples: readonly ChoiceExample[],
  w: readonly number[],
  l2: number,
  centre: readonly number[],
): number {
  let sum = 0;
  for (const e of examples) {
    const scores = choiceScores(w, e.features_NK, e.numCandidates);
    const max = Math.max(...scores);
    const chosen = scores.reduce((a, s, j) => a + (e.truth_N[j] as number) * s, 0);
    sum += max + Math.log(scores.reduce((a, s) => a + Math.exp(s - max), 0)) - chosen;
  }
  return sum / examples.length + 0.5 * l2 * w.reduce((a, x, f) => a + (x - (centre[f] as number)) ** 2, 0);
}

/**
 * @param centre what the penalty pulls towards (MAP estimate); default zeros
 * @param l2 penalty on the mean log-likelihood scale; 1e-3 suits a thousand slates and features of unit scale
 * @throws RangeError without examples
 */
export function fitChoiceModel(
  examples: readonly ChoiceExample[],
  names: readonly string[],
  l2 = 1e-3,
  centre: readonly number[] = [],
  maxIterations = 50,
): ChoiceModel {
  const k = names.length;
  if (examples.length === 0) throw new RangeError("a choice model needs at least one slate");
  const towards = names.map((_, f) => centre[f] ?? 0);
  let w: number[] = [...towards];
  let value = objective(examples, w, l2, towards);
  for (let iteration = 0; iteration < maxIterations; iteration++) {
    const gradient = new Float64Array(k);
    const hessian = new Float64Array(k * k);
    for (const e of examples) {
      const p = softmax(choiceScores(w, e.features_NK, e.numCandidates));
      const mean = new Float64Array(k);
      const chosen = new Float64Array(k);
      for (let j = 0; j < e.numCandidates; j++)
        for (let f = 0; f < k; f++) {
          const x = e.features_NK[j * k + f] as number;
          mean[f] = (mean[f] as number) + (p[j] as number) * x;
          chosen[f] = (chosen[f] as number) + (e.truth_N[j] as number) * x;
        }
      for (let f = 0; f < k; f++) gradient[f] = (gradient[f] as number) + (mean[f] as number) - (chosen[f] as number);
      for (let j = 0; j < e.numCandidates; j++)
        for (let f = 0; f < k; f++) {
          const df = (p[j] as number) * ((e.features_NK[j * k + f] as number) - (mean[f] as number));
          if (df === 0) continue;
          for (let g = 0; g <= f; g++)
            hessian[f * k + g] =
              (hessian[f * k + g] as number) + df * ((e.features_NK[j * k + g] as number) - (mean[g] as number));
        }
    }
    for (let f = 0; f < k; f++) {
      gradient[f] = (gradient[f] as number) / examples.length + l2 * ((w[f] as number) - (towards[f] as number));
      for (let g = 0; g <= f; g++) {
        const h = (hessian[f * k + g] as number) / examples.length + (f === g ? l2 : 0);
        hessian[f * k + g] = h;
        hessian[g * k + f] = h;
      }
    }
    const step = solve(hessian, gradient, k);
    let scale = 1;
    let next = w;
    let nextValue = value;
    for (let halving = 0; halving < 20; halving++, scale /= 2) {
      const trial = w.map((x, f) => x - scale * (step[f] as number));
      const trialValue = objective(examples, trial, l2, towards);
      if (trialValue <= value) {
        next = trial;
        nextValue = trialValue;
        break;
      }
    }
    const done = value - nextValue < 1e-10;
    w = next;
    value = nextValue;
    if (done) break;
  }
  return { names, weights: w };
}
