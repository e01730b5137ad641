import { describe, expect, it } from "vitest";
import { checkHeldOut } from "../../../src/data/leakage.ts";
import { globalTime, leaveOneOut, segmentRange, splitByPosition, trainingView } from "../../../src/data/split.ts";
import { type SplitDataset, segments } from "../../../src/data/types.ts";
import { assignUserFold, planViews } from "../../../src/evidence/views.ts";
import { walkers } from "../synthetic.ts";

const dataset = walkers(40, 60, 20);
const shares = { midtrain: 0.6, rerank: 0.15, validation: 0.1, test: 0.15 };
const kinds: readonly (readonly [string, SplitDataset])[] = [
  ["position", splitByPosition(dataset)],
  ["leave-one-out", leaveOneOut(dataset)],
  ["global time", globalTime(dataset, shares)],
];

describe("whose sequences the evidence rests on", () => {
  it.each(kinds.flatMap(([name, data]) => [false, true].map((refit) => [name, refit, data] as const)))(
    "%s, refit %s: never the slate's answer, and every slate has one view",
    (_name, refit, data) => {
      const o = { folds: 4, refit, seed: 3 };
      const plans = planViews(data, o);
      data.splits.forEach((split, user) => {
        for (const segment of segments) {
          const own = plans.filter(
            (p) => p.segments.includes(segment) && (p.fold === undefined || p.fold === assignUserFold(data, user, o)),
          );
          expect(own).toHaveLength(1);
          const seen = own[0]?.view.sequences[user]?.length ?? 0;
          expect(seen).toBeLessThanOrEqual(segmentRange(split, segment)[0]);
          if (segment === "midtrain" || segment === "rerank") expect(seen).toBe(0);
        }
      });
      expect(plans.at(-1)?.segments).toContain("test");
      expect(plans.at(-1)?.view.through).toBe(refit ? "validation" : "rerank");
    },
  );

  it("with global time nothing from after a slate's segment begins is known", () => {
    const data = globalTime(dataset, shares);
    const [rerank, validation, test] = data.cuts as readonly [number, number, number];
    for (const refit of [false, true])
      for (const { view, segments: of } of planViews(data, { folds: 4, refit, seed: 0 })) {
        const latest = Math.max(...view.times.flatMap((times) => Array.from(times)));
        if (of.includes("rerank")) expect(latest).toBeLessThan(rerank);
        if (of.includes("validation")) expect(latest).toBeLessThan(validation);
        if (of.includes("test")) expect(latest).toBeLessThan(test);
      }
  });

  it("a view that holds users it judges is found out", () => {
    const data = leaveOneOut(dataset);
    expect(() => checkHeldOut(trainingView(data, "rerank"), (user) => user === 7, "the evidence")).toThrow(
      /the evidence sees users whose slates it judges.*user row 7: 18/,
    );
    expect(() =>
      checkHeldOut(
        trainingView(data, "rerank", (user) => user !== 7),
        (user) => user === 7,
        "it",
      ),
    ).not.toThrow();
  });
});
