/**
 * The interface of every teacher: asked to order a slate and explain why, it replies with a ranking and its reasoning,
 * or with what went wrong. The offline statistical teacher (statistical.ts), any endpoint and the worker's model
 * (words.ts) share it; sampling.ts decides which replies become traces.
 */
import type { AnyReasoning } from "../prompts/rerank.ts";
import type { UnlabelledSlate } from "./unlabelled-slate.ts";

export interface TeacherQuestion {
  /** Without its answer. */
  readonly slate: UnlabelledSlate;
  /** Candidate index revealed as the user's choice (targeted sampling); null: not revealed. */
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
      /** Seed this answer was drawn with; null if it follows from the run's seed. */
      readonly seed: number | null;
      /** When a server gave it, ISO 8601; null if it was computed and is reproducible. */
      readonly time: string | null;
      /** SHA-256 of the question in words; null without words. */
      readonly prompt: string | null;
    }
  /** An unusable answer. */
  | { readonly kind: "unusable"; readonly reason: string; readonly detail: string; readonly text: string }
  /** Not asked at all: the budget is used up, or a request failed for good. */
  | { readonly kind: "unasked"; readonly reason: string };

export interface Teacher {
  readonly kind: "statistical" | "openai" | "worker" | "module";
  /** Name of the model behind it. */
  readonly model: string;
  /** One reply per question, in order. */
  ask(questions: readonly TeacherQuestion[]): Promise<readonly Reply[]>;
  /** Releases what it holds, for example the worker's memory. */
  close?(): Promise<void>;
}
