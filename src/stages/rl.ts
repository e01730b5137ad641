/**
 * Stage 3, DAPO (GR2 v1 §5, arXiv 2503.14476): sample G answers a slate, verify them by rules, compare within the
 * group, update. The slates are of users whose answers neither mid-training nor SFT has seen.
 *
 * Shape suffixes: P prompts, G group.
 */
import type { Config } from "../config/schema.ts";
import { RunError } from "../core/errors.ts";
import { deriveSeed, Rng } from "../core/rng.ts";
import { gradedNdcg } from "../eval/metrics.ts";
import type { Policy, Rollout, SlateView } from "../policy/policy.ts";
import { labelsOf, type Slate } from "../prerank/types.ts";
import type { Mode } from "../prompts/rerank.ts";
import { overlongPenalty, type Verdict, verify } from "../reward/verify.ts";
import { groupAdvantages, learningRateAt, teaches, tokenWeights } from "../rl/groups.ts";
import type { WorkerClient } from "../worker/types.ts";
import { readPrior } from "./calibrate.ts";
import { resume, saveCheckpoint } from "./checkpoint.ts";
import { type Corpus, openCorpus } from "./corpus.ts";
import { openLanguageModel, weightsChanged } from "./language-model.ts";
import { stateDir, tokenizerFile } from "./midtrain.ts";
import { checkPromptsOf } from "./prompt-check.ts";
import { conditional, isSftUser, readSlates, viewOf } from "./slates.ts";
import type { Stage, StageContext, Summary } from "./stage.ts";
import { readEvidence } from "./traces.ts";

export const rl: Stage = {
  name: "rl",
  inputs: ["data", "sid", "midtrain", "slates", "calibrate", "traces", "sft"],
  settings: (c) => ({ rl: c.rl, prompts: c.prompts, decoding: c.decoding, userShare: c.sft.userShare, seed: c.seed }),
  run,
};

/** A slate's answers with what they earned. */
interface GroupOfAnswers {
  readonly slate: Slate;
  readonly mode: Mode;
  readonly rollouts_G: readonly Rollout[];
  readonly verdicts_G: readonly Verdict[];
  readonly rewards_G: readonly number[];
}

const modes: readonly Mode[] = ["think", "answer"];

async function run(context: StageContext): Promise<Summary> {
  const { config, signal } = context;
  const o = config.rl;
  const worker = await context.worker();
  const corpus = await openCorpus(context);
  const from = context.inputDir("midtrain");
  const start = stateDir(context.inputDir("sft"));
  const model = await openLanguageModel(context, corpus, start, tokenizerFile(from));
  const policy = model.policy(readPrior(context));
  const evidence = readEvidence(context);
  if (o.klCoef > 0) await loadReference(context, corpus, start, tokenizerFile(from));

  const pool = conditional(readSlates(context, "rerank")).filter(
    (s) => !isSftUser(config.seed, config.sft.userShare, s.user),
  );
  if (pool.length === 0)
    throw new RunError("no slate is left for RL: every user's went to SFT, or none holds its true item", {
      advice: "Lower sft.userShare, or use more data.",
    });
  const validation = evaluationSlates(context, o.evalSlates);
  checkPromptsOf(context, corpus, [...pool, ...validation], "RL");
  context.log(`${pool.length} slates of users unseen so far; ${validation.length} validation slates`);

  const best = stateDir(context.dir);
  const resumed = await resume<{ step: number; best: number; bestStep: number }>(context, worker, model.belongsTo);
  weightsChanged(worker);
  let score = resumed ?? { step: 0, best: await evaluate(0), bestStep: 0 };
  if (!resumed) await worker.saveState({ path: best, includeOptimizer: false, metadata: model.belongsTo }, { signal });

  for (let step = score.step; step < o.steps; step++) {
    // 1. Sample and verify; refill while groups teach nothing (dynamic sampling), a bounded number of times.
    const seen: GroupOfAnswers[] = [];
    const kept: GroupOfAnswers[] = [];
    const queue = slatesForStep(pool, config, step);
    for (let round = 0; round <= (o.dynamicSampling ? o.maxRefillRounds : 0) && kept.length < o.prompts; round++) {
      const batch = queue.splice(0, o.prompts - kept.length);
      const groups = await answer(batch, step, round);
      seen.push(...groups);
      kept.push(...(o.dynamicSampling ? groups.filter((g) => teaches(g.rewards_G)) : groups));
    }
    // 2. Update.
    const update =
      kept.length > 0
        ? await learn(worker, policy, config, (s) => viewOf(corpus, s, evidence), kept, step, signal)
        : {};
    // 3. Say how it went.
    context.metrics(step, { ...health(seen, kept), ...update });
    for (const g of seen.slice(0, 2)) logRollout(step, g);
    const mean = average(seen.flatMap((g) => g.rewards_G));
    context.progress(`reward ${mean.toFixed(3)}`, step + 1, o.steps);
    if ((step + 1) % o.evalSteps === 0 || step + 1 === o.steps) {
      const value = await evaluate(step + 1);
      if (value > score.best || !o.keepBest) {
        score = { ...score, best: value, bestStep: step + 1 };
        await worker.saveState({ path: best, includeOptimizer: false, metadata: model.belongsTo }, { signal });
      }
    }
    score = { ...score, step: step + 1 };
    if ((step + 1) % o.checkpointSteps === 0 && step + 1 < o.steps)
      await saveCheckpoint(context, worker, model.belongsTo, step + 1, score);
  }
  context.log(
    score.bestStep === 0
      ? `no evaluation beat the SFT policy (validation N@5 ${score.best.toFixed(4)}); its weights are kept`
      : `best validation N@5 ${score.best.toFixed(4)} at step ${score.bestStep}`,
  );
  return { steps: o.steps, bestValidation: score.best, bestStep: score.bestStep, slates: pool.length };

  /** Samples a batch of slates, each in the mode its place in the step gives it. */
  async function answer(batch: readonly Slate[], step: number, round: number): Promise<GroupOfAnswers[]> {
    const out: GroupOfAnswers[] = [];
    for (const mode of modes) {
      const rng = Rng.of(config.seed, "rl-mode", step, round);
      const part = batch.filter(() => (rng.uniform() < o.thinkShare ? "think" : "answer") === mode);
      const views = part.map((s) => viewOf(corpus, s, evidence));
      const seed = deriveSeed(config.seed, "rl", step, round, mode);
      const rollouts = await policy.sample(views, { mode, group: o.group, temperature: o.temperature, seed, signal });
      const limit = views.length ? policy.maxNewTokens(views, mode) : 0;
      part.forEach((slate, p) => {
        const rollouts_G = rollouts.slice(p * o.group, (p + 1) * o.group);
        const verdicts_G = rollouts_G.map((r) => verify(r.parsed, labelsOf(slate), o.reward));
        const rewards_G = verdicts_G.map((v, g) => v.reward + overlong(rollouts_G[g] as Rollout, limit, mode));
        out.push({ slate, mode, rollouts_G, verdicts_G, rewards_G });
      });
    }
    return out;
  }

  /** A thought that nears its budget costs; an answer's length is fixed by the slate. */
  function overlong(rollout: Rollout, limit: number, mode: Mode): number {
    return mode === "think" ? overlongPenalty(rollout.tokens.length, limit, o.overlongBuffer) : 0;
  }

  /** Mean N@5 of greedy answers on validation slates, over the modes that are trained. */
  async function evaluate(step: number): Promise<number> {
    const values: Record<string, number> = {};
    for (const mode of modes.filter((m) => (m === "think" ? o.thinkShare > 0 : o.thinkShare < 1))) {
      const views = validation.map((s) => viewOf(corpus, s, evidence));
      const rollouts = await policy.sample(views, { mode, group: 1, temperature: 0, seed: 0, signal });
      const gains = rollouts.map((r, i) => gainOf(r, validation[i] as Slate));
      values[`validation_ndcg5_${mode}`] = average(gains);
    }
    const mean = average(Object.values(values));
    context.metrics(step, { ...values, validation_ndcg5: mean });
    return mean;
  }

  function logRollout(step: number, g: GroupOfAnswers): void {
    g.rollouts_G.forEach((r, i) => {
      const v = g.verdicts_G[i] as Verdict;
      context.rollout(step, {
        slate: g.slate.id,
        mode: g.mode,
        text: r.text,
        parse: r.parsed.kind === "ranking" ? { kind: "ranking", order: r.parsed.order } : r.parsed,
        reward: g.rewards_G[i],
        parts: v.parts,
        because: v.because,
        weightVersion: r.weightVersion,
      });
    });
  }
}

/** NDCG@5; 0 for an unparseable answer. */
function gainOf(rollout: Rollout, slate: Slate): number {
  const labels = labelsOf(slate);
  return rollout.parsed.kind === "ranking"
    ? gradedNdcg(
        rollout.parsed.order.map((i) => labels[i] as number),
        5,
      )
    : 0;
}

/** Slates of a step: a seeded walk through the pool, reshuffled every pass; enough for every refill round. */
function slatesForStep(pool: readonly Slate[], config: Config, step: number): Slate[] {
  const { prompts, maxRefillRounds } = config.rl;
  const need = prompts * (1 + maxRefillRounds);
  const perPass = Math.max(1, Math.floor(pool.length / need));
  const pass = Math.floor(step / perPass);
  const order = Rng.of(config.seed, "rl-slates", pass).shuffle([...pool]);
  const at = (step % perPass) * need;
  return order.slice(at, at + need);
}

/** Validation slates for the learning curve: a seeded draw, the same every time. */
function evaluationSlates(context: StageContext, n: number): Slate[] {
  const all = conditional(readSlates(context, "validation"));
  return Rng.of(context.config.seed, "rl-validation").shuffle(all).slice(0, n);
}

async function loadReference(context: StageContext, corpus: Corpus, weights: string, tokenizer: string): Promise<void> {
  await openLanguageModel(context, corpus, weights, tokenizer, "reference");
}

/** Clipped policy-gradient steps over one batch of groups. */
async function learn(
  worker: WorkerClient,
  policy: Policy,
  config: Config,
  viewOfSlate: (slate: Slate) => SlateView,
  groups: readonly GroupOfAnswers[],
  step: number,
  signal: AbortSignal,
): Promise<Record<string, number>> {
  const o = config.rl;
  const values: Record<string, number> = {};
  const size = Math.ceil(groups.length / o.minibatches);
  let update = 0;
  for (let epoch = 0; epoch < o.epochs; epoch++) {
    for (let at = 0; at < groups.length; at += size, update++) {
      const batch = groups.slice(at, at + size);
      const rollouts = batch.flatMap((g) => g.rollouts_G);
      const counts = rollouts.map((r) => !(o.maskTruncated && r.truncated));
      const weightOf = new Map(
        tokenWeights(
          rollouts.map((r) => r.tokens.length),
          counts,
          o.lossAggregation,
        ).map((w, i) => [rollouts[i] as Rollout, w]),
      );
      const totals = { gap: 0, gapMax: 0, tokens: 0 };
      for (const mode of modes) {
        const part = batch.filter((g) => g.mode === mode);
        if (part.length === 0) continue;
        const views: SlateView[] = part.map((g) => viewOfSlate(g.slate));
        const request = {
          batch: {
            groups: part.map((g) => ({
              prompt: (g.rollouts_G[0] as Rollout).prompt,
              responses: g.rollouts_G.map((r) => r.tokens),
            })),
          },
          ...withConstraint(policy, views, mode),
          temperature: o.temperature,
          microBatchTokens: config.runtime.microBatchTokens,
        };
        const perToken = (f: (g: GroupOfAnswers, i: number) => ArrayLike<number> | number): Float32Array =>
          flatTokens(part, f);
        const advantagesOf = new Map(part.map((g) => [g, groupAdvantages(g.rewards_G, o.normaliseStd)]));
        const old = perToken((g, i) => (g.rollouts_G[i] as Rollout).logprobs);
        const reference =
          o.klCoef > 0 ? (await worker.forward({ ...request, modelId: "reference" }, { signal })).logprobs : undefined;
        const result = await worker.forwardBackward(
          {
            ...request,
            weights: perToken((g, i) => weightOf.get(g.rollouts_G[i] as Rollout) as number),
            loss: {
              kind: "policy",
              advantages: perToken((g, i) => (advantagesOf.get(g) as number[])[i] as number),
              oldLogprobs: old,
              ...(reference ? { referenceLogprobs: reference } : {}),
              clipLow: o.clipLow,
              clipHigh: o.clipHigh,
              klCoef: o.klCoef,
            },
            seed: deriveSeed(config.seed, "rl", "dropout", step, update),
            wantLogprobs: update === 0,
          },
          { signal },
        );
        for (const [name, value] of Object.entries(result.metrics)) values[`${name}_${mode}`] = value;
        result.logprobs.forEach((lp, t) => {
          const gap = Math.abs(lp - (old[t] as number));
          totals.gap += gap;
          totals.gapMax = Math.max(totals.gapMax, gap);
          totals.tokens++;
        });
        values.loss = (values.loss ?? 0) + result.loss;
      }
      if (update === 0) {
        values.logprobGapMean = totals.gap / Math.max(1, totals.tokens);
        values.logprobGapMax = totals.gapMax;
      }
      const learningRate = learningRateAt(step, o.steps, o);
      const { gradNorm, weightVersion } = await worker.optimStep(
        { learningRate, weightDecay: o.weightDecay, maxGradNorm: o.maxGradNorm },
        { signal },
      );
      Object.assign(values, { gradNorm, learningRate, weightVersion });
    }
  }
  return values;
}

function withConstraint(policy: Policy, views: readonly SlateView[], mode: Mode) {
  const constraint = policy.constraint(views, mode);
  return constraint ? { constraint } : {};
}

/** One value per response token, in the order of the batch. */
function flatTokens(
  groups: readonly GroupOfAnswers[],
  f: (group: GroupOfAnswers, index: number) => ArrayLike<number> | number,
): Float32Array {
  const total = groups.reduce((n, g) => n + g.rollouts_G.reduce((m, r) => m + r.tokens.length, 0), 0);
  const out = new Float32Array(total);
  let at = 0;
  for (const g of groups)
    g.rollouts_G.forEach((r, i) => {
      const v = f(g, i);
      if (typeof v === "number") out.fill(v, at, at + r.tokens.length);
      else out.set(v, at);
      at += r.tokens.length;
    });
  return out;
}

const average = (values: readonly number[]): number =>
  values.length ? values.reduce((a, b) => a + b, 0) / values.length : 0;

/** What tells a healthy run from one that is gamed or goes nowhere; over everything sampled in the step. */
function health(seen: readonly GroupOfAnswers[], kept: readonly GroupOfAnswers[]): Record<string, number> {
  const rollouts = seen.flatMap((g) => g.rollouts_G);
  const verdicts = seen.flatMap((g) => g.verdicts_G);
  const rewards = seen.flatMap((g) => g.rewards_G);
  const valid = verdicts.filter((v) => v.valid);
  const mean = average(rewards);
  const values: Record<string, number> = {
    reward: mean,
    reward_std: Math.sqrt(average(rewards.map((r) => (r - mean) ** 2))),
    reward_ranking: average(verdicts.map((v) => v.parts.ranking)),
    reward_format: average(verdicts.map((v) => v.parts.format)),
    valid_rate: valid.length / Math.max(1, verdicts.length),
    identity_rate: valid.filter((v) => v.identity).length / Math.max(1, valid.length),
    zero_variance_share: seen.filter((g) => !teaches(g.rewards_G)).length / Math.max(1, seen.length),
    groups_kept: kept.length,
    length_mean: average(rollouts.map((r) => r.tokens.length)),
    truncated_share: average(rollouts.map((r) => (r.truncated ? 1 : 0))),
  };
  const firsts = rollouts.flatMap((r) => (r.parsed.kind === "ranking" ? [r.parsed.order[0] as number] : []));
  const places = Math.max(0, ...seen.map((g) => g.slate.candidates.length));
  for (let place = 0; place < places; place++)
    values[`first_choice_${place + 1}`] = firsts.filter((f) => f === place).length / Math.max(1, firsts.length);
  return values;
}
