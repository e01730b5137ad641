/**
 * The whole of GR2, in order: data, embeddings, semantic IDs, mid-training, slates, calibration, traces, SFT, RL,
 * evaluation. Each stage is skipped when nothing it depends on has changed, and goes on where a killed run stopped.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { stringify } from "yaml";
import { configHash } from "../config/load.ts";
import { portable } from "../config/paths.ts";
import type { Config } from "../config/schema.ts";
import { RunError } from "../core/errors.ts";
import { sourceHash } from "../data/source.ts";
import { writeAtomic } from "../run/files.ts";
import type { Run, StageContext as RunStage, StagePlan } from "../run/run.ts";
import { type RunningWorker, type Runtime, startWorker } from "../worker/launcher.ts";
import type { TelemetryBus } from "../worker/telemetry.ts";
import type { VerbStats, WorkerClient } from "../worker/types.ts";
import { checkBaseModel } from "./base-model.ts";
import { calibrate } from "./calibrate.ts";
import { checkTeachers, type Outlook } from "./check-teachers.ts";
import { data } from "./data.ts";
import { embed } from "./embed.ts";
import { evaluate, type Results } from "./evaluate.ts";
import { readJson, writeJson } from "./files.ts";
import { midtrain } from "./midtrain.ts";
import { rl } from "./rl.ts";
import { sft } from "./sft.ts";
import { sid } from "./sid.ts";
import { slates } from "./slates.ts";
import { type Stage, type StageContext, type StageName, stageNames } from "./stage.ts";
import { traces } from "./traces.ts";

/** In order; every stage comes behind its inputs. */
export const stages: readonly Stage[] = [data, embed, sid, midtrain, slates, traces, calibrate, sft, rl, evaluate];

/** Rooms whose code a stage's result depends on, next to its own file. A change there runs it again. */
const commonCode = ["src/core", "src/data", "src/sid", "src/stages/corpus.ts", "src/stages/files.ts"];
const modelCode = [
  "src/prompts",
  "src/policy",
  "src/stages/base-model.ts",
  "src/stages/language-model.ts",
  "src/stages/checkpoint.ts",
  "src/stages/midtrain.ts",
  "src/stages/prompt-check.ts",
  "python_worker/gr2_worker",
];
const preRankerCode = [
  "src/stages/sid-recall.ts",
  "src/stages/prerankers.ts",
  "src/stages/beam-prerank.ts",
  "src/stages/sasrec.ts",
];
const codeOf: Readonly<Record<StageName, readonly string[]>> = {
  data: [],
  embed: [
    "src/data/fetch.ts",
    "src/stages/embedder.ts",
    "src/stages/embedding-cache.ts",
    "python_worker/gr2_worker/embed.py",
  ],
  sid: [
    "src/prerank/neighbours.ts",
    "python_worker/gr2_worker/quantizer.py",
    "python_worker/gr2_worker/rqvae.py",
    "python_worker/gr2_worker/rqkmeans.py",
    "python_worker/gr2_worker/factorize.py",
  ],
  midtrain: [...modelCode, "src/rl/groups.ts"],
  slates: [...modelCode, "src/prerank", ...preRankerCode],
  calibrate: [...modelCode, "src/eval/choice-model.ts", "src/stages/slates.ts"],
  traces: [
    ...["src/teacher", "src/endpoint", "src/eval/choice-model.ts", "src/prompts", "src/stages/slates.ts"],
    ...["src/prerank", "src/stages/teachers.ts", "src/stages/worker-teacher.ts", "src/stages/base-model.ts"],
  ],
  sft: [...modelCode, "src/rl/groups.ts", "src/stages/examples.ts", "src/stages/slates.ts"],
  rl: [
    ...modelCode,
    "src/reward",
    "src/rl",
    "src/eval",
    "src/stages/rl-update.ts",
    "src/stages/distill.ts",
    "src/stages/distill-teacher.ts",
    "src/stages/rl-policy.ts",
    "src/stages/rl-seconds.ts",
    "src/stages/slates.ts",
  ],
  evaluate: [...modelCode, "src/eval", "src/stages/slates.ts"],
};

export interface PipelineOptions {
  readonly config: Config;
  /** Folder of all runs. */
  readonly root: string;
  readonly name: string;
  readonly from?: string;
  readonly until?: string;
  readonly fresh?: boolean;
  readonly signal: AbortSignal;
  readonly bus: TelemetryBus;
  /** Instead of a Python worker: a fake one, in tests. */
  readonly worker?: WorkerClient;
}

/** What a finished pipeline leaves in metrics.json. */
export interface Metrics extends Results {
  readonly schema: "gr2.metrics/1";
  readonly run: string;
  readonly config_hash: string;
  readonly seed: number;
  /** Seconds of each stage, as measured when it ran. */
  readonly timings: Readonly<Record<string, number>>;
}

/** Runs every stage that has to run. Returns undefined if `until` stops it before evaluation. */
export async function runStages(run: Run, options: PipelineOptions): Promise<Metrics | undefined> {
  const { config, signal } = options;
  checkBaseModel(config);
  let running: RunningWorker | undefined;
  let client: WorkerClient | undefined;
  const worker = async (): Promise<WorkerClient> => {
    if (client) return client;
    if (!options.worker) {
      running = await startWorker(runtimeOf(config, run.folder.file("worker.log")), signal);
      if (running.pid !== undefined) run.measureMemoryOf([running.pid]);
    }
    client = options.worker ?? (running as RunningWorker).client;
    run.describeWorker(await client.getInfo({ signal }));
    return client;
  };
  const computed: Record<string, number> = {};
  const source = await sourceHash(config.data);
  if (source !== undefined) run.describeData(config.data.name, source);
  const keys: Partial<Record<StageName, string>> = {};
  const dirs: Partial<Record<StageName, string>> = {};
  const timings: Record<string, number> = {};
  await checkTeachers(
    config,
    outlookOf(run, config, source),
    (text) => run.bus.emit({ kind: "log", level: "info", text }),
    signal,
  );
  try {
    for (const stage of stages) {
      const result = await run.stage({
        ...planOf(stage, config, source, keys),
        run: (own) => runOne(stage, own, config, dirs, worker, signal),
      });
      keys[stage.name] = result.key;
      dirs[stage.name] = result.dir;
      timings[stage.name] = round(result.seconds);
      if (!result.cached) computed[stage.name] = round(result.seconds);
      if (stage.name === "data") run.describeData(config.data.name, datasetHash(result.dir));
      if (run.stopsAfter(stage.name)) return undefined;
    }
    return writeMetrics(run, options, dirs.evaluate as string, timings);
  } finally {
    if (running) {
      await writeCosts(join(run.folder.path, "worker-costs.json"), running.client, computed);
      await running.close();
    }
  }
}

/** What a stage's result depends on. @param keys of the stages before it */
function planOf(
  stage: Stage,
  config: Config,
  source: string | undefined,
  keys: Readonly<Partial<Record<StageName, string>>>,
): StagePlan {
  // What changes a result in its last bits, and so a cached stage's identity.
  const { threads, device, dtype, microBatchTokens } = config.runtime;
  return {
    name: stage.name,
    config: { settings: stage.settings(config), numerics: { threads, device, dtype, microBatchTokens } },
    code: [`src/stages/${stage.name}.ts`, ...commonCode, ...codeOf[stage.name]],
    inputs: {
      ...Object.fromEntries(stage.inputs.map((i) => [i, keys[i] as string])),
      ...(stage.name === "data" && source !== undefined ? { source } : {}),
    },
  };
}

/** Keys follow from settings, code and data alone, so that what is finished is known before anything runs. */
function outlookOf(run: Run, config: Config, source: string | undefined): Outlook {
  const plans = new Map<StageName, StagePlan>();
  const planned = (name: StageName): StagePlan => {
    if (plans.size === 0) {
      const keys: Partial<Record<StageName, string>> = {};
      for (const stage of stages) {
        const plan = planOf(stage, config, source, keys);
        plans.set(stage.name, plan);
        keys[stage.name] = run.keyOf(plan);
      }
    }
    return plans.get(name) as StagePlan;
  };
  return {
    reaches: (name) => run.reaches(name),
    finished: (name) => run.isFinished(planned(name)),
    folder: (name) => run.folder.file("stages", name),
  };
}

async function runOne(
  stage: Stage,
  own: RunStage,
  config: Config,
  dirs: Partial<Record<StageName, string>>,
  worker: () => Promise<WorkerClient>,
  signal: AbortSignal,
): Promise<void> {
  const context: StageContext = {
    config,
    dir: own.dir,
    signal,
    worker,
    work: (name) => own.work(name),
    inputDir: (name) => {
      const dir = dirs[name];
      if (!dir || !stage.inputs.includes(name))
        throw new RunError(`stage ${stage.name} reads ${name} without naming it`);
      return dir;
    },
    log: (message) => own.info(message),
    progress: (note, done, total) => {
      own.throwIfInterrupted();
      own.progress(done, total, { note });
    },
    metrics: (step, values) => own.metrics(step, values),
    rollout: (step, record) => {
      own.rollout(step, record);
      own.sample(step, String(record.text), Number(record.reward));
    },
    cursor: { read: <T>() => own.cursor() as T | undefined, write: (_step, value) => own.saveCursor(value) },
  };
  const summary = await stage.run(context);
  writeJson(join(own.dir, "summary.json"), summary);
}

/** How the recipe's worker is started; `logPath` is where an embedded one prints. */
export const runtimeOf = (config: Config, logPath?: string): Runtime =>
  config.runtime.mode === "remote"
    ? { mode: "remote", address: config.runtime.address }
    : {
        mode: "embedded",
        python: config.runtime.python,
        threads: config.runtime.threads,
        device: config.runtime.device,
        ...(logPath ? { logPath } : {}),
      };

/** What the data stage noted as the identity of files and cleaning. */
const datasetHash = (dir: string): string => readJson<{ hash: string }>(join(dir, "dataset.json")).hash;

const round = (seconds: number): number => Math.round(seconds * 100) / 100;

function writeMetrics(
  run: Run,
  options: PipelineOptions,
  evaluateDir: string,
  timings: Record<string, number>,
): Metrics {
  const metrics: Metrics = {
    schema: "gr2.metrics/1",
    run: options.name,
    config_hash: configHash(options.config),
    seed: options.config.seed,
    ...readJson<Results>(join(evaluateDir, "results.json")),
    timings,
  };
  writeAtomic(run.folder.file("metrics.json"), `${JSON.stringify(metrics, null, 1)}\n`);
  writeAtomic(run.folder.file("examples.json"), readFileSync(join(evaluateDir, "examples.json")));
  return metrics;
}

/** worker-costs.json: what worker and wire cost while this invocation ran its stages; for bench/pipeline. */
export interface WorkerCosts {
  /** Seconds of each stage that was not found finished. */
  readonly stages: Readonly<Record<string, number>>;
  readonly verbs: Readonly<Record<string, Readonly<VerbStats>>>;
  /** Seconds inside verbs, as the worker counts them. These three are missing if it died. */
  readonly busySeconds?: number;
  readonly device?: string;
  readonly threads?: number;
}

/** Never fails: a stage's own fault is the one to report. */
async function writeCosts(path: string, client: WorkerClient, stages: WorkerCosts["stages"]): Promise<void> {
  const info = await client.getInfo({ timeoutMs: 2000 }).catch(() => undefined);
  const own = info && { busySeconds: info.busySeconds, device: info.device, threads: info.numThreads };
  try {
    writeFileSync(path, JSON.stringify({ ...own, stages, verbs: client.stats() } satisfies WorkerCosts));
  } catch {
    // a full disk
  }
}

export const resolvedYaml = (config: Config): string => stringify(portable(config));
export { stageNames };
