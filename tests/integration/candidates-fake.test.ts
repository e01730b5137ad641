/**
 * Candidates of several pre-rankers on a fake worker: what a fused slate holds, a hundred candidates through the whole
 * pipeline, your own scores, refit, folds, and that neither a rerun nor an interrupt changes a byte.
 * Nothing about quality.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { CandidatesReport } from "../../src/artifacts/candidates.ts";
import type { Metrics } from "../../src/artifacts/results.ts";
import { configHash, loadConfig, resolvedYaml } from "../../src/config/load.ts";
import { ConfigError, DataError, InterruptedError } from "../../src/core/errors.ts";
import type { Slate } from "../../src/prerank/types.ts";
import { Run } from "../../src/run/run.ts";
import { stageNames } from "../../src/run/stage.ts";
import { runStages } from "../../src/stages/pipeline.ts";
import { FakeWorker } from "../../src/worker/fake.ts";
import { TelemetryBus } from "../../src/worker/telemetry.ts";
import { writePipelineFixture } from "../pipeline-fixture.ts";

const folder = mkdtempSync(join(tmpdir(), "gr2-candidates-"));
const root = join(folder, "runs");
let recipe = "";
beforeAll(() => {
  recipe = writePipelineFixture(folder, 130);
  // Scores of users 0 to 29 for every third item.
  const rows = Array.from({ length: 30 }, (_, u) =>
    Array.from({ length: 40 }, (_, k) => `u${u},i${3 * k},${((u * 7 + k * 13) % 40) / 10}`),
  );
  writeFileSync(join(folder, "mine.csv"), `user,item,score\n${rows.flat().join("\n")}\nnobody,i1,3\n`);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function invoke(
  name: string,
  o: { set: string[]; until?: string; onVerb?: (verb: string, calls: number) => void },
): Promise<{ metrics: Metrics | undefined; lines: string[] }> {
  const config = loadConfig(recipe, o.set);
  const { signal } = new AbortController();
  const bus = new TelemetryBus(name);
  const lines: string[] = [];
  bus.on((m) => {
    if (m.kind === "log") lines.push(m.text);
  });
  const identity = { configYaml: resolvedYaml(config), configHash: configHash(config), seed: config.seed };
  const until = o.until === undefined ? {} : { until: o.until };
  const run = await Run.open({ root, name, ...identity, stages: stageNames, signal, bus, ...until });
  try {
    const worker = new FakeWorker(o.onVerb);
    const metrics = await runStages(run, { config, root, name, signal, bus, worker, ...until });
    await run.close("finished");
    return { metrics, lines };
  } catch (e) {
    await run.close(e instanceof InterruptedError ? "interrupted" : "failed").catch(() => {});
    throw e;
  }
}

const file = (run: string, ...path: string[]): string => readFileSync(join(root, run, "stages", ...path), "utf8");
const collectSlates = (run: string, segment: string, stage = "slates"): Slate[] =>
  file(run, stage, `${segment}.jsonl`)
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as Slate);
const makeReport = (run: string, stage = "candidates"): CandidatesReport => JSON.parse(file(run, stage, "recall.json"));

const fused = [
  ...["prerank.kind=fused", "prerank.candidates=50", "prerank.folds=3", "prerank.trainSlates=200", "refit=true"],
  ...["prerank.sasrec.maxEpochs=4", "prerank.sasrec.validationUsers=20"],
];

describe("fused candidates", () => {
  it("keep what every pre-ranker says, and its rank of the true item", async () => {
    const { lines } = await invoke("fused", { set: fused, until: "candidates" });
    for (const segment of ["midtrain", "rerank", "validation", "test"]) {
      for (const s of collectSlates("fused", segment, "candidates")) {
        expect(s.candidates).toHaveLength(50);
        expect(Object.keys(s.experts ?? {})).toEqual(["popularity", "itemknn", "sasrec"]);
        for (const [name, scores] of Object.entries(s.experts ?? {})) {
          expect(scores).toHaveLength(50);
          const rank = s.targetRanks?.[name];
          if (rank === null || rank === undefined) continue;
          // Better items by that expert, among the candidates alone, are no more than its rank allows.
          const own = scores[s.targetIndex];
          if (typeof own === "number")
            expect(scores.filter((x) => x !== null && x > own).length).toBeLessThanOrEqual(rank - 1);
        }
        expect([...s.scores].sort((a, b) => b - a)).toEqual(s.scores);
      }
    }
    const report = makeReport("fused");
    const ranked = collectSlates("fused", "validation", "candidates");
    const hits = ranked.filter((s) => s.targetIndex >= 0).length / ranked.length;
    expect(report.metrics.validation?.[report.fusion ? "fused" : report.chosen]?.["R@50"]).toBeCloseTo(hits, 12);
    expect(lines.some((l) => l.includes("the true item is among the 50 candidates for"))).toBe(true);
    expect(["popularity", "itemknn", "sasrec"]).toContain(report.bestSingle);
  }, 60_000);

  it("are the same after an interrupt in any fit", async () => {
    const calls: string[] = [];
    await invoke("whole", { set: fused, until: "candidates", onVerb: (verb) => calls.push(verb) });
    expect(file("whole", "candidates", "test.jsonl")).toBe(file("fused", "candidates", "test.jsonl"));
    for (const share of [0.1, 0.5, 0.9]) {
      const call = Math.floor(share * calls.length);
      const name = `cut-${share}`;
      const onVerb = (_: string, n: number): void => {
        if (n === call) throw new InterruptedError();
      };
      await expect(invoke(name, { set: fused, until: "candidates", onVerb })).rejects.toThrow(InterruptedError);
      await invoke(name, { set: fused, until: "candidates" });
      for (const part of ["midtrain.jsonl", "rerank.jsonl", "test.jsonl", "recall.json"])
        expect(file(name, "candidates", part)).toBe(file("fused", "candidates", part));
    }
  }, 120_000);

  it("may come from scores of your own", async () => {
    const set = [
      ...["prerank.kind=fused", "prerank.experts=[itemknn]", `prerank.scores.mine=${join(folder, "mine.csv")}`],
      "prerank.candidates=20",
    ];
    const { lines } = await invoke("own", { set, until: "candidates" });
    expect(lines.find((l) => l.startsWith("mine:"))).toMatch(/^mine: scores of 30 of 60 users; \d+ rows have unknown/);
    const said = collectSlates("own", "test", "candidates").filter((s) => s.experts?.mine?.some((x) => x !== null));
    expect(new Set(said.map((s) => s.user)).size).toBeLessThanOrEqual(30);
    expect(said.length).toBeGreaterThan(0);
    const missing = invoke("none", { set: [...set, "prerank.scores.mine=/nowhere.csv"], until: "candidates" });
    await expect(missing).rejects.toThrow(DataError);
  }, 60_000);

  it("take the language model's beams in stage slates", async () => {
    const set = ["prerank.kind=fused", "prerank.experts=[itemknn,generative]", "prerank.candidates=12"];
    const { metrics } = await invoke("beams", { set: [...set, "rl.steps=2", "eval.controls=false"] });
    expect(metrics?.rows.length).toBeGreaterThan(0);
    expect(Object.keys(collectSlates("beams", "test")[0]?.experts ?? {})).toEqual(["itemknn", "generative"]);
    expect(makeReport("beams", "slates").metrics.test).toBeDefined();
  }, 120_000);
});

describe("many candidates", () => {
  it("a hundred go through the whole pipeline", async () => {
    const few = ["rl.steps=1", "rl.prompts=2", "sft.epochs=0.3", "eval.maxSlates=20", "eval.validationSlates=20"];
    const set = ["prerank.candidates=100", "prerank.folds=2", ...few, "eval.controls=false"];
    const { metrics } = await invoke("wide", { set });
    for (const s of collectSlates("wide", "test")) expect(s.candidates.length).toBe(100);
    expect(metrics?.health.rl_nothink_valid_rate).toBe(1); // a permutation of all of them
    expect(JSON.parse(file("wide", "calibrate", "prior.json")).withLikelihood.place).toHaveLength(100);
  }, 240_000);
});

describe("settings that cannot work", () => {
  it.each([
    ["prerank.folds=1", /prerank\.folds = 1 leaves no users/],
    ["prerank.trainSlates=10", /needs prerank\.folds/],
    ["prerank.scores.mine=x.csv", /needs prerank\.kind = fused/],
    ["prerank.candidates=101", /prerank\.candidates = 101/],
  ])("%s", (set, message) => {
    expect(() => loadConfig(recipe, [set])).toThrow(ConfigError);
    expect(() => loadConfig(recipe, [set])).toThrow(message);
  });
});
