/**
 * The update of a DAPO step: from verified answers to clipped policy-gradient steps (arXiv 2503.14476 eq. 8). Owns
 * the choice of "old" log-probs, the corrections and a step's metrics; sampling and rewards are in dapo.ts.
 *
 *   pi_old      the trainer's policy before the step's first update. By default the sampler's log-probs are used for
 *               it; with importanceCap > 0 the trainer computes them, and a token's advantage is multiplied by
 *               min(pi_old / pi_sampler, importanceCap) (truncated importance sampling: both differ in their last bits)
 *   KL          to the SFT policy: k3 as a term of the loss (GRPO), or k1 = log pi_old - log pi_ref subtracted from the
 *               advantage (PPO)
 */
import { adamW } from "../../config/schema/training.ts";
import type { Config } from "../../config/schema.ts";
import { deriveSeed } from "../../core/rng.ts";
import type { Policy, Rollout, SlateInput } from "../../policy/policy.ts";
import type { Slate } from "../../prerank/types.ts";
import { type PromptMode, promptModes } from "../../prompts/rerank.ts";
import { groupAdvantages, learningRateAt, tokenWeights } from "../../rl/groups.ts";
import type { Answers } from "../../rl/health.ts";
import type { ForwardRequest, WorkerClient } from "../../worker/types.ts";

/** A slate's G answers and their rewards. */
export interface AnswerGroup extends Answers {
  readonly slate: Slate;
  readonly mode: PromptMode;
  readonly rollouts_G: readonly Rollout[];
}

export interface UpdateOptions {
  readonly worker: WorkerClient;
  readonly policy: Policy;
  readonly config: Config;
  readonly toSlateInput: (slate: Slate) => SlateInput;
  readonly step: number;
  readonly signal: AbortSignal;
}

/** Further log-probs of one response's tokens that a step needs, besides the sampler's. */
interface Fixed {
  readonly old: ArrayLike<number>;
  readonly reference: ArrayLike<number> | undefined;
}

/** All optimizer steps over one batch of groups; returns the step's metrics. */
export async function update(groups: readonly AnswerGroup[], options: UpdateOptions): Promise<Record<string, number>> {
  const { worker, config, step, signal } = options;
  const o = config.rl;
  const values: Record<string, number> = {};
  const fixed = await fixedLogprobs(groups, options);
  const size = Math.ceil(groups.length / o.minibatches);
  for (let epoch = 0, count = 0; epoch < o.epochs; epoch++) {
    for (let at = 0; at < groups.length; at += size, count++) {
      const batch = groups.slice(at, at + size);
      const weightByRollout = weights(batch, o);
      for (const mode of promptModes) {
        const part = batch.filter((g) => g.mode === mode);
        if (part.length > 0) await accumulate(part, mode, fixed, weightByRollout, count, values, options);
      }
      const learningRate = learningRateAt(step, o.steps, o);
      const { gradNorm, weightVersion } = await worker.optimStep(
        { ...adamW, learningRate, weightDecay: o.weightDecay, maxGradNorm: o.maxGradNorm },
        { signal },
      );
      // Updates between sampling the oldest answer and this step's first; 0: the policy that sampled is the one that
      // learns.
      values.weight_version_lag ??= weightVersion - 1 - oldestVersion(groups);
      Object.assign(values, { gradNorm, learningRate, weightVersion });
    }
  }
  const { gapSum = 0, gapTokens = 1, ...rest } = values;
  return { ...rest, logprobGapMean: gapSum / gapTokens };
}

const oldestVersion = (groups: readonly AnswerGroup[]): number =>
  Math.min(...groups.flatMap((g) => g.rollouts_G.map((r) => r.weightVersion)));

/** Adds the gradient of one mode's part of a batch; records its metrics in `values`. */
async function accumulate(
  part: readonly AnswerGroup[],
  mode: PromptMode,
  fixed: ReadonlyMap<Rollout, Fixed>,
  weightByRollout: ReadonlyMap<Rollout, number>,
  count: number,
  values: Record<string, number>,
  options: UpdateOptions,
): Promise<void> {
  const { worker, config, step, signal } = options;
  const o = config.rl;
  const advantages = new Map<Rollout, number>();
  for (const g of part) {
    const advantages_G = groupAdvantages(g.rewards_G, o.normaliseStd);
    for (const [i, rollout] of g.rollouts_G.entries()) advantages.set(rollout, advantages_G[i] as number);
  }
  const sampled = flat(part, (r) => r.logprobs);
  const old = flat(part, (r) => fixed.get(r)?.old ?? r.logprobs);
  const reference = o.klCoef > 0 ? flat(part, (r) => fixed.get(r)?.reference ?? r.logprobs) : undefined;
  const corrected = flat(part, (r) => advantages.get(r) as number).map((a, t) => {
    const trust =
      o.importanceCap > 0 ? Math.min(Math.exp((old[t] as number) - (sampled[t] as number)), o.importanceCap) : 1;
    const k1 = reference && o.klEstimator === "k1" ? (old[t] as number) - (reference[t] as number) : 0;
    return trust * (a - o.klCoef * k1);
  });
  const result = await worker.forwardBackward(
    {
      ...buildRequest(part, mode, options),
      weights: flat(part, (r) => weightByRollout.get(r) as number),
      loss: {
        kind: "policy",
        advantages: corrected,
        oldLogprobs: old,
        ...(reference && o.klEstimator === "k3" ? { referenceLogprobs: reference, klCoef: o.klCoef } : {}),
        clipLow: o.clipLow,
        clipHigh: o.clipHigh,
      },
      seed: deriveSeed(config.seed, "rl", "dropout", step, count),
      wantLogprobs: count === 0,
    },
    { signal },
  );
  for (const [name, value] of Object.entries(result.metrics)) values[`${name}_${mode}`] = value;
  values.loss = (values.loss ?? 0) + result.loss;
  // Before the first update sampler and trainer have the same weights: a difference is an error in one of them.
  result.logprobs.forEach((logprob, t) => {
    const gap = Math.abs(logprob - (sampled[t] as number));
    values.gapSum = (values.gapSum ?? 0) + gap;
    values.gapTokens = (values.gapTokens ?? 0) + 1;
    values.logprobGapMax = Math.max(values.logprobGapMax ?? 0, gap);
  });
}

/** The trainer's and the reference's log-probs, if the settings require them, before any update. */
async function fixedLogprobs(
  groups: readonly AnswerGroup[],
  options: UpdateOptions,
): Promise<ReadonlyMap<Rollout, Fixed>> {
  const { worker, config, signal } = options;
  const { importanceCap, klCoef } = config.rl;
  const out = new Map<Rollout, Fixed>();
  if (importanceCap === 0 && klCoef === 0) return out;
  for (const mode of promptModes) {
    const part = groups.filter((g) => g.mode === mode);
    if (part.length === 0) continue;
    const request = buildRequest(part, mode, options);
    const own = importanceCap > 0 ? (await worker.forward(request, { signal })).logprobs : undefined;
    const theirs =
      klCoef > 0 ? (await worker.forward({ ...request, modelId: "reference" }, { signal })).logprobs : undefined;
    let at = 0;
    for (const rollout of part.flatMap((g) => g.rollouts_G)) {
      const end = at + rollout.tokens.length;
      out.set(rollout, { old: own?.subarray(at, end) ?? rollout.logprobs, reference: theirs?.subarray(at, end) });
      at = end;
    }
  }
  return out;
}

function buildRequest(
  part: readonly AnswerGroup[],
  mode: PromptMode,
  { policy, config, toSlateInput }: UpdateOptions,
): ForwardRequest {
  const constraint = policy.constraint(
    part.map((g) => toSlateInput(g.slate)),
    mode,
  );
  return {
    batch: {
      groups: part.map((g) => ({
        prompt: (g.rollouts_G[0] as Rollout).prompt,
        responses: g.rollouts_G.map((r) => r.tokens),
      })),
    },
    ...(constraint ? { constraint } : {}),
    temperature: config.rl.temperature,
    microBatchTokens: config.runtime.microBatchTokens,
  };
}

/** Weight of every token of a response; over the whole batch, both modes. */
function weights(batch: readonly AnswerGroup[], o: Config["rl"]): ReadonlyMap<Rollout, number> {
  const rollouts = batch.flatMap((g) => g.rollouts_G);
  const all = tokenWeights(
    rollouts.map((r) => r.tokens.length),
    rollouts.map((r) => !(o.maskTruncated && r.truncated)),
    o.lossAggregation,
  );
  return new Map(rollouts.map((r, i) => [r, all[i] as number]));
}

/** One value per response token, in the order of the batch. */
function flat(part: readonly AnswerGroup[], f: (rollout: Rollout) => ArrayLike<number> | number): Float32Array {
  const rollouts = part.flatMap((g) => g.rollouts_G);
  const out = new Float32Array(rollouts.reduce((n, r) => n + r.tokens.length, 0));
  let at = 0;
  for (const r of rollouts) {
    const value = f(r);
    if (typeof value === "number") out.fill(value, at, at + r.tokens.length);
    else out.set(value, at);
    at += r.tokens.length;
  }
  return out;
}
