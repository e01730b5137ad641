import { describe, expect, it } from "vitest";
import { choose, describeCosts, headlineNumbers, recommend } from "../../../src/eval/recommend.ts";
import { baselinesFor } from "../../../src/eval/systems.ts";
import { resultsTable } from "../../../src/eval/table.ts";

const users = Array.from({ length: 200 }, (_, u) => u);
/** N@5 of `base`, and `more` on the first users. */
const values = (base: number, more = 0, on = users.length): number[] => users.map((u) => base + (u < on ? more : 0));
const bootstrap = { resamples: 500, seed: 1 };

describe("the choice on validation", () => {
  it("is the best servable system where its lead holds for certain", () => {
    const judged = [
      { system: "prerank", values: values(0.9) }, // not servable: does not count
      { system: "prior", values: values(0.4) },
      { system: "evidence", values: values(0.38) },
      { system: "rl_other_order", values: values(0.8) }, // nor does a control
      { system: "sft_direct", values: values(0.45) },
    ];
    expect(choose(users, judged, bootstrap)).toEqual({
      system: "sft_direct",
      leader: "sft_direct",
      margin: { delta: 0, ci_low: 0, ci_high: 0 },
      without_model: "prior",
      with_model: "sft_direct",
    });
  });

  it("goes to the cheaper one in a near tie, and among equally cheap ones to the better", () => {
    // sft is ahead by 1 on one user of 200: a resample without that user, a third of all, shows no difference.
    const judged = [
      { system: "prior", values: values(0.4) },
      { system: "evidence", values: values(0.401) },
      { system: "sft_direct", values: values(0.402) },
      { system: "sft", values: values(0.402, 1, 1) },
    ];
    const chosen = choose(users, judged, bootstrap);
    expect(chosen).toMatchObject({ system: "sft_direct", leader: "sft", without_model: "evidence", with_model: "sft" });
    expect(chosen.margin.delta).toBeCloseTo(1 / 200, 9);
    expect(chosen.margin.ci_low).toBe(0);
    // The lead over evidence, .001 + .005, is above zero for certain. Without it, evidence is as good and cheaper.
    const without = judged.map((j) => (j.system === "evidence" ? { ...j, values: values(0.402) } : j));
    expect(choose(users, without, bootstrap).system).toBe("evidence");
  });

  it("allows for luck: the best of several has to lead more clearly than the only one", () => {
    // Ahead by .1 on five users of 200: a resample has none of them with probability (195 / 200)^200 = .0063. That is
    // below .025, half the level for a single comparison, and above half of .05 / 9 = .0056, the level for nine.
    const prior = { system: "prior", values: values(0.4) };
    const leader = { system: "sft_direct", values: values(0.4, 0.1, 5) };
    const names = ["direct", "sft", "sft_nothink", "rl_direct", "rl", "rl_nothink", "evidence", "listwise"];
    const others = names.map((system) => ({ system, values: values(0.1) }));
    const many = { resamples: 5000, seed: 1 };
    expect(choose(users, [prior, leader], many).system).toBe("sft_direct");
    const chosen = choose(users, [prior, leader, ...others], many);
    expect(chosen).toMatchObject({ system: "prior", leader: "sft_direct" });
  });

  it("does not count a direct system whose language model has weight 0 as one with a language model", () => {
    const judged = [
      { system: "prior", values: values(0.4) },
      { system: "direct", values: values(0.4), silent: true },
      { system: "sft", values: values(0.3) },
    ];
    expect(choose(users, judged, bootstrap)).toMatchObject({
      system: "prior",
      without_model: "prior",
      with_model: "sft",
    });
    expect(choose(users, judged.slice(0, 2), bootstrap).with_model).toBeUndefined();
  });

  it("needs a system without a language model", () => {
    expect(() => choose(users, [{ system: "sft", values: values(1) }], bootstrap)).toThrow(RangeError);
  });
});

/** Ranks of the target by system on test; 50 slates whose answer is missing. */
function results(ranks: Readonly<Record<string, (user: number) => number>>) {
  const systems = Object.entries(ranks).map(([system, rank]) => ({ system, ranks: users.map(rank) }));
  const missedUsers = users.slice(0, 50);
  return resultsTable({ users, missedUsers, systems, baselinesFor, bootstrap });
}
const choice = (system: string) => ({
  ...{ system, leader: system, margin: { delta: 0, ci_low: 0, ci_high: 0 } },
  ...{ without_model: "prior", with_model: "sft_direct" },
});

describe("the recommendation", () => {
  it("has three numbers: over the ranker, by the language model, end to end", () => {
    // N@5 at rank 1 is 1, at rank 2 is 1 / log2(3) = .6309, at rank 3 it is .5.
    const { rows, comparisons } = results({ prerank: () => 3, prior: () => 2, sft_direct: () => 1 });
    const r = recommend(choice("sft_direct"), rows, comparisons);
    expect(r.over_ranker.delta).toBeCloseTo(0.5, 9);
    expect(r.language_model?.delta).toBeCloseTo(1 - 0.6309, 4);
    expect(r.end_to_end.value).toBeCloseTo(200 / 250, 9); // 50 misses score 0
    expect(r.end_to_end.delta).toBeCloseTo((0.5 * 200) / 250, 9);
    expect(r.sentence).toBe("Deploy sft_direct: the language model adds +0.3691 [+0.3691, +0.3691] N@5 over prior.");
    expect(headlineNumbers(r).map((n) => [n.label, n.row.system, n.row.baseline, n.row.slice])).toEqual([
      ["over your ranker", "sft_direct", "prerank", "conditional"],
      ["by the language model", "sft_direct", "prior", "conditional"],
      ["end to end", "sft_direct", "prerank", "end_to_end"],
    ]);
  });

  it("is never a language model that is worse on test than the best without one", () => {
    const { rows, comparisons } = results({ prerank: () => 3, prior: () => 1, sft_direct: () => 2 });
    const r = recommend(choice("sft_direct"), rows, comparisons);
    expect(r).toMatchObject({ system: "prior", leader: "sft_direct" });
    expect(r.over_ranker.system).toBe("prior");
    expect(r.sentence).toBe(
      "Deploy prior: sft_direct led on validation, but is worse on test (−0.3691 [−0.3691, −0.3691] N@5 against prior).",
    );
  });

  it.each([
    ["the language model adds nothing measurable here", "prior", { prerank: 3, prior: 1, sft_direct: 1 }],
    ["though on test it did", "prior", { prerank: 3, prior: 2, sft_direct: 1 }],
    ["is not significant", "sft_direct", { prerank: 3, prior: 1, sft_direct: 1 }],
    ["Keep your own order: nothing is measurably better", "prior", { prerank: 1, prior: 1, sft_direct: 1 }],
    ["Keep your own order: prior, the best on validation, is worse", "prior", { prerank: 1, prior: 2, sft_direct: 1 }],
  ])("says %s", (words, system, ranks) => {
    const { rows, comparisons } = results(Object.fromEntries(Object.entries(ranks).map(([s, r]) => [s, () => r])));
    expect(recommend(choice(system), rows, comparisons).sentence).toContain(words);
  });

  it("says what it costs: milliseconds and tokens per request, minutes of training", () => {
    const { rows, comparisons } = results({ prerank: () => 3, prior: () => 2, sft_direct: () => 1 });
    const recommendation = recommend(choice("prior"), rows, comparisons);
    const costs = describeCosts({
      recommendation,
      systems: [{ name: "sft_direct", prompt_tokens: 100, answer_tokens: 30.4 }],
      request_ms: { sft_direct: 12.34 },
      timings: { data: 60, midtrain: 120, sft: 60 },
    });
    expect(costs).toEqual([
      "prior: no language model, less than 1 ms per request.",
      "sft_direct: 130 tokens and 12 ms of the model per request.",
      "The run took 4.0 min, 3.0 min of it for training the language model.",
    ]);
  });
});
