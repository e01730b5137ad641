import { describe, expect, it } from "vitest";
import { RunStatistics, studentT } from "../../../src/eval/across-runs.ts";
import { PairedBootstrap } from "../../../src/eval/bootstrap.ts";

/** Two slates a user. Three runs that differ by a constant: users agree about everything, seeds do not. */
const users = Array.from({ length: 80 }, (_, k) => Math.floor(k / 2));
const base = users.map((u, k) => ((u * 7 + k) % 10) / 10);
const holds = users.map(() => 1);
const shifted = (by: number) => ({
  holds,
  systems: new Map([
    ["prerank", base],
    ["rl", base.map((v) => v + by)],
  ]),
});

describe("both levels of uncertainty", () => {
  const statistics = new RunStatistics(users, [shifted(0.01), shifted(0.02), shifted(0.06)], "end_to_end", {
    resamples: 300,
  });

  it("averages the runs; a difference that all users share has an interval over seeds alone", () => {
    const d = statistics.estimate([0, 1, 2], "rl", "prerank");
    expect(d.runs?.map((v) => Number(v.toFixed(9)))).toEqual([0.01, 0.02, 0.06]);
    expect(d.value).toBeCloseTo(0.03, 12);
    expect(d.users[0]).toBeCloseTo(0.03, 9);
    expect(d.users[1]).toBeCloseTo(0.03, 9);
    // sd of (.01, .02, .06) = √((.02² + .01² + .03²)/2) = √.0007; times t(2) = 4.303, over √3
    const half = (4.303 * Math.sqrt(0.0007)) / Math.sqrt(3);
    expect(d.seeds?.[0]).toBeCloseTo(0.03 - half, 9);
    expect(d.seeds?.[1]).toBeCloseTo(0.03 + half, 9);
    expect(d.both?.[1]).toBeCloseTo(0.03 + half, 9);
  });

  it("adds the two half widths in quadrature", () => {
    const d = statistics.estimate([0, 1, 2], "rl");
    const [low] = d.users;
    const half = (d.seeds?.[1] ?? 0) - d.value;
    expect(d.value - low).toBeGreaterThan(0.01);
    expect(d.value - (d.both?.[0] ?? 0)).toBeCloseTo(Math.sqrt((d.value - low) ** 2 + half ** 2), 12);
  });

  it("of one run is the paired bootstrap's own comparison, without a level of seeds", () => {
    const d = statistics.estimate([2], "rl", "prerank");
    const noisy = users.map((u, k) => ((u * 3 + k) % 7) / 7);
    const one = new RunStatistics(
      users,
      [
        {
          holds,
          systems: new Map([
            ["a", base],
            ["b", noisy],
          ]),
        },
      ],
      "end_to_end",
      { resamples: 300 },
    ).estimate([0], "b", "a");
    const paired = new PairedBootstrap(users, [{ values: base }, { values: noisy }], { resamples: 300 }).compare(1, 0);
    expect(d.seeds).toBeUndefined();
    expect(one.value).toBeCloseTo(paired.delta, 12);
    expect(one.users[0]).toBeCloseTo(paired.ciLow, 12);
    expect(one.users[1]).toBeCloseTo(paired.ciHigh, 12);
  });

  it("compares two groups with Welch's degrees of freedom", () => {
    const two = new RunStatistics(users, [0.01, 0.03, 0.1, 0.5].map(shifted), "end_to_end", { resamples: 50 });
    const d = two.compare([0, 1], [2, 3], "rl");
    expect(d.value).toBeCloseTo(0.02 - 0.3, 12);
    // variances/n: .0002/2 = .0001 and .08/2 = .04; ν = (.0401)²/(.0001² + .04²) = 1.005, so t(1)
    expect((d.seeds?.[1] ?? 0) - d.value).toBeCloseTo(12.706 * Math.sqrt(0.0401), 9);
    expect(d.runs).toBeUndefined();
  });

  it("in slice conditional divides by the slates that a run holds", () => {
    const half = users.map((_, k) => (k % 2 === 0 ? 1 : 0));
    const run = { holds: half, systems: new Map([["rl", users.map((_, k) => (k % 2 === 0 ? 0.5 : 9))]]) };
    const s = new RunStatistics(users, [run, shifted(0)], "conditional", { resamples: 50 });
    expect(s.estimate([0], "rl")).toMatchObject({ value: 0.5, users: [0.5, 0.5] });
    expect(s.commonSystems()).toEqual(["rl"]);
  });

  it("has t quantiles that end at the normal's neighbourhood", () => {
    expect([1, 2, 4, 30, 1e6, 2.9].map(studentT)).toEqual([12.706, 4.303, 2.776, 2.042, 2.042, 4.303]);
  });
});
