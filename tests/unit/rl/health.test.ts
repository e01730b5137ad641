import { beforeAll, describe, expect, it } from "vitest";
import type { Parsed } from "../../../src/prompts/parse.ts";
import { type RewardOptions, verify } from "../../../src/reward/verify.ts";
import { type Answers, alarmHistory, alarmWindow, measureHealth, raiseAlarms } from "../../../src/rl/health.ts";

const options: RewardOptions = {
  kind: "rank-promotion",
  ndcgK: 5,
  format: "conditional",
  formatBonus: 0.2,
  dehacked: false,
  invalid: -1,
};

/** A slate of three whose true item stands second, and answers to it; null = unparseable. */
function answers(orders: readonly (readonly number[] | null)[]): Answers {
  const parsed = orders.map(
    (order): Parsed =>
      order
        ? { kind: "ranking", order: [...order], reasoning: "" }
        : { kind: "unparseable", reason: "no answer", detail: "nothing" },
  ) as Parsed[];
  const verdicts_G = parsed.map((p) => verify(p, [0, 1, 0], options));
  return {
    mode: "think",
    slate: { candidates: [7, 8, 9] },
    rollouts_G: parsed.map((p, i) => ({ tokens: [1, 2], truncated: i === 0, parsed: p, weightVersion: 3 + i })),
    verdicts_G,
    rewards_G: verdicts_G.map((v) => v.reward),
  };
}

describe("measureHealth", () => {
  // Copied: reward 0, tau 1. Promoted to the first position: 1/3 + .2, tau 1/3. Unparseable: -1.
  const mixed = answers([[0, 1, 2], [1, 0, 2], null]);
  const copied = answers([
    [0, 1, 2],
    [0, 1, 2],
    [0, 1, 2],
  ]);
  let values: Record<string, number> = {};
  beforeAll(() => {
    values = measureHealth([mixed, copied], [mixed]);
  });

  it("averages rewards and their parts over everything sampled", () => {
    const reward = 1 / 3 + 0.2;
    expect(values.reward).toBeCloseTo((0 + reward - 1 + 0 + 0 + 0) / 6, 12);
    expect(values.reward_format).toBeCloseTo(0.2 / 6, 12);
    expect(values.reward_invalid).toBeCloseTo(-1 / 6, 12);
    expect(values.reward_ranking).toBeCloseTo(1 / 3 / 6, 12);
    const mean = (reward - 1) / 6;
    const squares = (reward - mean) ** 2 + (-1 - mean) ** 2 + 4 * mean ** 2;
    expect(values.reward_std).toBeCloseTo(Math.sqrt(squares / 6), 12);
    expect(values.length_mean).toBe(2);
  });
  it("splits rewards into parts that add up, the length penalty included", () => {
    const late = { ...mixed, rewards_G: mixed.rewards_G.map((r, i) => r - (i === 1 ? 0.3 : 0)) };
    const seen = measureHealth([late], [late]);
    expect(seen.reward_overlong).toBeCloseTo(-0.3 / 3, 12);
    const { reward_ranking = 0, reward_format = 0, reward_invalid = 0, reward_overlong = 0 } = seen;
    expect(reward_ranking + reward_format + reward_invalid + reward_overlong).toBeCloseTo(seen.reward ?? 0, 12);
  });
  it("counts worthless reasoning by kind, of answers that have any", () => {
    const rollout = (parsed: Parsed) => ({ tokens: [1], truncated: false, parsed, weightVersion: 0 });
    const loop = rollout({ kind: "unparseable", reason: "reasoning repeats itself", detail: "" });
    const looping = { ...mixed, rollouts_G: [loop, ...mixed.rollouts_G.slice(1)] };
    expect(measureHealth([looping, { ...copied, mode: "answer" }], [])).toMatchObject({
      reasoning_repeats: 1 / 3,
      reasoning_limit: 0,
    });
    expect(measureHealth([{ ...mixed, mode: "answer" }], [])).not.toHaveProperty("reasoning_repeats");
  });
  it("counts copies among valid answers, and how near the order stays to the input", () => {
    expect(values.valid_rate).toBeCloseTo(5 / 6, 12);
    expect(values.identity_rate).toBeCloseTo(4 / 5, 12);
    expect(values.kendall_tau).toBeCloseTo((4 * 1 + 1 / 3) / 5, 12);
  });
  it("tells groups that teach nothing from those that do", () => {
    expect(values).toMatchObject({ zero_variance_share: 0.5, groups_seen: 2, groups_kept: 1 });
    expect(measureHealth([mixed, copied, copied], [mixed]).zero_variance_share).toBeCloseTo(2 / 3, 12);
  });
  it("gives the histogram of first choices and the span of weight versions", () => {
    expect([1, 2, 3].map((k) => values[`first_choice_${k}`])).toEqual([4 / 5, 1 / 5, 0]);
    expect(values).not.toHaveProperty("first_choice_4");
    expect(values).toMatchObject({ weight_version_span: 2, truncated_share: 2 / 6 });
  });
});

describe("raiseAlarms", () => {
  const healthy = {
    identity_rate: 0.2,
    zero_variance_share: 0.3,
    groups_kept: 8,
    valid_rate: 1,
    truncated_share: 0,
    first_choice_1: 0.5,
    first_choice_2: 0.3,
    first_choice_3: 0.2,
    logprobGapMax: 1e-5,
  };
  const names = (over: Record<string, number>, steps = alarmWindow): string[] =>
    raiseAlarms(Array.from({ length: steps }, () => ({ ...healthy, ...over }))).map((a) => a.name);

  it("warns of worthless reasoning by kind, with its share and what to do", () => {
    const over = { reasoning_limit: 0.2, reasoning_repeats: 0.01 };
    const [alarm] = raiseAlarms(Array.from({ length: alarmWindow }, () => ({ ...healthy, ...over })));
    expect(alarm).toMatchObject({ name: "reasoning", text: expect.stringContaining("20 % of answers") });
    expect(alarm?.text).toContain("decoding.maxReasoningTokens");
    expect(alarm?.text).not.toContain("repeats");
  });
  it("is silent for a healthy run, and before there is enough to judge by", () => {
    expect(names({})).toEqual([]);
    expect(names({ identity_rate: 1 }, alarmWindow - 1)).toEqual([]);
  });
  it.each([
    [{ identity_rate: 0.95, kendall_tau: 0.99 }, "copying"],
    [{ identity_rate: 0.1, kendall_tau: 0.97 }, "nearly copying"],
    [{ zero_variance_share: 0.9 }, "nothing to learn"],
    [{ groups_kept: 0 }, "no update"],
    [{ valid_rate: 0.5 }, "invalid answers"],
    [{ truncated_share: 0.5 }, "cut off"],
    [{ first_choice_1: 0.1, first_choice_3: 0.8 }, "one position"],
    [{ logprobGapMax: 2 }, "sampler and trainer differ"],
    [{ clip_high_share_answer: 0.4 }, "clipping"],
  ])("%o raises: %s", (over, name) => expect(names(over)).toEqual([name]));
  it("says of copies whether they game the reward or only avoid the price of an invalid answer", () => {
    const text = (valid_rate: number): string =>
      raiseAlarms(Array.from({ length: alarmWindow }, () => ({ ...healthy, identity_rate: 1, valid_rate })))[0]?.text ??
      "";
    expect(text(1)).toContain("rl.reward.format=conditional");
    expect(text(0.9)).toContain("only 90 % are valid: copying is the safest way to avoid the penalty");
  });
  it("does not take the first position for a favourite: it is where a good pre-rank puts good items", () => {
    expect(names({ first_choice_1: 0.85, first_choice_2: 0.1 })).toEqual([]);
  });
  it.each([
    [{ zero_variance_share: 0.9 }, "90 % of groups have equal rewards"],
    [{ identity_rate: 0.1, kendall_tau: 0.97 }, "Kendall tau 0.97"],
    [{ valid_rate: 0.5 }, "only 50 % of answers"],
    [{ truncated_share: 0.4 }, "40 % of answers"],
    [{ first_choice_1: 0.1, first_choice_3: 0.8 }, "80 % of answers put the candidate of position 3"],
    [{ logprobGapMax: 2 }, "up to 2.00"],
    [{ clip_low_share_think: 0.25, clip_high_share_think: 0.25 }, "50 % of tokens are clipped"],
  ])("%o is said with its number: %s", (over, part) => {
    const [alarm] = raiseAlarms(Array.from({ length: alarmWindow }, () => ({ ...healthy, ...over })));
    expect(alarm?.text).toContain(part);
  });
  it("takes the largest gap between sampler and trainer, not an average", () => {
    const steps = Array.from({ length: alarmWindow }, (_, k) => ({ ...healthy, logprobGapMax: k === 1 ? 2 : 0 }));
    expect(raiseAlarms(steps).map((a) => a.name)).toEqual(["sampler and trainer differ"]);
  });
  it("looks at the last steps only", () => {
    const steps = [...Array(20).fill({ ...healthy, valid_rate: 0 }), ...Array(alarmWindow).fill(healthy)];
    expect(raiseAlarms(steps)).toEqual([]);
  });
  it("names each alarm once in a run's history, with the step it was first raised at", () => {
    const values = (step: number) => ({ step, values: { ...healthy, valid_rate: step < 3 ? 1 : 0 } });
    // Mean over steps k-4..k falls below .8 once two of five are 0: steps 3 and 4.
    expect(alarmHistory(Array.from({ length: 12 }, (_, k) => values(k))).map((a) => [a.name, a.step])).toEqual([
      ["invalid answers", 4],
    ]);
  });
});
