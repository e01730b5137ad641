/** What an answer does and does not depend on: the listed order, scores, ties, duplicates. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { averageOverTies, computePrior } from "../../../src/policy/prior.ts";
import { poolRises } from "../../../src/serve/model/order.ts";
import { openServedRun } from "../../../src/serve/model/served-run.ts";
import type { RerankAnswer, RerankRequest } from "../../../src/serve/request/types.ts";
import { forever, type GatedWorker, makeRequest, makeRuns, setUp } from "../../service-fixture.ts";

const folder = mkdtempSync(join(tmpdir(), "gr2-definitions-"));
let root = "";
beforeAll(async () => {
  root = await makeRuns(folder, { first: ["decoding.evidence=true"], ordered: ["decoding.evidence=false"] });
}, 60_000);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Known and unknown items, equal scores, and one item twice. */
const mixed: RerankRequest["candidates"] = [
  ...[10, 4, 20, 5, 7].map((i, k) => ({ id: `c${i}`, itemId: `i${i}`, score: [3, 2, 2, 2, 0.5][k] as number })),
  { id: "new", text: "A film nobody knows", score: 2 },
  { id: "newer", text: "Another film nobody knows", score: 1 },
  { id: "again", itemId: "i5", score: 1.5 },
];
const withoutScores = mixed.map(({ score: _, ...candidate }) => candidate);
const scoresById = (answer: RerankAnswer): Record<string, number> =>
  Object.fromEntries(answer.ranking.map((r) => [r.id, r.score]));
const sum = (answer: RerankAnswer): number => answer.ranking.reduce((total, r) => total + r.score, 0);
const systems = [
  ["rl", "direct"],
  ["rl", "think"],
  ["evidence", "direct"],
  ["prior", "direct"],
] as const;

describe.each(systems)("system %s in mode %s", (system, mode) => {
  it.each([
    ["scores given", mixed, undefined],
    ["an arbitrary order", withoutScores, "arbitrary"],
  ] as const)("answers alike however the candidates are shuffled: %s", async (_, candidates, candidateOrder) => {
    const { engine } = await setUp(root, "first", { set: [`serve.system=${system}`, "serve.cache=0"] });
    const ask = (shuffled: RerankRequest["candidates"]) =>
      engine.rerank({
        ...makeRequest([], { mode }),
        candidates: shuffled,
        ...(candidateOrder ? { candidateOrder } : {}),
      });
    const listed = await ask(candidates);
    expect(sum(listed)).toBeCloseTo(1, 6);
    await fc.assert(
      fc.asyncProperty(fc.shuffledSubarray([...candidates], { minLength: candidates.length }), async (shuffled) => {
        const answer = await ask(shuffled);
        // Without scores nothing tells the two copies of an item apart.
        const ids = ({ ranking }: RerankAnswer) =>
          ranking.map((r) => (r.id === "again" && candidateOrder ? "c5" : r.id));
        expect(ids(answer)).toEqual(ids(listed));
        expect(scoresById(answer)).toEqual(scoresById(listed));
        expect(answer.ranking.every((r) => shuffled[r.position]?.id === r.id)).toBe(true);
      }),
      { numRuns: 15, seed: 1 },
    );
  });
});

describe("candidates that are one item to the model", () => {
  it.each(["direct", "think"] as const)(
    "split its probability: scores add up to 1 and never rise (%s)",
    async (mode) => {
      const { engine } = await setUp(root, "first");
      const once = await engine.rerank({ ...makeRequest([10, 4, 20], { mode }) });
      const candidates = [
        ...makeRequest([10, 4, 20]).candidates,
        { id: "twice", itemId: "i10", score: 0.1 },
        { id: "thrice", text: "Film number 10 (1960)", score: 0.2 },
      ];
      const answer = await engine.rerank({ ...makeRequest([], { mode }), candidates });
      const scores = scoresById(answer);
      expect([scores.twice, scores.thrice]).toEqual([scores.c10, scores.c10]);
      expect(scores.c10).toBeCloseTo((scoresById(once).c10 as number) / 3, 6);
      expect(sum(answer)).toBeCloseTo(1, 6);
      expect(answer.ranking.map((r) => r.score)).toEqual(answer.ranking.map((r) => r.score).sort((a, b) => b - a));
      const ids = answer.ranking.map((r) => r.id);
      expect(ids.filter((id) => ["c10", "twice", "thrice"].includes(id))).toEqual(["c10", "thrice", "twice"]);
    },
  );
});

describe("the order of candidates without scores", () => {
  it("counts as GetModel says: the odds of a position against the first", async () => {
    const { engine } = await setUp(root, "ordered", { set: ["serve.system=direct", "serve.cache=0"] });
    const run = await openServedRun(root, "ordered", ["serve.system=direct"]);
    const prior = run.systems.direct?.prior;
    if (!prior) throw new Error("no system answers mode direct");
    const odds = engine.model()?.positionOdds.direct ?? [];
    expect([odds[0], odds.length]).toEqual([1, run.typical.score.length]);
    const weighed = computePrior({ ...prior, evidence: 0 }, { scores: run.typical.score });
    expect(odds[3]).toBeCloseTo(Math.exp((weighed[3] as number) - (weighed[0] as number)), 2);
    expect(new Set(odds).size).toBeGreaterThan(1);
    // And it does: another order, another answer.
    const candidates = withoutScores.slice(0, 5);
    const one = await engine.rerank({ ...makeRequest([]), candidates });
    const other = await engine.rerank({ ...makeRequest([]), candidates: [...candidates].reverse() });
    expect(scoresById(other)).not.toEqual(scoresById(one));
  });

  it("does not count where the service is set so, unless the request says that its ranker made it", async () => {
    const { engine } = await setUp(root, "first", { set: ["serve.candidateOrder=arbitrary", "serve.cache=0"] });
    const candidates = withoutScores.slice(0, 5);
    const reversed = [...candidates].reverse();
    const ask = async (change: Partial<RerankRequest>) =>
      scoresById(await engine.rerank({ ...makeRequest([]), ...change }));
    expect(await ask({ candidates: reversed })).toEqual(await ask({ candidates }));
    const ranked = { candidateOrder: "ranked" } as const;
    expect(await ask({ candidates: reversed, ...ranked })).not.toEqual(await ask({ candidates, ...ranked }));
  });
});

describe("the order that comes back without an answer", () => {
  it("is that of the scores, else that of the list", async () => {
    const { engine, workers } = await setUp(root, "first");
    (workers[0] as GatedWorker).gate = forever;
    const candidates = [
      { id: "low", itemId: "i1", score: 1 },
      { id: "high", itemId: "i2", score: 3 },
      { id: "middle", itemId: "i4", score: 2 },
    ];
    const scored = await engine.rerank({ ...makeRequest([], { deadlineMs: 40 }), candidates });
    expect(scored.ranking.map((r) => [r.id, r.position, r.score])).toEqual([
      ["high", 1, 1],
      ["middle", 2, 1 - 1 / 3],
      ["low", 0, 1 - 2 / 3],
    ]);
    const listed = candidates.map(({ id, itemId }) => ({ id, itemId }));
    const own = await engine.rerank({ ...makeRequest([], { deadlineMs: 40 }), candidates: listed });
    expect(own.ranking.map((r) => r.id)).toEqual(["low", "high", "middle"]);
  });
});

describe("the arithmetic", () => {
  it("of equal scores: each gets the mean of what they take up together", () => {
    expect(averageOverTies([5, 4, 4, 1], [0, -1, -2, -3])).toEqual([0, -1.5, -1.5, -3]);
    const prior = { likelihood: 1, place: [0, -1, -2, -3], preRank: 0, evidence: 0 };
    expect(computePrior(prior, { scores: [5, 4, 4, 1] })).toEqual([0, -1, -2, -3]);
    expect(computePrior(prior, { scores: [5, 4, 4, 1], sharePositions: true })).toEqual([0, -1.5, -1.5, -3]);
  });

  it("of chances that rise: neighbours share their mean, and nothing is lost", () => {
    expect(poolRises([0.5, 0.25, 0.25])).toEqual([0.5, 0.25, 0.25]);
    expect(poolRises([0.25, 0.5, 0.25])).toEqual([0.375, 0.375, 0.25]);
    expect(poolRises([0.125, 0.25, 0.625])).toEqual([1 / 3, 1 / 3, 1 / 3]);
    fc.assert(
      fc.property(fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 8 }), (values) => {
        const pooled = poolRises(values);
        expect(pooled).toEqual([...pooled].sort((a, b) => b - a));
        const total = values.reduce((a, b) => a + b, 0);
        expect(pooled.reduce((a, b) => a + b, 0)).toBeCloseTo(total, 9);
      }),
    );
  });
});
