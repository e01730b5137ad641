/** The interface between the RL loop (loop.ts) and the algorithm of a step (dapo.ts, opd.ts). */
import type { Corpus } from "../../artifacts/corpus.ts";
import type { LanguageModel } from "../../models/language-model.ts";
import type { Policy, SlateInput } from "../../policy/policy.ts";
import type { Slate } from "../../prerank/types.ts";
import type { StageContext, Summary } from "../../run/stage.ts";
import type { WorkerClient } from "../../worker/types.ts";

/** What the loop passes to an algorithm. */
export interface Setup {
  readonly context: StageContext;
  readonly worker: WorkerClient;
  readonly corpus: Corpus;
  readonly model: LanguageModel;
  readonly policy: Policy;
  /** Folder of the initial weights. */
  readonly start: string;
  /** Re-rank slates of users unseen so far, misses included. */
  readonly slates: readonly Slate[];
  readonly toSlateInput: (slate: Slate) => SlateInput;
}

export interface Algorithm {
  /** The slates it draws from. */
  readonly pool: readonly Slate[];
  /** One step: samples and updates once. */
  step(step: number): Promise<Step>;
  /** Called after a step: start what the next step needs while this one is logged. */
  lookAhead?(step: number): void;
  close?(): Promise<void>;
}

/** A step's report. */
export interface Step {
  /** To metrics.jsonl. */
  readonly values: Readonly<Record<string, number>>;
  /** Shown next to the progress bar. */
  readonly note: string;
  /** Lines to print. */
  readonly messages?: readonly string[];
  /** A sample of its answers, for rollouts.jsonl. */
  readonly rollouts?: readonly Readonly<Record<string, unknown>>[];
  /** Values of the last step, for the stage's summary. */
  readonly summary?: Summary;
}
