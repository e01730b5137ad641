/**
 * Distinguishes a healthy RL run from one that games its reward or makes no progress: numbers for every step, and
 * alarms over the last few. Pure; the thresholds are ours.
 */
import { kendallTau } from "../eval/kendall.ts";
import type { Parsed } from "../prompts/parse.ts";
import { describeFaults, faultNames, measureFaults } from "../prompts/reasoning.ts";
import type { PromptMode } from "../prompts/rerank.ts";
import type { Verdict } from "../reward/verify.ts";
import { teaches } from "./groups.ts";

/** The answers to one slate. G responses. */
export interface Answers {
  readonly mode: PromptMode;
  readonly slate: { readonly candidates: readonly number[] };
  readonly rollouts_G: readonly {
    readonly tokens: ArrayLike<number>;
    readonly truncated: boolean;
    readonly parsed: Parsed;
    readonly weightVersion: number;
  }[];
  readonly verdicts_G: readonly Verdict[];
  readonly rewards_G: readonly number[];
}

type Values = Readonly<Record<string, number>>;

/** @param seen everything sampled in the step; @param kept the groups that reached the update */
export function measureHealth(seen: readonly Answers[], kept: readonly Answers[]): Record<string, number> {
  const rollouts = seen.flatMap((g) => g.rollouts_G);
  const verdicts = seen.flatMap((g) => g.verdicts_G);
  const rewards = seen.flatMap((g) => g.rewards_G);
  const valid = verdicts.filter((v) => v.valid);
  const orders = rollouts.flatMap((r) => (r.parsed.kind === "ranking" ? [r.parsed.order] : []));
  const mean = average(rewards);
  const values: Record<string, number> = {
    reward: mean,
    reward_std: Math.sqrt(average(rewards.map((r) => (r - mean) ** 2))),
    reward_ranking: average(verdicts.map((v) => v.parts.ranking)),
    ...averageDetails(verdicts),
    reward_format: average(verdicts.map((v) => v.parts.format)),
    reward_invalid: average(verdicts.map((v) => v.parts.invalid)),
    reward_overlong: average(seen.flatMap((g) => g.rewards_G.map((r, i) => r - (g.verdicts_G[i] as Verdict).reward))),
    valid_rate: valid.length / Math.max(1, verdicts.length),
    identity_rate: valid.filter((v) => v.identity).length / Math.max(1, valid.length),
    kendall_tau: average(orders.map((o) => kendallTau(o, inputOrder(o)))),
    zero_variance_share: seen.filter((g) => !teaches(g.rewards_G)).length / Math.max(1, seen.length),
    groups_seen: seen.length,
    groups_kept: kept.length,
    length_mean: average(rollouts.map((r) => r.tokens.length)),
    truncated_share: average(rollouts.map((r) => (r.truncated ? 1 : 0))),
    // 0: all of a step's answers come from the same weights (rollouts.jsonl has each one's version).
    weight_version_span: measureSpan(rollouts.map((r) => r.weightVersion)),
  };
  const reasoned = seen.filter((g) => g.mode === "think").flatMap((g) => g.rollouts_G);
  const faults = measureFaults(
    reasoned.map(({ parsed }) => (parsed.kind === "unparseable" ? parsed.reason : undefined)),
  );
  if (reasoned.length > 0) for (const name of faultNames) values[`reasoning_${name}`] = faults[name];
  const positions = Math.max(0, ...seen.map((g) => g.slate.candidates.length));
  for (let position = 0; position < positions; position++)
    values[`first_choice_${position + 1}`] =
      orders.filter((o) => o[0] === position).length / Math.max(1, orders.length);
  return values;
}

/** Addends of the ranking reward, if it reports them. */
function averageDetails(verdicts: readonly Verdict[]): Values {
  const names = new Set(verdicts.flatMap((v) => Object.keys(v.details)));
  return Object.fromEntries(
    [...names].sort().map((n) => [`reward_ranking_${n}`, average(verdicts.map((v) => v.details[n] ?? 0))]),
  );
}

const measureSpan = (values: readonly number[]): number =>
  values.length ? Math.max(...values) - Math.min(...values) : 0;

const inputOrder = (order: readonly number[]): number[] => [...order].sort((a, b) => a - b);

const average = (values: readonly number[]): number =>
  values.length ? values.reduce((a, b) => a + b, 0) / values.length : 0;

export interface Alarm {
  readonly name: string;
  /** What is wrong, with its number, and what to do. */
  readonly text: string;
}

/** Steps an alarm looks back over, since a single step may be chance. */
export const alarmWindow = 5;

const percent = (share: number): string => `${(100 * share).toFixed(0)} %`;

/** Alarms over the last steps, oldest first; none before there are `alarmWindow` of them. */
export function raiseAlarms(steps: readonly Values[]): Alarm[] {
  const recent = steps.slice(-alarmWindow);
  if (recent.length < alarmWindow) return [];
  const mean = (name: string): number => average(recent.map((s) => s[name] ?? 0));
  const last = recent.at(-1) as Values;
  const out: Alarm[] = [];
  const raise = (when: boolean, name: string, text: string): void => {
    if (when) out.push({ name, text });
  };
  const copied = mean("identity_rate");
  const valid = mean("valid_rate");
  raise(
    copied > 0.9,
    "copying",
    valid < 0.95
      ? `${percent(copied)} of valid answers repeat the input order, and only ${percent(valid)} are valid: copying is the safest way to avoid the penalty. Switch on decoding.constrained, or train SFT longer.`
      : `${percent(copied)} of answers repeat the input order: the reward is being gamed, or nothing better is known. Use rl.reward.format=conditional, or rl.reward.kind=ndcg with rl.reward.dehacked=true, or raise rl.temperature.`,
  );
  const near = mean("kendall_tau");
  raise(
    near > 0.95 && copied <= 0.9,
    "nearly copying",
    `answers are almost the input order (Kendall tau ${near.toFixed(2)}) without repeating it: a gate against copies is evaded by a swap, or little better is known. Compare validation N@5 with the pre-rank's; use rl.reward.format=conditional, or raise rl.temperature.`,
  );
  const flat = mean("zero_variance_share");
  raise(
    flat > 0.8,
    "nothing to learn",
    `${percent(flat)} of groups have equal rewards and teach nothing. Raise rl.temperature or rl.group, or choose harder slates (rl.curriculum).`,
  );
  raise(
    mean("groups_kept") === 0,
    "no update",
    "not one group reached the update in these steps: the weights do not change. Raise rl.temperature, rl.group or rl.maxRefillRounds.",
  );
  raise(
    valid < 0.8,
    "invalid answers",
    `only ${percent(valid)} of answers are permutations of their slate. Switch on decoding.constrained, train SFT longer, or raise decoding.maxReasoningTokens.`,
  );
  const cut = mean("truncated_share");
  raise(
    cut > 0.3,
    "cut off",
    `${percent(cut)} of answers are cut off by the length limit. Raise decoding.maxReasoningTokens or rl.overlongBuffer.`,
  );
  const faults = { repeats: 0, limit: 0, special: 0, copies: 0 };
  for (const name of faultNames) faults[name] = mean(`reasoning_${name}`);
  const said = describeFaults(faults);
  raise(said.length > 0, "reasoning", said.join(" "));
  const positions = Object.keys(last).filter((name) => name.startsWith("first_choice_"));
  const favourite = positions.reduce((best, name) => (mean(name) > mean(best) ? name : best), positions[0] ?? "");
  raise(
    positions.length > 2 && favourite !== "first_choice_1" && mean(favourite) > 0.7,
    "one position",
    `${percent(mean(favourite))} of answers put the candidate of position ${favourite.slice("first_choice_".length)} first: the policy favours a position, not items. Check the prompts; compare with shuffled candidates.`,
  );
  const gap = Math.max(...recent.map((s) => s.logprobGapMax ?? 0));
  raise(
    gap > 0.5,
    "sampler and trainer differ",
    `log-probs of sampler and trainer differ by up to ${gap.toFixed(2)}: gradients are biased. Use float32, or rl.importanceCap=2.`,
  );
  const clipped = Math.max(
    ...["think", "answer"].map((m) => mean(`clip_high_share_${m}`) + mean(`clip_low_share_${m}`)),
  );
  raise(
    clipped > 0.3,
    "clipping",
    `${percent(clipped)} of tokens are clipped: steps are too large. Lower rl.learningRate, rl.epochs or rl.minibatches.`,
  );
  return out;
}

/** The first time each alarm was raised in a whole run; `step` counts from 0. */
export function alarmHistory(
  steps: readonly { readonly step: number; readonly values: Values }[],
): (Alarm & { step: number })[] {
  const first = new Map<string, Alarm & { step: number }>();
  for (let end = alarmWindow; end <= steps.length; end++) {
    const window = steps.slice(end - alarmWindow, end);
    const step = window.at(-1)?.step ?? 0;
    for (const alarm of raiseAlarms(window.map((s) => s.values)))
      if (!first.has(alarm.name)) first.set(alarm.name, { ...alarm, step });
  }
  return [...first.values()];
}
