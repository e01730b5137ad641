/**
 * DAPO (GR2 v1 §5, arXiv 2503.14476): sample G answers per slate, verify them by rules, compare within the group,
 * update.
 *
 * Shape suffixes: P prompts, G group.
 */
import { conditional, toLabelledSlate } from "../../artifacts/slates.ts";
import { tokenizerFile } from "../../artifacts/weights.ts";
import type { Config } from "../../config/schema.ts";
import { RunError } from "../../core/errors.ts";
import { deriveSeed, Rng } from "../../core/rng.ts";
import type { LabelledSlate } from "../../data/slate-items.ts";
import { openLanguageModel } from "../../models/language-model.ts";
import { average } from "../../models/learning-curve.ts";
import { openReward } from "../../plugins/reward.ts";
import type { Rollout } from "../../policy/policy.ts";
import type { Slate } from "../../prerank/types.ts";
import { type PromptMode, promptModes } from "../../prompts/rerank.ts";
import type { Answer, Score } from "../../reward/reward.ts";
import { judge, overlongPenalty, type Verdict } from "../../reward/verify.ts";
import { teaches } from "../../rl/groups.ts";
import { measureHealth, raiseAlarms } from "../../rl/health.ts";
import type { Algorithm, Setup, Step } from "./algorithm.ts";
import { type AnswerGroup, update } from "./update.ts";

/** Groups per step whose answers are logged. */
const loggedGroups = 2;

export async function openDapo({
  context,
  worker,
  corpus,
  policy,
  start,
  slates,
  toSlateInput,
}: Setup): Promise<Algorithm> {
  const { config, signal } = context;
  const o = config.rl;
  const pool = conditional(slates);
  if (pool.length === 0 && o.steps > 0)
    throw new RunError(
      "no slates are left for RL: SFT uses all users, or no slate has its true item among the candidates",
      {
        advice: "Lower sft.userShare, or use more data.",
      },
    );
  if (o.klCoef > 0)
    await openLanguageModel(context, corpus, start, tokenizerFile(context.inputDir("midtrain")), "reference");

  const reward = await openReward({ config, items: corpus.items, signal });
  let ahead: Promise<AnswerGroup[]> | undefined;
  const recent: Record<string, number>[] = [];
  const raised = new Set<string>();
  return { pool, step, lookAhead };

  async function step(step: number): Promise<Step> {
    // 1. Sample and verify; refill while groups have no learning signal (dynamic sampling), a bounded number of times.
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
    const updated = kept.length > 0 ? await update(kept, { worker, policy, config, toSlateInput, step, signal }) : {};
    const values = { ...measureHealth(seen, kept), ...updated };
    recent.push(values);
    const alarms = raiseAlarms(recent).filter((alarm) => !raised.has(alarm.name));
    for (const alarm of alarms) raised.add(alarm.name);
    return {
      values,
      note: `reward ${average(seen.flatMap((g) => g.rewards_G)).toFixed(3)}`,
      messages: alarms.map((alarm) => `! step ${step + 1}, ${alarm.name}: ${alarm.text}`),
      rollouts: seen.slice(0, loggedGroups).flatMap(rolloutRecords),
    };
  }

  /** The first round of the next step, started early; errors are thrown where it is awaited. */
  function lookAhead(step: number): void {
    ahead = answer(slatesForStep(pool, config, step).slice(0, o.prompts), step, 0);
    ahead.catch(() => undefined);
  }

  /** Samples a batch of slates; a slate's position in the step determines its mode. */
  async function answer(batch: readonly Slate[], step: number, round: number): Promise<AnswerGroup[]> {
    const out: AnswerGroup[] = [];
    for (const mode of promptModes) {
      const rng = Rng.of(config.seed, "rl-mode", step, round);
      const part = batch.filter(() => (rng.uniform() < o.thinkShare ? "think" : "answer") === mode);
      const views = part.map(toSlateInput);
      const seed = deriveSeed(config.seed, "rl", step, round, mode);
      const rollouts = await policy.sample(views, { mode, group: o.group, temperature: o.temperature, seed, signal });
      const limit = views.length ? policy.maxNewTokens(views, mode) : 0;
      const verdicts = await judgeAll(part, mode, rollouts);
      part.forEach((slate, p) => {
        const rollouts_G = rollouts.slice(p * o.group, (p + 1) * o.group);
        const verdicts_G = verdicts.slice(p * o.group, (p + 1) * o.group);
        const rewards_G = verdicts_G.map((v, g) => v.reward + overlong(rollouts_G[g] as Rollout, limit, mode));
        out.push({ slate, mode, rollouts_G, verdicts_G, rewards_G });
      });
    }
    return out;
  }

  /** Scores all parseable answers in one call of the reward. */
  async function judgeAll(part: readonly Slate[], mode: PromptMode, rollouts: readonly Rollout[]): Promise<Verdict[]> {
    const slates = part.map((s) => toLabelledSlate(corpus, s, config.prompts.historyItems));
    const answers = new Map<Rollout, Answer>();
    rollouts.forEach((r, i) => {
      const slate = slates[Math.floor(i / o.group)] as LabelledSlate;
      if (r.parsed.kind === "ranking")
        answers.set(r, { slate, mode, order: r.parsed.order, reasoning: r.parsed.reasoning });
    });
    const scores = await reward.score([...answers.values()]);
    const byRollout = new Map([...answers.keys()].map((r, i) => [r, scores[i] as Score]));
    return rollouts.map((r, i) => {
      const { labels } = slates[Math.floor(i / o.group)] as LabelledSlate;
      return judge(r.parsed, labels, o.reward, () => byRollout.get(r) as Score);
    });
  }

  /** Penalty for reasoning near its budget; an answer's length is fixed by the slate. */
  function overlong(rollout: Rollout, limit: number, mode: PromptMode): number {
    return mode === "think" ? overlongPenalty(rollout.tokens.length, limit, o.overlongBuffer) : 0;
  }
}

const rolloutRecords = (g: AnswerGroup): Record<string, unknown>[] =>
  g.rollouts_G.map((r, i) => {
    const v = g.verdicts_G[i] as Verdict;
    const overlong = (g.rewards_G[i] as number) - v.reward;
    return {
      slate: g.slate.id,
      mode: g.mode,
      text: r.text,
      parse: r.parsed.kind === "ranking" ? { kind: "ranking", order: r.parsed.order } : r.parsed,
      reward: g.rewards_G[i],
      parts: { ...v.parts, overlong },
      ...(Object.keys(v.details).length > 0 ? { details: v.details } : {}),
      because: overlong === 0 ? v.because : `${v.because}; overlong ${overlong.toFixed(4)}`,
      weightVersion: r.weightVersion,
    };
  });

/**
 * Slates of a step, enough for every refill round: a seeded pass through the pool, reshuffled every time. With a
 * curriculum, every step samples from the slates admitted so far.
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

/** A third of the pool at the start, all of it from half-way on, ordered by the true item's pre-rank position. */
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
