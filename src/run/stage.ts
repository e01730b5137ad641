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

/** What a user may bring a module for (room plugins). */
export type PluginPoint = "adapter" | "prerank" | "teacher" | "reward" | "metrics" | "baselines";

/** Numbers a stage is judged by; shown in the manifest and the report. */
export type Summary = Readonly<Record<string, number>>;

export interface Stage {
  readonly name: StageName;
  /** `import.meta.url`: this file and what it imports is the code its result depends on. */
  readonly source: string;
  /** Stages whose outputs it reads. */
  readonly inputs: readonly StageName[];
  /** What it may ask of the worker: the Python behind these is code of the stage too. */
  readonly verbs: readonly Verb[];
  /** Where a recipe may name modules that it runs; their code is the stage's too. */
  readonly plugins?: readonly PluginPoint[];
  /** The part of the configuration that changes its result. */
  readonly settings: (config: Config) => unknown;
  run(context: StageContext): Promise<Summary>;
}

/** Where a stage writes and reports: its folder, its logs, its cursor. */
export interface StageRecorder {
  /** Folder of this stage's outputs; empty at the first start, and as it was left if a kill came after a cursor. */
  readonly dir: string;
  /** A path for checkpoints: kept until the stage is finished, never an output. */
  work(name: string): string;
  readonly signal: AbortSignal;
  /** A line for a person. */
  log(message: string): void;
  /** Progress of something countable within the stage. Throws InterruptedError once the user asked to stop. */
  progress(label: string, done: number, total: number): void;
  /** Numbers of one step: to metrics.jsonl and the live view. */
  metrics(step: number, values: Readonly<Record<string, number>>): void;
  /** One sampled answer: to rollouts.jsonl (with its step) and the live view. */
  rollout(step: number, record: Readonly<Record<string, unknown>>): void;
  /**
   * Where a killed stage resumes: `read` gives what the last `write` of the attempt before stored, also after a `write`
   * of this one. `write` also marks how far metrics and rollouts count: what a killed run logged beyond it is dropped.
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
