/** The head of a slate, and how its order becomes one of the whole slate. */
import { describe, expect, it } from "vitest";
import { cutToHead, partCandidates, wholeOrder } from "../../../src/prerank/heads.ts";
import type { Slate } from "../../../src/prerank/types.ts";

const slate: Slate = {
  ...{ id: "s", user: 0, position: 3, segment: "test", target: 12, targetIndex: 2 },
  candidates: [10, 11, 12, 13, 14],
  scores: [5, 4, 3, 2, 1],
  experts: { a: [1, null, 3, null, 5] },
};
const evidence = [0.1, 0.9, 0.5, 0.9, 0.3];

describe("a head", () => {
  it("is the best by the evidence, in the order of the slate; the others follow best first", () => {
    // Best first 1 and 3 (equal), 2, 4, 0.
    expect(partCandidates(5, 3, evidence)).toEqual({ head: [1, 2, 3], tail: [4, 0] });
    expect(partCandidates(5, 2, evidence)).toEqual({ head: [1, 3], tail: [2, 4, 0] });
    expect(partCandidates(5, 2)).toEqual({ head: [0, 1], tail: [2, 3, 4] });
  });

  it.each([0, 5, 6])("is the whole slate where %i are asked for", (most) => {
    const part = partCandidates(5, most, evidence);
    expect(part).toEqual({ head: [0, 1, 2, 3, 4], tail: [] });
    expect(cutToHead(slate, part)).toBe(slate);
  });

  it("is a separate slate, whose true item may be missing", () => {
    expect(cutToHead(slate, partCandidates(5, 3, evidence))).toEqual({
      ...slate,
      candidates: [11, 12, 13],
      scores: [4, 3, 2],
      targetIndex: 1,
      experts: { a: [null, 3, null] },
    });
    expect(cutToHead(slate, partCandidates(5, 2, evidence))).toMatchObject({ candidates: [11, 13], targetIndex: -1 });
  });

  it("of a logged slate has the highest label that is left as its target", () => {
    const logged = { ...slate, labels: [0, 1, 2, 1, 0] };
    expect(cutToHead(logged, partCandidates(5, 2, evidence))).toMatchObject({
      labels: [1, 1],
      targetIndex: 0,
      target: 11,
    });
  });

  it("ordered by a model comes before what the model has not seen", () => {
    // The model puts 3, then 1, then 2.
    expect(wholeOrder(partCandidates(5, 3, evidence), [2, 0, 1])).toEqual([3, 1, 2, 4, 0]);
  });
});
