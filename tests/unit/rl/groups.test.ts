import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { groupAdvantages, learningRateAt, teaches, tokenWeights } from "../../../src/rl/groups.ts";

describe("groupAdvantages", () => {
  it("is (R - mean) / std: rewards 1, 0, 0, -1 have std sqrt(1/2)", () => {
    const s = Math.SQRT2;
    groupAdvantages([1, 0, 0, -1], true).forEach((a, i) => {
      expect(a).toBeCloseTo([s, 0, 0, -s][i] as number, 12);
    });
  });
  it("only centres when asked to", () => expect(groupAdvantages([1, 0, 0, -1], false)).toEqual([1, 0, 0, -1]));
  it("is zero for equal rewards", () => expect(groupAdvantages([0.3, 0.3, 0.3], true)).toEqual([0, 0, 0]));
  it("sums to zero, with unit spread unless rewards are equal", () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: -10, max: 10 }), { minLength: 2, maxLength: 16 }), (rewards) => {
        const a = groupAdvantages(rewards, true);
        expect(Math.abs(a.reduce((x, y) => x + y, 0))).toBeLessThan(1e-9);
        const spread = a.reduce((x, y) => x + y * y, 0) / a.length;
        expect(spread).toBeCloseTo(teaches(rewards) ? 1 : 0, 9);
      }),
    );
  });
});

describe("tokenWeights", () => {
  it("token level: every token of the batch weighs the same", () => {
    expect(tokenWeights([1, 3], [true, true], "token")).toEqual([0.25, 0.25]);
  });
  it("sequence level: every response weighs the same", () => {
    expect(tokenWeights([1, 4], [true, true], "sequence")).toEqual([0.5, 0.125]);
  });
  it("masked responses count in neither denominator", () => {
    expect(tokenWeights([2, 6, 2], [true, false, true], "token")).toEqual([0.25, 0, 0.25]);
    expect(tokenWeights([2, 6, 2], [true, false, true], "sequence")).toEqual([0.25, 0, 0.25]);
  });
  it("all masked: all zero, nothing divides by zero", () => {
    expect(tokenWeights([2, 3], [false, false], "token")).toEqual([0, 0]);
  });
});

describe("learningRateAt", () => {
  const o = { learningRate: 1, warmupSteps: 4, schedule: "linear" as const };
  it("warms up from above zero to the peak", () => {
    expect([0, 1, 2, 3, 4].map((s) => learningRateAt(s, 14, o))).toEqual([0.2, 0.4, 0.6, 0.8, 1]);
  });
  it("decays to zero", () => {
    expect(learningRateAt(9, 14, o)).toBeCloseTo(0.5, 12);
    expect(learningRateAt(14, 14, o)).toBe(0);
    expect(learningRateAt(9, 14, { ...o, schedule: "cosine" })).toBeCloseTo(0.5, 12);
    expect(learningRateAt(13, 14, { ...o, schedule: "constant" })).toBe(1);
  });
  it("is .8 linear and (1 + cos(pi / 5)) / 2 cosine after a fifth of the decay", () => {
    expect(learningRateAt(6, 14, o)).toBeCloseTo(0.8, 12);
    expect(learningRateAt(6, 14, { ...o, schedule: "cosine" })).toBeCloseTo(0.904508497187, 11);
  });
});
