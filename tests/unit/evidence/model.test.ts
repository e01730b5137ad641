import { describe, expect, it } from "vitest";
import { fitListwise, logOddsScale, openModel, stackWeights, withinSlate } from "../../../src/evidence/model.ts";

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

describe("stacking", () => {
  // Two candidates; the first is right three times out of four where a model says 1 : 0.
  const truth = (k: number): number[] => (k % 4 === 0 ? [0, 1] : [1, 0]);
  const slates = (second: (k: number) => number[]) =>
    Array.from({ length: 1200 }, (_, k) => ({ scores: [[1, 0], second(k)], truth_N: truth(k) }));

  it("gives a useless model no weight, and leaves out one that is right only upside down", () => {
    const [tells = 0, noise = 0] = stackWeights(
      slates((k) => (k % 3 ? [0.5, 0] : [0, 0.5])),
      2,
    );
    expect(tells).toBeCloseTo(Math.log(3), 2);
    expect(noise).toBeLessThan(0.01); // three and four have no common divisor: independent of the truth
    expect(
      stackWeights(
        slates(() => [0, 1]),
        2,
      )[1],
    ).toBe(0);
    expect(stackWeights([], 2)).toEqual([0.5, 0.5]);
  });

  it("adds up weighed scores, and survives being written down", () => {
    const part = (weights: number[]) => ({ kind: "listwise" as const, features: ["a", "b"], weights });
    const model = openModel({
      kind: "stacked",
      features: ["a", "b"],
      parts: [
        { weight: 2, model: part([1, 0]) },
        { weight: 0.5, model: part([0, 4]) },
        { weight: 0, model: part([100, 100]) },
      ],
    });
    // Columns 0, 1 standardised over two candidates: -1, 1 and 1, -1.
    // 2 * (-1) + .5 * 4 * 1 = 0, and the same for the other.
    expect(model.scores(Float32Array.from([0, 9, 1, 3]), 2)).toEqual([0, 0]);
    expect(openModel(JSON.parse(JSON.stringify(model.toJSON()))).scores(Float32Array.from([1, 9, 0, 9]), 2)).toEqual([
      2, -2,
    ]);
  });
});
