/** The seam between the RL loop (loop.ts) and what a step does (dapo.ts, opd.ts). */
import type { Corpus } from "../../artifacts/corpus.ts";
import type { LanguageModel } from "../../models/language-model.ts";
import type { Policy, SlateInput } from "../../policy/policy.ts";
import type { Slate } from "../../prerank/types.ts";
import type { StageContext, Summary } from "../../run/stage.ts";
import type { WorkerClient } from "../../worker/types.ts";

/** What the loop hands to an algorithm. */
export interface Setup {
  readonly context: StageContext;
  readonly worker: WorkerClient;
  readonly corpus: Corpus;
  readonly model: LanguageModel;
  readonly policy: Policy;
  /** The folder of the weights it begins with. */
  readonly start: string;
  /** Re-rank slates of users unseen so far, misses included. */
  readonly slates: readonly Slate[];
  readonly toSlateInput: (slate: Slate) => SlateInput;
}

export interface Algorithm {
  /** The slates it draws from. */
  readonly pool: readonly Slate[];
  /** Samples and learns once. */
  step(step: number): Promise<Step>;
  /** Called after a step that changed nothing but the weights: begin what the next one needs while this one is logged. */
  lookAhead?(step: number): void;
  close?(): Promise<void>;
}

/** What a step says of itself. */
export interface Step {
  /** To metrics.jsonl. */
  readonly values: Readonly<Record<string, number>>;
  /** Beside the progress bar. */
  readonly note: string;
  /** Lines for a person. */
  readonly messages?: readonly string[];
  /** Some of its answers, to rollouts.jsonl. */
  readonly rollouts?: readonly Readonly<Record<string, unknown>>[];
  /** Of the last step, into the stage's summary. */
  readonly summary?: Summary;
}
