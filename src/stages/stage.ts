/**
 * What a stage is: a name, the stages whose outputs it reads, the settings it depends on, and one linear function.
 * A stage writes only into its own folder and talks to the model only through the worker.
 */
import type { Config } from "../config/schema.ts";
import type { WorkerClient } from "../worker/types.ts";

export const stageNames = [
  "data",
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

/** Numbers a stage is judged by; shown in the manifest and the report. */
export type Summary = Readonly<Record<string, number>>;

export interface Stage {
  readonly name: StageName;
  /** Stages whose outputs it reads. */
  readonly inputs: readonly StageName[];
  /** The part of the configuration that changes its result. */
  readonly settings: (config: Config) => unknown;
  run(context: StageContext): Promise<Summary>;
}

export interface StageContext {
  readonly config: Config;
  /** Folder of this stage's outputs; empty at the first start, and as it was left if a kill came behind a cursor. */
  readonly dir: string;
  /** A path for checkpoints: kept until the stage is finished, never an output. */
  work(name: string): string;
  /** Folder of an input's outputs. */
  inputDir(stage: StageName): string;
  /** The worker, started on first use. */
  worker(): Promise<WorkerClient>;
  readonly signal: AbortSignal;
  /** A line for a person. */
  log(message: string): void;
  /** Progress of something countable within the stage. */
  progress(label: string, done: number, total: number): void;
  /** Numbers of one step: to metrics.jsonl and the live view. */
  metrics(step: number, values: Readonly<Record<string, number>>): void;
  /** One sampled answer: to rollouts.jsonl (with its step) and the live view. */
  rollout(step: number, record: Readonly<Record<string, unknown>>): void;
  /**
   * Where a killed stage goes on: `read` gives what the last `write` of the attempt before stored, also behind a `write`
   * of this one; `write` also marks how far metrics and rollouts count, so that what a killed run logged beyond it is
   * dropped.
   */
  readonly cursor: {
    read<T>(): T | undefined;
    write(step: number, value: unknown): void;
  };
}
