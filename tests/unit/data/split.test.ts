import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { allowedFor, checkRowOrder, checkSegments, checkSlates, checkTrainingView } from "../../../src/data/leakage.ts";
import { globalTime, leaveOneOut, segmentRange, splitByPosition, trainingView } from "../../../src/data/split.ts";
import { type SplitDataset, segments } from "../../../src/data/types.ts";
import { makeDataset, walkers } from "../synthetic.ts";

const lengths = (data: SplitDataset, user = 0): number[] =>
  segments.map((s) => {
    const split = data.splits[user];
    const [start, end] = split === undefined ? [0, 0] : segmentRange(split, s);
    return end - start;
  });
const sequence = (n: number): number[] => Array.from({ length: n }, (_, k) => k);

describe("split", () => {
  it("rounds cumulative boundaries, halves up", () => {
    // boundaries of n = 20: 12, 15, 17; n = 10: 6, 7.5 → 8, 8.5 → 9; n = 5: 3, 3.75 → 4, 4.25 → 4
    expect(lengths(splitByPosition(makeDataset([sequence(20)], 20)))).toEqual([12, 3, 2, 3]);
    expect(lengths(splitByPosition(makeDataset([sequence(10)], 10)))).toEqual([6, 2, 1, 1]);
    expect(lengths(splitByPosition(makeDataset([sequence(5)], 5)))).toEqual([3, 1, 0, 1]);
    expect(lengths(splitByPosition(makeDataset([[]], 1)))).toEqual([0, 0, 0, 0]);
  });

  it("covers every sequence without overlap, whatever the shares", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 400 }),
        fc.array(fc.integer({ min: 0, max: 20 }), { minLength: 4, maxLength: 4 }),
        (n, parts) => {
          const sum = parts.reduce((a, b) => a + b, 0);
          fc.pre(sum > 0);
          const [midtrain, rerank, validation, test] = parts.map((p) => p / sum) as [number, number, number, number];
          const data = splitByPosition(makeDataset([sequence(n)], Math.max(1, n)), {
            midtrain,
            rerank,
            validation,
            test,
          });
          expect(lengths(data).reduce((a, b) => a + b, 0)).toBe(n);
          expect(() => checkSegments(data)).not.toThrow();
        },
      ),
    );
    expect(() =>
      splitByPosition(makeDataset([[0]], 1), { midtrain: 0.9, rerank: 0.2, validation: 0, test: 0 }),
    ).toThrow(/add up to 1/);
  });

  it("leaves one out, and short sequences lose midtrain first", () => {
    const data = leaveOneOut(makeDataset([sequence(6), sequence(2)], 6));
    expect(lengths(data, 0)).toEqual([3, 1, 1, 1]);
    expect(lengths(data, 1)).toEqual([0, 0, 1, 1]);
  });

  it("cuts global time for all users alike", () => {
    const times = [sequence(10), sequence(10).map((t) => t + 5)];
    const d = makeDataset([sequence(10), sequence(10)], 10, times);
    const data = globalTime(d, { midtrain: 0.5, rerank: 0.2, validation: 0.1, test: 0.2 });
    const timesIn = (s: (typeof segments)[number]): number[] =>
      data.splits.flatMap((split, u) => Array.from(d.sequences[u]?.times.slice(...segmentRange(split, s)) ?? []));
    for (let k = 1; k < segments.length; k++)
      expect(Math.max(...timesIn(segments[k - 1] ?? "test"))).toBeLessThan(Math.min(...timesIn(segments[k] ?? "test")));
    const clockless = { ...d, stats: { ...d.stats, hasClock: false } };
    expect(() => globalTime(clockless, { midtrain: 1, rerank: 0, validation: 0, test: 0 })).toThrow(/no timestamps/);
  });

  it("gives training views that end where they must", () => {
    const data = splitByPosition(makeDataset([sequence(20), sequence(20)], 20));
    expect(trainingView(data, "midtrain").sequences.map((s) => s.length)).toEqual([12, 12]);
    expect(trainingView(data, "rerank", (u) => u === 1).sequences.map((s) => s.length)).toEqual([0, 15]);
  });
});

describe("leakage checks", () => {
  const data = splitByPosition(walkers(30, 40, 20));
  const slate = (change = {}) => {
    const items = data.dataset.sequences[0]?.items ?? new Int32Array();
    const seen = new Set(items.subarray(0, 13));
    const target = items[13] ?? 0;
    const others = sequence(40).filter((i) => !seen.has(i) && i !== target);
    return {
      id: "0123456789abcdef0123",
      user: 0,
      position: 13,
      segment: "rerank" as const,
      candidates: [others[0] ?? 0, target, others[1] ?? 0],
      target,
      targetIndex: 1,
      ...change,
    };
  };
  const history = Array.from(data.dataset.sequences[0]?.items.subarray(0, 13) ?? []);

  it("pass honest data", () => {
    checkSegments(data);
    checkRowOrder(data.dataset);
    checkSlates(data, [slate()], { repeats: "unseen" });
    checkTrainingView(data, trainingView(data, "midtrain"), allowedFor("rerank"), "pre-ranker");
    checkTrainingView(data, trainingView(data, "rerank"), allowedFor("test"), "pre-ranker");
  });

  it("stop at overlapping segments", () => {
    const splits = data.splits.map((s, u) => (u === 3 ? { ...s, rerankEnd: s.midtrainEnd - 1 } : s));
    expect(() => checkSegments({ ...data, splits })).toThrow(/user row 3/);
  });

  it("stop at a consumer that sees the answers", () => {
    const late = trainingView(data, "rerank");
    expect(() => checkTrainingView(data, late, allowedFor("rerank"), "teacher")).toThrow(
      /teacher sees interactions past midtrain \(30\): user row 0: 15 interactions, allowed 12/,
    );
    const foreign = { sequences: data.dataset.sequences.map((s) => s.items.slice(0, 12).reverse()) };
    expect(() => checkTrainingView(data, foreign, "midtrain", "teacher")).toThrow(/not a prefix/);
  });

  it.each([
    [
      "target is not the item at its position",
      { target: history[4] ?? 0, candidates: [history[4] ?? 0], targetIndex: 0 },
    ],
    ["id is not an opaque hash", { id: "Toy Story|Heat" }],
    ["targetIndex is wrong", { targetIndex: 0 }],
    ["outside test", { segment: "test" as const }],
    ["a candidate appears twice", { candidates: [1, 1] }],
  ])("stop at a slate with: %s", (reason, change) => {
    const bad = slate(change);
    expect(() => checkSlates(data, [bad], { repeats: "unseen" })).toThrow(new RegExp(reason));
  });

  it("stop at an answer that the history shows", () => {
    const d = makeDataset([[0, 1, 2, 3, 4, 5, 6, 7, 1, 9]], 10);
    const s = splitByPosition(d, { midtrain: 0.8, rerank: 0.2, validation: 0, test: 0 });
    const bad = { ...slate(), position: 8, candidates: [1, 9], target: 1, targetIndex: 0 };
    expect(() => checkSlates(s, [bad], { repeats: "unseen" })).toThrow(/the answer is visible/);
    expect(() => checkSlates(s, [bad], { repeats: "allow" })).not.toThrow();
    expect(() => checkSlates(s, [bad, bad], { repeats: "allow" })).toThrow(/id used twice/);
  });

  it("stop at rows numbered along sequences", () => {
    const ordered = makeDataset(
      Array.from({ length: 50 }, (_, u) => sequence(20).map((k) => (u * 7 + k) % 200)),
      200,
    );
    expect(() => checkRowOrder(ordered)).toThrow(/item rows encode order/);
  });
});
