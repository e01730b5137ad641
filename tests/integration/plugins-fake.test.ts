/** Modules of a user's through the whole pipeline on a fake worker: what they change, what they are kept by, what stops. */
import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { explainReward } from "../../src/cli/explain.ts";
import { configHash, loadConfig, resolvedYaml } from "../../src/config/load.ts";
import type { Manifest } from "../../src/run/manifest.ts";
import { Run } from "../../src/run/run.ts";
import { stageNames } from "../../src/run/stage.ts";
import { runStages } from "../../src/stages/pipeline.ts";
import { FakeWorker } from "../../src/worker/fake.ts";
import { TelemetryBus } from "../../src/worker/telemetry.ts";
import { writePipelineFixture } from "../pipeline-fixture.ts";

const folder = mkdtempSync(join(tmpdir(), "gr2-plugins-fake-"));
const root = join(folder, "runs");
let base = "";
beforeAll(() => {
  base = writePipelineFixture(folder);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** One invocation, as from the command line; returns the stages that ran. */
async function invoke(recipe: string, name: string, until?: string): Promise<string[]> {
  const config = loadConfig(recipe);
  const bus = new TelemetryBus(name);
  const ran: string[] = [];
  bus.on((m) => {
    if (m.kind === "stage" && (m.state === "started" || m.state === "resumed")) ran.push(m.stage);
  });
  const { signal } = new AbortController();
  const run = await Run.open({
    ...{ root, name, configYaml: resolvedYaml(config), configHash: configHash(config), seed: config.seed },
    ...{ stages: stageNames, signal, bus, ...(until ? { until } : {}) },
  });
  try {
    await runStages(run, { config, root, name, signal, bus, worker: new FakeWorker() });
    await run.close("finished");
    return ran;
  } catch (e) {
    await run.close("failed").catch(() => {});
    throw e;
  }
}

const readManifest = (name: string): Manifest =>
  JSON.parse(readFileSync(join(root, name, "manifest.json"), "utf8")) as Manifest;

const writeProject = (name: string, recipe: string, files: Readonly<Record<string, string>>): string => {
  const dir = join(folder, name);
  mkdirSync(dir, { recursive: true });
  for (const [file, text] of Object.entries(files)) writeFileSync(join(dir, file), text);
  writeFileSync(join(dir, "recipe.yaml"), `extends: ${base}\n${recipe}\n`);
  return join(dir, "recipe.yaml");
};

describe("a reward of one's own", () => {
  const reward = `import { bonus } from "./bonus.ts";
export default {
  score: (answers) => answers.map(({ slate, order }) => {
    const hit = slate.labels[order[0]];
    const diversity = new Set(order.slice(0, 3).flatMap((i) => slate.candidates[i].categories)).size / 10;
    return { value: hit + bonus * diversity, parts: { hit, diversity: bonus * diversity }, because: "hit and genres" };
  }),
};`;
  const files = { "mine.ts": reward, "bonus.ts": "export const bonus = 1;\n" };
  let recipe = "";
  beforeAll(async () => {
    recipe = writeProject("reward", "rl: { reward: { module: ./mine.ts, format: none } }", files);
    await invoke(recipe, "reward", "rl");
  });

  it("pays what it says, in parts, for every readable answer", () => {
    const lines = readFileSync(join(root, "reward", "rollouts.jsonl"), "utf8")
      .trim()
      .split("\n");
    const paid = lines.map((l) => JSON.parse(l) as RolloutLine).filter((r) => r.parse.kind === "ranking");
    expect(paid.length).toBeGreaterThan(10);
    for (const { reward, parts, details, because } of paid) {
      expect(reward).toBeCloseTo((details?.hit ?? 0) + (details?.diversity ?? 0) + (parts.overlong ?? 0), 9);
      expect(details?.diversity).toBeGreaterThan(0);
      expect(because).toContain("hit and genres");
    }
    const metrics = readFileSync(join(root, "reward", "metrics.jsonl"), "utf8");
    expect(metrics).toContain("reward_ranking_diversity");
  });

  it("is named in the manifest with its files, and is in the key of stage rl alone", async () => {
    expect(readManifest("reward").plugins).toEqual({
      "rl.reward": {
        ...{ module: "mine.ts", version: "", files: ["bonus.ts", "mine.ts"], packages: {} },
        sha256: expect.stringMatching(/^[0-9a-f]{64}$/),
      },
    });
    expect(await invoke(recipe, "reward", "rl")).toEqual([]);
    writeFileSync(join(folder, "reward", "bonus.ts"), "export const bonus = 2;\n");
    expect(await invoke(recipe, "reward", "rl")).toEqual(["rl"]);
  });

  it("gives the same run wherever the project is, and another one with other options", async () => {
    renameSync(join(folder, "reward"), join(folder, "moved"));
    const moved = join(folder, "moved", "recipe.yaml");
    expect(configHash(loadConfig(moved))).toBe(readManifest("reward").config_hash);
    expect(await invoke(moved, "reward", "rl")).toEqual([]);
    writeFileSync(moved, `${readFileSync(moved, "utf8")}`.replace("format: none", "format: none, options: { a: 1 }"));
    expect(await invoke(moved, "reward", "rl")).toEqual(["rl"]);
  });

  it("is explained by gr2 reward explain, of a run and without one", async () => {
    const [slate] = readFileSync(join(root, "reward", "stages/slates/rerank.jsonl"), "utf8").split("\n");
    const { id } = JSON.parse(slate as string) as { id: string };
    const line = readFileSync(join(root, "reward", "rollouts.jsonl"), "utf8")
      .split("\n")
      .filter((l) => l !== "")
      .map((l) => JSON.parse(l) as RolloutLine)
      .find((r) => r.parse.kind === "ranking");
    const text = await explainReward({
      ...{ run: "reward", slate: line?.slate ?? id, response: line?.text ?? "", root, config: "unused", set: [] },
    });
    expect(text).toMatch(/mine\.ts says [\d.]+ \(hit [01]; diversity 0\.\d+; hit and genres\)/);
    const bare = await explainReward({
      ...{ candidates: 3, target: 2, response: "c2 c1 c3<|end|>", root, set: [] },
      config: join(folder, "moved", "recipe.yaml"),
    });
    expect(bare).toMatch(/mine\.ts says 1 \(hit 1; diversity 0; hit and genres\)/);
  });

  it("stops the run where it breaks its contract, names the slate, and keeps what is finished", async () => {
    const broken = `let n = 0; export default { score: (a) => a.map(() => (n++ > 40 ? Number.NaN : n % 3)) };`;
    const bad = writeProject("broken", "rl: { reward: { module: ./mine.ts } }", { "mine.ts": broken });
    await expect(invoke(bad, "broken")).rejects.toThrow(/rl\.reward: .*mine\.ts gave NaN for slate [0-9a-f]{20} \(c/);
    const { stages } = readManifest("broken");
    expect([stages.sft?.state, stages.rl?.state]).toEqual(["finished", "failed"]);
    writeFileSync(join(folder, "broken", "mine.ts"), "export default { score: (a) => a.map((_, i) => i % 3) };");
    // Node keeps a module that it has imported; a new process would read the file again.
    renameSync(join(folder, "broken", "mine.ts"), join(folder, "broken", "mended.ts"));
    writeFileSync(bad, readFileSync(bad, "utf8").replace("mine.ts", "mended.ts"));
    expect(await invoke(bad, "broken")).toEqual(["rl", "evaluate"]);
  });

  it("is looked at before anything runs", async () => {
    const bad = writeProject("misfit", "rl: { reward: { module: ./mine.js } }", { "mine.js": "export default {};" });
    await expect(invoke(bad, "misfit")).rejects.toThrow(/mine\.js: it is not a reward, \{score\(answers\)\}: score/);
    expect(readManifest("misfit").stages).toEqual({});
  });
});

describe("metrics and baselines of one's own", () => {
  const metric = `export default { measure: (orders) => orders.map(({ slate, order }) => {
    if (order.length !== slate.candidates.length) throw new Error("not whole");
    return slate.labels[order[0]];
  }) };`;
  // Greedy: the next candidate is the one that shares fewest categories with those before it.
  const mmr = `export default ({ options }) => ({ score: (slates) => slates.map((slate) => {
    if ("labels" in slate) throw new Error("it sees the answer");
    return slate.scores.map((s, i) => (options.back ? i : -i));
  }) });`;
  let results: { rows: { system: string; metric: string; slice: string; value: number; n: number }[] };
  let recipe = "";
  beforeAll(async () => {
    const settings = `eval:
  metrics: { first: { module: ./first.mjs } }
  baselines: { same: { module: ./order.mjs }, reversed: { module: ./order.mjs, options: { back: true } } }
rl: { steps: 1 }`;
    recipe = writeProject("judges", settings, { "first.mjs": metric, "order.mjs": mmr });
    await invoke(recipe, "judges");
    results = JSON.parse(readFileSync(join(root, "judges", "metrics.json"), "utf8")) as typeof results;
  });
  const value = (system: string, name: string): number =>
    results.rows.find((r) => r.system === system && r.metric === name && r.slice === "conditional")?.value ??
    Number.NaN;

  it("are columns and rows of the results table", () => {
    const systems = [...new Set(results.rows.map((r) => r.system))];
    for (const system of systems) expect(value(system, "first"), system).toBeCloseTo(value(system, "R@1"), 12);
    expect(results.rows.filter((r) => r.metric === "first" && r.slice === "end_to_end")).toEqual([]);
    // The first scores in the order that came in, the second the other way round.
    for (const name of ["R@1", "N@5", "MRR"]) expect(value("same", name)).toBeCloseTo(value("prerank", name), 12);
    expect(value("reversed", "MRR")).toBeLessThan(value("same", "MRR"));
  });

  it("run the evaluation alone again when they change", async () => {
    expect(await invoke(recipe, "judges")).toEqual([]);
    writeFileSync(join(folder, "judges", "first.mjs"), metric.replace("not whole", "not all"));
    expect(await invoke(recipe, "judges")).toEqual(["evaluate"]);
    expect(Object.keys(readManifest("judges").plugins).sort()).toEqual([
      ...["eval.baselines.reversed", "eval.baselines.same", "eval.metrics.first"],
    ]);
  });

  it("are named with slate and value when they are wrong", async () => {
    const wrong = "export default { score: (slates) => slates.map((s, k) => (k === 3 ? [1] : s.scores)) };";
    const bad = writeProject("judges", "eval: { baselines: { mine: { module: ./wrong.mjs } } }\nrl: { steps: 1 }", {
      "wrong.mjs": wrong,
    });
    await expect(invoke(bad, "judges")).rejects.toThrow(
      /eval\.baselines\.mine: .*wrong\.mjs gave \[1\] for slate [0-9a-f]{20}: expected 5 finite numbers, one a candidate/,
    );
  });
});

interface RolloutLine {
  readonly slate: string;
  readonly text: string;
  readonly parse: { readonly kind: string };
  readonly reward: number;
  readonly parts: Readonly<Record<string, number>>;
  readonly details?: Readonly<Record<string, number>>;
  readonly because: string;
}
