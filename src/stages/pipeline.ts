/**
 * The whole of GR2, in order: data, embeddings, semantic IDs, mid-training, slates, evidence, traces, calibration, SFT,
 * RL, evaluation. A stage is skipped if nothing it depends on has changed, and an interrupted stage resumes.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { readJson, writeJson } from "../artifacts/files.ts";
import { type Metrics, type Results, requestSeconds } from "../artifacts/results.ts";
import { configHash } from "../config/load.ts";
import { withoutPlaces } from "../config/paths.ts";
import type { Config } from "../config/schema.ts";
import { RunError } from "../core/errors.ts";
import { hashJson } from "../core/hash.ts";
import { repositoryRoot } from "../core/paths.ts";
import { sourceHash } from "../data/source.ts";
import { systems } from "../eval/systems.ts";
import { checkBaseModel } from "../models/base-model.ts";
import { manifestEntries, type Prepared, pluginInputs, preparePlugins } from "../plugins/prepare.ts";
import { closePlugins } from "../plugins/python.ts";
import { writeAtomic } from "../run/files.ts";
import { type MetricsRecord, readRecords } from "../run/record-log.ts";
import type { Run, StagePlan } from "../run/run.ts";
import type { Stage, StageContext, StageName, StageRecorder } from "../run/stage.ts";
import { type RunningWorker, runtimeOptions, startWorker } from "../worker/launcher.ts";
import type { TelemetryBus } from "../worker/telemetry.ts";
import type { VerbStats, WorkerClient } from "../worker/types.ts";
import { calibrate } from "./calibrate.ts";
import { candidates } from "./candidates.ts";
import { data } from "./data.ts";
import { embed } from "./embed.ts";
import { evaluate } from "./evaluate.ts";
import { evidence } from "./evidence.ts";
import { midtrain } from "./midtrain.ts";
import { rl } from "./rl/loop.ts";
import { sft } from "./sft.ts";
import { sid } from "./sid.ts";
import { slates } from "./slates.ts";
import { checkTeachers, type PlannedStages } from "./teachers/preflight.ts";
import { traces } from "./traces.ts";

/** In order; every stage comes after its inputs. */
export const stages: readonly Stage[] = [
  data,
  candidates,
  embed,
  sid,
  midtrain,
  slates,
  evidence,
  traces,
  calibrate,
  sft,
  rl,
  evaluate,
];

/** Stages up to the semantic IDs. */
const idStages: readonly Stage[] = [data, embed, sid];

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
  /** Replaces the Python worker in tests. */
  readonly worker?: WorkerClient;
}

/** Runs every stage that is not up to date. Returns undefined if `until` stops it before evaluation. */
export async function runStages(run: Run, options: PipelineOptions): Promise<Metrics | undefined> {
  try {
    return await runAll(run, options);
  } finally {
    await closePlugins();
  }
}

async function runAll(run: Run, options: PipelineOptions): Promise<Metrics | undefined> {
  const { config, signal } = options;
  checkBaseModel(config);
  let running: RunningWorker | undefined;
  let client: WorkerClient | undefined;
  const worker = async (): Promise<WorkerClient> => {
    if (client) return client;
    if (!options.worker) {
      running = await startWorker(runtimeOptions(config, run.folder.file("worker.log")), signal);
      if (running.pid !== undefined) run.trackMemory([running.pid]);
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
  const prepared = await preparePlugins({ config, signal, logPath: run.folder.file("worker.log") });
  run.describePlugins(manifestEntries(prepared));
  const plans = planStages(run, config, source, prepared);
  run.markStale(Object.fromEntries([...plans].map(([name, { key }]) => [name, key])));
  await checkTeachers(
    config,
    describePlan(run, config, plans),
    (text) => run.bus.emit({ kind: "log", level: "info", text }),
    signal,
  );
  try {
    for (const stage of stages) {
      const result = await run.stage({
        ...planStage(stage, config, source, prepared, keys),
        run: (recorder) => runOne(stage, recorder, config, dirs, worker),
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

/** The inputs that a stage's result depends on. @param keys of the stages before it */
function planStage(
  stage: Stage,
  config: Config,
  source: string | undefined,
  prepared: Prepared,
  keys: Readonly<Partial<Record<StageName, string>>>,
): StagePlan {
  // Changes a result in its last bits, and therefore belongs to a cached stage's identity.
  const { threads, device, dtype, microBatchTokens } = config.runtime;
  return {
    name: stage.name,
    config: { settings: stage.settings(withoutPlaces(config)), numerics: { threads, device, dtype, microBatchTokens } },
    code: [relative(repositoryRoot, fileURLToPath(stage.source))],
    verbs: stage.verbs,
    inputs: {
      ...Object.fromEntries(stage.inputs.map((i) => [i, keys[i] as string])),
      ...(stage.name === "data" && source !== undefined ? { source } : {}),
      ...pluginInputs(prepared, stage.plugins ?? []),
    },
  };
}

/** Stages up to the semantic IDs whose settings differ between two recipes. */
export const otherIds = (a: Config, b: Config): StageName[] =>
  idStages
    .filter((s) => hashJson(s.settings(withoutPlaces(a))) !== hashJson(s.settings(withoutPlaces(b))))
    .map((s) => s.name);

/** Keys depend only on settings, code and data: finished stages are known before anything runs. */
function planStages(
  run: Run,
  config: Config,
  source: string | undefined,
  prepared: Prepared,
): ReadonlyMap<StageName, PlannedStage> {
  const plans = new Map<StageName, PlannedStage>();
  const keys: Partial<Record<StageName, string>> = {};
  for (const stage of stages) {
    const plan = planStage(stage, config, source, prepared, keys);
    const key = run.cacheKey(plan);
    plans.set(stage.name, { plan, key });
    keys[stage.name] = key;
  }
  return plans;
}

interface PlannedStage {
  readonly plan: StagePlan;
  readonly key: string;
}

function describePlan(run: Run, config: Config, plans: ReadonlyMap<StageName, PlannedStage>): PlannedStages {
  return {
    reaches: (name) => run.reaches(name),
    finished: (name) => run.isFinished((plans.get(name) as PlannedStage).plan),
    folder: (name) => run.folder.file("stages", name),
    otherIds: (theirs) => otherIds(theirs, config),
  };
}

async function runOne(
  stage: Stage,
  recorder: StageRecorder,
  config: Config,
  dirs: Partial<Record<StageName, string>>,
  worker: () => Promise<WorkerClient>,
): Promise<void> {
  let client: WorkerClient | undefined;
  let before: VerbCounts = {};
  const context: StageContext = {
    ...recorder,
    config,
    worker: async () => {
      if (client) return client;
      client = await worker();
      before = client.stats();
      return client;
    },
    inputDir: (name) => {
      const dir = dirs[name];
      if (!dir || !stage.inputs.includes(name))
        throw new RunError(`stage ${stage.name} reads ${name} without declaring it as an input`);
      return dir;
    },
  };
  const summary = await stage.run(context);
  if (client) checkVerbs(stage, before, client.stats());
  writeJson(join(recorder.dir, "summary.json"), summary);
}

type VerbCounts = ReturnType<WorkerClient["stats"]>;

/** A stage must declare its verbs: its key covers only the code of those, and a change in others would not rerun it. */
function checkVerbs({ name, verbs }: Stage, before: VerbCounts, after: VerbCounts): void {
  const declared = new Set<string>([...verbs, "getInfo", "shutdown"]);
  for (const [verb, { calls }] of Object.entries(after))
    if (calls > (before[verb]?.calls ?? 0) && !declared.has(verb))
      throw new RunError(`stage ${name} calls the worker's ${verb} without declaring it`);
}

/** The identity of files and cleaning that the data stage recorded. */
const datasetHash = (dir: string): string => readJson<{ hash: string }>(join(dir, "dataset.json")).hash;

const round = (value: number): number => Math.round(value * 100) / 100;

function writeMetrics(
  run: Run,
  options: PipelineOptions,
  evaluateDir: string,
  timings: Record<string, number>,
): Metrics {
  const metrics: Metrics = {
    schema: "gr2.metrics/2",
    run: options.name,
    config_hash: configHash(options.config),
    seed: options.config.seed,
    ...readJson<Results>(join(evaluateDir, "results.json")),
    timings,
    request_ms: readRequestTimes(run),
  };
  writeAtomic(run.folder.file("metrics.json"), `${JSON.stringify(metrics, null, 1)}\n`);
  writeAtomic(run.folder.file("examples.json"), readFileSync(join(evaluateDir, "examples.json")));
  return metrics;
}

/** Milliseconds per request by system, as the evaluation recorded them in metrics.jsonl. */
function readRequestTimes(run: Run): Record<string, number> {
  const out: Record<string, number> = {};
  for (const r of readRecords<MetricsRecord>(run.folder.file("metrics.jsonl"))) {
    if (r.stage !== "evaluate") continue;
    for (const { name } of systems) {
      const seconds = r.values[requestSeconds(name)];
      if (seconds !== undefined) out[name] = round(1000 * seconds);
    }
  }
  return out;
}

/** worker-costs.json: time spent in the worker and on the wire during this invocation; for bench/pipeline. */
export interface WorkerCosts {
  /** Seconds of each stage that ran. */
  readonly stages: Readonly<Record<string, number>>;
  readonly verbs: Readonly<Record<string, Readonly<VerbStats>>>;
  /** Seconds inside verbs, measured by the worker. These three are missing if the worker died. */
  readonly busySeconds?: number;
  readonly device?: string;
  readonly threads?: number;
}

/** Never fails: the stage's own error is the one to report. */
async function writeCosts(path: string, client: WorkerClient, stages: WorkerCosts["stages"]): Promise<void> {
  const info = await client.getInfo({ timeoutMs: 2000 }).catch(() => undefined);
  const own = info && { busySeconds: info.busySeconds, device: info.device, threads: info.numThreads };
  try {
    writeFileSync(path, JSON.stringify({ ...own, stages, verbs: client.stats() } satisfies WorkerCosts));
  } catch {
    // a full disk
  }
}
