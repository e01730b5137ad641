/** A service whose systems have no language model: evidence and prior, at the numbers that the run computed. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Results } from "../../../src/artifacts/results.ts";
import { softmax } from "../../../src/eval/choice-model.ts";
import { computePrior, orderBy, type Prior } from "../../../src/policy/prior.ts";
import { openServedRun, type ServedRun } from "../../../src/serve/model/served-run.ts";
import { makeRequest, makeRuns, rewriteOutput, setUp, weigh } from "../../service-fixture.ts";

const folder = mkdtempSync(join(tmpdir(), "gr2-without-model-"));
let root = "";

beforeAll(async () => {
  root = await makeRuns(folder, { plain: [], weighed: ["decoding.evidence=true"] });
}, 60_000);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const evaluated = (run: string, file: string): string => join(root, run, "stages/evaluate", file);
const rows = (run: ServedRun, items: readonly number[]): number[] =>
  items.map((i) => run.rowById.get(`i${i}`) as number);
const readJson = (path: string) => JSON.parse(readFileSync(path, "utf8"));

describe.each([
  ["weighed", "prior"],
  ["plain", "evidence"],
])("run %s served by %s", (run, system) => {
  it("orders by the run's own scores and never asks for a language model", async () => {
    const { engine, workers } = await setUp(root, run, { set: [`serve.system=${system}`] });
    const answer = await engine.rerank(makeRequest([7, 4, 20, 5, 6]));
    const served = await openServedRun(root, run, [`serve.system=${system}`]);
    const prior = readJson(evaluated(run, "priors.json"))[system] as Prior;
    expect(prior.evidence).not.toBe(0);
    const given = [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5];
    const evidence = served.evidence?.(rows(served, [1, 2, 3]), rows(served, [7, 4, 20, 5, 6]), given) ?? [];
    const scores = computePrior(prior, { scores: given, evidence });
    const chances = softmax(scores);
    expect(answer.fallback).toBeUndefined();
    expect(answer.ranking.map((r) => r.position)).toEqual(orderBy(scores));
    for (const r of answer.ranking) expect(r.score).toBeCloseTo(chances[r.position] as number, 12);
    expect(answer.tokens).toEqual({ prompt: 0, generated: 0 });
    expect(workers.flatMap((w) => w.batches)).toEqual([]);
    expect(workers.flatMap((w) => w.log).filter((verb) => ["loadModel", "forward", "sample"].includes(verb))).toEqual(
      [],
    );
    expect(engine.model()).toMatchObject({ systems: { direct: system }, modes: ["direct"], numParameters: 0 });
  }, 60_000);

  it("does not take two items for one because they share a semantic ID, and streams without reasoning", async () => {
    const { engine } = await setUp(root, run, { set: [`serve.system=${system}`] });
    const events = [];
    for await (const event of engine.stream(makeRequest([7, 4, 20]))) events.push(event);
    expect(events.map((e) => e.kind)).toEqual(["answer"]);
    await expect(engine.rerank(makeRequest([7], { mode: "think" }))).rejects.toThrow("mode think");
  }, 60_000);
});

describe("serve.system = auto", () => {
  const recommending = async (system: string) => {
    rewriteOutput(dirname(evaluated("plain", "results.json")), "results.json", (results: Results) => ({
      ...results,
      selected: { ...results.selected, system },
    }));
    return openServedRun(root, "plain", []);
  };

  it("answers by the system that the evaluation recommends", async () => {
    expect((await recommending("evidence")).systems).toMatchObject({
      direct: { name: "evidence", weights: undefined },
    });
    const sft = await recommending("sft_direct");
    expect(sft.systems.direct?.name).toBe("sft_direct");
    expect(sft.systems.direct?.weights).toContain("sft");
    expect((await recommending("rl")).systems.think?.name).toBe("rl");
    expect(sft.recommendation.sentence).toMatch(/^(Deploy|Keep)/);
  });

  it("asks no language model whose weight the evaluation left at 0", async () => {
    weigh(root, "plain", 0);
    const served = await openServedRun(root, "plain", ["serve.system=rl"]);
    expect(served.systems.direct).toMatchObject({ name: "rl_direct", weights: undefined });
    expect(served.systems.think?.weights).toContain("rl");
    const { engine, workers } = await setUp(root, "plain", { set: ["serve.system=sft_direct"] });
    const answer = await engine.rerank(makeRequest([7, 4, 20]));
    expect(answer.fallback).toBeUndefined();
    expect(answer.tokens).toEqual({ prompt: 0, generated: 0 });
    expect(workers.flatMap((w) => w.log)).not.toContain("loadModel");
    weigh(root, "plain", 0.5);
  });

  it("answers mode direct with an order that is written at once, where that is recommended or asked for", async () => {
    for (const system of ["sft_nothink", "rl_nothink"])
      expect((await recommending(system)).systems.direct, system).toMatchObject({ name: system, writes: "answer" });
    const { engine, workers } = await setUp(root, "plain", { set: ["serve.system=rl_nothink"] });
    expect(engine.model()).toMatchObject({ systems: { direct: "rl_nothink" }, modes: ["direct"] });
    const all = await engine.rerank(makeRequest([7, 4, 20, 11]));
    expect([all.fallback, all.reasoning]).toEqual([undefined, ""]);
    expect(all.ranking.map((r) => r.position).sort()).toEqual([0, 1, 2, 3]);
    expect(all.tokens.prompt).toBeGreaterThan(0);
    expect(all.tokens.generated).toBeGreaterThan(0);
    const scores = all.ranking.map((r) => r.score);
    expect(scores).toEqual([...scores].sort((a, b) => b - a));
    // The first two are written alone; a kept answer to one question is none to the other.
    const two = await engine.rerank(makeRequest([7, 4, 20, 11], { topN: 2 }));
    expect(two.ranking.map((r) => r.position)).toEqual(all.ranking.slice(0, 2).map((r) => r.position));
    expect(two.tokens.generated).toBeLessThan(all.tokens.generated);
    expect(two.cached).toBeUndefined();
    expect((await engine.rerank(makeRequest([7, 4, 20, 11]))).cached).toBe(true);
    const calls = workers.flatMap((w) => w.log);
    expect(calls.filter((c) => c === "sample")).toHaveLength(2);
    expect(calls).not.toContain("forward");
    await expect(engine.rerank(makeRequest([7], { mode: "think" }))).rejects.toThrow(/does not answer in mode think/);
  });

  it("refuses a system that cannot be served", async () => {
    for (const system of ["prerank", "rl_other_order", "rl_compressed"])
      await expect(openServedRun(root, "plain", [`serve.system=${system}`]), system).rejects.toThrow(
        "no such system that can be served",
      );
  });
});
