/**
 * Leaks planted into a running pipeline (fake worker): a stage's training view reaches into the test segment, a history
 * reaches one item too far. Each stops the run in the stage where it is planted, with a RunError
 * that says who saw what.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { configHash, loadConfig, resolvedYaml } from "../../src/config/load.ts";
import { RunError } from "../../src/core/errors.ts";
import type { TrainingView } from "../../src/data/split.ts";
import { Run } from "../../src/run/run.ts";
import { stageNames } from "../../src/run/stage.ts";
import { runStages } from "../../src/stages/pipeline.ts";
import { FakeWorker } from "../../src/worker/fake.ts";
import { TelemetryBus } from "../../src/worker/telemetry.ts";
import { writePipelineFixture } from "../pipeline-fixture.ts";

/** What is planted now. */
const leak = vi.hoisted(() => ({ views: false, histories: false }));

vi.mock("../../src/data/split.ts", async (original) => {
  const real = await original<typeof import("../../src/data/split.ts")>();
  return {
    ...real,
    trainingView: (...[data, through, keep]: Parameters<typeof real.trainingView>): TrainingView => ({
      ...real.trainingView(data, leak.views ? "test" : through, keep),
      through,
    }),
  };
});
vi.mock("../../src/artifacts/slates.ts", async (original) => {
  const real = await original<typeof import("../../src/artifacts/slates.ts")>();
  return {
    ...real,
    toSlateInput: (...[corpus, slate, evidence]: Parameters<typeof real.toSlateInput>) =>
      real.toSlateInput(corpus, leak.histories ? { ...slate, position: slate.position + 1 } : slate, evidence),
  };
});

const folder = mkdtempSync(join(tmpdir(), "gr2-leakage-"));
let recipe = "";
beforeAll(() => {
  recipe = writePipelineFixture(folder);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** One run, built stage by stage; what is up to date is not run again. */
async function until(stage: string, set: string[] = []): Promise<void> {
  const config = loadConfig(recipe, ["sid.collaborativeDims=4", "sid.contrastiveWeight=0.1", ...set]);
  const [root, name] = [join(folder, "runs"), "planted"];
  const signal = new AbortController().signal;
  const bus = new TelemetryBus(name);
  const yaml = resolvedYaml(config);
  const run = await Run.open({
    ...{ root, name, configYaml: yaml, configHash: configHash(config), seed: config.seed },
    ...{ stages: stageNames, until: stage, signal, bus },
  });
  try {
    await runStages(run, { config, root, name, until: stage, signal, bus, worker: new FakeWorker() });
    await run.close("finished");
  } catch (e) {
    await run.close("failed");
    throw e;
  }
}

describe("a leak stops the run", () => {
  const past = (who: string, segment: string) =>
    new RegExp(
      `^Leakage check failed: ${who} sees interactions past ${segment} \\(\\d+\\): user row \\d: 20 interactions, allowed`,
    );
  const shown = (who: string) =>
    new RegExp(
      `^Leakage check failed: prompts of ${who} give their answer away .*the answer is visible in the history`,
    );
  it.each([
    ["the contrastive pairs", "sid", "views", past("the contrastive pairs", "midtrain"), ["sid.collaborativeDims=0"]],
    [
      "the factorised co-occurrence",
      "sid",
      "views",
      past("the factorised co-occurrence", "midtrain"),
      ["sid.contrastiveWeight=0"],
    ],
    ["mid-training", "midtrain", "views", past("mid-training", "midtrain"), []],
    [
      "the pre-ranker",
      "candidates",
      "views",
      past("the pre-ranker of validation slates", "rerank"),
      ["prerank.depth=20"],
    ],
    ["the evidence", "evidence", "views", past("the evidence on midtrain slates", "rerank"), []],
    ["the teacher", "traces", "views", past("the teacher, on rerank slates", "midtrain"), []],
    ["calibration prompts", "calibrate", "histories", shown("the calibration"), []],
    ["replay", "sft", "views", past("replay in SFT", "what it may"), []],
    ["SFT prompts", "sft", "histories", shown("SFT"), []],
    ["RL prompts", "rl", "histories", shown("RL"), []],
    ["evaluation prompts", "evaluate", "histories", shown("the evaluation"), []],
  ] as const)(
    "planted in %s",
    async (_who, stage, kind, message, set) => {
      const before = stageNames[stageNames.indexOf(stage) - 1] as string;
      await until(before, [...set]);
      leak[kind] = true;
      try {
        const fault = await until(stage, [...set]).then(
          () => undefined,
          (e: unknown) => e,
        );
        expect(fault).toBeInstanceOf(RunError);
        expect((fault as RunError).message).toMatch(message);
      } finally {
        leak[kind] = false;
      }
    },
    60_000,
  );
});
