import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Parsed } from "../../../src/prompts/parse.ts";
import { overlongPenalty, type RewardOptions, verify } from "../../../src/reward/verify.ts";

const base: RewardOptions = {
  kind: "rank-promotion",
  ndcgK: 5,
  format: "conditional",
  formatBonus: 0.2,
  dehacked: false,
  invalid: -1,
};
const ranking = (...order: number[]): Parsed => ({ kind: "ranking", order, reasoning: "" });
/** Labels of n candidates of which one is true. */
const oneHot = (target: number, n = 4): number[] => Array.from({ length: n }, (_, i) => (i === target ? 1 : 0));
const gatedNdcg: Partial<RewardOptions> = { kind: "ndcg", format: "none", dehacked: true };
const bad: Parsed = { kind: "unparseable", reason: "no answer", detail: "" };

describe("reward truth table (N = 4)", () => {
  // target's index before, the answer, options, expected reward, the arithmetic
  const rows: [string, number, Parsed, Partial<RewardOptions>, number][] = [
    ["third to first: (3-1)/4 + .2", 2, ranking(2, 0, 1, 3), {}, 0.7],
    ["last to second: (4-2)/4 + .2", 3, ranking(0, 3, 1, 2), {}, 0.7],
    ["first stays first: 0 + .2", 0, ranking(0, 2, 1, 3), {}, 0.2],
    ["first to second: (1-2)/4, no bonus", 0, ranking(1, 0, 2, 3), {}, -0.25],
    ["third stays third: 0, no bonus: copying earns nothing", 2, ranking(0, 1, 2, 3), {}, 0],
    ["the same, unconditional: 0 + .2: the hack", 2, ranking(0, 1, 2, 3), { format: "unconditional" }, 0.2],
    ["demoted, unconditional: -1/4 + .2", 2, ranking(0, 1, 3, 2), { format: "unconditional" }, -0.05],
    ["no format bonus: (3-1)/4", 2, ranking(2, 0, 1, 3), { format: "none" }, 0.5],
    ["unparseable: -1", 2, bad, {}, -1],
    ["unparseable with another price", 2, bad, { invalid: -0.5 }, -0.5],
    ["auc, third to first: 3 of 3 pairs - 1 of 3, + .2", 2, ranking(2, 0, 1, 3), { kind: "auc" }, 2 / 3 + 0.2],
    ["auc, first to last: 0 - 1", 0, ranking(1, 2, 3, 0), { kind: "auc" }, -1],
    ["ndcg, third to first: 1 - 1/log2(4) + .2", 2, ranking(2, 0, 1, 3), { kind: "ndcg" }, 1 - 0.5 + 0.2],
    ["ndcg@2, fourth to third: 0 - 0, promoted: + .2", 3, ranking(0, 1, 3, 2), { kind: "ndcg", ndcgK: 2 }, 0.2],
    ["de-hacked, sub-optimal order copied: 0", 2, ranking(0, 1, 2, 3), { dehacked: true, format: "none" }, 0],
    ["de-hacked, optimal order kept: 0 + .2", 0, ranking(0, 1, 2, 3), { dehacked: true }, 0.2],
    [
      "de-hacked ndcg, third to second: 1/log2(3), the answer's own",
      2,
      ranking(0, 2, 1, 3),
      gatedNdcg,
      1 / Math.log2(3),
    ],
    ["de-hacked ndcg, third stays third, not a copy: 1/log2(4)", 2, ranking(1, 0, 2, 3), gatedNdcg, 0.5],
    ["de-hacked ndcg, third stays third by copying: 0 instead of 1/log2(4)", 2, ranking(0, 1, 2, 3), gatedNdcg, 0],
    ["de-hacked ndcg, ideal order copied: 1", 0, ranking(0, 1, 2, 3), gatedNdcg, 1],
    ["de-hacked auc, first to second: 2 of 3 pairs", 0, ranking(1, 0, 2, 3), { ...gatedNdcg, kind: "auc" }, 2 / 3],
    ["de-hacked ndcg, unparseable: -1", 2, bad, gatedNdcg, -1],
  ];
  it.each(rows)("%s", (_name, before, parsed, options, expected) => {
    const v = verify(parsed, oneHot(before), { ...base, ...options });
    expect(v.reward).toBeCloseTo(expected, 12);
    expect(v.parts.ranking + v.parts.format + v.parts.invalid).toBeCloseTo(v.reward, 12);
  });

  it("says whether the input order was copied, and where the target went", () => {
    expect(verify(ranking(0, 1, 2, 3), oneHot(2), base)).toMatchObject({ identity: true, before: 2, after: 2 });
    expect(verify(ranking(1, 0, 2, 3), oneHot(2), base)).toMatchObject({ identity: false });
    expect(verify(bad, oneHot(2), base)).toMatchObject({ valid: false, identity: false, after: -1 });
  });

  it("refuses a slate without its true item", () => {
    expect(() => verify(ranking(0, 1), [0, 0], base)).toThrow(RangeError);
  });
});

describe("properties", () => {
  const slate = fc
    .integer({ min: 2, max: 12 })
    .chain((n) =>
      fc.tuple(fc.shuffledSubarray([...Array(n).keys()], { minLength: n }), fc.integer({ min: 0, max: n - 1 })),
    );

  it("conditional reward of a copied order is never above what the input order deserves", () => {
    fc.assert(
      fc.property(slate, ([order, target]) => {
        const copy = verify(ranking(...[...order].sort((a, b) => a - b)), oneHot(target, order.length), base);
        expect(copy.reward).toBe(target === 0 ? 0.2 : 0);
      }),
    );
  });

  it("moving the target up never earns less", () => {
    fc.assert(
      fc.property(slate, ([order, target]) => {
        const at = order.indexOf(target);
        if (at === 0) return;
        const better = [...order];
        [better[at - 1], better[at]] = [better[at] as number, better[at - 1] as number];
        for (const kind of ["rank-promotion", "ndcg", "auc"] as const) {
          const options = { ...base, kind };
          const labels = oneHot(target, order.length);
          expect(verify(ranking(...better), labels, options).reward).toBeGreaterThanOrEqual(
            verify(ranking(...order), labels, options).reward,
          );
        }
      }),
    );
  });
});

describe("overlongPenalty (DAPO eq. 13), limit 100, buffer 20", () => {
  it.each([
    [10, 0], // short answers earn nothing for being short
    [80, 0],
    [81, -0.05],
    [90, -0.5],
    [100, -1],
    [120, -1],
  ])("%i tokens: %f", (length, expected) => {
    expect(overlongPenalty(length, 100, 20)).toBeCloseTo(expected, 12);
  });
  it("is off without a buffer", () => expect(overlongPenalty(1000, 100, 0)).toBe(0));
});

describe("why an answer earns what it earns", () => {
  // Input: true item at place 3 of 4, NDCG@5 = 1/log2(4) = .5, AUC = 1/3; answer: at place 1, NDCG = AUC = 1.
  const because = (over: Partial<RewardOptions>): string =>
    verify(ranking(2, 0, 1, 3), oneHot(2), { ...base, ...over }).because;
  it("names the places of one true item, and the arithmetic", () => {
    expect(because({})).toContain("true item from place 3 to 1 of 4");
    expect(because({})).toContain("(3 - 1) / 4 = 0.5000");
  });
  it("names the metric with both values, or the answer's alone where the copy earns as well", () => {
    expect(because({ kind: "ndcg" })).toContain("NDCG@5 0.5000 -> 1.0000 = 0.5000");
    expect(because({ kind: "ndcg", ndcgK: 3 })).toContain("NDCG@3");
    expect(because({ kind: "auc" })).toContain("AUC 0.3333 -> 1.0000 = 0.6667");
    expect(because({ kind: "ndcg", dehacked: true })).toContain("NDCG@5 1.0000");
    expect(because({ kind: "ndcg", dehacked: true })).not.toContain("->");
  });
  it("names every place of several true items, and what made an answer unreadable", () => {
    const several = verify(ranking(3, 0, 1, 2), [0, 1, 0, 1], { ...base, kind: "ndcg" }).because;
    expect(several).toContain("2 positives from places 2, 4 to 1, 3 of 4");
    expect(verify({ ...bad, detail: "nothing there" } as Parsed, oneHot(2), base).because).toContain(
      "unparseable (no answer: nothing there)",
    );
  });
});
