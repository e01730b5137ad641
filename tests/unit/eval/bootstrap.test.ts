import { describe, expect, it } from "vitest";
import { Rng } from "../../../src/core/rng.ts";
import { PairedBootstrap } from "../../../src/eval/bootstrap.ts";
import { resultsTable } from "../../../src/eval/table.ts";

const rng = Rng.of(7, "test");
const users = Array.from({ length: 600 }, (_, k) => Math.floor(k / 3));
const base = users.map(() => rng.uniform());

describe("paired bootstrap over users", () => {
  it("gives the plain mean, the same numbers for the same seed and others for another", () => {
    const make = (seed: number) => new PairedBootstrap(users, [{ values: base }], { resamples: 500, seed }).estimate(0);
    expect(make(1).value).toBeCloseTo(base.reduce((a, b) => a + b, 0) / base.length, 12);
    expect(make(1)).toEqual(make(1));
    expect(make(1).ciLow).not.toBe(make(2).ciLow);
  });

  it("sees a constant difference without noise because it is paired", () => {
    const better = base.map((v) => v + 0.01);
    const c = new PairedBootstrap(users, [{ values: better }, { values: base }], { resamples: 999 }).compare(0, 1);
    expect(c.delta).toBeCloseTo(0.01, 12);
    expect(c.ciLow).toBeCloseTo(0.01, 9);
    expect(c.ciHigh).toBeCloseTo(0.01, 9);
    expect(c.p).toBe(0.002);
  });

  it("finds nothing between a system and itself", () => {
    const c = new PairedBootstrap(users, [{ values: base }, { values: base }], { resamples: 200 }).compare(0, 1);
    expect(c).toMatchObject({ delta: 0, relative: 0, ciLow: 0, ciHigh: 0, p: 1, n: 600 });
  });

  it("is wider over users than over slates when a user's slates agree", () => {
    const values = users.map((u) => (Rng.of(3, u).uniform() < 0.5 ? 1 : 0));
    const width = (e: { ciLow: number; ciHigh: number }) => e.ciHigh - e.ciLow;
    const byUser = new PairedBootstrap(users, [{ values }], { resamples: 2000 }).estimate(0);
    const bySlate = new PairedBootstrap(
      users.map((_, k) => k),
      [{ values }],
      { resamples: 2000 },
    ).estimate(0);
    expect(width(byUser) / width(bySlate)).toBeGreaterThan(1.5);
    // 200 users, half of them 1: standard error sqrt(.25/200) = .0354, so the interval is about ±.069.
    expect(width(byUser)).toBeGreaterThan(0.11);
    expect(width(byUser)).toBeLessThan(0.17);
  });

  it("covers the truth about 95 % of the time", () => {
    let covered = 0;
    for (let t = 0; t < 200; t++) {
      const draw = Rng.of(t, "coverage");
      const sample = Array.from({ length: 150 }, () => (draw.uniform() < 0.3 ? 1 : 0));
      const e = new PairedBootstrap(
        sample.map((_, k) => k),
        [{ values: sample }],
        { resamples: 400, seed: t },
      ).estimate(0);
      if (e.ciLow <= 0.3 && 0.3 <= e.ciHigh) covered++;
    }
    expect(covered).toBeGreaterThanOrEqual(180);
    expect(covered).toBeLessThanOrEqual(199);
  });
});

describe("results table", () => {
  it("has both slices, counts misses as zero end to end, and compares with each baseline", () => {
    const { rows, comparisons } = resultsTable({
      users: [0, 0, 1, 2],
      missedUsers: [0, 1, 2, 3],
      systems: [
        { system: "prerank", ranks: [1, 2, 3, 6] },
        { system: "rl", ranks: [1, 1, 3, Number.POSITIVE_INFINITY] },
      ],
      baselinesFor: () => ["prerank"],
      bootstrap: { resamples: 100 },
    });
    const value = (system: string, slice: string, metric: string) =>
      rows.find((r) => r.system === system && r.slice === slice && r.metric === metric)?.value;
    expect(rows).toHaveLength(2 * 2 * 6);
    expect(value("prerank", "conditional", "R@1")).toBe(0.25);
    expect(value("prerank", "end_to_end", "R@1")).toBe(0.125);
    expect(value("rl", "conditional", "R@1")).toBe(0.5);
    expect(value("prerank", "conditional", "MRR")).toBeCloseTo((1 + 1 / 2 + 1 / 3 + 1 / 6) / 4, 12);
    expect(comparisons).toHaveLength(2 * 6);
    expect(comparisons.find((c) => c.slice === "conditional" && c.metric === "R@1")).toMatchObject({
      system: "rl",
      baseline: "prerank",
      delta: 0.25,
      relative: 1,
      n: 4,
    });
  });

  it("of labels is the table of ranks with one positive, and has AUC with several", () => {
    const table = (labels: number[][]) =>
      resultsTable({
        users: [0, 1],
        missedUsers: [2],
        systems: [{ system: "rl", labels }],
        baselinesFor: () => [],
        bootstrap: { resamples: 50 },
      }).rows;
    const ranks = resultsTable({
      users: [0, 1],
      missedUsers: [2],
      systems: [{ system: "rl", ranks: [2, Number.POSITIVE_INFINITY] }],
      baselinesFor: () => [],
      bootstrap: { resamples: 50 },
    }).rows;
    expect(table([[0, 1, 0], []])).toEqual(ranks);
    const several = table([[0, 1, 1], []]);
    expect(several.map((r) => r.metric)).toContain("AUC");
    // Both positives are among three, below the negative; the other slate has no answer.
    expect(several.find((r) => r.metric === "R@3" && r.slice === "conditional")?.value).toBe(1 / 2);
    expect(several.find((r) => r.metric === "AUC" && r.slice === "conditional")?.value).toBe(0);
  });

  it("refuses misaligned ranks", () => {
    expect(() =>
      resultsTable({ users: [1, 2], missedUsers: [], systems: [{ system: "x", ranks: [1] }], baselinesFor: () => [] }),
    ).toThrow(/1 answers for 2 slates/);
  });
});
