/**
 * What an engineer does with runs, from the command line on a fake worker: several seeds, shared stages, comparisons.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readTestAnswers, slateMetrics } from "../../src/artifacts/orders.ts";
import type { Metrics } from "../../src/artifacts/results.ts";
import { compare } from "../../src/cli/compare.ts";
import { runPipeline } from "../../src/cli/pipeline.ts";
import { pipelineSeeds } from "../../src/cli/seeds.ts";
import type { RunComparison } from "../../src/commands/compare.ts";
import type { SeedsSummary } from "../../src/commands/seeds.ts";
import { type Manifest, readManifest } from "../../src/run/manifest.ts";
import { RunFolder } from "../../src/run/run-folder.ts";
import { stageNames } from "../../src/run/stage.ts";
import { FakeWorker } from "../../src/worker/fake.ts";
import { writePipelineFixture } from "../pipeline-fixture.ts";

const folder = mkdtempSync(join(tmpdir(), "gr2-daily-"));
const root = join(folder, "runs");
let recipe = "";
let printed = "";
const out = { write: (text: string) => (printed += text) };

const args = (o: { run?: string; set?: string[]; fresh?: boolean; share?: boolean; worker?: FakeWorker } = {}) => ({
  config: recipe,
  set: o.set ?? [],
  root,
  share: o.share ?? true,
  worker: o.worker ?? new FakeWorker(),
  ...(o.run ? { run: o.run } : {}),
  ...(o.fresh ? { fresh: true } : {}),
});
const readFile = <T>(...parts: string[]): T => JSON.parse(readFileSync(join(root, ...parts), "utf8")) as T;
/** Stages that the last invocation of a run did not have to make. */
const cached = (run: string): string[] =>
  Object.entries(readManifest(join(root, run))?.stages ?? {}).flatMap(([name, s]) => (s.cached ? [name] : []));
const value = (metrics: Metrics, system: string, slice: string): number =>
  metrics.rows.find((r) => r.system === system && r.slice === slice && r.metric === "N@5")?.value ?? Number.NaN;

beforeAll(async () => {
  recipe = writePipelineFixture(folder);
  await pipelineSeeds({ ...args(), seeds: "0,1" }, out);
}, 120_000);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("gr2 pipeline --seeds", () => {
  it("makes a run for each seed and takes over the stages that no seed changes", () => {
    expect(cached("small-seed0")).toEqual([]);
    expect(cached("small-seed1")).toEqual(["data", "embed"]);
    expect(readManifest(join(root, "small-seed1"))).toMatchObject({ seed: 1, state: "finished" });
    const file = ["stages", "data", "dataset.json"];
    expect(statSync(join(root, "small-seed1", ...file)).ino).toBe(statSync(join(root, "small-seed0", ...file)).ino);
  });

  it("leaves the mean over the seeds with both levels of uncertainty", () => {
    const summary = readFile<SeedsSummary>("small.seeds.json");
    const runs = ["small-seed0", "small-seed1"].map((r) => readFile<Metrics>(r, "metrics.json"));
    expect(summary.slices.map((s) => s.slice)).toEqual(["end_to_end", "conditional"]);
    for (const { slice, systems, slates } of summary.slices) {
      expect(systems.map((s) => s.system)).toContain("rl_direct");
      expect(slates).toHaveLength(2);
      for (const { system, value: v, over_prerank: d } of systems) {
        const own = runs.map((m) => value(m, system, slice));
        own.forEach((expected, i) => {
          expect(v.runs?.[i]).toBeCloseTo(expected, 9);
        });
        expect(v.value).toBeCloseTo(((own[0] ?? 0) + (own[1] ?? 0)) / 2, 9);
        const over = runs.map((m, i) => (own[i] ?? 0) - value(m, "prerank", slice));
        expect(d.value).toBeCloseTo(((over[0] ?? 0) + (over[1] ?? 0)) / 2, 9);
        expect(d.both?.[0]).toBeLessThanOrEqual(d.users[0]);
      }
    }
    expect(printed).toContain("95 % seeds");
    expect(printed).toMatch(/recommended: \w+ \(seed 0\), \w+ \(seed 1\)/);
  });

  it("resumes after a kill and then says the same", async () => {
    const before = readFile<SeedsSummary>("small.seeds.json");
    const killed = { ...args({ run: "again" }), seeds: "0,1", worker: new FakeWorker() };
    let calls = 0;
    const dying = new FakeWorker(() => {
      if (++calls === 40) throw new Error("killed");
    });
    await expect(pipelineSeeds({ ...killed, share: false, worker: dying }, out)).rejects.toThrow(/killed/);
    expect(existsSync(join(root, "again.seeds.json"))).toBe(false);
    await pipelineSeeds({ ...killed, share: false }, out);
    expect(readFile<SeedsSummary>("again.seeds.json").slices).toEqual(before.slices);
  }, 120_000);

  it("refuses seeds that are not numbers, are repeated, or contradict --set", async () => {
    for (const seeds of ["0,0", "a", "", "1.5", "-1"])
      await expect(pipelineSeeds({ ...args(), seeds }, out)).rejects.toThrow(/expected different whole numbers/);
    await expect(pipelineSeeds({ ...args({ set: ["seed=4"] }), seeds: "0" }, out)).rejects.toThrow(/contradict/);
  });
});

describe("stages that another run has", () => {
  it("are taken over with their log records, and not with --no-share or --fresh", async () => {
    const set = ["seed=0", "eval.bootstrap=100"];
    await runPipeline(args({ run: "shared", set }), out);
    expect(cached("shared")).toEqual(stageNames.filter((s) => s !== "evaluate"));
    const steps = (run: string) =>
      readFileSync(join(root, run, "metrics.jsonl"), "utf8")
        .split("\n")
        .filter((line) => line.includes('"stage":"rl"')).length;
    expect(steps("shared")).toBe(steps("small-seed0"));
    const worker = new FakeWorker();
    await runPipeline(args({ run: "alone", set, share: false, worker }), out);
    expect(cached("alone")).toEqual([]);
    await runPipeline(args({ run: "shared", set, fresh: true }), out);
    expect(cached("shared")).toEqual([]);
  }, 120_000);

  it("are made again where the other run's file is damaged", async () => {
    const elsewhere = { root: join(folder, "elsewhere"), until: "sid" };
    await runPipeline({ ...args({ run: "source" }), ...elsewhere }, out);
    const path = ["stages", "embed", "summary.json"];
    writeFileSync(join(elsewhere.root, "source", ...path), "{}");
    await runPipeline({ ...args({ run: "after" }), ...elsewhere }, out);
    const { stages } = readManifest(join(elsewhere.root, "after")) ?? { stages: {} };
    expect(Object.entries(stages as Manifest["stages"]).map(([name, s]) => [name, s.cached])).toEqual([
      ["data", true],
      ["candidates", true],
      ["embed", false],
      ["sid", true],
    ]);
    expect(readFileSync(join(elsewhere.root, "after", ...path), "utf8")).not.toBe("{}");
  }, 120_000);
});

describe("gr2 compare", () => {
  const report = (...runs: string[]): RunComparison =>
    JSON.parse(compare(runs, { root, metric: "N@5", json: true })) as RunComparison;

  it("shows which settings differ, and no result does where they change no result", () => {
    const c = report("small-seed0", "shared");
    expect(c.settings).toEqual([{ name: "eval.bootstrap", values: [[200], [100]] }]);
    expect(c.code).toEqual([]);
    expect(c.sides[0]?.data).toEqual(c.sides[1]?.data);
    for (const o of c.outcomes)
      for (const s of o.systems) expect(s.deltas[0]).toMatchObject({ value: 0, users: [0, 0] });
  });

  it("pairs by slate: the difference of the tables' means, with an interval around it", () => {
    const c = report("small-seed0", "small-seed1");
    expect(c.settings).toEqual([{ name: "seed", values: [[0], [1]] }]);
    const [a, b] = ["small-seed0", "small-seed1"].map((r) => readFile<Metrics>(r, "metrics.json")) as [
      Metrics,
      Metrics,
    ];
    for (const o of c.outcomes)
      for (const { system, deltas } of o.systems) {
        const delta = value(b, system, o.slice) - value(a, system, o.slice);
        expect(deltas[0]?.value).toBeCloseTo(delta, 9);
        expect(deltas[0]?.users[0]).toBeLessThanOrEqual(delta + 1e-9);
        expect(deltas[0]?.users[1]).toBeGreaterThanOrEqual(delta - 1e-9);
      }
    expect(Object.keys(c.seconds)).toEqual([...stageNames]);
    expect(c.tokens.rl?.every((t) => t > 0)).toBe(true);
  });

  it("averages a family of seeds, by its common name or by a list", () => {
    const family = report("small", "shared");
    expect(family.sides[0]).toMatchObject({ runs: ["small-seed0", "small-seed1"], seeds: [0, 1] });
    const listed = report("small-seed0,small-seed1", "shared");
    expect(listed.outcomes).toEqual(family.outcomes);
    const groups = report("small", "again");
    expect(groups.outcomes[0]?.systems.every((s) => s.deltas[0]?.both !== undefined)).toBe(true);
  });

  it("prints text and Markdown", () => {
    const text = compare(["small-seed0", "small-seed1"], { root, metric: "MRR" });
    expect(text).toContain("MRR, all ");
    expect(text).toMatch(/rl_direct +\d\.\d{4} +\d\.\d{4} +[+−]\d\.\d{4} +\[/);
    const markdown = compare(["small-seed0", "small-seed1"], { root, metric: "N@5", markdown: true });
    expect(markdown).toMatch(/^\| rl_direct \| \d\.\d{4} \|/m);
  });

  it("says what is missing", () => {
    expect(() => compare(["small-seed0"], { root, metric: "N@5" })).toThrow(/nothing to compare with/);
    expect(() => report("small-seed0", "nobody")).toThrow(/no run "nobody"/);
    expect(() => compare(["a", "b"], { root, metric: "N@7" })).toThrow(/expected one of R@1/);
  });
});

describe("the orders that evaluation keeps", () => {
  it("give the results table's numbers again", () => {
    const answers = readTestAnswers(RunFolder.view(root, "small-seed0"));
    const metrics = readFile<Metrics>("small-seed0", "metrics.json");
    for (const system of Object.keys(answers.systems)) {
      const values = slateMetrics(answers, system, "MRR");
      const total = values.reduce((a, b) => a + b, 0);
      const row = (slice: string) =>
        metrics.rows.find((r) => r.system === system && r.slice === slice && r.metric === "MRR");
      expect(total / answers.slates.length).toBeCloseTo(row("conditional")?.value ?? -1, 9);
      expect(total / values.length).toBeCloseTo(row("end_to_end")?.value ?? -1, 9);
    }
  });
});
