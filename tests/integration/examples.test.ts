/** The five projects of examples/, each from data to table on a fake worker, in a folder of its own. */
import { execFileSync } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Metrics } from "../../src/artifacts/results.ts";
import { configHash, loadConfig, resolvedYaml } from "../../src/config/load.ts";
import { repositoryRoot } from "../../src/core/paths.ts";
import type { Manifest } from "../../src/run/manifest.ts";
import { Run } from "../../src/run/run.ts";
import { stageNames } from "../../src/run/stage.ts";
import { runStages } from "../../src/stages/pipeline.ts";
import { FakeWorker } from "../../src/worker/fake.ts";
import { TelemetryBus } from "../../src/worker/telemetry.ts";

const folder = mkdtempSync(join(tmpdir(), "gr2-examples-"));
const root = join(folder, "runs");
beforeAll(() => {
  cpSync(join(repositoryRoot, "examples"), join(folder, "examples"), { recursive: true });
  const script = join(repositoryRoot, "examples/shop/make-shop.mjs");
  execFileSync(process.execPath, [script, join(folder, "examples/shop/data")]);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function run(name: string, until?: string): Promise<Metrics | undefined> {
  const recipe = join(folder, "examples", name, "recipe.yaml");
  const config = loadConfig(recipe, ["embed.model=fake", `data.cacheDir=${folder}`]);
  const { signal } = new AbortController();
  const bus = new TelemetryBus(name);
  const open = await Run.open({
    ...{ root, name, configYaml: resolvedYaml(config), configHash: configHash(config), seed: config.seed },
    ...{ stages: stageNames, signal, bus, ...(until ? { until } : {}) },
  });
  const metrics = await runStages(open, { config, root, name, signal, bus, worker: new FakeWorker() });
  await open.close("finished");
  return metrics;
}

const readFile = (name: string, ...file: string[]): string => readFileSync(join(root, name, ...file), "utf8");
const readPlugins = (name: string): Manifest["plugins"] =>
  (JSON.parse(readFile(name, "manifest.json")) as Manifest).plugins;

describe("examples", () => {
  it("diversity-reward pays for shelves at the top", async () => {
    await run("diversity-reward", "rl");
    const rollouts = readFile("diversity-reward", "rollouts.jsonl");
    expect(rollouts).toMatch(/"details":\{"ndcg":[\d.]+,"diversity":0?\.?\d*/);
    expect(readPlugins("diversity-reward")["rl.reward"]?.files).toEqual(["diversity.ts"]);
  });

  it("lightgbm-preranker proposes better candidates than popularity, the same at every fit", async () => {
    const log = async (): Promise<string> => {
      await run("lightgbm-preranker", "candidates");
      return readFile("lightgbm-preranker", "stages/candidates/test.jsonl");
    };
    const first = await log();
    const hits = first
      .trim()
      .split("\n")
      .map((l) => JSON.parse(l) as { targetIndex: number });
    // Of 20 or more things left, 5 are candidates: chance is a quarter, and people walk forward.
    expect(hits.filter((s) => s.targetIndex >= 0).length / hits.length).toBeGreaterThan(0.4);
    rmSync(join(root, "lightgbm-preranker", "stages"), { recursive: true });
    expect(await log()).toBe(first);
    expect(readPlugins("lightgbm-preranker").prerank?.packages.lightgbm).toMatch(/^\d/);
  });

  it("parquet-lake reads the months it is asked for", async () => {
    await run("parquet-lake", "data");
    const { interactions } = JSON.parse(readFile("parquet-lake", "stages/data/summary.json")) as {
      interactions: number;
    };
    // The first visits of every person are of November 2023.
    expect(interactions).toBeGreaterThan(500);
    expect(interactions).toBeLessThan(1200);
    expect(readFile("parquet-lake", "stages/data/dataset.json")).toContain("files of events");
  });

  it("own-teacher writes the traces", async () => {
    await run("own-teacher", "sft");
    const [trace] = readFile("own-teacher", "stages/traces/traces.jsonl").split("\n");
    expect(JSON.parse(trace as string)).toMatchObject({ teacher: "module", model: "shelves" });
  });

  it("mmr-baseline shows more shelves at the top than the pre-rank", async () => {
    const metrics = await run("mmr-baseline");
    const shelves = (system: string) =>
      metrics?.rows.find((r) => r.system === system && r.metric === "shelves_at_3")?.value ?? Number.NaN;
    expect(shelves("mmr")).toBeGreaterThan(shelves("prerank"));
    expect(shelves("prerank")).toBeGreaterThanOrEqual(1);
  });
});
