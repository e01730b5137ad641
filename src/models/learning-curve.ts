/** The learning curve of a policy in training, on validation slates. */
import { readHeads } from "../artifacts/heads.ts";
import { conditional } from "../artifacts/slates.ts";
import { Rng } from "../core/rng.ts";
import { gradedNdcg } from "../eval/metrics.ts";
import type { Policy, Rollout, SlateInput } from "../policy/policy.ts";
import { type Slate, slateLabels } from "../prerank/types.ts";
import type { PromptMode } from "../prompts/rerank.ts";
import type { StageContext } from "../run/stage.ts";

/** Validation slates for the learning curve: a seeded sample, the same every time. */
export function drawValidation(context: StageContext, n: number): Slate[] {
  const all = conditional(readHeads(context, "validation").slates);
  return Rng.of(context.config.seed, "rl-validation").shuffle(all).slice(0, n);
}

/**
 * A point of the learning curve, written to metrics.jsonl: N@5 of greedy answers, by mode, next to the pre-rank's.
 * @returns mean N@5 over the modes
 */
export async function evaluatePolicy(
  context: StageContext,
  policy: Policy,
  slates: readonly Slate[],
  toSlateInput: (slate: Slate) => SlateInput,
  modes: readonly PromptMode[],
  step: number,
): Promise<number> {
  const values: Record<string, number> = {};
  const valid: number[] = [];
  for (const mode of modes) {
    const rollouts = await policy.sample(slates.map(toSlateInput), {
      ...{ mode, group: 1, temperature: 0, seed: 0 },
      signal: context.signal,
    });
    values[`validation_ndcg5_${mode}`] = average(rollouts.map((r, i) => computeGain(r, slates[i] as Slate)));
    valid.push(...rollouts.map((r) => (r.parsed.kind === "ranking" ? 1 : 0)));
  }
  const mean = average(Object.values(values));
  context.metrics(step, {
    ...values,
    validation_ndcg5: mean,
    validation_ndcg5_prerank: average(slates.map((s) => gradedNdcg(slateLabels(s), 5))),
    validation_valid_rate: average(valid),
  });
  return mean;
}

/** NDCG@5; 0 for an unparseable answer. */
function computeGain(rollout: Rollout, slate: Slate): number {
  const labels = slateLabels(slate);
  return rollout.parsed.kind === "ranking"
    ? gradedNdcg(
        rollout.parsed.order.map((i) => labels[i] as number),
        5,
      )
    : 0;
}

/** 0 for an empty list. */
export const average = (values: readonly number[]): number =>
  values.length ? values.reduce((a, b) => a + b, 0) / values.length : 0;
