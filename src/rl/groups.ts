/**
 * Pure arithmetic of group-relative policy optimisation (GRPO, DAPO): advantages, dynamic sampling, token weights.
 * P prompts, G responses each, T tokens.
 */

/** Below this spread a group's rewards count as equal. */
const equalTolerance = 1e-8;

/**
 * A_i = (R_i - mean) / std within the group, std over the group (population) as in GRPO; centred only if
 * `normaliseStd` is false. All zeros when the rewards are equal.
 */
export function groupAdvantages(rewards_G: readonly number[], normaliseStd: boolean): number[] {
  const mean = rewards_G.reduce((a, b) => a + b, 0) / rewards_G.length;
  const centred = rewards_G.map((r) => r - mean);
  const std = Math.sqrt(centred.reduce((a, c) => a + c * c, 0) / rewards_G.length);
  if (std < equalTolerance) return rewards_G.map(() => 0);
  return normaliseStd ? centred.map((c) => c / std) : centred;
}

/** A group whose rewards are all equal teaches nothing (DAPO's dynamic sampling drops it). */
export const teaches = (rewards_G: readonly number[]): boolean =>
  Math.max(...rewards_G) - Math.min(...rewards_G) > equalTolerance;

/**
 * Weight of every token so that the sum of weighted losses is the batch's objective.
 *   token     1 / (all tokens of the batch)                       (DAPO eq. 8)
 *   sequence  1 / (responses of the batch * tokens of this one)   (GRPO)
 * Responses that do not count (masked) get 0 and are left out of both denominators.
 */
export function tokenWeights(
  lengths: readonly number[],
  counts: readonly boolean[],
  aggregation: "token" | "sequence",
): number[] {
  const total = lengths.reduce((sum, n, i) => sum + (counts[i] ? n : 0), 0);
  const responses = counts.filter(Boolean).length;
  return lengths.map((n, i) => (!counts[i] || n === 0 ? 0 : aggregation === "token" ? 1 / total : 1 / (responses * n)));
}

/** Learning rate at a 0-based step: linear warm-up, then the schedule's decay to zero at `total`. */
export function learningRateAt(
  step: number,
  total: number,
  o: { learningRate: number; warmupSteps: number; schedule: "constant" | "linear" | "cosine" },
): number {
  if (step < o.warmupSteps) return (o.learningRate * (step + 1)) / (o.warmupSteps + 1);
  if (o.schedule === "constant") return o.learningRate;
  const progress = Math.min(1, (step - o.warmupSteps) / Math.max(1, total - o.warmupSteps));
  return o.learningRate * (o.schedule === "linear" ? 1 - progress : (1 + Math.cos(Math.PI * progress)) / 2);
}
