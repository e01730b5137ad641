/**
 * The whole pipeline on a log of impressions and a fake worker: slates of many sizes, several positives, graded labels.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Metrics } from "../../src/artifacts/results.ts";
import type { TraceRecord } from "../../src/artifacts/traces.ts";
import { configHash, loadConfig, resolvedYaml } from "../../src/config/load.ts";
import { loadDataset } from "../../src/data/cache.ts";
import { gradedAuc, gradedNdcg } from "../../src/eval/metrics.ts";
import type { Slate } from "../../src/prerank/types.ts";
import { readReportData } from "../../src/report/data.ts";
import { renderReport } from "../../src/report/report.ts";
import { Run } from "../../src/run/run.ts";
import { stageNames } from "../../src/run/stage.ts";
import { runStages } from "../../src/stages/pipeline.ts";
import { FakeWorker } from "../../src/worker/fake.ts";
import { TelemetryBus } from "../../src/worker/telemetry.ts";
import { loggedRequests, writeImpressionsFixture } from "../impressions-fixture.ts";

const folder = mkdtempSync(join(tmpdir(), "gr2-log-"));
const root = join(folder, "runs");
let recipe = "";
beforeAll(() => {
  recipe = writeImpressionsFixture(folder);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function invoke(name: string, set: readonly string[] = [], until?: string): Promise<Metrics> {
  const config = loadConfig(recipe, set);
  const { signal } = new AbortController();
  const bus = new TelemetryBus(name);
  const identity = { configYaml: resolvedYaml(config), configHash: configHash(config), seed: config.seed };
  const run = await Run.open({ root, name, ...identity, stages: stageNames, signal, bus, ...(until ? { until } : {}) });
  const metrics = await runStages(run, { config, root, name, signal, bus, worker: new FakeWorker() });
  await run.close("finished");
  return metrics as Metrics;
}

const lines = <T>(name: string, stage: string, file: string): T[] =>
  readFileSync(join(root, name, "stages", stage, file), "utf8")
    .trimEnd()
    .split("\n")
    .map((l) => JSON.parse(l) as T);
const findResult = (m: Metrics, system: string, metric: string): number =>
  m.rows.find((r) => r.system === system && r.slice === "conditional" && r.metric === metric)?.value ?? Number.NaN;

describe("the pipeline on logged impressions", () => {
  it("goes from the log to metrics.json, and the pre-rank row is the incumbent's own quality", async () => {
    const metrics = await invoke("log");
    const test = lines<Slate>("log", "slates", "test.jsonl");
    const sizes = new Set(test.map((s) => s.candidates.length));
    expect(sizes.size).toBeGreaterThan(3);
    expect(new Set(test.map((s) => s.labels?.filter((l) => l > 0).length)).size).toBeGreaterThan(2);

    // The slates are the log's, to the last label.
    const dataset = await loadDataset(join(root, "log", "stages", "data"));
    const renderRow = (user: unknown, time: unknown, c: readonly unknown[], s: unknown, l: unknown): string =>
      JSON.stringify([user, time, c, s, l]);
    const logged = new Set(loggedRequests().map((r) => renderRow(r.user, r.time, r.candidates, r.scores, r.labels)));
    for (const s of test) {
      const user = dataset.sequences[s.user];
      const ids = s.candidates.map((row) => dataset.items[row]?.id);
      expect(logged).toContain(renderRow(user?.user, s.time, ids, s.scores, s.labels));
      const history = Array.from(user?.times.subarray(0, s.position) ?? []);
      expect(history.every((t) => t < (s.time ?? 0))).toBe(true);
    }
    const mean = (f: (labels: readonly number[]) => number): number =>
      test.reduce((sum, s) => sum + f(s.labels ?? []), 0) / test.length;
    expect(findResult(metrics, "prerank", "N@5")).toBeCloseTo(
      mean((l) => gradedNdcg(l, 5)),
      9,
    );
    expect(findResult(metrics, "prerank", "AUC")).toBeCloseTo(
      mean((l) => gradedAuc(l) ?? Number.NaN),
      9,
    );

    expect(new Set(metrics.rows.map((r) => r.slice))).toEqual(new Set(["conditional"])); // a log has no misses
    for (const r of metrics.rows) expect(r.value >= 0 && r.value <= 1, `${r.system} ${r.metric}`).toBe(true);
    expect(metrics.health.sft_nothink_valid_rate).toBe(1);
    expect(metrics.comparisons.some((c) => c.metric === "AUC")).toBe(true);

    // What SFT learns from ranks by label.
    const rerank = new Map(lines<Slate>("log", "slates", "rerank.jsonl").map((s) => [s.id, s]));
    const traces = lines<TraceRecord>("log", "traces", "traces.jsonl");
    expect(traces.length).toBeGreaterThan(10);
    for (const t of traces) {
      const labels = t.order.map((i) => rerank.get(t.slate)?.labels?.[i] ?? Number.NaN);
      expect(labels).toEqual([...labels].sort((a, b) => b - a));
    }
    const page = await renderReport(
      readReportData(join(root, "log")) as NonNullable<ReturnType<typeof readReportData>>,
    );
    expect(page).toContain("<th>AUC</th>");
  }, 60_000);

  it("reads the wide layout to the same slates", async () => {
    const columns =
      "{user: user, time: time, candidates: candidates, scores: scores, labels: labels, title: title, categories: colour, id: item}";
    await invoke("wide", ["data.files.impressions=wide.jsonl", `data.columns=${columns}`], "slates");
    const slates = (name: string): unknown[] =>
      lines<Slate>(name, "slates", "test.jsonl").map(({ id: _, ...slate }) => slate);
    expect(slates("wide")).toEqual(slates("log"));
  }, 60_000);

  it.each([
    [["sft.target=belief", "rl.reward={kind: rank-promotion, dehacked: false}", "data.split.kind=position"]],
    [["decoding.choice=token", "decoding.evidence=true", "rl.reward.kind=auc", "teacher.sampling=targeted"]],
  ])(
    "runs through with %s",
    async (set) => {
      const metrics = await invoke("variant", set);
      for (const r of metrics.rows) expect(Number.isFinite(r.value)).toBe(true);
    },
    60_000,
  );
});
