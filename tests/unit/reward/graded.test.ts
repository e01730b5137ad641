/** Rewards of slates with several positives or graded labels. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Parsed } from "../../../src/prompts/parse.ts";
import { isIdeal, type RewardOptions, verify } from "../../../src/reward/verify.ts";

const base: RewardOptions = {
  kind: "rank-promotion",
  ndcgK: 5,
  format: "none",
  formatBonus: 0.2,
  dehacked: false,
  invalid: -1,
};
const ranking = (...order: number[]): Parsed => ({ kind: "ranking", order, reasoning: "" });
const kinds = ["rank-promotion", "ndcg", "auc"] as const;

describe("reward truth table, several positives", () => {
  // Discounts 1/log2(rank + 1): d1 = 1, d2 = .6309, d3 = .5, d4 = .4307.
  const d = (rank: number): number => 1 / Math.log2(rank + 1);
  const clicks = [0, 1, 0, 1]; // two clicks, at positions 2 and 4; ideal DCG d1 + d2
  const grades = [1, 0, 3, 2]; // click, nothing, purchase, cart; ideal DCG 3 d1 + 2 d2 + 1 d3
  const ideal = 3 + 2 * d(2) + d(3);
  const rows: [string, readonly number[], Parsed, Partial<RewardOptions>, number][] = [
    ["clicks to positions 1 and 2: ((2-1) + (4-2)) / 2 / 4", clicks, ranking(1, 3, 0, 2), {}, 3 / 8],
    ["clicks to positions 3 and 4: ((2-3) + (4-4)) / 2 / 4", clicks, ranking(0, 2, 1, 3), {}, -1 / 8],
    ["one up, one down: ((2-3) + (4-1)) / 2 / 4", clicks, ranking(3, 0, 1, 2), {}, 2 / 8],
    [
      "ndcg of clicks, ideal: 1 - (d2 + d4) / (d1 + d2)",
      clicks,
      ranking(1, 3, 0, 2),
      { kind: "ndcg" },
      1 - (d(2) + d(4)) / (1 + d(2)),
    ],
    ["ndcg@1 of clicks, first position hit: 1 - 0", clicks, ranking(3, 0, 1, 2), { kind: "ndcg", ndcgK: 1 }, 1],
    [
      "graded ndcg, ideal: 1 - (1 d1 + 3 d3 + 2 d4) / ideal",
      grades,
      ranking(2, 3, 0, 1),
      { kind: "ndcg" },
      1 - (1 + 3 * d(3) + 2 * d(4)) / ideal,
    ],
    [
      "graded ndcg, purchase and cart swapped: (2 d1 + 3 d2 + 1 d3 - (1 d1 + 3 d3 + 2 d4)) / ideal",
      grades,
      ranking(3, 2, 0, 1),
      { kind: "ndcg" },
      (2 + 3 * d(2) + d(3) - (1 + 3 * d(3) + 2 * d(4))) / ideal,
    ],
    ["auc of clicks, ideal: 4 of 4 pairs - 1 of 4", clicks, ranking(1, 3, 0, 2), { kind: "auc" }, 3 / 4],
    // Input 1 0 3 2: right pairs 1>0 and 3>2, of 6. Answer 3 2 1 0: all.
    ["graded auc, ideal: 6 of 6 - 2 of 6", grades, ranking(2, 3, 0, 1), { kind: "auc" }, 4 / 6],
    ["graded auc, purchase and cart swapped: 5 of 6 - 2 of 6", grades, ranking(3, 2, 0, 1), { kind: "auc" }, 3 / 6],
    [
      "grades play no part in promotion: positions 1, 3, 4 to 1, 2, 3: 2 / 3 / 4",
      grades,
      ranking(3, 2, 0, 1),
      {},
      2 / 12,
    ],
    [
      "format: more pairs right than in the input: 3/8 + .2",
      clicks,
      ranking(1, 3, 0, 2),
      { format: "conditional" },
      0.575,
    ],
    [
      "format: as many pairs right (a cart above a purchase, a click above nothing): 0",
      [2, 3, 1, 0],
      ranking(1, 0, 3, 2),
      { format: "conditional" },
      -1 / 12,
    ],
    ["format: an ideal order stays ideal: 0 + .2", [2, 1, 1, 0], ranking(0, 2, 1, 3), { format: "conditional" }, 0.2],
    ["format: fewer pairs right: -1/8, no bonus", clicks, ranking(0, 2, 1, 3), { format: "conditional" }, -1 / 8],
    [
      "de-hacked: sub-optimal input re-emitted",
      clicks,
      ranking(0, 1, 2, 3),
      { dehacked: true, format: "conditional" },
      0,
    ],
    ["de-hacked: ideal input kept", [3, 2, 0, 0], ranking(0, 1, 2, 3), { dehacked: true, format: "conditional" }, 0.2],
    ["unparseable", clicks, { kind: "unparseable", reason: "no answer", detail: "" }, {}, -1],
  ];
  it.each(rows)("%s", (_name, labels, parsed, options, expected) => {
    const v = verify(parsed, labels, { ...base, ...options });
    expect(v.reward).toBeCloseTo(expected, 12);
    expect(v.parts.ranking + v.parts.format + v.parts.invalid).toBeCloseTo(v.reward, 12);
  });

  it("calls a copied input sub-optimal by all its labels, not by its first position", () => {
    const copied = (labels: number[]): string => verify(ranking(0, 1, 2), labels, { ...base, dehacked: true }).because;
    expect(copied([3, 0, 2])).toContain("sub-optimal input order re-emitted");
    expect(copied([3, 2, 0])).not.toContain("sub-optimal");
  });

  it("follows the best label that is first in the input, and says what moved", () => {
    expect(verify(ranking(2, 3, 0, 1), [0, 2, 2, 1], base)).toMatchObject({ before: 1, after: 3 });
    expect(verify(ranking(1, 3, 0, 2), clicks, base).because).toBe(
      "2 positives from places 2, 4 to 1, 2 of 4: (3 - 1.5) / 4 = 0.3750; format 0",
    );
  });
});

describe("properties", () => {
  /** Labels with at least one positive, and an answer. */
  const slate = fc
    .array(fc.integer({ min: 0, max: 3 }), { minLength: 2, maxLength: 12 })
    .filter((labels) => labels.some((l) => l > 0))
    .chain((labels) =>
      fc.tuple(fc.constant(labels), fc.shuffledSubarray([...labels.keys()], { minLength: labels.length })),
    );
  const option = fc.record({
    kind: fc.constantFrom(...kinds),
    ndcgK: fc.integer({ min: 1, max: 12 }),
    format: fc.constantFrom("conditional" as const, "none" as const),
    dehacked: fc.boolean(),
  });

  it("the unit of the labels does not matter: labels times a constant earn the same", () => {
    fc.assert(
      fc.property(slate, option, fc.integer({ min: 2, max: 9 }), ([labels, order], o, factor) => {
        const scaled = labels.map((l) => l * factor);
        const [a, b] = [labels, scaled].map((l) => verify(ranking(...order), l, { ...base, ...o }).reward);
        expect(b).toBeCloseTo(a as number, 12);
      }),
    );
  });

  it("candidates of equal label are interchangeable in the answer", () => {
    fc.assert(
      fc.property(slate, option, fc.nat(), fc.nat(), ([labels, order], o, x, y) => {
        const [p, q] = [x % order.length, y % order.length];
        fc.pre(labels[order[p] as number] === labels[order[q] as number]);
        const swapped = [...order];
        [swapped[p], swapped[q]] = [order[q] as number, order[p] as number];
        const reward = (order: number[]) =>
          verify(ranking(...order), labels, { ...base, ...o, dehacked: false }).reward;
        expect(reward(swapped)).toBe(reward(order));
      }),
    );
  });

  it("no answer earns more than the ideal order", () => {
    fc.assert(
      fc.property(slate, option, ([labels, order], o) => {
        const ideal = [...labels.keys()].sort((a, b) => (labels[b] ?? 0) - (labels[a] ?? 0));
        const reward = (order: number[]) => verify(ranking(...order), labels, { ...base, ...o }).reward;
        expect(reward(ideal)).toBeGreaterThanOrEqual(reward(order) - 1e-12);
      }),
    );
  });

  it("a sub-optimal input order earns nothing, gate or no gate; an ideal one what it gains, or its own value", () => {
    fc.assert(
      fc.property(slate, option, ([labels], o) => {
        const copy = verify(ranking(...labels.keys()), labels, { ...base, ...o });
        expect(copy.identity).toBe(true);
        if (!isIdeal(labels)) expect(copy.reward).toBe(0);
        // Equal labels have no pair to order: their AUC is 0.
        const own = o.kind === "ndcg" || (o.kind === "auc" && new Set(labels).size > 1) ? 1 : 0;
        expect(copy.parts.ranking).toBeCloseTo(isIdeal(labels) && o.dehacked ? own : 0, 12);
      }),
    );
  });

  it("the gate tells apart what the difference does not: copies lose to every other answer, and no other order moves", () => {
    fc.assert(
      fc.property(slate, fc.constantFrom("ndcg" as const, "auc" as const), ([labels, order], kind) => {
        const verdict = (dehacked: boolean, order: readonly number[]) =>
          verify(ranking(...order), labels, { ...base, kind, ndcgK: 12, dehacked });
        const input = [...labels.keys()];
        const gain = (order: readonly number[]): number =>
          verdict(true, order).parts.ranking - verdict(false, order).parts.ranking;
        const reversed = [...input].reverse();
        if (!verdict(true, order).identity) expect(gain(order)).toBeCloseTo(gain(reversed), 12);
        if (!isIdeal(labels)) expect(verdict(true, input).reward).toBeLessThanOrEqual(verdict(true, order).reward);
      }),
    );
  });

  it("one positive earns what the formulas of one true item say", () => {
    fc.assert(
      fc.property(slate, option, fc.nat(), ([labels, order], o, at) => {
        const target = at % labels.length;
        const n = labels.length;
        const [before, after] = [target, order.indexOf(target)];
        const gain = (rank: number): number => (rank < o.ndcgK ? 1 / Math.log2(rank + 2) : 0);
        const raw = {
          "rank-promotion": (before - after) / n,
          ndcg: gain(after) - (o.dehacked ? 0 : gain(before)),
          auc: ((o.dehacked ? n - 1 : before) - after) / (n - 1),
        }[o.kind];
        const copied = o.dehacked && before !== 0 && order.every((c, i) => c === i);
        const bonus = o.format === "conditional" && (after < before || (before === 0 && after === 0)) ? 0.2 : 0;
        const v = verify(
          ranking(...order),
          labels.map((_, i) => (i === target ? 1 : 0)),
          { ...base, ...o },
        );
        expect(v).toMatchObject({ before, after });
        expect(v.reward).toBeCloseTo((copied ? 0 : raw) + bonus, 12);
        if (o.kind !== "auc") expect(v.parts.ranking).toBe(copied ? 0 : raw); // to the last bit
      }),
    );
  });

  it("with clicks alone, a bonus is paid exactly where the mean promotion is positive or an ideal order stays ideal", () => {
    fc.assert(
      fc.property(slate, ([labels, order]) => {
        const clicks = labels.map((l) => (l > 0 ? 1 : 0));
        const v = verify(ranking(...order), clicks, { ...base, format: "conditional" });
        const ideal = isIdeal(clicks) && isIdeal(order.map((i) => clicks[i] as number));
        expect(v.parts.format).toBe(v.parts.ranking > 0 || ideal ? 0.2 : 0);
      }),
    );
  });
});
