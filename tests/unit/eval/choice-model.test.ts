import { describe, expect, it } from "vitest";
import { Rng } from "../../../src/core/rng.ts";
import { type ChoiceExample, fitChoiceModel, softmax } from "../../../src/eval/choice-model.ts";

const oneHot = (chosen: number, n: number): number[] => Array.from({ length: n }, (_, j) => (j === chosen ? 1 : 0));

/** Draws choices from known weights. */
function simulate(weights: readonly number[], n: number, numCandidates: number, seed: number): ChoiceExample[] {
  const rng = Rng.of(seed, "choices");
  return Array.from({ length: n }, () => {
    const features_NK = Float64Array.from({ length: numCandidates * weights.length }, () => 2 * rng.uniform() - 1);
    const p = softmax(
      Array.from({ length: numCandidates }, (_, j) =>
        weights.reduce((s, w, k) => s + w * (features_NK[j * weights.length + k] as number), 0),
      ),
    );
    let u = rng.uniform();
    let chosen = 0;
    while (chosen < numCandidates - 1 && u > (p[chosen] as number)) u -= p[chosen++] as number;
    return { features_NK, numCandidates, truth_N: oneHot(chosen, numCandidates) };
  });
}

describe("fitChoiceModel", () => {
  it("finds the weights that made the choices", () => {
    const truth = [1.5, -0.8, 0];
    const { weights } = fitChoiceModel(simulate(truth, 4000, 6, 1), ["a", "b", "c"], 0);
    weights.forEach((w, k) => {
      expect(Math.abs(w - (truth[k] as number))).toBeLessThan(0.1);
    });
  });

  it("for two candidates equals logistic regression on the difference of features (closed check of the gradient)", () => {
    const examples = simulate([0.7], 500, 2, 2);
    const { weights } = fitChoiceModel(examples, ["a"], 0);
    const w = weights[0] as number;
    let gradient = 0;
    for (const e of examples) {
      const d = (e.features_NK[0] as number) - (e.features_NK[1] as number);
      gradient += ((e.truth_N[0] as number) - 1 / (1 + Math.exp(-w * d))) * d;
    }
    expect(Math.abs(gradient / examples.length)).toBeLessThan(1e-6);
  });

  it("survives a feature that never varies and one that separates perfectly", () => {
    const examples: ChoiceExample[] = Array.from({ length: 50 }, () => ({
      features_NK: Float64Array.from([1, 1, 1, 0]),
      numCandidates: 2,
      truth_N: [1, 0],
    }));
    const { weights } = fitChoiceModel(examples, ["constant", "separates"], 1e-3);
    expect(weights[0]).toBeCloseTo(0, 12);
    expect(weights[1]).toBeGreaterThan(1);
    expect(Number.isFinite(weights[1])).toBe(true);
  });

  it("fits shares over several choices like as many single choices", () => {
    const features_NK = Float64Array.from([1, 0.5, -1]);
    const shared = { features_NK, numCandidates: 3, truth_N: [0.75, 0.25, 0] };
    const single = [0, 0, 0, 1].map((chosen) => ({ features_NK, numCandidates: 3, truth_N: oneHot(chosen, 3) }));
    const [a, b] = [fitChoiceModel([shared], ["a"]), fitChoiceModel(single, ["a"])];
    expect(a.weights[0]).toBeCloseTo(b.weights[0] as number, 9);
    expect(a.weights[0]).not.toBeCloseTo(fitChoiceModel(single.slice(0, 3), ["a"]).weights[0] as number, 1);
  });

  it("does not move at a zero gradient, including its penalty", () => {
    // One slate, features 1, 2, 4 and a constant; the second was chosen.
    const features_NK = Float64Array.from([1, 5, 2, 5, 4, 5]);
    const { weights } = fitChoiceModel([{ features_NK, numCandidates: 3, truth_N: [0, 1, 0] }], ["a", "constant"], 0.5);
    const w = weights[0] as number;
    const [p = 0, q = 0, r = 0] = softmax([w, 2 * w, 4 * w]);
    expect(2 - (p + 2 * q + 4 * r) - 0.5 * w).toBeCloseTo(0, 5);
    expect(weights[1]).toBeCloseTo(0, 8);
  });

  it("refuses to fit nothing", () => expect(() => fitChoiceModel([], ["a"])).toThrow(RangeError));
});
