/**
 * What every teacher is: it is asked to order a slate and to say why, and replies with a ranking and its reasoning, or with
 * what was wrong. The offline statistical teacher (statistical.ts), any endpoint and the worker's model (words.ts) are
 * asked in the same way; sampling.ts decides which replies become traces.
 */
import type { AnyReasoning } from "../prompts/rerank.ts";
import type { UnlabelledSlate } from "./unlabelled-slate.ts";

export interface TeacherQuestion {
  /** Without its answer. */
  readonly slate: UnlabelledSlate;
  /** Candidate index given away as the user's choice (targeted sampling); null: the teacher is not told. */
  readonly hint: number | null;
  /** From 1; every attempt draws anew. */
  readonly attempt: number;
}

export type Reply =
  | {
      readonly kind: "ranking";
      /** Candidate indices, best first; a permutation. */
      readonly order: readonly number[];
      readonly reasoning: AnyReasoning;
      /** Of drawing this answer; null where the whole teacher follows from the run's seed. */
      readonly seed: number | null;
      /** When a server gave it, ISO 8601; null where it was computed and could be again. */
      readonly time: string | null;
      /** SHA-256 of what was asked; null without words. */
      readonly prompt: string | null;
    }
  /** An answer that is of no use. */
  | { readonly kind: "unusable"; readonly reason: string; readonly detail: string; readonly text: string }
  /** Not asked at all: the budget is used up, or a request failed for good. */
  | { readonly kind: "unasked"; readonly reason: string };

export interface Teacher {
  readonly kind: "statistical" | "openai" | "worker" | "module";
  /** Name of the model behind it. */
  readonly model: string;
  /** One reply a question, in order. */
  ask(questions: readonly TeacherQuestion[]): Promise<readonly Reply[]>;
  /** Gives back what it holds, for example the worker's memory. */
  close?(): Promise<void>;
}
