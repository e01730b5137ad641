import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { kendallTau } from "../../../src/eval/kendall.ts";
import {
  findRank,
  gradedAuc,
  gradedNdcg,
  metricNames,
  metricsFromLabels,
  metricsFromRank,
  multiRecall,
  ndcgAt,
} from "../../../src/eval/metrics.ts";

interface GoldenCase {
  gains: number[];
  scores: number[];
  tied: number[];
  k: number;
  ndcg: number;
  auc: number | null;
  auc_tied: number | null;
}

describe("metrics", () => {
  it("follow the formulas by hand", () => {
    expect(metricsFromRank(1)).toEqual([1, 1, 1, 1, 1, 1]);
    expect(metricsFromRank(3)).toEqual([0, 1, 1, 0.5, 0.5, 1 / 3]);
    expect(metricsFromRank(5)).toEqual([0, 0, 1, 0, 1 / Math.log2(6), 1 / 5]);
    expect(metricsFromRank(6)).toEqual([0, 0, 0, 0, 0, 1 / 6]);
    expect(metricsFromRank(Number.POSITIVE_INFINITY)).toEqual([0, 0, 0, 0, 0, 0]);
    expect(findRank([4, 2, 9], 9)).toBe(3);
    expect(findRank([4, 2, 9], 7)).toBe(Number.POSITIVE_INFINITY);
    expect(multiRecall([true, false, true, true], 3)).toBeCloseTo(2 / 3);
  });

  it("of several positives follow the formulas by hand", () => {
    // Labels 0 2 0 1: positives at ranks 2 and 4, ideal order 2 1 0 0.
    const d = (rank: number): number => 1 / Math.log2(rank + 1);
    const ideal = 2 + d(2);
    expect(metricsFromLabels([0, 2, 0, 1])).toEqual([
      0, // R@1
      1 / 2, // R@3: one of two
      1, // R@5
      (2 * d(2)) / ideal, // N@3
      (2 * d(2) + d(4)) / ideal, // N@5
      1 / 2, // MRR: the first positive
    ]);
    expect(metricsFromLabels([])).toEqual([0, 0, 0, 0, 0, 0]);
    // Pairs with different labels: (0,2) (0,1) (2,0) (2,1) (0,1); right: (2,0) (2,1).
    expect(gradedAuc([0, 2, 0, 1])).toBe(2 / 5);
    expect(gradedAuc([1, 1])).toBeUndefined();
  });

  it("of labels are those of the rank with one positive, to the last bit", () => {
    for (let n = 2; n <= 12; n++)
      for (let rank = 1; rank <= n; rank++) {
        const labels = Array.from({ length: n }, (_, i) => (i === rank - 1 ? 1 : 0));
        expect(metricsFromLabels(labels)).toEqual(metricsFromRank(rank));
      }
  });

  it("agree with scikit-learn's ndcg_score and roc_auc_score (tests/golden/ndcg-auc.py)", () => {
    const cases = JSON.parse(
      readFileSync(new URL("../../golden/ndcg-auc.json", import.meta.url), "utf8"),
    ) as GoldenCase[];
    for (const c of cases) {
      const order = c.scores.map((_, i) => i).sort((a, b) => (c.scores[b] ?? 0) - (c.scores[a] ?? 0));
      const gains = order.map((i) => c.gains[i] ?? 0);
      expect(gradedNdcg(gains, c.k)).toBeCloseTo(c.ndcg, 12);
      const positive = c.gains.map((g) => g > 1);
      expect(gradedAuc(order.map((i) => Number(positive[i] ?? false))) ?? null).toEqual(
        c.auc === null ? null : expect.closeTo(c.auc, 12),
      );
    }
  });

  it("never reward a worse rank, and stay in [0, 1]", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 30 }), fc.integer({ min: 0, max: 30 }), (rank, more) => {
        const [better, worse] = [metricsFromRank(rank), metricsFromRank(rank + more)];
        metricNames.forEach((_, m) => {
          expect(better[m] ?? -1).toBeGreaterThanOrEqual(worse[m] ?? 2);
          expect(worse[m] ?? -1).toBeGreaterThanOrEqual(0);
          expect(better[m] ?? 2).toBeLessThanOrEqual(1);
        });
      }),
    );
  });

  it("graded NDCG with one positive is the single-positive NDCG", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 12 }), fc.integer({ min: 0, max: 8 }), (rank, after) => {
        const gains = Array.from({ length: rank + after }, (_, i) => (i === rank - 1 ? 1 : 0));
        for (const k of [1, 3, 5]) expect(gradedNdcg(gains, k)).toBeCloseTo(ndcgAt(rank, k), 12);
      }),
    );
  });
});

describe("Kendall's tau", () => {
  const permutation = fc.integer({ min: 2, max: 9 }).chain((n) =>
    fc.shuffledSubarray(
      Array.from({ length: n }, (_, i) => i),
      { minLength: n, maxLength: n },
    ),
  );
  it("is 1 for itself, −1 for its reverse, and antisymmetric under reversal", () => {
    fc.assert(
      fc.property(permutation, (p) => {
        expect(kendallTau(p, p)).toBe(1);
        expect(kendallTau(p, [...p].reverse())).toBe(-1);
        const identity = p.map((_, i) => i);
        expect(kendallTau(identity, p)).toBeCloseTo(-kendallTau([...identity].reverse(), p), 12);
      }),
    );
    expect(kendallTau([0, 1, 2], [0, 2, 1])).toBeCloseTo(1 / 3);
    expect(() => kendallTau([0, 1], [0, 2])).toThrow(RangeError);
  });
});
