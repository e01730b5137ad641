/**
 * The whole pipeline on a fake worker: data to evaluation, what it leaves, what it does not do twice, and that neither
 * a rerun nor an interrupt changes a number. Says nothing about quality.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Metrics } from "../../src/artifacts/results.ts";
import { showRun } from "../../src/cli/show.ts";
import { configHash, loadConfig, resolvedYaml } from "../../src/config/load.ts";
import { InterruptedError } from "../../src/core/errors.ts";
import type { Manifest } from "../../src/run/manifest.ts";
import { Run } from "../../src/run/run.ts";
import { stageNames } from "../../src/run/stage.ts";
import { openServedRun } from "../../src/serve/model/served-run.ts";
import { runStages } from "../../src/stages/pipeline.ts";
import { FakeWorker } from "../../src/worker/fake.ts";
import { TelemetryBus } from "../../src/worker/telemetry.ts";
import { writePipelineFixture } from "../pipeline-fixture.ts";

const folder = mkdtempSync(join(tmpdir(), "gr2-pipeline-"));
const root = join(folder, "runs");
let recipe = "";

beforeAll(() => {
  recipe = writePipelineFixture(folder);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

interface Outcome {
  readonly metrics: Metrics | undefined;
  readonly worker: FakeWorker;
  /** Stages that ran (and were not found finished). */
  readonly ran: string[];
}

/** One invocation with a worker of its own, as from the command line. */
async function invoke(
  name: string,
  o: { set?: string[]; until?: string; onVerb?: (verb: string, calls: number) => void; abort?: AbortController } = {},
): Promise<Outcome> {
  const config = loadConfig(recipe, o.set ?? []);
  const signal = (o.abort ?? new AbortController()).signal;
  const bus = new TelemetryBus(name);
  const ran: string[] = [];
  bus.on((m) => {
    if (m.kind === "stage" && (m.state === "started" || m.state === "resumed")) ran.push(m.stage);
  });
  const yaml = resolvedYaml(config);
  const seed = config.seed;
  const run = await Run.open({
    root,
    name,
    configYaml: yaml,
    configHash: configHash(config),
    seed,
    stages: stageNames,
    signal,
    bus,
    ...(o.until === undefined ? {} : { until: o.until }),
  });
  const worker = new FakeWorker(o.onVerb);
  try {
    const metrics = await runStages(run, { config, root, name, signal, bus, worker });
    await run.close("finished");
    return { metrics, worker, ran };
  } catch (e) {
    await run.close(e instanceof InterruptedError ? "interrupted" : "failed").catch(() => {});
    throw e;
  }
}

/** metrics.json without what two runs of one recipe may differ in. */
function readNumbers(name: string): unknown {
  const { run: _name, timings: _timings, request_ms: _times, ...rest } = metricsFile(name);
  return rest;
}
const metricsFile = (name: string): Metrics =>
  JSON.parse(readFileSync(join(root, name, "metrics.json"), "utf8")) as Metrics;
const readRunManifest = (name: string): Manifest =>
  JSON.parse(readFileSync(join(root, name, "manifest.json"), "utf8")) as Manifest;

const systems = [
  ...["prerank", "popularity", "lambdamart", "listwise", "prior", "evidence", "direct", "direct_other_history"],
  ...["sft_direct", "sft", "sft_nothink", "rl_direct", "rl", "rl_nothink"],
  ...["rl_other_thought", "rl_other_order", "rl_nothink_other_order"],
];
const metricNames = ["R@1", "R@3", "R@5", "N@3", "N@5", "MRR"];

/** Logged records in order, without numbering and clocks. */
function logged(name: string, file: "metrics.jsonl" | "rollouts.jsonl"): unknown[] {
  const lines = readFileSync(join(root, name, file), "utf8")
    .trimEnd()
    .split("\n");
  return lines.map((line) => {
    const { seq: _seq, time: _time, values, ...rest } = JSON.parse(line) as Record<string, unknown>;
    const timeless = Object.entries(values ?? {}).filter(([name]) => !name.startsWith("seconds"));
    return { ...rest, values: Object.fromEntries(timeless) };
  });
}

/** Everything a run computed: results, the bytes of every stage's outputs, and its logs. */
const readEverything = (name: string) => ({
  numbers: readNumbers(name),
  outputs: Object.fromEntries(Object.entries(readRunManifest(name).stages).map(([stage, s]) => [stage, s.outputs])),
  metrics: logged(name, "metrics.jsonl"),
  rollouts: logged(name, "rollouts.jsonl"),
});

describe("the whole pipeline on a fake worker", () => {
  /** By verb call: the stage that made it. */
  const stageOfCall: string[] = [];

  it("goes from data to metrics.json", async () => {
    const { metrics, worker, ran } = await invoke("first", {
      onVerb: () => {
        const running = Object.entries(readRunManifest("first").stages).find(([, s]) => s.state === "running");
        stageOfCall.push(running?.[0] ?? "none");
      },
    });
    expect(ran).toEqual([...stageNames]);
    for (const verb of ["embed", "fitSemanticIds", "trainTokenizer", "forwardBackward", "sample", "saveState"])
      expect(worker.log).toContain(verb);
    const file = metricsFile("first");
    expect(file).toEqual(JSON.parse(JSON.stringify(metrics)));
    expect(file).toMatchObject({ schema: "gr2.metrics/2", run: "first", seed: 3 });
    expect(file.config_hash).toBe(configHash(loadConfig(recipe)));
    expect(Object.keys(file.timings)).toEqual([...stageNames]);
    for (const seconds of Object.values(file.timings)) expect(seconds).toBeGreaterThanOrEqual(0);

    const manifest = readRunManifest("first");
    expect(manifest.state).toBe("finished");
    expect(manifest.versions).toMatchObject({ worker: "fake", torch: "none" });
    expect(manifest.hardware).toMatchObject({ device: "cpu", worker_threads: 1 });
    expect(manifest.data).toEqual({ small: expect.stringMatching(/^[0-9a-f]{64}$/) });
    expect(Object.keys(manifest.stages)).toEqual([...stageNames]);

    const keys = file.rows.map((r) => `${r.system} ${r.slice} ${r.metric}`);
    const slices = ["conditional", "end_to_end"];
    const expected = slices.flatMap((slice) => systems.flatMap((s) => metricNames.map((m) => `${s} ${slice} ${m}`)));
    expect(new Set(keys)).toEqual(new Set(expected));
    expect(keys.length).toBe(expected.length);
    for (const r of file.rows) {
      expect(Object.keys(r)).toEqual(["system", "slice", "metric", "value", "ci_low", "ci_high", "n"]);
      expect(r.value).toBeGreaterThanOrEqual(0);
      expect(r.value).toBeLessThanOrEqual(1);
      expect(r.ci_low).toBeLessThanOrEqual(r.value);
      expect(r.ci_high).toBeGreaterThanOrEqual(r.value);
    }
    const numSlates = (slice: string) => new Set(file.rows.filter((r) => r.slice === slice).map((r) => r.n));
    expect(numSlates("conditional").size).toBe(1);
    expect(numSlates("end_to_end")).toEqual(new Set([60 * 3])); // the last 15 % of 20 interactions of 60 users
    for (const system of systems) {
      const of = (slice: string, metric: string) =>
        file.rows.find((r) => r.system === system && r.slice === slice && r.metric === metric);
      const [inside, all] = [of("conditional", "N@5"), of("end_to_end", "N@5")];
      if (!inside || !all) throw new Error(`no N@5 of ${system}`);
      expect(all.value * all.n).toBeCloseTo(inside.value * inside.n, 6); // a miss scores 0
    }

    for (const c of file.comparisons) {
      expect(Object.keys(c).sort()).toEqual(
        ["baseline", "ci_high", "ci_low", "delta", "metric", "n", "p", "relative", "slice", "system"].sort(),
      );
      const value = (system: string) =>
        file.rows.find((r) => r.system === system && r.slice === c.slice && r.metric === c.metric)?.value ?? Number.NaN;
      expect(c.delta).toBeCloseTo(value(c.system) - value(c.baseline), 9);
      expect(c.p).toBeGreaterThan(0);
      expect(c.p).toBeLessThanOrEqual(1);
    }
    const compared = new Set(file.comparisons.map((c) => `${c.system} ${c.baseline}`));
    for (const system of systems.filter((s) => s !== "prerank")) expect(compared).toContain(`${system} prerank`);

    for (const name of ["sid_uniqueness", "valid_rate", "identity_rate", "rl_valid_rate", "sft_nothink_valid_rate"])
      expect(file.health[name]).toBeGreaterThanOrEqual(0);
    expect(file.health.sid_uniqueness).toBe(1);
    expect(file.health.sft_nothink_valid_rate).toBe(1); // constrained, and nothing is written before the answer
    expect(systems).toContain(file.selected.system);
    const { recommendation: r } = file;
    expect(r.system).toBe(file.selected.system);
    const chosen = file.systems.find((s) => s.name === r.system);
    expect(chosen?.servable).toBe(true);
    const servable = file.systems.filter((s) => s.servable).map((s) => file.selected.validation[s.name] as number);
    expect(file.selected.validation[r.leader]).toBe(Math.max(...servable));
    expect(r.margin.delta).toBeCloseTo(
      (file.selected.validation[r.leader] as number) - (file.selected.validation[r.system] as number),
      9,
    );
    expect(r.over_ranker).toEqual(
      file.comparisons.find(
        (c) => c.system === r.system && c.baseline === "prerank" && c.slice === "conditional" && c.metric === "N@5",
      ),
    );
    expect(file.systems.map((s) => s.name).sort()).toEqual([...systems].sort());
    // Timed: all that asks a language model.
    const timed = file.systems.filter((s) => s.prompt_tokens > 0).map((s) => s.name);
    expect(Object.keys(file.request_ms).sort()).toEqual(timed.sort());
    // A fake model knows nothing: it is asked about validation, and has no say in direct mode.
    expect(timed).toContain("rl");
    expect(timed).not.toContain("direct");
    const n5 = (system: string) => file.rows.filter((r) => r.system === system).map((r) => r.value);
    expect(n5("direct")).toEqual(n5("prior"));

    const rollouts = logged("first", "rollouts.jsonl") as Record<string, unknown>[];
    for (const r of rollouts) {
      expect(Object.keys(r)).toEqual(
        expect.arrayContaining(["stage", "step", "slate", "text", "parse", "reward", "parts", "weightVersion"]),
      );
      const parts = Object.values(r.parts as Record<string, number>);
      expect(parts.reduce((sum, part) => sum + part, 0)).toBeCloseTo(r.reward as number, 10);
    }
  }, 120_000);

  it("does nothing the second time", async () => {
    const before = readEverything("first");
    const { metrics, worker, ran } = await invoke("first");
    expect(ran).toEqual([]);
    expect(worker.log).toEqual([]);
    expect(readEverything("first")).toEqual(before);
    expect(metrics?.timings).toEqual(metricsFile("first").timings);
    expect(Object.values(readRunManifest("first").stages).every((s) => s.cached)).toBe(true);
  });

  it("samples every RL step with the weights that the step before it left", () => {
    type Row = { stage: string; step: number; values: Record<string, number>; weightVersion: number };
    const rows = (file: "metrics.jsonl" | "rollouts.jsonl"): Row[] =>
      (logged("first", file) as Row[]).filter((r) => r.stage === "rl");
    const left = new Map(
      rows("metrics.jsonl").flatMap((r) => ("weightVersion" in r.values ? [[r.step, r.values.weightVersion]] : [])),
    );
    const sampled = rows("rollouts.jsonl").filter((r) => left.has(r.step - 1));
    expect(new Set(sampled.map((r) => r.step)).size).toBeGreaterThan(1);
    for (const r of sampled) expect(r.weightVersion).toBe(left.get(r.step - 1));
  });

  it("gives the same bytes from the same seed, and others from another seed", async () => {
    await invoke("again");
    expect(readEverything("again")).toEqual(readEverything("first"));
    await invoke("other-seed", { set: ["seed=4"] });
    expect(readEverything("other-seed").rollouts).not.toEqual(readEverything("first").rollouts);
  }, 120_000);

  it.each([
    { set: ["rl.steps=4"], ran: ["rl", "evaluate"] },
    { set: ["eval.bootstrap=100"], ran: ["evaluate"] },
    { set: ["sft.lambdaReasoning=0.1"], ran: ["sft", "rl", "evaluate"] },
    {
      set: ["prerank.candidates=6"],
      ran: ["candidates", "slates", "evidence", "traces", "calibrate", "sft", "rl", "evaluate"],
    },
    { set: ["evidence.trees.top=5"], ran: ["evidence", "traces", "calibrate", "sft", "rl", "evaluate"] },
    { set: ["description=another"], ran: [] },
  ])(
    "runs again what $set changes, and what depends on it: $ran",
    async ({ set, ran }) => {
      await invoke("changed");
      expect((await invoke("changed", { set })).ran).toEqual(ran);
      expect((await invoke("changed", { set })).ran).toEqual([]);
    },
    120_000,
  );

  it("says which stages are stale where a changed recipe did not come to them, and shows it", async () => {
    await invoke("stale");
    await invoke("stale", { set: ["sft.lambdaReasoning=0.1"], until: "sft" });
    const stale = (): string[] =>
      Object.entries(readRunManifest("stale").stages).flatMap(([name, s]) => (s.stale ? [name] : []));
    expect(stale()).toEqual(["rl", "evaluate"]);
    const shown = showRun("stale", { root });
    expect(shown).toMatch(/\nsft +finished/);
    expect(shown).toMatch(/\nrl +stale/);
    expect(shown).toContain("The results below are from the earlier settings.");
    await expect(openServedRun(root, "stale", [])).rejects.toThrow("rl, evaluate are missing or stale");
    await invoke("stale", { set: ["sft.lambdaReasoning=0.1"] });
    expect(stale()).toEqual([]);
    expect(showRun("stale", { root })).not.toContain("stale:");
  }, 120_000);

  it.each([
    ["embed", 0],
    ["sid", 0],
    ["midtrain", 0.1],
    ["midtrain", 0.8],
    ["calibrate", 0.5],
    ["sft", 0.3],
    ["sft", 0.9],
    ["rl", 0.02],
    ["rl", 0.5],
    ["rl", 0.97],
    ["evaluate", 0.2],
    ["evaluate", 0.9],
  ])(
    "cut off in %s (%d of its calls), it goes on to the same result",
    async (stage, share) => {
      const own = stageOfCall.flatMap((s, i) => (s === stage ? [i] : []));
      const call = 1 + (own[Math.floor(share * own.length)] as number);
      const name = `cut-${stage}-${share}`;
      const cut = invoke(name, {
        onVerb: (_verb, calls) => {
          if (calls === call) throw new InterruptedError();
        },
      });
      await expect(cut).rejects.toThrow(InterruptedError);
      expect(readRunManifest(name).state).toBe("interrupted");
      expect(readRunManifest(name).stages[stage]?.state).toBe("interrupted");
      const { ran } = await invoke(name);
      expect(ran).toEqual(stageNames.slice(stageNames.indexOf(stage as (typeof stageNames)[number])));
      expect(readEverything(name)).toEqual(readEverything("first"));
    },
    120_000,
  );

  it.each([
    [
      [
        "sft.target=belief",
        "sft.truthShare=0.5",
        "sft.weightDecay=0.1",
        "teacher.recapItems=2",
        "teacher.stateChoice=false",
      ],
    ],
    [["decoding.choice=token", "decoding.prior=false"]],
    [["decoding.constrained=false"]],
    [["prompts.format=json", "prompts.showTitles=true", "decoding.maxReasoningTokens=200"]],
    [["model.source=pretrained", "model.path=fake", "prompts.format=json", "decoding.maxReasoningTokens=200"]],
    [["model.source=pretrained", "model.path=fake", "prompts.chat=on", "decoding.constrained=false"]],
    [
      [
        "prerank.kind=sasrec",
        "prerank.sasrec.maxEpochs=4",
        "prerank.sasrec.validationUsers=20",
        "prerank.sasrec.weightDecay=0.1",
      ],
    ],
    [["prerank.kind=generative", "sid.format=wrapped", "decoding.evidence=true"]],
    [["rl.klCoef=0.1", "rl.minibatches=2", "rl.epochs=2", "rl.reward.kind=ndcg", "rl.thinkShare=0"]],
    [["rl.normaliseStd=false", "rl.lossAggregation=sequence", "rl.maskTruncated=false", "rl.weightDecay=0.1"]],
    [["rl.klCoef=0.1", "rl.klEstimator=k1", "rl.importanceCap=2", "rl.curriculum=near-first"]],
    [["sid.collaborativeDims=4", "sid.contrastiveWeight=0.1", "teacher.sampling=targeted", "eval.controls=false"]],
    [
      [
        "sid.contrastiveWeight=0.1",
        "sid.contrastivePairsPerItem=2",
        "model.placeCodes=false",
        "midtrain.shuffleTies=false",
      ],
    ],
    [
      [
        "sid.collaborativeDims=4",
        "sid.collaborativeWeight=0.5",
        "data.maxHistoryPerUser=20",
        "midtrain.weightDecay=0.1",
      ],
    ],
    [
      [
        "evidence.families=[collaborative,time]",
        ...["maxTrees=5", "minLeafRows=5", "featureShare=0.5", "maxBins=31"].map((s) => `evidence.trees.${s}`),
      ],
    ],
    [["data.split.kind=leave-one-out", "eval.validationSlates=20", "eval.maxSlates=30", "sft.replayShare=0"]],
    [["eval.compress.historyTokens=8", "prompts.showTitles=true", "prompts.compress.titleWords=2"]],
    [["sft.epochs=0.000001", "rl.thinkShare=0"]],
    [["data.split.kind=global-time", "rl.dynamicSampling=false", "rl.thinkShare=1", "midtrain.epochs=0.5"]],
  ])(
    "runs through with %s",
    async (set) => {
      const { metrics } = await invoke("variant", { set });
      expect(metrics?.rows.length).toBeGreaterThan(0);
      const listed = !set.includes("eval.controls=false");
      for (const control of ["rl_other_order", "rl_nothink_other_order"])
        expect(metrics?.rows.some((r) => r.system === control)).toBe(listed);
      for (const r of metrics?.rows ?? []) expect(Number.isFinite(r.value)).toBe(true);
      const rates = Object.values(metrics?.health ?? {});
      for (const rate of rates) expect(Number.isFinite(rate)).toBe(true);
      expect((await invoke("variant", { set })).ran).toEqual([]);
    },
    120_000,
  );

  it("cut off again and again, it still arrives", async () => {
    let attempts = 0;
    for (let arrived = false; !arrived && attempts < 30; attempts++) {
      const abort = new AbortController();
      await invoke("often", {
        abort,
        onVerb: (_verb, calls) => {
          if (calls === 40) abort.abort();
        },
      }).then(
        () => {
          arrived = true;
        },
        (e) => expect(e).toBeInstanceOf(InterruptedError),
      );
    }
    expect(attempts).toBeGreaterThan(3);
    expect(readEverything("often")).toEqual(readEverything("first"));
  }, 120_000);

  it("stops RL once validation is flat, says so, and keeps the best weights", async () => {
    const set = ["rl.keepBest=true", "rl.patience=2", "rl.evalSteps=1", "rl.learningRate=1e-12"];
    await invoke("flat", { set });
    const summary = JSON.parse(readFileSync(join(root, "flat", "stages/rl/summary.json"), "utf8"));
    expect(summary).toMatchObject({ steps: 2, bestStep: 0 }); // of 6: two evaluations no better than the first
    await invoke("patient", { set: [...set, "rl.patience=0"] });
    expect(JSON.parse(readFileSync(join(root, "patient", "stages/rl/summary.json"), "utf8")).steps).toBe(6);
  });

  it("stops SFT once validation is flat, says so, and keeps the best weights; the start is none of them", async () => {
    const set = ["sft.evalSteps=1", "sft.evalSlates=10", "sft.patience=2", "sft.learningRate=1e-12", "rl.steps=0"];
    await invoke("sft-flat", { set });
    const read = (name: string, file: string) => JSON.parse(readFileSync(join(root, name, "stages/sft", file), "utf8"));
    // The first evaluation counts, the two after it are no better.
    expect(read("sft-flat", "summary.json")).toMatchObject({ steps: 3, bestStep: 1 });
    expect(read("sft-flat", "state/gr2_state.json").step).toBe(1);
    await invoke("sft-patient", { set: [...set, "sft.patience=0"] });
    const { steps, bestStep } = read("sft-patient", "summary.json");
    expect([steps > 3, bestStep]).toEqual([true, 1]);
    await invoke("sft-blind", { set: [...set, "sft.evalSteps=0"] });
    expect(read("sft-blind", "state/gr2_state.json").step).toBe(steps);
  });
});
