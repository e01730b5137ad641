/**
 * Stage 3, DAPO (GR2 v1 §5, arXiv 2503.14476): sample G answers a slate, verify them by rules, compare within the
 * group, update. The slates are of users whose answers neither mid-training nor SFT has seen.
 *
 * Shape suffixes: P prompts, G group.
 */

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { readPrior } from "../../artifacts/calibration.ts";
import { type Corpus, openCorpus } from "../../artifacts/corpus.ts";
import { readEvidence } from "../../artifacts/evidence.ts";
import { conditional, isSftUser, readSlates, toSlateInput } from "../../artifacts/slates.ts";
import { stateDir, tokenizerFile } from "../../artifacts/weights.ts";
import type { Config } from "../../config/schema.ts";
import { RunError } from "../../core/errors.ts";
import { sha256 } from "../../core/hash.ts";
import { deriveSeed, Rng } from "../../core/rng.ts";
import { resume, saveCheckpoint } from "../../models/checkpoint.ts";
import { openLanguageModel, weightsChanged } from "../../models/language-model.ts";
import { checkRenderedPrompts } from "../../models/prompt-check.ts";
import type { Rollout, SlateInput } from "../../policy/policy.ts";
import { type Slate, slateLabels } from "../../prerank/types.ts";
import { type PromptMode, promptModes } from "../../prompts/rerank.ts";
import { overlongPenalty, type Verdict, verify } from "../../reward/verify.ts";
import { teaches } from "../../rl/groups.ts";
import { measureHealth, raiseAlarms } from "../../rl/health.ts";
import { modelVerbs } from "../../run/code-hash.ts";
import type { Stage, StageContext, Summary } from "../../run/stage.ts";
import { distil } from "./opd.ts";
import { startStepClock } from "./seconds.ts";
import { type AnswerGroup, update } from "./update.ts";
import { average, evaluatePolicy, evaluationSlates, startDir } from "./validation.ts";

export const rl: Stage = {
  name: "rl",
  source: import.meta.url,
  inputs: ["data", "sid", "midtrain", "slates", "evidence", "calibrate", "traces", "sft"],
  verbs: modelVerbs,
  settings: (c) => ({
    rl: c.rl,
    weights: [c.rl.initial, c.rl.opd.teacher].map(readIdentity),
    prompts: c.prompts,
    decoding: c.decoding,
    userShare: c.sft.userShare,
    seed: c.seed,
  }),
  run: (context) => (context.config.rl.kind === "opd" ? distil(context) : run(context)),
};

/** Of the saved weights in a folder of another run: a path alone does not say whether they are still the same. */
function readIdentity(folder: string): string {
  const file = ["gr2_state.json", "gr2_export.json"].map((name) => join(folder, name)).find((f) => existsSync(f));
  return folder !== "" && file !== undefined ? sha256(readFileSync(file)) : "";
}

async function run(context: StageContext): Promise<Summary> {
  const { config, signal } = context;
  const o = config.rl;
  const worker = await context.worker();
  const corpus = await openCorpus(context);
  const from = context.inputDir("midtrain");
  const start = startDir(context);
  const model = await openLanguageModel(context, corpus, start, tokenizerFile(from));
  const policy = model.policy(readPrior(context));
  const evidence = readEvidence(context);
  const view = (slate: Slate): SlateInput => toSlateInput(corpus, slate, evidence);
  if (o.klCoef > 0) await loadReference(context, corpus, start, tokenizerFile(from));

  const pool = conditional(readSlates(context, "rerank")).filter(
    (s) => !isSftUser(config.seed, config.sft.userShare, s.user),
  );
  if (pool.length === 0 && o.steps > 0)
    throw new RunError("no slate is left for RL: every user's went to SFT, or none holds its true item", {
      advice: "Lower sft.userShare, or use more data.",
    });
  const validation = evaluationSlates(context, o.evalSlates);
  checkRenderedPrompts(context, corpus, [...pool, ...validation], "RL");
  context.log(`${pool.length} slates of users unseen so far; ${validation.length} validation slates`);

  const best = stateDir(context.dir);
  const resumed = await resume<{ step: number; best: number; bestStep: number }>(context, worker, model.lineage);
  weightsChanged(worker);
  let score = resumed ?? { step: 0, best: await evaluate(0), bestStep: 0 };
  if (!resumed) await worker.saveState({ path: best, includeOptimizer: false, metadata: model.lineage }, { signal });

  const clock = startStepClock(worker);
  let ahead: Promise<AnswerGroup[]> | undefined;
  const recent: Record<string, number>[] = [];
  const raised = new Set<string>();
  for (let step = score.step; step < o.steps; step++) {
    // 1. Sample and verify; refill while groups teach nothing (dynamic sampling), a bounded number of times.
    const seen: AnswerGroup[] = [];
    const kept: AnswerGroup[] = [];
    const queue = slatesForStep(pool, config, step);
    for (let round = 0; round <= (o.dynamicSampling ? o.maxRefillRounds : 0) && kept.length < o.prompts; round++) {
      const batch = queue.splice(0, o.prompts - kept.length);
      const groups = await (ahead ?? answer(batch, step, round));
      ahead = undefined;
      seen.push(...groups);
      kept.push(...(o.dynamicSampling ? groups.filter((g) => teaches(g.rewards_G)) : groups));
    }
    // 2. Update.
    const updated =
      kept.length > 0 ? await update(kept, { worker, policy, config, toSlateInput: view, step, signal }) : {};
    const seconds = clock.lap();
    // 3. Say how it went, while the worker answers the next step's first slates with the weights as they are now.
    const last = step + 1 === o.steps;
    const evaluates = last || (step + 1) % o.evalSteps === 0;
    const saves = !last && (step + 1) % o.checkpointSteps === 0;
    if (!last && !evaluates && !saves) ahead = startAnswers(step + 1);
    const values = { ...measureHealth(seen, kept), ...updated, ...seconds };
    context.metrics(step, values);
    recent.push(values);
    for (const alarm of raiseAlarms(recent)) {
      if (!raised.has(alarm.name)) context.log(`! step ${step + 1}, ${alarm.name}: ${alarm.text}`);
      raised.add(alarm.name);
    }
    for (const g of seen.slice(0, 2)) logRollout(step, g);
    const mean = average(seen.flatMap((g) => g.rewards_G));
    context.progress(`reward ${mean.toFixed(3)}`, step + 1, o.steps);
    if (evaluates) {
      const value = await evaluate(step + 1);
      if (value > score.best || !o.keepBest) {
        score = { ...score, best: value, bestStep: step + 1 };
        await worker.saveState({ path: best, includeOptimizer: false, metadata: model.lineage }, { signal });
      }
    }
    score = { ...score, step: step + 1 };
    if (saves) await saveCheckpoint(context, worker, model.lineage, step + 1, score);
    if (evaluates || saves) clock.restart();
  }
  context.log(
    o.steps === 0
      ? `no RL (rl.steps: 0): the policy is SFT's, validation N@5 ${score.best.toFixed(4)}`
      : score.bestStep === 0
        ? `no evaluation beat the SFT policy (validation N@5 ${score.best.toFixed(4)}); its weights are kept`
        : `best validation N@5 ${score.best.toFixed(4)} at step ${score.bestStep}`,
  );
  return { steps: o.steps, bestValidation: score.best, bestStep: score.bestStep, slates: pool.length };

  /** Mean N@5 of greedy answers on validation slates. */
  function evaluate(step: number): Promise<number> {
    return evaluatePolicy(context, policy, validation, view, step);
  }

  /** The first round of a step, begun before anyone waits for it: what it throws is thrown where it is awaited. */
  function startAnswers(step: number): Promise<AnswerGroup[]> {
    const answers = answer(slatesForStep(pool, config, step).slice(0, o.prompts), step, 0);
    answers.catch(() => undefined);
    return answers;
  }

  /** Samples a batch of slates, each in the mode drawn for it. */
  async function answer(batch: readonly Slate[], step: number, round: number): Promise<AnswerGroup[]> {
    const out: AnswerGroup[] = [];
    for (const mode of promptModes) {
      const rng = Rng.of(config.seed, "rl-mode", step, round);
      const part = batch.filter(() => (rng.uniform() < o.thinkShare ? "think" : "answer") === mode);
      const views = part.map(view);
      const seed = deriveSeed(config.seed, "rl", step, round, mode);
      const rollouts = await policy.sample(views, { mode, group: o.group, temperature: o.temperature, seed, signal });
      const limit = views.length ? policy.maxNewTokens(views, mode) : 0;
      part.forEach((slate, p) => {
        const rollouts_G = rollouts.slice(p * o.group, (p + 1) * o.group);
        const verdicts_G = rollouts_G.map((r) => verify(r.parsed, slateLabels(slate), o.reward));
        const rewards_G = verdicts_G.map((v, g) => v.reward + overlong(rollouts_G[g] as Rollout, limit, mode));
        out.push({ slate, mode, rollouts_G, verdicts_G, rewards_G });
      });
    }
    return out;
  }

  /** Reasoning that nears its budget costs; an answer's length is fixed by the slate. */
  function overlong(rollout: Rollout, limit: number, mode: PromptMode): number {
    return mode === "think" ? overlongPenalty(rollout.tokens.length, limit, o.overlongBuffer) : 0;
  }

  function logRollout(step: number, g: AnswerGroup): void {
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

/**
 * Slates of a step, enough for every refill round: a seeded walk through the pool, reshuffled every pass. A curriculum draws
 * anew at every step, among the slates admitted so far.
 */
function slatesForStep(pool: readonly Slate[], config: Config, step: number): Slate[] {
  const { prompts, maxRefillRounds, curriculum, steps } = config.rl;
  const need = prompts * (1 + maxRefillRounds);
  if (curriculum !== "none") {
    const admitted = admittedSlates(pool, curriculum, step / steps);
    return Rng.of(config.seed, "rl-curriculum", step)
      .shuffle([...admitted])
      .slice(0, need);
  }
  const perPass = Math.max(1, Math.floor(pool.length / need));
  const pass = Math.floor(step / perPass);
  const order = Rng.of(config.seed, "rl-slates", pass).shuffle([...pool]);
  const at = (step % perPass) * need;
  return order.slice(at, at + need);
}

/** A third of the pool at the start, all of it from half-way on; by the true item's pre-rank position. */
export function admittedSlates(
  pool: readonly Slate[],
  curriculum: "near-first" | "far-first",
  progress: number,
): readonly Slate[] {
  const share = Math.min(1, 1 / 3 + (4 / 3) * progress);
  const sign = curriculum === "near-first" ? 1 : -1;
  const sorted = [...pool].sort((a, b) => sign * (a.targetIndex - b.targetIndex));
  return sorted.slice(0, Math.ceil(share * pool.length));
}

async function loadReference(context: StageContext, corpus: Corpus, weights: string, tokenizer: string): Promise<void> {
  await openLanguageModel(context, corpus, weights, tokenizer, "reference");
}
