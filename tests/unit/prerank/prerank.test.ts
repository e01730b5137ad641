import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { checkSlates } from "../../../src/data/leakage.ts";
import { splitByPosition, trainingView } from "../../../src/data/split.ts";
import { defaultItemKnn, fitItemKnn } from "../../../src/prerank/item-knn.ts";
import { countNeighbours } from "../../../src/prerank/neighbours.ts";
import { fitPopularity } from "../../../src/prerank/popularity.ts";
import { buildSlates, slateId } from "../../../src/prerank/slates.ts";
import { selectTop, tieKeys } from "../../../src/prerank/top.ts";
import { buildAllSlates } from "../../build-all-slates.ts";
import { makeDataset, walkers } from "../synthetic.ts";

const everything = { midtrain: 1, rerank: 0, validation: 0, test: 0 };
const makeView = (sequences: number[][], numItems: number) =>
  trainingView(splitByPosition(makeDataset(sequences, numItems), everything), "midtrain");

describe("top-n selection", () => {
  it("equals a full sort, with ties by key and excluded rows left out", () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: 4 }), { minLength: 1, maxLength: 40 }),
        fc.integer({ min: 1, max: 12 }),
        fc.array(fc.nat(39), { maxLength: 10 }),
        (scores, n, excluded) => {
          const ties = tieKeys(scores.length);
          const exclude = new Set(excluded);
          const expected = scores
            .map((_, i) => i)
            .filter((i) => !exclude.has(i))
            .sort((a, b) => (scores[b] ?? 0) - (scores[a] ?? 0) || (ties[a] ?? 0) - (ties[b] ?? 0))
            .slice(0, n);
          expect(selectTop(Float64Array.from(scores), n, exclude, ties).items).toEqual(expected);
        },
      ),
    );
  });

  it("breaks ties by keys that are distinct and carry no order", () => {
    const keys = tieKeys(10_000);
    expect(new Set(keys).size).toBe(10_000);
    let rising = 0;
    for (let i = 1; i < keys.length; i++) if ((keys[i] ?? 0) > (keys[i - 1] ?? 0)) rising++;
    expect(rising / keys.length).toBeGreaterThan(0.47);
    expect(rising / keys.length).toBeLessThan(0.53);
  });
});

describe("neighbours", () => {
  it("count by hand: 0 1 2 and 0 2, window 2, decay .5", () => {
    const n = countNeighbours(
      makeView(
        [
          [0, 1, 2],
          [0, 2],
        ],
        3,
      ),
      2,
      0.5,
    );
    const row = (i: number) =>
      Array.from({ length: (n.starts[i + 1] ?? 0) - (n.starts[i] ?? 0) }, (_, k) => {
        const at = (n.starts[i] ?? 0) + k;
        return [n.columns[at], n.cooccurrence[at], n.transitions[at]];
      });
    expect(Array.from(n.counts)).toEqual([2, 1, 2]);
    expect(row(0)).toEqual([
      [1, 1, 1],
      [2, 1.5, 1],
    ]);
    expect(row(1)).toEqual([
      [0, 1, 0],
      [2, 1, 1],
    ]);
    expect(row(2)).toEqual([
      [0, 1.5, 0],
      [1, 1, 0],
    ]);
  });
});

describe("item-kNN", () => {
  it("scores as its formula says", async () => {
    const options = { ...defaultItemKnn, window: 2, decay: 0.5, shrinkage: 1, alpha: 0.5, transitionWeight: 2 };
    const knn = fitItemKnn(
      makeView(
        [
          [0, 1, 2],
          [0, 2],
        ],
        4,
      ),
      options,
    );
    const [top] = await knn.rankTop([Int32Array.from([1, 0])], 2, "unseen");
    // item 2: from 0 (age 0) 1.5/(√4+1) + 2·1/3; from 1 (age 1) .85·1/(√2+1) + .6·2·1/(√2+1); popularity 1e-6·2/5
    const d = Math.SQRT2 + 1;
    expect(top?.items).toEqual([2, 3]);
    expect(top?.scores[0]).toBeCloseTo(1.5 / 3 + 2 / 3 + 0.85 / d + 1.2 / d + 4e-7, 12);
    expect(top?.scores[1]).toBe(0);
  });

  it("ignores the future: what comes after the view changes nothing", async () => {
    const a = splitByPosition(walkers(40, 60, 20));
    const cut = a.dataset.sequences.map((s, u) => Array.from(s.items.subarray(0, a.splits[u]?.midtrainEnd ?? 0)));
    const full = fitItemKnn(trainingView(a, "midtrain"));
    const alone = fitItemKnn(makeView(cut, 60));
    const history = a.dataset.sequences[0]?.items.subarray(0, 15) ?? new Int32Array();
    expect(await full.rankTop([history], 10, "allow")).toEqual(await alone.rankTop([history], 10, "allow"));
  });

  it("beats popularity where items follow each other", async () => {
    const data = splitByPosition(walkers(200, 150, 30));
    const view = trainingView(data, "midtrain");
    const knn = (await buildSlates(data, "rerank", fitItemKnn(view))).stats.hitRate;
    const popular = (await buildSlates(data, "rerank", fitPopularity(view))).stats.hitRate;
    expect(knn).toBeGreaterThan(0.5);
    expect(popular).toBeLessThan(0.25);
  });
});

const data = splitByPosition(walkers(60, 80, 30));
const built = await buildAllSlates(data, (view) => fitItemKnn(view));

describe("slates", () => {
  it("pass the leakage checks, are unique across segments and cover every position", () => {
    const all = Object.values(built.slates).flat();
    checkSlates(data, all, { repeats: "unseen" });
    // 30 interactions a user: boundaries 18, 22.5 → 23, 25.5 → 26
    expect(Object.values(built.stats).map((s) => s.slates)).toEqual([60 * 5, 60 * 3, 60 * 4]);
    for (const s of all) {
      expect(s.candidates).toHaveLength(10);
      expect(s.scores.every((v, k) => k === 0 || v <= (s.scores[k - 1] ?? 0))).toBe(true);
    }
  });

  it("are the same every time, with opaque ids", async () => {
    const again = await buildAllSlates(data, (view) => fitItemKnn(view));
    expect(again).toEqual(built);
    const first = built.slates.test[0];
    expect(first?.id).toBe(slateId(data.dataset.hash, first?.user ?? -1, first?.position ?? -1));
    expect(first?.id).toMatch(/^[0-9a-f]{20}$/);
  });

  it("count hits as their statistics say", () => {
    const { slates, stats } = { slates: built.slates.test, stats: built.stats.test };
    const hits = slates.filter((s) => s.candidates.includes(s.target));
    expect(stats.conditional).toBe(hits.length);
    expect(stats.hitRate).toBeCloseTo(hits.length / slates.length, 12);
    expect(stats.mrr).toBeCloseTo(
      hits.reduce((sum, s) => sum + 1 / (s.candidates.indexOf(s.target) + 1), 0) / slates.length,
      12,
    );
  });

  it("skip answers that the user has seen, unless repeats are allowed", async () => {
    const repeating = splitByPosition(makeDataset([[0, 1, 2, 3, 0, 5]], 30), {
      ...everything,
      midtrain: 0.5,
      rerank: 0.5,
    });
    const ranker = fitPopularity(trainingView(repeating, "midtrain"));
    const unseen = await buildSlates(repeating, "rerank", ranker);
    expect(unseen.stats).toMatchObject({ slates: 2, skipped: { repeat: 1 } });
    const all = await buildSlates(repeating, "rerank", ranker, { size: 10, repeats: "allow", minHistory: 1 });
    expect(all.stats.slates).toBe(3);
    expect(all.slates[1]?.targetIndex).toBeGreaterThanOrEqual(0);
  });
});
