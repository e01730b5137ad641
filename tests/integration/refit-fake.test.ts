/**
 * Refit through the whole pipeline on a fake worker: which weights answer what, what they learn, and what is served.
 */
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { afterAll, beforeAll, expect, it, vi } from "vitest";
import { refitDir, stateDir } from "../../src/artifacts/weights.ts";
import { configHash, loadConfig, resolvedYaml } from "../../src/config/load.ts";
import type * as combination from "../../src/policy/combination.ts";
import { Run } from "../../src/run/run.ts";
import { stageNames } from "../../src/run/stage.ts";
import { openServedRun } from "../../src/serve/model/served-run.ts";
import { runStages } from "../../src/stages/pipeline.ts";
import { FakeWorker } from "../../src/worker/fake.ts";
import { TelemetryBus } from "../../src/worker/telemetry.ts";
import type * as t from "../../src/worker/types.ts";
import { writePipelineFixture } from "../pipeline-fixture.ts";

// A fake model knows nothing; here it has its say all the same.
vi.mock(import("../../src/policy/combination.ts"), async (original) => {
  const real = await original();
  const combine: typeof combination.combine = (examples, base, options) => {
    const asked = (prior: (typeof base)["whole"]) => ({ ...prior, likelihood: 0.5 });
    return {
      ...real.combine(examples, base, options),
      form: "likelihood",
      priors: { whole: asked(base.whole), byFold: base.byFold.map(asked) },
    };
  };
  return { ...real, combine };
});

const folder = mkdtempSync(join(tmpdir(), "gr2-refit-"));
const root = join(folder, "runs");

/** Keeps what is done with the policy's weights. */
class WatchedWorker extends FakeWorker {
  readonly events: string[] = [];
  private say(event: string): void {
    if (this.events.at(-1) !== event) this.events.push(event);
  }
  override loadState(request: t.LoadStateRequest, call?: t.CallOptions) {
    this.say(`load ${relative(root, request.path)}`);
    return super.loadState(request, call);
  }
  override saveState(request: t.SaveStateRequest, call?: t.CallOptions) {
    this.say(`save ${relative(root, request.path)}`);
    return super.saveState(request, call);
  }
  override forward(request: t.ForwardRequest, call?: t.CallOptions) {
    this.say("forward");
    return super.forward(request, call);
  }
  override forwardBackward(request: t.ForwardBackwardRequest, call?: t.CallOptions) {
    this.say("train");
    return super.forwardBackward(request, call);
  }
  override sample(request: t.SampleRequest, call?: t.CallOptions) {
    this.say("sample");
    return super.sample(request, call);
  }
}

async function invoke(name: string, set: readonly string[]): Promise<WatchedWorker> {
  const config = loadConfig(recipe, set);
  const { signal } = new AbortController();
  const bus = new TelemetryBus(name);
  const identity = { configYaml: resolvedYaml(config), configHash: configHash(config), seed: config.seed };
  const run = await Run.open({ root, name, ...identity, stages: stageNames, signal, bus });
  const worker = new WatchedWorker();
  await runStages(run, { config, root, name, signal, bus, worker });
  await run.close("finished");
  return worker;
}

let recipe = "";
const evaluateDir = (name: string): string => join(root, name, "stages", "evaluate");
const quick = ["rl.steps=1", "rl.prompts=2", "sft.epochs=0.3", "eval.controls=false"];

beforeAll(() => {
  recipe = writePipelineFixture(folder);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

it("is learned before each segment by direct mode alone, and served", async () => {
  const { events } = await invoke("fresh", [...quick, "refit=true"]);
  const own = join("fresh", "stages", "sft", "state");
  const done = events.slice(events.lastIndexOf("save fresh/stages/rl/state") + 1);
  const sft = done.slice(done.indexOf(`load ${own}`), done.indexOf("load fresh/stages/rl/state"));
  const [first = "", second = ""] = sft.filter((e) => e.startsWith("save"));
  expect(first).toContain("refit-sft");
  expect(second).toBe(`save ${relative(root, refitDir(evaluateDir("fresh"), "sft"))}`);
  const [throughRerank, throughValidation] = [first, second].map((e) => e.replace("save", "load"));
  expect(sft.filter((e) => !e.startsWith("save"))).toEqual([
    ...[`load ${own}`, "train", throughRerank, "forward"], // validation slates
    ...["train", throughValidation, "forward"], // test slates
    ...[`load ${own}`, "sample"], // reasoning and answers
  ]);
  const run = await openServedRun(root, "fresh", ["serve.system=rl"]);
  expect(run.systems.direct?.weights).toBe(refitDir(evaluateDir("fresh"), "rl"));
  expect(run.systems.think?.weights).toBe(stateDir(join(root, "fresh", "stages", "rl")));
}, 60_000);

it("is left out where it is not asked for, and its settings then change nothing", async () => {
  await invoke("stale", quick);
  expect(existsSync(join(evaluateDir("stale"), "refit"))).toBe(false);
  const run = await openServedRun(root, "stale", ["serve.system=rl"]);
  expect(run.systems.direct?.weights).toBe(stateDir(join(root, "stale", "stages", "rl")));
  const { events } = await invoke("stale", [...quick, "midtrain.refit.rate=0.7"]);
  expect(events).toEqual([]);
  expect((await invoke("never", [...quick, "refit=true", "midtrain.refit.epochs=0"])).events).not.toContain(
    `load ${relative(root, refitDir(evaluateDir("never"), "rl"))}`,
  );
}, 60_000);
