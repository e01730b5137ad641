/**
 * Fifty candidates of which the language model is asked about ten (prompts.candidates),
 * through the whole pipeline on a fake
 * worker: what it is shown, what the order of the others is, and that the service answers as evaluation does.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Priors } from "../../src/artifacts/calibration.ts";
import { readJson, readLines, readScores } from "../../src/artifacts/files.ts";
import type { DirectPriors, Results } from "../../src/artifacts/results.ts";
import { configHash, loadConfig, resolvedYaml } from "../../src/config/load.ts";
import { loadDataset } from "../../src/data/cache.ts";
import type { Dataset } from "../../src/data/types.ts";
import { orderBy } from "../../src/policy/prior.ts";
import { partCandidates } from "../../src/prerank/heads.ts";
import type { Slate } from "../../src/prerank/types.ts";
import { Run } from "../../src/run/run.ts";
import { stageNames } from "../../src/run/stage.ts";
import type { RerankRequest } from "../../src/serve/request/types.ts";
import type { SystemResult } from "../../src/stages/evaluation/answers.ts";
import { runStages } from "../../src/stages/pipeline.ts";
import { FakeWorker } from "../../src/worker/fake.ts";
import { TelemetryBus } from "../../src/worker/telemetry.ts";
import type * as t from "../../src/worker/types.ts";
import { writePipelineFixture } from "../pipeline-fixture.ts";
import { type GatedWorker, makeRequest, setUp, weigh } from "../service-fixture.ts";

const folder = mkdtempSync(join(tmpdir(), "gr2-heads-"));
const root = join(folder, "runs");
const numCandidates = 50;
const head = 10;

/** Keeps how many candidates every call is about. */
class CountingWorker extends FakeWorker {
  readonly asked = new Set<number>();
  readonly scored = new Set<number>();

  private note(constraint: t.PermutationConstraint | undefined): void {
    for (const { sequences } of constraint?.groups ?? []) this.asked.add(sequences.length);
  }
  override forward(request: t.ForwardRequest, call?: t.CallOptions) {
    this.note(request.constraint);
    if (!request.constraint) for (const g of request.batch.groups) this.scored.add(g.responses.length);
    return super.forward(request, call);
  }
  override forwardBackward(request: t.ForwardBackwardRequest, call?: t.CallOptions) {
    this.note(request.constraint);
    return super.forwardBackward(request, call);
  }
  override sample(request: t.SampleRequest, call?: t.CallOptions) {
    this.note(request.constraint);
    return super.sample(request, call);
  }
}

async function invoke(recipe: string, name: string, set: readonly string[]): Promise<CountingWorker> {
  const config = loadConfig(recipe, set);
  const { signal } = new AbortController();
  const bus = new TelemetryBus(name);
  const identity = { configYaml: resolvedYaml(config), configHash: configHash(config), seed: config.seed };
  const run = await Run.open({ root, name, ...identity, stages: stageNames, signal, bus });
  const worker = new CountingWorker();
  await runStages(run, { config, root, name, signal, bus, worker });
  await run.close("finished");
  return worker;
}

const stage = (run: string, ...path: string[]): string => join(root, run, "stages", ...path);
const workers = new Map<string, CountingWorker>();
const long = [`prerank.candidates=${numCandidates}`, "rl.steps=1", "rl.prompts=2", "sft.epochs=0.3"];
const few = ["eval.maxSlates=40", "eval.examples=40", "eval.controls=false"];

beforeAll(async () => {
  const recipe = writePipelineFixture(folder, 130);
  const runs = {
    heads: ["decoding.evidence=true", `prompts.candidates=${head}`],
    unweighed: [`prompts.candidates=${head}`],
    whole: [],
    enough: [`prompts.candidates=${numCandidates}`],
  };
  for (const [name, set] of Object.entries(runs))
    workers.set(name, await invoke(recipe, name, [...long, ...few, ...set]));
}, 240_000);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const testSlates = (run: string): Slate[] => readLines<Slate>(stage(run, "slates", "test.jsonl"));
const answers = (run: string, file: string): SystemResult[] => readJson(stage(run, "evaluate", file));

/** What a caller with the run's own slate sends. */
function ask(dataset: Dataset, slate: Slate, mode: "think" | "direct"): RerankRequest {
  const itemIdAt = (row: number): string => dataset.items[row]?.id as string;
  const history = Array.from(dataset.sequences[slate.user]?.items.subarray(0, slate.position) ?? []);
  return {
    ...makeRequest([], { mode }),
    history: history.map((row) => ({ itemId: itemIdAt(row) })),
    candidates: slate.candidates.map((row, i) => ({
      ...{ id: String(row), itemId: itemIdAt(row), score: slate.scores[i] as number },
    })),
  };
}

describe.each(["heads", "unweighed"])("run %s", (run) => {
  it(`asks the language model about ${head} of ${numCandidates} candidates, in training, scoring and answers`, () => {
    expect([...(workers.get(run)?.asked ?? [])]).toEqual([head]);
    expect([...(workers.get(run)?.scored ?? [])]).toEqual([head]);
    expect([...(workers.get("whole")?.asked ?? [])]).toEqual([numCandidates]);
  });

  it("orders all of them: the model's own, then the others by the evidence", () => {
    const evidence = readScores(stage(run, "evidence"), "evidence");
    const byId = new Map(testSlates(run).map((s) => [s.id, s]));
    let moved = 0;
    const shown = ["sft.json", "rl.json"].flatMap((file) => answers(run, file).filter((a) => a.health));
    expect(shown.map((a) => a.system)).toEqual(["sft", "sft_nothink", "rl", "rl_nothink"]);
    for (const { shown: orders = [], health } of shown) {
      expect(health?.valid).toBe(1);
      expect(orders.length).toBeGreaterThan(20);
      for (const { slate, order } of orders) {
        const scores = evidence[slate] as readonly number[];
        const best = orderBy(scores);
        expect(byId.get(slate)?.candidates).toHaveLength(numCandidates);
        expect(order).toHaveLength(numCandidates);
        expect(new Set(order.slice(0, head))).toEqual(new Set(best.slice(0, head)));
        expect(order.slice(head)).toEqual(best.slice(head));
        if (order.slice(0, head).join() !== best.slice(0, head).join()) moved++;
      }
    }
    expect(moved).toBeGreaterThan(0);
  });

  it("compares systems on the slates that hold the true item anywhere", () => {
    const all = testSlates(run).filter((s) => s.targetIndex >= 0);
    const evidence = readScores(stage(run, "evidence"), "evidence");
    const outside = all.filter((s) => {
      const { tail } = partCandidates(numCandidates, head, evidence[s.id]);
      return tail.includes(s.targetIndex);
    });
    expect(outside.length).toBeGreaterThan(0);
    // Every answer has each of its slate's labels once: one true item each.
    for (const a of [...answers(run, "midtrain.json"), ...answers(run, "rl.json")])
      for (const labels of [...a.test, ...a.validation]) expect(labels.reduce((x, y) => x + y, 0)).toBe(1);
    const { withLikelihood, alone } = readJson<Priors>(stage(run, "calibrate", "prior.json"));
    expect([withLikelihood.place.length, alone.place.length]).toEqual([head, numCandidates]);
  });

  it.each(["think", "direct"] as const)(
    "answers mode %s as evaluation did",
    async (mode) => {
      const system = mode === "think" ? "rl" : "rl_direct";
      const { engine, workers: serving } = await setUp(root, run, { set: ["serve.system=rl"] });
      const dataset = await loadDataset(stage(run, "data"));
      const byId = new Map(testSlates(run).map((s) => [s.id, s]));
      const evaluated = answers(run, "rl.json").find((a) => a.system === system);
      expect(evaluated?.shown?.length).toBeGreaterThan(20);
      for (const { slate: id, order } of evaluated?.shown ?? []) {
        const slate = byId.get(id) as Slate;
        const answer = await engine.rerank(ask(dataset, slate, mode));
        expect(answer.fallback).toBeUndefined();
        expect(answer.ranking.map((r) => r.position)).toEqual(order);
        const asked = (readJson<DirectPriors>(stage(run, "evaluate", "priors.json"))[system]?.likelihood ?? 1) > 0;
        if (mode === "think" || asked) expect(answer.ranking.slice(head).every((r) => r.score === 0)).toBe(true);
      }
      expect(serving.length).toBe(1);
    },
    60_000,
  );
});

describe("a direct system whose model has a say", () => {
  it("is asked about the head alone, and the others follow by the evidence", async () => {
    weigh(root, "heads", 0.5);
    const responses: number[] = [];
    const prepare = (worker: GatedWorker): void => {
      const { forward } = worker;
      worker.forward = (request, call) => {
        responses.push(...request.batch.groups.map((g) => g.responses.length));
        return forward.call(worker, request, call);
      };
    };
    const { engine } = await setUp(root, "heads", { prepare });
    const dataset = await loadDataset(stage("heads", "data"));
    const evidence = readScores(stage("heads", "evidence"), "evidence");
    for (const slate of testSlates("heads").slice(0, 10)) {
      const answer = await engine.rerank(ask(dataset, slate, "direct"));
      const { head: first, tail } = partCandidates(numCandidates, head, evidence[slate.id]);
      const positions = answer.ranking.map((r) => r.position);
      expect([...positions.slice(0, head)].sort((a, b) => a - b)).toEqual(first);
      expect(positions.slice(head)).toEqual(tail);
      const scores = answer.ranking.map((r) => r.score);
      expect(scores.slice(0, head).reduce((sum, p) => sum + p, 0)).toBeCloseTo(1, 12);
      expect(scores.slice(head).every((p) => p === 0)).toBe(true);
    }
    expect(responses).toEqual(Array.from({ length: 10 }, () => head));
  });
});

describe("as many as there are", () => {
  it("is all of them, to the last digit", () => {
    const results = (run: string) => readJson<Results>(stage(run, "evaluate", "results.json"));
    expect(results("enough")).toEqual(results("whole"));
  });
});
