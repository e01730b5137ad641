/**
 * What a stage is: a name, the stages whose outputs it reads, the settings and the code it depends on, and one linear
 * function. A stage writes only into its own folder and talks to the model only through the worker.
 */
import type { Config } from "../config/schema.ts";
import type { WorkerClient } from "../worker/types.ts";
import type { Verb } from "./verbs.ts";

export const stageNames = [
  "data",
  "candidates",
  "embed",
  "sid",
  "midtrain",
  "slates",
  "evidence",
  "traces",
  "calibrate",
  "sft",
  "rl",
  "evaluate",
] as const;
export type StageName = (typeof stageNames)[number];

/** Where a user may plug in a module (room plugins). */
export type PluginPoint = "adapter" | "prerank" | "teacher" | "reward" | "metrics" | "baselines";

/** Numbers a stage is judged by; shown in the manifest and the report. */
export type Summary = Readonly<Record<string, number>>;

export interface Stage {
  readonly name: StageName;
  /** `import.meta.url`: its result depends on the code of this file and all it imports. */
  readonly source: string;
  /** Stages whose outputs it reads. */
  readonly inputs: readonly StageName[];
  /** The worker verbs it may call; the Python that implements them counts as its code too. */
  readonly verbs: readonly Verb[];
  /** Plug-in points whose modules it runs; their code counts as its own too. */
  readonly plugins?: readonly PluginPoint[];
  /** The part of the configuration that changes its result. */
  readonly settings: (config: Config) => unknown;
  run(context: StageContext): Promise<Summary>;
}

/** Where a stage writes and reports: its folder, its logs, its cursor. */
export interface StageRecorder {
  /** Folder of this stage's outputs: empty at first; on resume, as a killed attempt left it. */
  readonly dir: string;
  /** A path for checkpoints: kept until the stage finishes, never an output. */
  work(name: string): string;
  readonly signal: AbortSignal;
  /** Logs a line. */
  log(message: string): void;
  /** Progress of something countable within the stage. Throws InterruptedError once the user has asked to stop. */
  progress(label: string, done: number, total: number): void;
  /** Numbers of one step: to metrics.jsonl and the live view. */
  metrics(step: number, values: Readonly<Record<string, number>>): void;
  /** One sampled answer: to rollouts.jsonl (with its step) and the live view. */
  rollout(step: number, record: Readonly<Record<string, unknown>>): void;
  /**
   * Where a killed stage resumes. `read` returns what the previous attempt wrote last, even after this one has written.
   * `write` also marks how far metrics and rollouts count: records a killed run logged after it are dropped.
   */
  readonly cursor: {
    read<T>(): T | undefined;
    write(value: unknown): void;
  };
}

export interface StageContext extends StageRecorder {
  readonly config: Config;
  /** Folder of an input's outputs. */
  inputDir(stage: StageName): string;
  /** The worker, started on first use. */
  worker(): Promise<WorkerClient>;
}
