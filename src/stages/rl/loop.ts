/**
 * Stage 3, reinforcement learning. The loop owns what every algorithm needs: the initial weights, the slates of users
 * whose answers neither mid-training nor SFT has seen, the learning curve on validation slates, the best weights so
 * far, and checkpoints. The algorithm owns the step:
 *
 *   dapo.ts   verifiable rewards, compared within a group of answers (GR2 v1 §5, arXiv 2503.14476)
 *   opd.ts    on-policy distillation: a frozen teacher judges the student's own tokens (GR2 TR, Diffusion-GR2)
 *
 * To add an algorithm, add a file that implements algorithm.ts, its name in rl.kind (config/schema/training.ts) and an
 * entry in `algorithms`.
 */
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { readPrior } from "../../artifacts/calibration.ts";
import { openCorpus } from "../../artifacts/corpus.ts";
import { readHeads } from "../../artifacts/heads.ts";
import { isSftUser, toSlateInput } from "../../artifacts/slates.ts";
import { findWeightsFile, stateDir, tokenizerFile } from "../../artifacts/weights.ts";
import type { Config } from "../../config/schema.ts";
import { sha256 } from "../../core/hash.ts";
import { resume, saveCheckpoint } from "../../models/checkpoint.ts";
import { openLanguageModel, weightsChanged } from "../../models/language-model.ts";
import { drawValidation, evaluatePolicy } from "../../models/learning-curve.ts";
import { checkRenderedPrompts } from "../../models/prompt-check.ts";
import { promptModes } from "../../prompts/rerank.ts";
import type { Stage, StageContext, Summary } from "../../run/stage.ts";
import { modelVerbs } from "../../run/verbs.ts";
import type { Algorithm, Setup } from "./algorithm.ts";
import { openDapo } from "./dapo.ts";
import { openOpd } from "./opd.ts";
import { startStepClock } from "./seconds.ts";

export const rl: Stage = {
  name: "rl",
  source: import.meta.url,
  inputs: ["data", "sid", "midtrain", "slates", "evidence", "calibrate", "traces", "sft"],
  verbs: modelVerbs,
  plugins: ["reward"],
  settings: (c) => ({
    rl: c.rl,
    weights: [c.rl.initial, c.rl.opd.teacher].map(buildIdentity),
    prompts: c.prompts,
    decoding: c.decoding,
    userShare: c.sft.userShare,
    seed: c.seed,
  }),
  run,
};

const algorithms: Readonly<Record<Config["rl"]["kind"], (setup: Setup) => Promise<Algorithm>>> = {
  dapo: openDapo,
  opd: openOpd,
};

interface State {
  readonly step: number;
  /** Best mean N@5 on validation slates so far, and its step. */
  readonly best: number;
  readonly bestStep: number;
  /** Consecutive evaluations since then without an improvement. */
  readonly flat: number;
  readonly summary?: Summary;
}

async function run(context: StageContext): Promise<Summary> {
  const { config, signal } = context;
  const o = config.rl;
  const setup = await open(context);
  const { worker, model, policy } = setup;
  const algorithm = await algorithms[o.kind](setup);
  try {
    const validation = drawValidation(context, o.evalSlates);
    checkRenderedPrompts(context, setup.corpus, [...algorithm.pool, ...validation], "RL");
    context.log(`${algorithm.pool.length} slates of users unseen so far; ${validation.length} validation slates`);
    const modes = promptModes.filter((m) => (m === "think" ? o.thinkShare > 0 : o.thinkShare < 1));
    const evaluate = (step: number) => evaluatePolicy(context, policy, validation, setup.toSlateInput, modes, step);
    const keep = () =>
      worker.saveState({ path: stateDir(context.dir), includeOptimizer: false, metadata: model.lineage }, { signal });

    const resumed = await resume<State>(context, worker, model.lineage);
    weightsChanged(worker);
    let state: State = resumed ?? { step: 0, best: await evaluate(0), bestStep: 0, flat: 0 };
    if (!resumed) await keep();
    const clock = startStepClock(worker);
    const patience = o.keepBest && o.patience > 0 ? o.patience : Number.POSITIVE_INFINITY;
    while (state.step < o.steps && state.flat < patience) {
      const { step } = state;
      const { values, note, messages = [], rollouts = [], summary } = await algorithm.step(step);
      const seconds = clock.lap();
      const last = step + 1 === o.steps;
      const evaluates = last || (step + 1) % o.evalSteps === 0;
      const saves = !last && (step + 1) % o.checkpointSteps === 0;
      if (!last && !evaluates && !saves) algorithm.lookAhead?.(step + 1);
      context.metrics(step, { ...values, ...seconds });
      for (const message of messages) context.log(message);
      for (const rollout of rollouts) context.rollout(step, rollout);
      context.progress(note, step + 1, o.steps);
      state = { ...state, step: step + 1, ...(summary ? { summary } : {}) };
      if (evaluates) {
        const value = await evaluate(step + 1);
        if (value > state.best || !o.keepBest) {
          state = { ...state, best: value, bestStep: step + 1, flat: 0 };
          await keep();
        } else state = { ...state, flat: state.flat + 1 };
      }
      if (saves) await saveCheckpoint(context, worker, model.lineage, step + 1, state);
      if (evaluates || saves) clock.restart();
    }
    if (state.step < o.steps)
      context.log(
        `stopped after ${state.step} of ${o.steps} steps: ` +
          `${state.flat} consecutive evaluations without an improvement (rl.patience)`,
      );
    context.log(
      o.steps === 0
        ? `no RL (rl.steps: 0): the policy is SFT's, validation N@5 ${state.best.toFixed(4)}`
        : state.bestStep === 0
          ? `no evaluation was better than the initial weights ` +
            `(validation N@5 ${state.best.toFixed(4)}), which are kept`
          : `best validation N@5 ${state.best.toFixed(4)} at step ${state.bestStep}`,
    );
    return {
      ...{ steps: state.step, bestValidation: state.best, bestStep: state.bestStep },
      ...{ slates: algorithm.pool.length, ...state.summary },
    };
  } finally {
    await algorithm.close?.();
  }
}

async function open(context: StageContext): Promise<Setup> {
  const { config } = context;
  const worker = await context.worker();
  const corpus = await openCorpus(context);
  const start = config.rl.initial ? resolve(config.rl.initial) : stateDir(context.inputDir("sft"));
  const model = await openLanguageModel(context, corpus, start, tokenizerFile(context.inputDir("midtrain")));
  const rerank = readHeads(context, "rerank");
  const evidence = { ...rerank.evidence, ...readHeads(context, "validation").evidence };
  return {
    ...{ context, worker, corpus, model, start },
    policy: model.policy(readPrior(context)),
    slates: rerank.slates.filter((s) => !isSftUser(config.seed, config.sft.userShare, s.user)),
    toSlateInput: (slate) => toSlateInput(corpus, slate, evidence),
  };
}

/** Hash of saved weights in another run's folder: the path alone does not show whether they have changed. */
function buildIdentity(folder: string): string {
  const file = folder === "" ? undefined : findWeightsFile(folder);
  return file !== undefined ? sha256(readFileSync(file)) : "";
}
