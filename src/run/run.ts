/**
 * One run: its folder and lock, which stages are cached or resumed, its logs, telemetry and manifest. A stage sees only
 * its StageContext; what stages do is not decided here.
 */
import { rmSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { Gr2Error, InterruptedError, RunError } from "../core/errors.ts";
import { TelemetryBus } from "../worker/telemetry.ts";
import type { WorkerInfo } from "../worker/types.ts";
import { codeHash } from "./code-hash.ts";
import { fileError, guarded, makeFolder, writeAtomic } from "./files.ts";
import { type Manifest, ManifestFile } from "./manifest.ts";
import { peakMemory, readStartTime, resetPeakMemory } from "./processes.ts";
import { type LogRecord, type MetricsRecord, RecordLog, readRecords } from "./record-log.ts";
import { RunFolder } from "./run-folder.ts";
import type { StageRecorder } from "./stage.ts";
import * as cache from "./stage-cache.ts";
import type { Verb } from "./verbs.ts";

/** One line of rollouts.jsonl; the rest of the record is the stage's. */
export type RolloutRecord = LogRecord & Readonly<Record<string, unknown>>;

export interface RunOptions {
  /** Folder of all runs, e.g. "runs". */
  readonly root: string;
  readonly name: string;
  /** Written to config.resolved.yaml. */
  readonly configYaml: string;
  readonly configHash: string;
  readonly seed: number;
  /** Names of all stages in order; what `from` and `until` refer to. */
  readonly stages: readonly string[];
  /** Rerun this stage and all later ones, even if they are finished. */
  readonly from?: string;
  /** Stop after this stage; `stopsAfter` tells when. */
  readonly until?: string;
  /** Discard everything an earlier invocation left. */
  readonly fresh?: boolean;
  /** Runs under the same root whose finished stages are reused where keys match, except those from `from` on. */
  readonly shareWith?: readonly string[];
  readonly signal?: AbortSignal;
  /** For listeners attached before the run begins; default: a bus of its own. */
  readonly bus?: TelemetryBus;
}

/** A stage's identity: what its result depends on. */
export interface StagePlan {
  readonly name: string;
  /** The part of the compiled config this stage reads; changing it reruns the stage. */
  readonly config: unknown;
  /** Source files whose code it depends on, imports included, relative to the repository: "src/stages/sid.ts". */
  readonly code: readonly string[];
  /** The worker verbs it calls; their code counts too. */
  readonly verbs?: readonly Verb[];
  /** By name: `key` of earlier stages, hashes of external data. */
  readonly inputs: Readonly<Record<string, string>>;
}

export interface StageSpec extends StagePlan {
  /** Writes its outputs under `dir`. Must be able to start over, or to resume from its own cursor. */
  readonly run: (recorder: StageRecorder) => Promise<void>;
}

export interface StageResult {
  readonly name: string;
  readonly key: string;
  /** Folder with its outputs. */
  readonly dir: string;
  readonly cached: boolean;
  readonly seconds: number;
  readonly peakBytes: number;
}

export class Run {
  readonly folder: RunFolder;
  readonly bus: TelemetryBus;
  readonly manifest: ManifestFile;
  private readonly options: RunOptions;
  private readonly metricsLog: RecordLog<MetricsRecord>;
  private readonly rolloutLog: RecordLog<RolloutRecord>;
  private workerPids: readonly number[] = [];

  private constructor(folder: RunFolder, options: RunOptions) {
    this.folder = folder;
    this.options = options;
    this.bus = options.bus ?? new TelemetryBus(options.name);
    writeAtomic(folder.file("config.resolved.yaml"), options.configYaml);
    this.manifest = ManifestFile.open(folder.file("manifest.json"), { ...options, run: options.name });
    this.metricsLog = new RecordLog(folder.file("metrics.jsonl"));
    this.rolloutLog = new RecordLog(folder.file("rollouts.jsonl"));
  }

  /** Takes the run's lock and opens its logs. Throws RunError if another process has it. */
  static async open(options: RunOptions): Promise<Run> {
    for (const [flag, stage] of [
      ["--from", options.from],
      ["--until", options.until],
    ] as const) {
      if (stage !== undefined && !options.stages.includes(stage)) {
        throw new RunError(`${flag} ${stage}: there is no such stage`, {
          advice: `Stages: ${options.stages.join(", ")}.`,
        });
      }
    }
    const { from, until, stages } = options;
    if (from && until && stages.indexOf(from) > stages.indexOf(until)) {
      throw new RunError(`--from ${from} comes after --until ${until}`, { advice: `Stages: ${stages.join(", ")}.` });
    }
    const folder = RunFolder.open(options.root, options.name);
    try {
      if (options.fresh && !from) forget(folder);
      for (const stage of from ? stages.slice(stages.indexOf(from)) : []) cache.clear(folder.stageFolder(stage));
      const run = new Run(folder, options);
      await run.bus.publish(folder.path, readStartTime(process.pid));
      return run;
    } catch (e) {
      folder.release();
      throw e;
    }
  }

  /** Processes whose memory counts towards a stage's peak, besides this one. */
  trackMemory(pids: readonly number[]): void {
    this.workerPids = pids;
  }

  /** Records the worker's versions and device in the manifest. */
  describeWorker(info: WorkerInfo): void {
    this.manifest.update((m) => {
      Object.assign(m.versions, {
        worker: info.workerVersion,
        python: info.pythonVersion,
        torch: info.torchVersion,
        transformers: info.transformersVersion,
      });
      Object.assign(m.hardware, { device: info.device, worker_threads: info.numThreads });
    });
  }

  /** Records the hash of external data in the manifest. */
  describeData(name: string, hash: string): void {
    this.manifest.update((m) => {
      m.data[name] = hash;
    });
  }

  /** Records the user's modules in the manifest. */
  describePlugins(plugins: Manifest["plugins"]): void {
    this.manifest.update((m) => {
      m.plugins = plugins;
    });
  }

  /** True if the user asked to stop after this stage. */
  stopsAfter(stage: string): boolean {
    return this.options.until === stage;
  }

  /** False for stages after the one the user asked to stop at. */
  reaches(stage: string): boolean {
    const { stages, until } = this.options;
    return until === undefined || stages.indexOf(stage) <= stages.indexOf(until);
  }

  cacheKey(plan: StagePlan): string {
    const { name, config, inputs } = plan;
    return cache.stageKey({ name, config, code: codeHash(plan.code, plan.verbs), inputs });
  }

  /** Marks finished stages whose keys differ from these as stale in the manifest; a rerun clears the mark. */
  markStale(keys: Readonly<Record<string, string>>): void {
    this.manifest.update((m) => {
      for (const [name, entry] of Object.entries(m.stages)) {
        if (entry.state === "finished" && keys[name] !== undefined && keys[name] !== entry.key) entry.stale = true;
        else delete entry.stale;
      }
    });
  }

  /** Whether a stage is finished under this key. Changes nothing. */
  async isFinished(plan: StagePlan): Promise<boolean> {
    return (await cache.finishedWith(this.folder.file("stages", plan.name), this.cacheKey(plan))) !== undefined;
  }

  /** Runs or resumes a stage, or does nothing if it is finished. */
  async stage(spec: StageSpec): Promise<StageResult> {
    const { name } = spec;
    const position = { index: this.options.stages.indexOf(name) + 1, total: this.options.stages.length };
    const dir = this.folder.stageFolder(name);
    const key = this.cacheKey(spec);
    this.throwIfInterrupted();
    const code = codeHash(spec.code, spec.verbs);
    const earlier = (await cache.finishedWith(dir, key)) ?? (await this.takeOver(name, key, dir));
    if (earlier) {
      this.record(name, { state: "finished", key, code, inputs: spec.inputs, done: earlier, cached: true });
      this.bus.emit({ kind: "stage", stage: name, state: "cached", ...position, seconds: earlier.seconds });
      return { name, key, dir, cached: true, seconds: earlier.seconds, peakBytes: earlier.peakBytes };
    }
    const cursor = cache.prepare(dir, key);
    this.metricsLog.dropStage(name, cursor?.metricsSeq ?? 0);
    this.rolloutLog.dropStage(name, cursor?.rolloutsSeq ?? 0);
    this.record(name, { state: "running", key, code, inputs: spec.inputs, cached: false });
    this.bus.emit({ kind: "stage", stage: name, state: cursor ? "resumed" : "started", ...position });
    const pids = [process.pid, ...this.workerPids];
    resetPeakMemory(pids);
    const start = performance.now();
    const elapsed = () => (cursor?.seconds ?? 0) + (performance.now() - start) / 1000;
    try {
      await spec.run(this.recorder(name, key, dir, cursor, elapsed));
      const cost = { seconds: elapsed(), peakBytes: peakMemory([process.pid, ...this.workerPids]) };
      const done = await cache.finish(dir, key, cost);
      this.record(name, { state: "finished", key, code, inputs: spec.inputs, done, cached: false });
      this.bus.emit({ kind: "stage", stage: name, state: "finished", ...position, seconds: cost.seconds });
      return { name, key, dir, cached: false, ...cost };
    } catch (thrown) {
      const e = thrown instanceof Gr2Error ? thrown : fileError(`run ${name}: a file of`, dir, thrown);
      const interrupted = e instanceof InterruptedError;
      const note = e instanceof Gr2Error ? e.message : String(e);
      this.recordEnd(name, interrupted ? "interrupted" : "failed", elapsed());
      this.bus.emit({ kind: "stage", stage: name, state: "failed", ...position, seconds: elapsed(), note });
      throw e;
    }
  }

  /** Writes the outcome into the manifest, tells watchers, and releases the lock. May be called after a failure. */
  async close(status: "finished" | "failed" | "interrupted", note?: string): Promise<void> {
    try {
      this.manifest.update((m) => {
        m.state = status;
        m.note = note;
      });
    } catch (e) {
      if (status === "finished") throw e; // otherwise report the first error, not this one
    } finally {
      this.metricsLog.close();
      this.rolloutLog.close();
      this.bus.emit({ kind: "end", status, note });
      await this.bus.close();
      this.folder.release();
    }
  }

  /** Reuses what another run finished with the same key, log records included; undefined if none has. */
  private async takeOver(stage: string, key: string, dir: string): Promise<cache.Done | undefined> {
    const { root, stages, from, shareWith = [] } = this.options;
    if (from !== undefined && stages.indexOf(stage) >= stages.indexOf(from)) return undefined;
    for (const other of shareWith) {
      const folder = join(root, other);
      const source = join(folder, "stages", stage);
      const done = other === this.options.name ? undefined : await cache.finishedWith(source, key);
      if (!done) continue;
      this.copyRecords(stage, folder);
      const taken = await cache.takeOver(dir, done, source);
      if (!taken) continue;
      this.bus.emit({ kind: "log", level: "info", text: `${stage}: reused from run ${other}, which has the same key` });
      return taken;
    }
    return undefined;
  }

  private copyRecords(stage: string, folder: string): void {
    for (const log of [this.metricsLog, this.rolloutLog] as RecordLog[]) {
      log.dropStage(stage, 0);
      for (const { seq: _, ...record } of readRecords(join(folder, basename(log.path))))
        if (record.stage === stage) log.append(record);
    }
  }

  private throwIfInterrupted(): void {
    if (this.options.signal?.aborted) throw new InterruptedError();
  }

  private recorder(
    name: string,
    key: string,
    dir: string,
    cursor: cache.Cursor | undefined,
    elapsed: () => number,
  ): StageRecorder {
    const { bus, metricsLog, rolloutLog } = this;
    return {
      dir,
      signal: this.options.signal ?? new AbortController().signal,
      work: (file) => {
        const path = join(dir, "work", file);
        makeFolder(dirname(path));
        return path;
      },
      log: (text) => bus.emit({ kind: "log", level: "info", text }),
      progress: (note, done, total) => {
        this.throwIfInterrupted();
        bus.emit({ kind: "progress", stage: name, done, total, note });
      },
      metrics: (step, values) => {
        metricsLog.append({ stage: name, step, time: Date.now() / 1000, values });
        bus.emit({ kind: "metrics", stage: name, step, values });
      },
      rollout: (step, record) => {
        rolloutLog.append({ stage: name, step, ...record } as Omit<RolloutRecord, "seq">);
        bus.emit({ kind: "sample", stage: name, step, text: String(record.text), reward: Number(record.reward) });
      },
      cursor: {
        read: <T>() => cursor?.value as T | undefined,
        write: (value) => {
          metricsLog.sync();
          rolloutLog.sync();
          const seqs = { metricsSeq: metricsLog.lastSeq, rolloutsSeq: rolloutLog.lastSeq };
          cache.saveCursor(dir, { key, value, ...seqs, seconds: elapsed() });
        },
      },
    };
  }

  private record(
    stage: string,
    entry: {
      state: "running" | "finished";
      key: string;
      code: string;
      inputs: Readonly<Record<string, string>>;
      done?: cache.Done;
      cached: boolean;
    },
  ): void {
    const { done } = entry;
    this.manifest.update((m) => {
      m.stages[stage] = {
        state: entry.state,
        key: entry.key,
        code: entry.code,
        inputs: { ...entry.inputs },
        outputs: Object.fromEntries(Object.entries(done?.outputs ?? {}).map(([f, o]) => [f, o.sha256])),
        seconds: done?.seconds ?? 0,
        peak_bytes: done?.peakBytes ?? 0,
        started: (entry.state === "finished" ? m.stages[stage]?.started : undefined) ?? new Date().toISOString(),
        finished: done?.finished,
        cached: entry.cached,
      };
    });
  }

  private recordEnd(stage: string, state: "failed" | "interrupted", seconds: number): void {
    try {
      this.manifest.update((m) => {
        const entry = m.stages[stage];
        if (entry) Object.assign(entry, { state, seconds });
      });
    } catch {
      // a full disk: report the error that ended the stage, not this one
    }
  }
}

function forget(folder: RunFolder): void {
  guarded("remove", folder.path, () => {
    for (const name of [
      "stages",
      "manifest.json",
      "metrics.jsonl",
      "rollouts.jsonl",
      "metrics.json",
      "report.html",
      "examples.json",
      "worker-costs.json",
      "worker.log",
    ]) {
      rmSync(folder.file(name), { recursive: true, force: true });
    }
  });
}
