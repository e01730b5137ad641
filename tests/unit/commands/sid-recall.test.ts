import { describe, expect, it } from "vitest";
import { creditTarget } from "../../../src/commands/sid-recall.ts";
import { Catalogue } from "../../../src/sid/catalogue.ts";
import { distinctIds, seenIds } from "../../../src/sid/distinct.ts";

// Items 0, 2 and 3 share one ID; 1 and 4 have their own. Distinct IDs in order of their first item: {0,2,3}, {1}, {4}.
const ids = distinctIds(
  Catalogue.of(
    [
      [0, 0],
      [0, 1],
      [0, 0],
      [0, 0],
      [1, 0],
    ],
    { levels: 2, codes: 2, format: "bare" },
  ),
);
const nothing: ReadonlySet<number> = new Set();

describe("IDs that collide", () => {
  it("are searched once", () => {
    expect(ids.items).toEqual([[0, 2, 3], [1], [4]]);
    expect(Array.from(ids.idByRow)).toEqual([0, 1, 0, 0, 2]);
  });

  it("divide a hit among the items that share the ID", () => {
    // Found second: R@10 = 1 / 3, N@10 = (1 / log2(3)) / 3.
    const credit = creditTarget(ids, [1, 0, 2], 2, nothing);
    expect(credit.recall).toBeCloseTo(1 / 3, 12);
    expect(credit.ndcg).toBeCloseTo(1 / Math.log2(3) / 3, 12);
    expect(creditTarget(ids, [0, 1, 2], 1, nothing)).toEqual({ recall: 1, ndcg: 1 / Math.log2(3) });
  });

  it("divide it among those the user has not seen", () => {
    // Of 0, 2, 3 the user has seen 3: a draw of 0 or 2 remains.
    expect(creditTarget(ids, [0], 2, new Set([3]))).toEqual({ recall: 1 / 2, ndcg: 1 / 2 });
    expect(creditTarget(ids, [0], 2, new Set([0, 3]))).toEqual({ recall: 1, ndcg: 1 });
  });

  it("earn nothing when missed, or after the tenth position", () => {
    expect(creditTarget(ids, [1, 2], 0, nothing)).toEqual({ recall: 0, ndcg: 0 });
    const late = [...Array.from({ length: 10 }, () => 9), 0];
    expect(creditTarget(ids, late, 0, nothing)).toEqual({ recall: 0, ndcg: 0 });
    expect(creditTarget(ids, late.slice(1), 0, nothing).recall).toBeCloseTo(1 / 3, 12);
  });

  it("are left out of the search only when every item that has them is seen", () => {
    expect(Array.from(seenIds(ids, new Set([0, 2])))).toEqual([]);
    expect(Array.from(seenIds(ids, new Set([0, 2, 3, 4])))).toEqual([0, 2]);
    expect(Array.from(seenIds(ids, nothing))).toEqual([]);
  });
});
