/**
 * Stage 2b, supervised fine-tuning on the kept traces (GR2 v1 §4): L = -lambda_r sum log p(reasoning) - lambda_o sum
 * log p(ranking). The ranking part is trained under the permutation constraint and prior used for decoding: the
 * gradient covers only what the prior does not already explain. Next-item replay keeps the LM's knowledge
 * fresh.
 */

import { readBeliefs, readPrior } from "../artifacts/calibration.ts";
import { openCorpus } from "../artifacts/corpus.ts";
import { readHeads } from "../artifacts/heads.ts";
import { isSftUser, toSlateInput } from "../artifacts/slates.ts";
import { type ReasoningRecord, readReasonings, readTraces, type TraceRecord } from "../artifacts/traces.ts";
import { stateDir, tokenizerFile } from "../artifacts/weights.ts";
import { adamW } from "../config/schema/training.ts";
import { RunError } from "../core/errors.ts";
import { deriveSeed, Rng, unitHash } from "../core/rng.ts";
import { resume, saveCheckpoint } from "../models/checkpoint.ts";
import { type Document, learnDocuments } from "../models/documents.ts";
import { openLanguageModel, weightsChanged } from "../models/language-model.ts";
import { drawValidation, evaluatePolicy } from "../models/learning-curve.ts";
import { checkRenderedPrompts } from "../models/prompt-check.ts";
import { type Example, replayBatches, supervisedBatch } from "../models/supervised.ts";
import { type Slate, targetDistribution } from "../prerank/types.ts";
import { learningRateAt } from "../rl/groups.ts";
import type { Stage, StageContext, Summary } from "../run/stage.ts";
import { modelVerbs } from "../run/verbs.ts";

export const sft: Stage = {
  name: "sft",
  source: import.meta.url,
  inputs: ["data", "sid", "midtrain", "slates", "evidence", "calibrate", "traces"],
  verbs: modelVerbs,
  settings: (c) => ({
    sft: c.sft,
    prompts: c.prompts,
    decoding: c.decoding,
    windows: [c.midtrain.windowItems, c.midtrain.windowStride],
    seed: c.seed,
  }),
  run,
};

interface State {
  readonly step: number;
  /** Moving average of the loss. */
  readonly smooth: number;
  /** Best N@5 on validation slates after a step, and that step; -1 and 0 until one is measured. */
  readonly best: number;
  readonly bestStep: number;
  /** Consecutive evaluations since then without an improvement. */
  readonly flat: number;
}

async function run(context: StageContext): Promise<Summary> {
  const { config, signal } = context;
  const o = config.sft;
  const worker = await context.worker();
  const corpus = await openCorpus(context);
  const from = context.inputDir("midtrain");
  const model = await openLanguageModel(context, corpus, stateDir(from), tokenizerFile(from));
  const policy = model.policy(readPrior(context));

  const { slates, evidence } = readHeads(context, "rerank");
  const byId = new Map(slates.map((s) => [s.id, s]));
  const lessons: readonly (TraceRecord | ReasoningRecord)[] =
    o.target === "order" ? readTraces(context) : readReasonings(context);
  if (lessons.length === 0)
    throw new RunError("SFT has nothing to learn from: no trace was kept", {
      advice: "Raise teacher.maxTries or teacher.temperature, or set sft.target to belief.",
    });
  const beliefs = o.target === "belief" ? readBeliefs(context) : {};
  const toExample = (lesson: TraceRecord | ReasoningRecord, epoch: number): Example => {
    const slate = byId.get(lesson.slate) as Slate;
    const thinks = unitHash(config.seed, "think", lesson.slate, epoch) >= o.noThinkShare;
    return {
      slate: toSlateInput(corpus, slate, evidence),
      reasoning: lesson.reasoning,
      mode: thinks ? "think" : "answer",
      answer:
        "order" in lesson
          ? { order: lesson.order }
          : { first: mixed(beliefs[lesson.slate] as readonly number[], targetDistribution(slate), o.truthShare) },
    };
  };
  const stepsPerEpoch = Math.ceil(lessons.length / o.batchSlates);
  const steps = Math.round(stepsPerEpoch * o.epochs);
  const drawBatch = (step: number): Example[] => {
    const epoch = Math.floor(step / stepsPerEpoch);
    const order = Rng.of(config.seed, "sft", epoch).shuffle([...lessons]);
    const start = (step % stepsPerEpoch) * o.batchSlates;
    return order.slice(start, start + o.batchSlates).map((t) => toExample(t, epoch));
  };

  const validation = o.evalSteps > 0 ? drawValidation(context, o.evalSlates) : [];
  checkRenderedPrompts(context, corpus, [...slates, ...validation], "SFT");
  const known = { ...evidence, ...readHeads(context, "validation").evidence };
  const evaluate = (step: number): Promise<number> =>
    evaluatePolicy(
      context,
      policy,
      validation,
      (slate) => toSlateInput(corpus, slate, known),
      [o.noThinkShare > 0 ? "answer" : "think"],
      step,
    );
  const keep = () =>
    worker.saveState({ path: stateDir(context.dir), includeOptimizer: false, metadata: model.lineage }, { signal });

  const resumed = await resume<State>(context, worker, model.lineage);
  weightsChanged(worker);
  const mayLearn = (user: number): boolean => isSftUser(config.seed, o.userShare, user);
  const replay = replayBatches(config, corpus, policy, mayLearn, replayTokens(policy, drawBatch(0), o.replayShare));
  for (let skipped = 0; skipped < (resumed?.step ?? 0); skipped++) replay.next();

  let state: State = resumed ?? { step: 0, smooth: Number.NaN, best: -1, bestStep: 0, flat: 0 };
  const patience = o.patience > 0 ? o.patience : Number.POSITIVE_INFINITY;
  if (!resumed && validation.length > 0) await evaluate(0); // the initial model, which cannot write answers yet
  while (state.step < steps && state.flat < patience) {
    const { step } = state;
    const examples = drawBatch(step);
    const values: Record<string, number> = {};
    const seed = deriveSeed(config.seed, "sft", "dropout", step);
    let loss = 0;
    for (const mode of ["think", "answer"] as const) {
      const part = examples.filter((e) => e.mode === mode);
      if (part.length === 0) continue;
      const result = await worker.forwardBackward(
        {
          ...supervisedBatch(policy, part, examples.length, o),
          loss: { kind: "cross_entropy" },
          microBatchTokens: config.runtime.microBatchTokens,
          seed,
        },
        { signal },
      );
      values[`loss_${mode}`] = (result.loss * examples.length) / part.length;
      loss += result.loss;
    }
    if (o.replayShare > 0) {
      const documents = replay.next().value as readonly Document[];
      const result = await worker.forwardBackward(
        {
          ...learnDocuments(documents),
          microBatchTokens: config.runtime.microBatchTokens,
          seed,
        },
        { signal },
      );
      values.loss_replay = result.loss;
    }
    const learningRate = learningRateAt(step, steps, o);
    const { gradNorm } = await worker.optimStep(
      { ...adamW, learningRate, weightDecay: o.weightDecay, maxGradNorm: o.maxGradNorm },
      { signal },
    );
    const smooth = Number.isNaN(state.smooth) ? loss : 0.95 * state.smooth + 0.05 * loss;
    context.metrics(step, { loss, ...values, gradNorm, learningRate });
    context.progress(`loss ${smooth.toFixed(3)}`, step + 1, steps);
    state = { ...state, step: step + 1, smooth };
    const last = step + 1 === steps;
    if (validation.length > 0 && (last || (step + 1) % o.evalSteps === 0)) {
      const value = await evaluate(step + 1);
      const isBest = value > state.best;
      state = isBest ? { ...state, best: value, bestStep: step + 1, flat: 0 } : { ...state, flat: state.flat + 1 };
      if (isBest) await keep();
    }
    if ((step + 1) % o.checkpointSteps === 0 && !last)
      await saveCheckpoint(context, worker, model.lineage, step + 1, state);
  }
  if (state.step < steps)
    context.log(
      `stopped after ${state.step} of ${steps} steps: ` +
        `${state.flat} consecutive evaluations without an improvement (sft.patience)`,
    );
  if (state.bestStep === 0) await keep();
  else context.log(`best validation N@5 ${state.best.toFixed(4)} at step ${state.bestStep}; those weights are kept`);
  return {
    ...{ steps: state.step, lessons: lessons.length, finalLoss: state.smooth },
    ...(state.bestStep > 0 ? { bestValidation: state.best, bestStep: state.bestStep } : {}),
  };
}

/**
 * The teacher's belief, with a share of its mass moved to the true item (or distribution) if among the candidates.
 */
export const mixed = (belief: readonly number[], truth: readonly number[], truthShare: number): number[] =>
  truth.some((t) => t > 0)
    ? belief.map((p, i) => (1 - truthShare) * p + truthShare * (truth[i] as number))
    : [...belief];

/** Replay tokens per step: a share of the tokens of a typical supervised batch. */
function replayTokens(
  policy: Parameters<typeof supervisedBatch>[0],
  examples: readonly Example[],
  share: number,
): number {
  const tokens = examples.reduce(
    (n, e) => n + policy.prompt(e.slate, e.mode).length + policy.maxNewTokens([e.slate], "answer"),
    0,
  );
  return Math.max(256, Math.round(share * tokens));
}
