import { describe, expect, it } from "vitest";
import { fitListwise, logOddsScale, openModel, withinSlate } from "../../../src/evidence/model.ts";

describe("the listwise model", () => {
  it("sees only differences within a slate; what is not known is the mean", () => {
    // Column 0: 1, 3 -> -1, 1. Column 1: all equal -> 0. Column 2: one known -> 0.
    const out = withinSlate(Float32Array.from([1, 5, Number.NaN, 3, 5, 2]), 2);
    expect(Array.from(out)).toEqual([-1, 0, 0, 1, 0, 0]);
  });

  it("learns which column tells, and survives being written down", () => {
    const lessons = Array.from({ length: 50 }, (_, k) => ({
      features_NF: Float32Array.from([k % 2, k % 3, 1 - (k % 2), (k + 1) % 3]),
      numCandidates: 2,
      truth_N: k % 2 === 0 ? [0, 1] : [1, 0],
    }));
    const model = fitListwise(["tells", "noise"], lessons, 1);
    const [first = 0, second = 0] = model.scores(Float32Array.from([1, 0, 0, 0]), 2);
    expect(first).toBeGreaterThan(second + 1);
    const again = openModel(JSON.parse(JSON.stringify(model.toJSON())));
    expect(again.scores(Float32Array.from([1, 0, 0, 0]), 2)).toEqual([first, second]);
  });
});

describe("the scale of log-odds", () => {
  it("is what makes softmax say how often the first is right", () => {
    // Two candidates, scores 1 and 0, right three times out of four: log-odds ln 3.
    const slates = Array.from({ length: 400 }, (_, k) => ({ scores: [1, 0], truth_N: k % 4 === 0 ? [0, 1] : [1, 0] }));
    expect(logOddsScale(slates)).toBeCloseTo(Math.log(3), 3);
    expect(logOddsScale(slates.map((s) => ({ ...s, truth_N: [...s.truth_N].reverse() })))).toBe(0);
    expect(logOddsScale([])).toBe(1);
  });
});
