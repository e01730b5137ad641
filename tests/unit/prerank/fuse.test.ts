/** Fusing planted experts: what the weights find out of sample, and what a pool and its scores are, by hand. */
import { describe, expect, it } from "vitest";
import { Rng } from "../../../src/core/rng.ts";
import { aloneAs, buildPool, type ExpertScale, fitFusion, fuse, poolFeatures } from "../../../src/prerank/fuse.ts";
import type { Ranked } from "../../../src/prerank/types.ts";

const log = { name: "counts", scale: "log", floor: 0.5 } as const;
const plain = { name: "model", scale: "none" } as const;

describe("a pool", () => {
  // counts: item 7 four times, item 3 below its floor (a filler); model: item 5, then item 7.
  const lists: Ranked[] = [
    { items: [7, 3], scores: [4, 0.1] },
    { items: [5, 7], scores: [-1, -2] },
  ];

  it("is the union of the lists, with nothing said where a score is missing or at the floor", () => {
    const pool = buildPool(lists, [log, plain]);
    expect(pool).toEqual({
      items: [7, 3, 5],
      scores: [
        [4, null, null],
        [-2, null, -1],
      ],
    });
    // counts: ln 4 where it says something, and the lowest of that elsewhere; model: as it is, the lowest is -2.
    expect([...poolFeatures(pool, [log, plain])]).toEqual(
      [
        [Math.log(4), 0, -2, 0],
        [Math.log(4), 1, -2, 1],
        [Math.log(4), 1, -1, 0],
      ].flat(),
    );
  });

  it("is ordered by the weighted sum", () => {
    const fusion = { counts: { value: 2, missing: -1 }, model: { value: 1, missing: -3 } };
    // 7: 2 ln 4 - 2;  3: 2 ln 4 - 1 - 2 - 3;  5: 2 ln 4 - 1 - 1
    const base = 2 * Math.log(4);
    const fused = fuse(lists, [log, plain], fusion);
    expect(fused.items).toEqual([7, 5, 3]); // equal scores keep the order of the pool
    expect(fused.scores.map((s) => s - base)).toEqual([-2, -2, -6].map((x) => expect.closeTo(x, 12)));
    expect(fused.experts).toEqual({ counts: [4, null, null], model: [-2, -1, null] });
    expect(fuse(lists, [log, plain], fusion, 1).items).toEqual([7]);
  });

  it("is one expert's list and then the rest, if that expert is taken alone", () => {
    expect(fuse(lists, [log, plain], aloneAs("model", [log, plain])).items).toEqual([5, 7, 3]);
    expect(fuse(lists, [log, plain], aloneAs("counts", [log, plain])).items).toEqual([7, 3, 5]);
  });

  it("may be empty", () => {
    expect(fuse([{ items: [], scores: [] }], [plain], aloneAs("model", [plain]))).toMatchObject({
      items: [],
      scores: [],
    });
  });
});

/**
 * 60 items; the true next item is drawn from softmax(a_i + b_i) with a, b standard normal x 1.5,
 * drawn anew each time. One expert knows a, one knows b, one says noise; each lists its best 30.
 */
function planted(positions: number, seed: number): { lists: Ranked[]; target: number }[] {
  const rng = Rng.of(seed, "planted experts");
  const normal = (): number => Math.sqrt(-2 * Math.log(1 - rng.uniform())) * Math.cos(2 * Math.PI * rng.uniform());
  return Array.from({ length: positions }, () => {
    const draw = (): number[] => Array.from({ length: 60 }, () => 1.5 * normal());
    const [a, b, noise] = [draw(), draw(), draw()];
    const weights = a.map((x, i) => Math.exp(x + (b[i] as number)));
    let left = rng.uniform() * weights.reduce((sum, w) => sum + w, 0);
    const target = Math.max(
      0,
      weights.findIndex((w) => {
        left -= w;
        return left < 0;
      }),
    );
    const list = (scores: readonly number[]): Ranked => {
      const items = scores
        .map((_, i) => i)
        .sort((i, j) => (scores[j] as number) - (scores[i] as number))
        .slice(0, 30);
      return { items, scores: items.map((i) => scores[i] as number) };
    };
    return { lists: [list(a), list(b), list(noise)], target };
  });
}

const three: ExpertScale[] = ["a", "b", "noise"].map((name) => ({ name, scale: "none" }));
const hits = (positions: ReturnType<typeof planted>, fusion: ReturnType<typeof aloneAs>, n = 10): number =>
  positions.filter(({ lists, target }) => fuse(lists, three, fusion, n).items.includes(target)).length /
  positions.length;

describe("fusion weights", () => {
  const learned = fitFusion(planted(3000, 1), three) ?? {};
  const fresh = planted(3000, 2);

  it("are the planted ones, and near zero for an expert that knows nothing", () => {
    // Pools lack what nobody lists, so the slopes are a little below 1.
    for (const name of ["a", "b"]) {
      expect(learned[name]?.value).toBeGreaterThan(0.8);
      expect(learned[name]?.value).toBeLessThan(1.2);
      expect(learned[name]?.missing).toBeLessThan(0); // below the lowest it lists
    }
    expect(Math.abs(learned.noise?.value ?? 1)).toBeLessThan(0.05);
    expect(Math.abs(learned.noise?.missing ?? 1)).toBeLessThan(0.15);
  });

  it("beat the best single expert on other positions, and cost nothing where one expert knows all", () => {
    const best = Math.max(...["a", "b", "noise"].map((name) => hits(fresh, aloneAs(name, three))));
    expect(hits(fresh, learned)).toBeGreaterThan(best + 0.1);
    // The other experts' lists are noise: positions whose target only `a` knows anything of.
    const only = (seed: number) =>
      planted(3000, seed).map(({ lists: [a], target }, k, all) => ({
        target,
        lists: [a, all[(k + 1) % all.length]?.lists[1], all[(k + 2) % all.length]?.lists[2]] as Ranked[],
      }));
    const fusion = fitFusion(only(3), three) ?? {};
    const se = Math.sqrt(0.25 / 3000);
    expect(hits(only(4), fusion)).toBeGreaterThan(hits(only(4), aloneAs("a", three)) - 2 * se);
    expect(Math.abs(fusion.b?.value ?? 1)).toBeLessThan(0.05);
  });

  it("are the same every time, and need a pool that holds its target", () => {
    expect(fitFusion(planted(200, 1), three)).toEqual(fitFusion(planted(200, 1), three));
    expect(fitFusion([{ lists: [{ items: [1], scores: [0] }], target: 2 }], [plain])).toBeUndefined();
  });
});
