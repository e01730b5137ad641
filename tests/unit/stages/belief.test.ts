/** The target of SFT by belief: how the truth enters. */
import { expect, it } from "vitest";
import { targetDistribution } from "../../../src/prerank/types.ts";
import { mixed } from "../../../src/stages/sft.ts";

const belief = [0.5, 0.3, 0.2];

it("gives a share of the mass to the true item, spreads it over several by label, and leaves a miss unchanged", () => {
  const candidates = [7, 8, 9];
  const of = (targetIndex: number, labels?: number[]): number[] =>
    mixed(belief, targetDistribution({ candidates, targetIndex, ...(labels ? { labels } : {}) }), 0.4);
  expect(of(1)).toEqual([0.6 * 0.5, 0.6 * 0.3 + 0.4, 0.6 * 0.2]);
  // Labels 3 0 1: three quarters and one quarter of the share.
  expect(of(0, [3, 0, 1])).toEqual([0.6 * 0.5 + 0.4 * 0.75, 0.6 * 0.3, 0.6 * 0.2 + 0.4 * 0.25]);
  expect(of(-1)).toEqual(belief);
});
