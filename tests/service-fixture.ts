/** A finished run on a fake worker, and fake workers that can be slow, lost or wrong, for the tests of the service. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import { type DirectPriors, priorsFile } from "../src/artifacts/results.ts";
import { configHash, loadConfig, resolvedYaml } from "../src/config/load.ts";
import { WorkerError } from "../src/core/errors.ts";
import { sha256 } from "../src/core/hash.ts";
import { findSystem } from "../src/eval/systems.ts";
import { Run } from "../src/run/run.ts";
import { stageNames } from "../src/run/stage.ts";
import { Deployment } from "../src/serve/engine/deployment.ts";
import { Engine, type EngineSettings } from "../src/serve/engine/engine.ts";
import type { StartedWorker } from "../src/serve/engine/pool.ts";
import { openServedRun } from "../src/serve/model/served-run.ts";
import type { RerankRequest } from "../src/serve/request/types.ts";
import { runStages } from "../src/stages/pipeline.ts";
import { FakeWorker } from "../src/worker/fake.ts";
import { TelemetryBus } from "../src/worker/telemetry.ts";
import type * as t from "../src/worker/types.ts";
import { writePipelineFixture } from "./pipeline-fixture.ts";

/** Makes runs FOLDER/runs/NAME; a second or two each. Their direct systems ask the model (see `weigh`). */
export async function makeRuns(folder: string, runs: Readonly<Record<string, readonly string[]>>): Promise<string> {
  const recipe = writePipelineFixture(folder);
  const root = join(folder, "runs");
  for (const [name, overrides] of Object.entries(runs)) {
    const config = loadConfig(recipe, overrides);
    const { signal } = new AbortController();
    const bus = new TelemetryBus(name);
    const run = await Run.open({
      ...{ root, name, signal, bus },
      configYaml: resolvedYaml(config),
      configHash: configHash(config),
      seed: config.seed,
      stages: stageNames,
    });
    await runStages(run, { config, root, name, signal, bus, worker: new FakeWorker() });
    await run.close("finished");
    weigh(root, name, 0.5);
  }
  return root;
}

/**
 * Gives the likelihood of the direct systems this weight: a fake model knows nothing,
 * so that its evaluation leaves it 0.
 */
export function weigh(root: string, name: string, likelihood: number): void {
  const dir = join(root, name, "stages", "evaluate");
  const path = priorsFile(dir);
  rewriteOutput(dir, path.slice(dir.length + 1), (priors: DirectPriors) =>
    Object.fromEntries(
      Object.entries(priors).map(([system, prior]) => [
        system,
        findSystem(system)?.mode === "direct" ? { ...prior, likelihood } : prior,
      ]),
    ),
  );
}

/** Changes a JSON file of a finished stage, which stays finished. */
export function rewriteOutput<T>(dir: string, file: string, change: (content: T) => unknown): void {
  const text = JSON.stringify(change(JSON.parse(readFileSync(join(dir, file), "utf8")) as T));
  writeFileSync(join(dir, file), text);
  const done = JSON.parse(readFileSync(join(dir, "done.json"), "utf8"));
  done.outputs[file] = { ...done.outputs[file], sha256: sha256(text), bytes: Buffer.byteLength(text) };
  writeFileSync(join(dir, "done.json"), JSON.stringify(done));
}

/** A fake worker whose answers wait for `gate`, which may also throw. Remembers what it was asked. */
export class GatedWorker extends FakeWorker {
  gate: (call: t.CallOptions | undefined) => Promise<void> = async () => {};
  /** Questions of every call that asked for answers. */
  readonly batches: number[] = [];
  /** Tokens that are a fault to hold in a prompt. */
  poison: (prompt: t.TokenIds) => boolean = () => false;
  health: () => void = () => {};
  /** Prompt tokens it says of every call not to have computed. */
  reused = 0;
  /** Bytes asked for when models were loaded. */
  readonly prefixCaches: (number | undefined)[] = [];
  /** Instead of what the model would write. */
  answer: t.Completion | undefined;

  override async getInfo(call?: t.CallOptions): Promise<t.WorkerInfo> {
    this.health();
    return super.getInfo(call);
  }

  override async forward(request: t.ForwardRequest, call?: t.CallOptions): Promise<t.ForwardResult> {
    const { groups } = request.batch;
    const isProbe = groups.length === 1 && groups[0]?.prompt.length === 1 && groups[0]?.prompt[0] === 0;
    if (!isProbe) {
      this.batches.push(groups.length);
      await this.gate(call);
      if (groups.some((g) => this.poison(g.prompt))) throw refusal();
    }
    return { ...(await super.forward(request, call)), reusedPromptTokens: this.reused };
  }

  override async loadModel(request: t.LoadModelRequest, call?: t.CallOptions): Promise<t.LoadedModel> {
    this.prefixCaches.push(request.prefixCacheBytes);
    return super.loadModel(request, call);
  }

  override async *sample(request: t.SampleRequest, call?: t.CallOptions): AsyncGenerator<t.SampleEvent> {
    this.batches.push(request.prompts.length);
    await this.gate(call);
    if (!this.answer) {
      for await (const event of super.sample(request, call)) yield { ...event, reusedPromptTokens: this.reused };
      return;
    }
    const completions = request.prompts.map((_, prompt) => ({ ...(this.answer as t.Completion), prompt }));
    const total = completions.length;
    let weightsId = "";
    for await (const event of super.sample(request, call)) weightsId = event.weightsId;
    yield { completions, weightVersion: 0, weightsId, done: total, total, reusedPromptTokens: 0 };
  }
}

const refusal = (): WorkerError => new WorkerError("forward failed: bad prompt", { retryable: false });
export const lost = (): WorkerError => new WorkerError("forward failed: the worker is gone", { retryable: true });

/** Never resolves, until the call is cancelled. */
export const forever = (call: t.CallOptions | undefined): Promise<void> =>
  new Promise((_, reject) => call?.signal?.addEventListener("abort", () => reject(lost())));

export interface Setup {
  readonly engine: Engine;
  /** In the order they were started. */
  readonly workers: GatedWorker[];
  readonly log: string[];
  /** Of every worker, also of those that replace a lost one later. */
  gateAll(gate: GatedWorker["gate"]): void;
  deployment(name: string, set?: readonly string[]): Promise<Deployment>;
}

const newItems = ["serve.newItems=100", "serve.newItemsQueue=5000", "serve.newItemCost=1"];

/** An engine over a run of makeRuns. `prepare` gets every worker before it is used. */
export async function setUp(
  root: string,
  name: string,
  options: {
    readonly set?: readonly string[];
    readonly engine?: Partial<EngineSettings>;
    readonly lag?: { readonly standing: () => number };
    readonly startEncoder?: () => Promise<StartedWorker>;
    readonly itemsFile?: string;
    readonly prepare?: (worker: GatedWorker, nth: number) => void;
  } = {},
): Promise<Setup> {
  const workers: GatedWorker[] = [];
  const log: string[] = [];
  let gate: GatedWorker["gate"] = async () => {};
  const start = async (): Promise<StartedWorker> => {
    const client = new GatedWorker();
    client.gate = gate;
    options.prepare?.(client, workers.length);
    workers.push(client);
    return { client, close: async () => {} };
  };
  const deployment = async (run: string, set: readonly string[] = options.set ?? []) =>
    Deployment.open(
      {
        // What the evaluation of a fake model recommends is chance; these have a language model in both modes.
        run: await openServedRun(root, run, ["serve.system=rl", "serve.stallMs=30000", ...newItems, ...set]),
        label: "test",
        start,
        ...(options.startEncoder ? { startEncoder: options.startEncoder } : {}),
        itemsFile: options.itemsFile ?? join(root, `${run}.items.jsonl`),
        log: (message) => log.push(message),
        backoffMs: [1],
      },
      new AbortController().signal,
    );
  const engine = new Engine(
    {
      maxQueue: 100,
      defaultDeadlineMs: 5_000,
      overload: "refuse",
      onFallback: "own-order",
      maxLagMs: 100,
      standingMs: 500,
      standingWait: 0.1,
      ...options.engine,
    },
    (message) => log.push(message),
    options.lag ?? { standing: () => 0 },
  );
  engine.deploy(await deployment(name));
  const gateAll = (next: GatedWorker["gate"]): void => {
    gate = next;
    for (const worker of workers) worker.gate = next;
  };
  return { engine, workers, log, gateAll, deployment };
}

/** Items of the fixture are i0 to i29, "Film number 0" to "Film number 29". */
export const makeRequest = (candidates: readonly number[], change: Partial<RerankRequest> = {}): RerankRequest => ({
  history: [{ itemId: "i1" }, { itemId: "i2" }, { itemId: "i3" }],
  candidates: candidates.map((i, place) => ({ id: `c${i}`, itemId: `i${i}`, score: 1 / (1 + place) })),
  topN: 0,
  mode: "direct",
  deadlineMs: 0,
  ...change,
});

/** Waits for what a service does on its own time. */
export async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 1_000 && !condition(); i++) await new Promise((resolve) => setTimeout(resolve, 2));
  expect(condition()).toBe(true);
}
