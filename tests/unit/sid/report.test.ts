import { describe, expect, it } from "vitest";
import { Catalogue } from "../../../src/sid/catalogue.ts";
import { sidReport } from "../../../src/sid/report.ts";

const catalogue = Catalogue.of(
  [
    [0, 0, 0],
    [0, 0, 0],
    [0, 0, 1],
    [1, 0, 2],
    [1, 1, 0],
    [1, 1, 0],
  ],
  { levels: 3, codes: 4, format: "bare" },
);
const titles = ["soap", "soap (again)", "foam", "brush", "comb", "comb set"];

describe("sidReport", () => {
  const report = sidReport({
    catalogue,
    titles,
    labels: ["bath", "bath", "hair", "hair", "hair", ""],
    neighbours: [[1], [0], [0, 3], [], [5], [4]],
  });

  it("counts IDs that are shared: 2 of 6 items are alone", () => {
    expect(report).toMatchObject({ numItems: 6, levels: 3, codes: 4, capacity: 64 });
    expect(report.uniqueness).toBeCloseTo(2 / 6);
    expect(report.numCollidingItems).toBe(4);
    expect(report.numCollisions).toBe(2);
    expect(report.collisions).toEqual([
      { codes: [0, 0, 0], rows: [0, 1], titles: ["soap", "soap (again)"] },
      { codes: [1, 1, 0], rows: [4, 5], titles: ["comb", "comb set"] },
    ]);
  });

  it("measures usage by level", () => {
    // Level 0: three items each on codes 0 and 1, so perplexity 2. Level 1: 4 and 2 of 6.
    expect(report.perLevel[0]).toMatchObject({ level: 0, numUsed: 2, usage: 0.5, mostUsed: { code: 0, numItems: 3 } });
    expect(report.perLevel[0]?.perplexity).toBeCloseTo(2);
    const entropy = -(4 / 6) * Math.log(4 / 6) - (2 / 6) * Math.log(2 / 6);
    expect(report.perLevel[1]?.perplexity).toBeCloseTo(Math.exp(entropy));
    expect(report.perLevel[2]).toMatchObject({ numUsed: 3, mostUsed: { code: 0, numItems: 4 } });
    expect(report.largestBucket).toEqual({ prefix: [0, 0], numItems: 3 });
  });

  it("measures what prefixes mean", () => {
    // Depth 1: prefix 0 = bath, bath, hair; prefix 1 = hair, hair (the unlabelled item is left out).
    // purity (2 + 2) / 5; agreeing ordered pairs 2 + 2 of 6 + 2. Chance: bath 2, hair 3 of 5: (2 + 6) / 20.
    expect(report.prefixPurity).toHaveLength(2);
    expect(report.prefixPurity[0]).toMatchObject({ depth: 1, numPrefixes: 2, numShared: 5 });
    expect(report.prefixPurity[0]?.purity).toBeCloseTo(4 / 5);
    expect(report.prefixPurity[0]?.agreement).toBeCloseTo(4 / 8);
    expect(report.prefixPurity[0]?.chance).toBeCloseTo(8 / 20);
    // Depth 2: prefix 0,0 as before; 1,0 and 1,1 hold one labelled item each.
    expect(report.prefixPurity[1]).toMatchObject({ depth: 2, numPrefixes: 3, numShared: 3 });
  });

  it("measures whether neighbours share prefixes", () => {
    // Pairs: 0-1, 1-0, 2-0, 2-3, 4-5, 5-4. Depth 1 and 2: all but 2-3. Depth 3: not 2-0 either.
    expect(report.neighbourSharing.map((n) => n.shared)).toEqual([5 / 6, 5 / 6, 4 / 6]);
    // Chance at depth 1: two groups of three, 12 of 30 ordered pairs.
    expect(report.neighbourSharing[0]?.chance).toBeCloseTo(12 / 30);
    expect(report.neighbourSharing[2]?.chance).toBeCloseTo(4 / 30);
  });

  it("leaves out what it was not given, bounds the list, and holds only numbers JSON knows", () => {
    const plain = sidReport({ catalogue, titles, maxCollisions: 1 });
    expect(plain.collisions).toHaveLength(1);
    expect(plain.numCollisions).toBe(2);
    expect(plain.prefixPurity).toEqual([]);
    expect(plain.neighbourSharing).toEqual([]);
    const empty = sidReport({ catalogue: Catalogue.of([], catalogue.shape), titles: [], labels: [], neighbours: [] });
    expect(JSON.parse(JSON.stringify(empty))).toEqual(empty);
    expect(empty.largestBucket).toEqual({ prefix: [], numItems: 0 });
  });

  it("refuses lists that do not fit the items", () => {
    expect(() => sidReport({ catalogue, titles: ["soap"] })).toThrow("titles has 1 entries for 6 items");
    expect(() => sidReport({ catalogue, titles, labels: [] })).toThrow("labels");
    expect(() => sidReport({ catalogue, titles, neighbours: [[9], [], [], [], [], []] })).toThrow("row 9");
  });
});
