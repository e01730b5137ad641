/**
 * On-policy distillation on a fake worker: the student's KL to its teacher falls, and teachers
 * that cannot teach are refused.
 */
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { exportRun } from "../../src/commands/export.ts";
import { configHash, loadConfig, resolvedYaml } from "../../src/config/load.ts";
import { CheckpointError, InterruptedError } from "../../src/core/errors.ts";
import { Run } from "../../src/run/run.ts";
import { RunFolder } from "../../src/run/run-folder.ts";
import { stageNames } from "../../src/run/stage.ts";
import { runStages } from "../../src/stages/pipeline.ts";
import { FakeWorker } from "../../src/worker/fake.ts";
import { TelemetryBus } from "../../src/worker/telemetry.ts";
import { writePipelineFixture } from "../pipeline-fixture.ts";

const folder = mkdtempSync(join(tmpdir(), "gr2-distill-"));
const root = join(folder, "runs");
let recipe = "";
const state = (run: string, stage: string): string => join(root, run, "stages", stage, "state");
// One tokenizer for all: that of the fake pretrained model.
const common = ["model.source=pretrained", "model.path=fake", "midtrain.epochs=0.5", "decoding.constrained=false"];
const opd = [
  ...[
    "rl.kind=opd",
    "rl.steps=40",
    "rl.learningRate=0.006",
    "rl.evalSteps=20",
    "rl.evalSlates=5",
    "rl.opd.anchor=0",
    "rl.opd.advantageCap=4",
  ],
  ...["rl.warmupSteps=0", "rl.checkpointSteps=4", "rl.thinkShare=0"],
];

const forwardKl = ["rl.opd.loss=forward-kl", "rl.opd.topK=8"];
const log: string[] = [];

async function invoke(name: string, until: string, set: readonly string[], onVerb?: (verb: string) => void) {
  const config = loadConfig(recipe, [...common, ...set]);
  const { signal } = new AbortController();
  const bus = new TelemetryBus(name);
  bus.on((m) => {
    if (m.kind === "log") log.push(m.text);
    if (m.kind === "progress") log.push(m.note ?? "");
  });
  const yaml = { configYaml: resolvedYaml(config), configHash: configHash(config), seed: config.seed };
  const run = await Run.open({ root, name, ...yaml, stages: stageNames, until, signal, bus });
  const worker = new FakeWorker(onVerb);
  try {
    await runStages(run, { config, root, name, signal, bus, worker });
    await run.close("finished");
  } catch (e) {
    await run.close(e instanceof InterruptedError ? "interrupted" : "failed");
    throw e;
  }
  return worker;
}

/** A run that stands behind calibration. */
function fresh(name: string): string {
  cpSync(join(root, "base"), join(root, name), { recursive: true });
  return name;
}

const readValues = (run: string, name: string): number[] =>
  readFileSync(join(root, run, "metrics.jsonl"), "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as { stage: string; values: Record<string, number> })
    .flatMap(({ stage, values }) => (stage === "rl" && values[name] !== undefined ? [values[name]] : []));
const mean = (xs: readonly number[]): number => xs.reduce((a, b) => a + b, 0) / xs.length;

beforeAll(async () => {
  recipe = writePipelineFixture(folder);
  await invoke("base", "calibrate", []);
  await invoke(fresh("teacher"), "sft", ["sft.epochs=4", "sft.learningRate=0.01", "sft.noThinkShare=1"]);
}, 60_000);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("on-policy distillation", () => {
  it("brings the student nearer to its teacher, and leaves what RL leaves", async () => {
    const worker = await invoke(fresh("student"), "rl", [...opd, `rl.opd.teacher=${state("teacher", "sft")}`]);
    const kl = readValues("student", "reverseKl");
    expect(kl.length).toBe(40);
    expect(mean(kl.slice(0, 6))).toBeGreaterThan(0);
    expect(mean(kl.slice(-6))).toBeLessThan(0.7 * mean(kl.slice(0, 6)));
    expect(existsSync(state("student", "rl"))).toBe(true);
    expect(readValues("student", "validation_ndcg5").length).toBe(3); // before the first step and after steps 20 and 40
    expect((await worker.getInfo()).modelIds).toEqual(["policy"]); // the teacher's memory is given back
  }, 60_000);

  it("by its likeliest alternatives: the forward KL falls, and every place says so", async () => {
    const teacher = `rl.opd.teacher=${state("teacher", "sft")}`;
    // Whole IDs are chosen behind a thought or at once; the alternatives there are the candidates that are left.
    const modes = ["rl.thinkShare=0.5", "decoding.maxReasoningTokens=16"];
    const set = [...opd, ...forwardKl, teacher, "decoding.constrained=true", "decoding.choice=item", ...modes];
    await invoke(fresh("forward"), "rl", set);
    const kl = readValues("forward", "forwardKl");
    expect(kl.length).toBe(40);
    expect(Math.min(...kl)).toBeGreaterThan(0);
    expect(mean(kl.slice(-6))).toBeLessThan(0.7 * mean(kl.slice(0, 6)));
    expect(readValues("forward", "loss")).toEqual(kl.map((x) => expect.closeTo(x, 5)));
    for (const mode of ["think", "answer"])
      expect(readValues("forward", `forwardKl_${mode}`).length).toBeGreaterThan(3);
    expect(Math.max(...readValues("forward", "teacherRest_think"))).toBeLessThan(1);
    expect(log.some((line) => /^forward KL \d\.\d{4}$/.test(line))).toBe(true);
    expect(
      log.filter((line) => /^! \d+ % of .* its 8 most likely alternatives \(think\); raise/.test(line)).length,
    ).toBe(1);
    const summary = readFileSync(join(root, "forward/stages/rl/summary.json"), "utf8");
    expect(JSON.parse(summary).forwardKl).toBe(kl.at(-1));
  }, 60_000);

  it("does not teach a model that is its own teacher: every advantage is zero", async () => {
    // The student begins with the teacher's weights (rl.initial), which no update then has a reason to leave.
    const own = state("teacher", "sft");
    await invoke(fresh("mirror"), "rl", [...opd, "rl.steps=3", `rl.opd.teacher=${own}`, `rl.initial=${own}`]);
    expect(readValues("mirror", "reverseKl").every((kl) => Math.abs(kl) < 1e-6)).toBe(true);
    expect(readValues("mirror", "gradNorm").every((norm) => norm < 1e-6)).toBe(true);
    // One step: the fake worker's steps are as long for a gradient of rounding errors as for any other.
    const more = [...opd, ...forwardKl, "rl.steps=1", `rl.opd.teacher=${own}`, `rl.initial=${own}`];
    await invoke(fresh("mirror-forward"), "rl", more);
    expect(readValues("mirror-forward", "forwardKl")).toEqual([expect.closeTo(0, 6)]);
    expect(readValues("mirror-forward", "gradNorm").every((norm) => norm < 1e-6)).toBe(true);
  }, 60_000);

  it.each([
    ["student", "reverseKl", []],
    ["named", "forwardKl", [...forwardKl, "rl.prompts=1"]],
  ])(
    "cut off between checkpoints, it goes on to the same numbers: %s, %s",
    async (whole, name, more) => {
      const set = [...opd, ...more, `rl.opd.teacher=${state("teacher", "sft")}`];
      if (whole !== "student") await invoke(fresh(whole), "rl", set);
      const run = `cut-${whole}`;
      let updates = 0;
      const cut = invoke(fresh(run), "rl", set, (verb) => {
        if (verb !== "loadModel" && verb === "optimStep" && existsSync(state(run, "rl")) && ++updates === 7)
          throw new InterruptedError();
      });
      await expect(cut).rejects.toThrow(InterruptedError);
      await invoke(run, "rl", set);
      expect(readValues(run, name).length).toBe(40);
      expect(readValues(run, name)).toEqual(readValues(whole, name));
    },
    60_000,
  );

  it("learns from an exported model as from the weights it was made of", async () => {
    const out = join(folder, "exported");
    const { signal } = new AbortController();
    const run = RunFolder.view(root, "teacher");
    await exportRun({ run, stage: "sft", out, worker: async () => new FakeWorker(), log: () => {}, signal });
    await invoke(fresh("from-export"), "rl", [...opd, `rl.opd.teacher=${out}`]);
    expect(readValues("from-export", "reverseKl")).toEqual(readValues("student", "reverseKl"));
  }, 60_000);

  it("refuses a teacher of another tokenizer, of other semantic IDs, or that is not there", async () => {
    const refused = (path: string) => invoke("student", "rl", [...opd, `rl.opd.teacher=${path}`]);
    for (const what of ["catalogue", "tokenizer"] as const) {
      const path = join(folder, what);
      cpSync(state("teacher", "sft"), path, { recursive: true });
      const file = join(path, "gr2_state.json");
      const { metadata, ...rest } = JSON.parse(readFileSync(file, "utf8")) as { metadata: Record<string, string> };
      writeFileSync(file, JSON.stringify({ ...rest, metadata: { ...metadata, [what]: "another" } }));
      const fault = await refused(path).catch((e: unknown) => e);
      expect(fault).toBeInstanceOf(CheckpointError);
      expect(String(fault)).toContain(`trained with ${what} another`);
    }
    await expect(refused(join(folder, "nowhere"))).rejects.toThrow(/nowhere: there is no such folder/);
    // Nothing has run by then: not even a worker was asked for.
    const verbs: string[] = [];
    const set = [...opd, `rl.opd.teacher=${join(folder, "nowhere")}`];
    await expect(invoke("never-begun", "rl", set, (verb) => verbs.push(verb))).rejects.toThrow(/nowhere/);
    expect(verbs).toEqual([]);
    expect(() => loadConfig(recipe, ["rl.kind=opd"])).toThrow(/needs rl.opd.teacher/);
  }, 60_000);
});
