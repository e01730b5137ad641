import { describe, expect, it } from "vitest";
import { checkLoggedSlates, checkTrainingView } from "../../../src/data/leakage.ts";
import { globalTime, splitByPosition, trainingView } from "../../../src/data/split.ts";
import type { Dataset, Impressions, SplitDataset } from "../../../src/data/types.ts";
import { loggedSlates } from "../../../src/prerank/logged.ts";
import { type Slate, slateLabels, targetDistribution } from "../../../src/prerank/types.ts";
import { makeDataset } from "../synthetic.ts";

type Logged = readonly [user: number, time: number, items: readonly number[], labels: readonly number[]];

function makeLog(slates: readonly Logged[]): Impressions {
  const starts = [0];
  for (const [, , items] of slates) starts.push((starts.at(-1) ?? 0) + items.length);
  return {
    users: Int32Array.from(slates, ([user]) => user),
    times: Float64Array.from(slates, ([, time]) => time),
    starts: Int32Array.from(starts),
    items: Int32Array.from(slates.flatMap(([, , items]) => items)),
    scores: Float64Array.from(slates.flatMap(([, , items]) => items.map((_, k) => -1 - k))),
    labels: Float64Array.from(slates.flatMap(([, , , labels]) => labels)),
  };
}
const withLog = (dataset: Dataset, slates: readonly Logged[]): Dataset => ({
  ...dataset,
  impressions: makeLog(slates),
});

/**
 * User 0 did items 0..9 at times 0, 10, .. 90; by position:
 * midtrain [0, 6), rerank [6, 8), validation [8, 9), test [9, 10).
 */
const ten = Array.from({ length: 10 }, (_, k) => k);
const sequences = makeDataset([ten], 20, [ten.map((k) => 10 * k)]);
const shares = { midtrain: 0.6, rerank: 0.2, validation: 0.1, test: 0.1 };

describe("logged slates", () => {
  const data = splitByPosition(
    withLog(sequences, [
      [0, 0, [0, 11], [1, 0]], // nothing before it
      [0, 30, [3, 11], [1, 0]], // history of 3: midtrain
      [0, 60, [11, 6, 12], [0, 1, 0]], // history of 6: rerank
      [0, 75, [13, 14, 8, 15, 16], [0, 2, 0, 2, 1]], // history 0..7 (time 70 < 75): validation
      [0, 95, [1, 2], [1, 0]], // everything before it: test
    ]),
    shares,
  );

  it("take segment and history from the time they were shown at", () => {
    const { slates, skipped } = loggedSlates(data, 64);
    expect(slates.rerank.map((s) => [s.position, s.time, s.candidates])).toEqual([[6, 60, [11, 6, 12]]]);
    expect(slates.validation.map((s) => s.position)).toEqual([8]);
    expect(slates.test.map((s) => s.position)).toEqual([10]);
    expect(skipped).toEqual({ midtrain: 2, noHistory: 0, straddling: 0, cutCandidates: 0, nothingToOrder: 0 });
    const all = Object.values(slates).flat();
    expect(new Set(all.map((s) => s.id)).size).toBe(3);
    checkLoggedSlates(data, all);
  });

  it("point to the best label that comes first", () => {
    const [slate] = loggedSlates(data, 64).slates.validation;
    expect(slate).toMatchObject({ targetIndex: 1, target: 14, labels: [0, 2, 0, 2, 1], scores: [-1, -2, -3, -4, -5] });
    expect(targetDistribution(slate as Slate)).toEqual([0, 2 / 5, 0, 2 / 5, 1 / 5]);
    expect(slateLabels({ candidates: [4, 5, 6], targetIndex: 2 })).toEqual([0, 0, 1]);
    expect(targetDistribution({ candidates: [4, 5], targetIndex: -1 })).toEqual([0, 0]);
  });

  it("are cut from the end of the incumbent's order, and left out when nothing is left to order", () => {
    const { slates, skipped } = loggedSlates(data, 3);
    expect(slates.validation.map((s) => s.candidates)).toEqual([[13, 14, 8]]);
    expect(skipped.cutCandidates).toBe(2);
    const one = loggedSlates(data, 1);
    expect(Object.values(one.slates).flat()).toEqual([]);
    expect(one.skipped.nothingToOrder).toBe(3);
  });

  it("are left out when the choices are on both sides of a segment's end", () => {
    // Four items at time 70, the last two behind the end of rerank.
    const times = [0, 10, 20, 30, 40, 50, 70, 70, 70, 70];
    const d = withLog(makeDataset([ten], 20, [times]), [[0, 70, [6, 7, 8, 9, 15], [1, 1, 1, 1, 0]]]);
    const position = splitByPosition(d, shares);
    expect(loggedSlates(position, 64).skipped.straddling).toBe(1);
    // A cut in time never runs through them: 60 % of ten interactions come before 70.
    const time = globalTime(d, shares);
    expect(time.cuts?.[0]).toBe(70);
    expect(Object.values(loggedSlates(time, 64).slates).flat()).toHaveLength(1);
  });

  it("with a global-time split belong to the segment of their time, for all users alike", () => {
    // User 1 stopped at 45, before rerank begins; a slate of theirs at 75 is still of the later segment.
    const d = withLog(makeDataset([ten, [0, 1]], 20, [ten.map((k) => 10 * k), [5, 45]]), [
      [0, 75, [8, 15], [1, 0]],
      [1, 75, [8, 15], [1, 0]],
      [1, 20, [3, 15], [1, 0]],
    ]);
    // 12 interactions: boundaries round(7.2) = 7, round(9.6) = 10, round(10.8) = 11, at times 50, 80 and 90.
    const data = globalTime(d, shares);
    expect(data.cuts).toEqual([50, 80, 90]);
    const { slates, skipped } = loggedSlates(data, 64);
    expect(slates.rerank.map((s) => [s.user, s.position])).toEqual([
      [0, 8],
      [1, 2],
    ]);
    expect(skipped.midtrain).toBe(1);
    checkLoggedSlates(data, slates.rerank);
  });

  it("never show a training view of an earlier stage what was chosen", () => {
    const { slates } = loggedSlates(data, 64);
    for (const [segment, through] of [
      ["rerank", "midtrain"],
      ["validation", "rerank"],
      ["test", "rerank"],
    ] as const) {
      const view = trainingView(data, through);
      checkTrainingView(data, view, through, "anybody");
      for (const s of slates[segment]) expect(view.sequences[s.user]?.length).toBeLessThanOrEqual(s.position);
    }
  });
});

describe("the leakage check of logged slates", () => {
  const data: SplitDataset = splitByPosition(withLog(sequences, [[0, 60, [11, 6, 12], [0, 1, 0]]]), shares);
  const [good] = loggedSlates(data, 64).slates.rerank as [Slate];
  it.each([
    ["the history contains interactions from 60 on", { position: 7 }],
    ["the history lacks interactions", { position: 5 }],
    ["outside validation", { segment: "validation" as const }],
    ["a logged slate needs a time", { time: undefined }],
    ["labels and candidates differ", { labels: [0, 1] }],
    ["targetIndex is not the first candidate with the best label", { labels: [1, 1, 0] }],
    ["target is not the item at targetIndex", { target: 12 }],
    ["a candidate appears twice", { candidates: [11, 6, 11] }],
    ["id is not an opaque hash", { id: "request 17" }],
  ])("stops at: %s", (reason, change) => {
    checkLoggedSlates(data, [good]);
    expect(() => checkLoggedSlates(data, [{ ...good, ...change } as Slate])).toThrow(new RegExp(reason));
    expect(() => checkLoggedSlates(data, [good, good])).toThrow(/id used twice/);
  });

  it("stops at a slate that teaches what a later segment asks", () => {
    const times = [0, 10, 20, 30, 40, 50, 60, 70, 70, 90];
    const later = splitByPosition(makeDataset([ten], 20, [times]), shares);
    const slate = { ...good, time: 70, position: 7 };
    expect(() => checkLoggedSlates(later, [slate])).toThrow(/belong to a segment after rerank/);
  });
});
