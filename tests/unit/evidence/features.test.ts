import { describe, expect, it } from "vitest";
import { familyNames } from "../../../src/config/schema/evidence.ts";
import { itemId } from "../../../src/core/ids.ts";
import { leaveOneOut, trainingView } from "../../../src/data/split.ts";
import type { Item } from "../../../src/data/types.ts";
import type { FamilyName, FeatureInput } from "../../../src/evidence/families/family.ts";
import { Features } from "../../../src/evidence/features.ts";
import { itemTable, overlap } from "../../../src/evidence/items.ts";
import { Statistics } from "../../../src/evidence/statistics.ts";
import { makeDataset } from "../synthetic.ts";

const item = (k: number, title: string, brand: string, categories: readonly string[]): Item => ({
  id: itemId(`item-${k}`),
  title,
  brand,
  categories,
  description: "",
});
/** Five items; the last says nothing of itself. */
const items = [
  item(0, "red shampoo (1990)", "Acme", ["Hair", "Care"]),
  item(1, "red conditioner (1994)", "acme", ["Hair"]),
  item(2, "blue lipstick (2010)", "Bolt", ["Lips"]),
  item(3, "red lipstick", "Bolt", ["Lips", "Care"]),
  item(4, "", "", []),
];
const day = 86_400;
const data = leaveOneOut({
  ...makeDataset(
    [
      [0, 1, 3, 2, 4],
      [0, 1, 2, 3, 4],
      [1, 0, 3, 2, 4],
    ],
    5,
    [
      [0, 1, 2, 3, 4].map((d) => d * day),
      [0, 10, 20, 30, 40].map((d) => d * day),
      [0, 50, 99, 100, 101].map((d) => d * day),
    ],
  ),
  items,
});
// Through mid-training: [0 1], [0 1], [1 0].
const view = trainingView(data, "midtrain");
const statistics = new Statistics(view, true);
const embeddings = {
  rows: 5,
  cols: 2,
  data: Float32Array.from([1, 0, 0.6, 0.8, -1, 0, 0, -1, 0.3, 0.3]),
};
const input: FeatureInput = {
  history: Int32Array.from([1, 0]),
  now: 50 * day,
  candidates: [3, 2, 4],
  scores: [3, 1, 2],
  experts: { knn: [0.5, 0.9, null], own: [null, null, null] },
};

function findRows(features: Features, q: FeatureInput): (name: string) => number[] {
  const out = features.of(q);
  return (name) => {
    const f = features.names.indexOf(name);
    expect(f, name).toBeGreaterThanOrEqual(0);
    return q.candidates.map((_, i) => out[i * features.count + f] as number);
  };
}
const close = (actual: readonly number[], expected: readonly number[]): void => {
  expect(actual).toHaveLength(expected.length);
  expected.forEach((e, i) => {
    if (Number.isNaN(e)) expect(actual[i]).toBeNaN();
    else expect(actual[i]).toBeCloseTo(e, 5);
  });
};

describe("features", () => {
  const all = findRows(new Features(itemTable(items, embeddings), statistics, familyNames, ["knn", "own"]), input);

  it("say where every pre-ranker put a candidate, and how sure it was", () => {
    close(all("log position"), [0, Math.log(2), Math.log(3)]);
    // Mean 2, deviation √(2/3).
    close(all("pre-rank score in slate"), [Math.sqrt(1.5), -Math.sqrt(1.5), 0]);
    close(all("knn log position"), [Math.log(2), 0, Number.NaN]);
    close(all("knn score"), [0.5, 0.9, Number.NaN]);
    close(all("knn score in slate"), [-1, 1, Number.NaN]);
    close(all("own score"), [Number.NaN, Number.NaN, Number.NaN]);
  });

  it("count what others did", () => {
    // Nobody in the view has 2, 3 or 4: asked of 0 and 1 instead, with 0 or 1 as the history.
    const ask = (history: readonly number[], candidates: readonly number[]) =>
      findRows(new Features(itemTable(items), statistics, ["collaborative"]), {
        ...{ history: Int32Array.from(history), now: 0, candidates, scores: candidates.map(() => 0) },
      });
    const after0 = ask([0], [1, 4]);
    close(after0("log popularity"), [Math.log(4), 0]);
    close(after0("popularity against history's"), [0, Math.log(4)]);
    close(after0("history length"), [Math.log(2), Math.log(2)]);
    // 0 and 1 are neighbours three times: 3 / (√(3 · 3) + 10); columns of co-occurrence are square roots.
    close(after0("co-occurrence with last 1"), [Math.sqrt(3 / 13), 0]);
    close(after0("co-occurrence with last 20"), [Math.sqrt(3 / 13), 0]);
    close(after0("strongest co-occurrence of last 20"), [Math.sqrt(3 / 13), 0]);
    close(after0("history items that co-occur"), [1, 0]);
    close(after0("share of last's co-occurrence"), [3 / 4, 0]);
    // 1 follows 0 twice, 0 follows 1 once.
    close(after0("transitions from last"), [Math.log(3), 0]);
    close(after0("transitions to last"), [Math.log(2), 0]);
    // One step back the weight is .7, and it is no longer the last.
    const earlier = ask([0, 4], [1, 2]);
    close(earlier("co-occurrence with last 1"), [0, 0]);
    close(earlier("co-occurrence with last 3"), [Math.sqrt(3 / 13), 0]);
    close(earlier("transitions from last"), [0, 0]);
    close(earlier("transitions from last 3"), [Math.log(3), 0]);
    close(earlier("transitions from last 20"), [Math.log1p(0.7 * 2), 0]);
    close(ask([], [0, 1])("history length"), [0, 0]);
  });

  it("compare brands, categories and years", () => {
    // History 1, 0: both of Acme (in any spelling), so nothing of Bolt; 4 has no brand.
    close(all("brand of last"), [0, 0, Number.NaN]);
    close(all("share of brand in last 20"), [0, 0, Number.NaN]);
    const table = itemTable(items);
    const own = findRows(new Features(table, statistics, ["metadata"]), { ...input, candidates: [0, 1, 2] });
    close(own("brand of last"), [1, 1, 0]);
    close(own("share of brand, recent first"), [1, 1, 0]);
    // idf of a category that two of five items have: ln(1 + 5/2), for all three here.
    expect(overlap(table.categories, 0, 3)).toBeCloseTo(1 / 3, 6);
    expect(overlap(table.categories, 0, 1)).toBeCloseTo(1 / 2, 6);
    expect(overlap(table.categories, 0, 4)).toBe(0);
    close(all("category overlap with last 1"), [1 / 3, 0, Number.NaN]);
    close(all("category overlap with last 3"), [1 / 3, 0, Number.NaN]);
    close(all("best category overlap of last 20"), [1 / 3, 0, Number.NaN]);
    // Of 3's two categories, Care is in one of the two history items.
    close(all("share of categories in last 20"), [1 / 4, 0, Number.NaN]);
    // Years 1990 and 1994: mean 1992, spread 2.
    close(all("year closeness"), [Number.NaN, -18 / 5, Number.NaN]);
  });

  it("compare words of titles", () => {
    // "red" is in three titles, "lipstick" in two; all else is said once and left out.
    // Each title is then one or two words.
    const [red, lipstick] = [Math.log(1 + 5 / 3), Math.log(1 + 5 / 2)];
    const cosine = red / Math.hypot(red, lipstick);
    close(all("title like last"), [cosine, 0, Number.NaN]);
    close(all("title like last 3"), [cosine, 0, Number.NaN]);
    close(all("title like last 20"), [cosine, 0, Number.NaN]);
    close(all("title like best of last 10"), [cosine, 0, Number.NaN]);
  });

  it("compare embeddings, centred", () => {
    // Two dimensions are kept as they are, up to a rotation, so cosines are those of the centred vectors.
    const mean = [0, 1].map((d) => items.reduce((s, _, i) => s + (embeddings.data[2 * i + d] as number) / 5, 0));
    const unit = (i: number): number[] => {
      const v = [0, 1].map((d) => (embeddings.data[2 * i + d] as number) - (mean[d] as number));
      const norm = Math.hypot(...v);
      return v.map((x) => x / norm);
    };
    const dot = (a: readonly number[], b: readonly number[]): number =>
      a.reduce((s, x, d) => s + x * (b[d] as number), 0);
    const sum = [0, 1].map((d) => (unit(0)[d] as number) + (unit(1)[d] as number));
    close(all("embedding like last"), [dot(unit(0), unit(3)), dot(unit(0), unit(2)), Number.NaN]);
    const mixed = (i: number): number => dot(sum, unit(i)) / Math.hypot(...sum);
    close(all("embedding like last 20"), [mixed(3), mixed(2), Number.NaN]);
    const best = (i: number): number => Math.max(dot(unit(0), unit(i)), dot(unit(1), unit(i)));
    close(all("embedding like best of last 10"), [best(3), best(2), Number.NaN]);
  });

  it("look at the clock", () => {
    // The view spans 50 days, so 2.5 are recent. Item 0 was chosen on days 0, 0 and 50, item 1 on days 1, 10 and 0.
    const timed = findRows(new Features(itemTable(items), statistics, ["time"]), {
      ...{ history: Int32Array.from([2]), now: 11 * day, candidates: [0, 1, 2], scores: [0, 0, 0] },
    });
    close(timed("recent popularity"), [0, Math.log(2), 0]);
    close(timed("age"), [Math.log(23), Math.log(23), Number.NaN]);
    close(timed("time since last chosen"), [Math.log(23), Math.log(3), Number.NaN]);
    // (1 + recent) / (1 + before · 2.5 / 11)
    close(timed("popularity trend"), [-Math.log(1 + 5 / 11), Math.log(2 / (1 + 7.5 / 11)), Number.NaN]);
  });

  it("do without what the data lacks", () => {
    const bare = items.map((it) => ({ ...it, title: "", brand: "", categories: [] }));
    const none = new Features(itemTable(bare), new Statistics(view, false), familyNames);
    expect(new Set(none.families)).toEqual(new Set<FamilyName>(["collaborative"]));
    const titles = items.map((it) => ({ ...it, brand: "", categories: [] }));
    expect(new Features(itemTable(titles), new Statistics(view, false), ["metadata"]).names).toEqual([
      "year closeness",
    ]);
    const out = none.of({ ...input, history: new Int32Array() });
    expect(out.every(Number.isFinite)).toBe(true);
  });

  it("do not depend on what was asked before", () => {
    const features = new Features(itemTable(items, embeddings), statistics, familyNames, ["knn", "own"]);
    const first = features.of(input);
    features.of({ ...input, history: Int32Array.from([2, 3, 4]), candidates: [0, 1], scores: [1, 0], experts: {} });
    expect(features.of(input)).toEqual(first);
  });
});
