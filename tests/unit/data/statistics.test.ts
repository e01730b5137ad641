import { describe, expect, it } from "vitest";
import { renderData } from "../../../src/cli/data-show.ts";
import { splitByPosition } from "../../../src/data/split.ts";
import { dataStatistics } from "../../../src/data/statistics.ts";
import { makeDataset } from "../synthetic.ts";

/** Two users of ten: items 0 to 9 in order, and 0 again and again but for the last, which is 10. Item 11 is unused. */
const data = splitByPosition(
  makeDataset(
    [
      [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
      [0, 0, 0, 0, 0, 0, 0, 0, 0, 10],
    ],
    12,
    [
      [10, 11, 12, 13, 14, 15, 16, 17, 18, 19],
      [20, 20, 20, 20, 20, 20, 20, 20, 20, 30],
    ],
  ),
  { midtrain: 0.5, rerank: 0.2, validation: 0.1, test: 0.2 },
);
const s = dataStatistics(data);

describe("dataStatistics", () => {
  it("counts segments and what is new in them", () => {
    // midtrain: 0..4 and 0×5; rerank: 5, 6 and 0, 0; validation: 7 and 0; test: 8, 9 and 0, 10
    // Rerank slates: known are items 0..4, so 5 and 6 are cold. Later ones: known are 0..6, so 7; 8, 9 and 10 are cold.
    expect(s.segments).toEqual([
      { segment: "midtrain", interactions: 10, users: 2, items: 5, coldItems: 0, coldInteractions: 0 },
      { segment: "rerank", interactions: 4, users: 2, items: 3, coldItems: 2, coldInteractions: 2 },
      { segment: "validation", interactions: 2, users: 2, items: 2, coldItems: 1, coldInteractions: 1 },
      { segment: "test", interactions: 4, users: 2, items: 4, coldItems: 3, coldInteractions: 3 },
    ]);
  });

  it("measures lengths, repeats, ties and time", () => {
    expect(s.lengths).toEqual({
      mean: 10,
      quantiles: [10, 10, 10, 10, 10, 10],
      histogram: [{ from: 9, to: 16, users: 2 }],
    });
    expect(s.repeatShare).toBe(8 / 20); // item 0 of the second user, after the first time
    expect(s.tieShare).toBe(8 / 18);
    expect(s.time).toEqual({ first: 10, last: 30 });
  });

  it("draws popularity", () => {
    // Item 0 has 10 of 20, items 1 to 10 one each, item 11 none; a tenth of 12 items is 2 items: 11 of 20.
    expect(s.popularity.topTenth).toBeCloseTo(11 / 20, 12);
    expect(s.popularity.unused).toBe(1);
    const at = (items: number) => s.popularity.curve.find((p) => Math.abs(p.items - items) < 1e-9)?.interactions;
    expect([at(0), at(1 / 12), at(6 / 12), at(1)].map((v) => Number(v?.toFixed(9)))).toEqual([0, 0.5, 0.75, 1]);
    // Gini of x sorted ascending = 2·Σ k·x_k / (n·Σx) - (n+1)/n, k from 1: Σ k·x_k = 1·0 + (2 + ... + 11)·1
    // + 12·10 = 185.
    expect(s.popularity.gini).toBeCloseTo((2 * 185) / (12 * 20) - 13 / 12, 12);
    const even = dataStatistics(splitByPosition(makeDataset([[0, 1, 2, 3]], 4)));
    expect(even.popularity.gini).toBeCloseTo(0, 12);
  });

  it("is read by gr2 data show", () => {
    const text = renderData({ ...s, dropped: { duplicate: 3 }, notes: ["a note"] });
    for (const part of ["2 users, 12 items, 20 interactions", "duplicate     3", "a note", "3 (75.0 %)", "9-16"])
      expect(text).toContain(part);
    expect(text).toContain("the most popular 10 % of the items have 55.0 % of the interactions");
    expect(renderData({ ...s, time: null })).toContain("no timestamps");
  });
});
