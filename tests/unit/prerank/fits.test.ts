/** Who is fitted on what: by segment, with refit, and over users; and that a fit which knows an answer is refused. */
import { describe, expect, it } from "vitest";
import { leaveOneOut } from "../../../src/data/split.ts";
import { checkFit, planFits } from "../../../src/prerank/fits.ts";
import { walkers } from "../synthetic.ts";

const data = leaveOneOut(walkers(40, 25, 10)); // 7 midtrain, then one each
const lengths = (view: { sequences: readonly Int32Array[] }): number[] => view.sequences.map((s) => s.length);
const by = (folds: number, refit: boolean, midtrain = false) => planFits(data, { folds, refit, seed: 5, midtrain });

describe("fits by segment", () => {
  it("know all users up to what they are asked for", () => {
    const plans = by(0, false);
    expect(plans.map((p) => [p.name, p.segments])).toEqual([
      ["rerank", ["validation", "test"]],
      ["midtrain", ["rerank"]],
    ]);
    expect(plans.map((p) => lengths(p.view))).toEqual([Array(40).fill(8), Array(40).fill(7)]);
  });

  it("learn from validation too for test slates, once every choice is made", () => {
    const plans = by(0, true);
    expect(plans.map((p) => [p.name, p.segments, lengths(p.view)[0]])).toEqual([
      ["rerank", ["validation"], 8],
      ["midtrain", ["rerank"], 7],
      ["validation", ["test"], 9],
    ]);
  });
});

describe("fits over users", () => {
  it.each([false, true])("know nothing of the users they are asked about (refit %s)", (refit) => {
    const plans = by(3, refit, true);
    expect(plans.map((p) => p.name)).toEqual(["fold-0", "fold-1", "fold-2"]);
    const folds = data.splits.map((_, user) => plans.filter((p) => p.asks(user)).length);
    expect(folds).toEqual(Array(40).fill(1)); // everybody is asked about once
    for (const p of plans) {
      expect(p.segments).toEqual(["midtrain", "validation", "rerank", "test"]);
      data.splits.forEach((_, user) => {
        expect(p.view.sequences[user]?.length).toBe(p.asks(user) ? 0 : refit ? 9 : 8);
      });
    }
  });

  it("do not depend on how users are numbered", () => {
    const reversed = leaveOneOut({ ...data.dataset, sequences: [...data.dataset.sequences].reverse() });
    const mirrored = planFits(reversed, { folds: 3, refit: false, seed: 5, midtrain: false });
    by(3, false).forEach((p, k) => {
      expect(data.splits.map((_, user) => p.asks(user))).toEqual(
        data.splits.map((_, user) => mirrored[k]?.asks(39 - user)),
      );
    });
  });
});

describe("a fit that knows an answer", () => {
  const [late, early] = by(0, false);
  const [refitted] = by(0, true).slice(-1);
  const [fold] = by(3, false);
  if (!late || !early || !refitted || !fold) throw new Error("plans are missing");

  it.each([
    [
      "re-rank slates from a fit through re-rank",
      { ...early, view: late.view },
      false,
      /rerank slates sees .* past midtrain/,
    ],
    ["test slates from a fit through validation, without refit", refitted, false, /test slates sees .* past rerank/],
    [
      "validation slates from a refitted fit",
      { ...refitted, segments: ["validation" as const] },
      true,
      /validation slates sees/,
    ],
    ["a fold whose view holds its own users", { ...fold, view: late.view }, false, /slates of its own users sees/],
  ])("is refused: %s", (_, plan, refit, message) => {
    expect(() => checkFit(data, plan, refit)).toThrow(message);
  });
});
