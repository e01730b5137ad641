/** A user's own teacher: it orders slates and explains why, in words that may cite items. */
import type { SlateItems } from "../data/slate-items.ts";

export interface BroughtQuestion {
  readonly slate: SlateItems;
  /** Candidate index revealed as the user's choice (teacher.sampling: targeted); null: not revealed. */
  readonly hint: number | null;
  /** From 1; every attempt at a slate draws anew. */
  readonly attempt: number;
}

/** Text, or an item by its index among the slate's candidates or in its history. */
export type ReasoningPart = string | { readonly candidate: number } | { readonly history: number };

export interface BroughtReply {
  /** Candidate indices, best first: a permutation. */
  readonly order: readonly number[];
  readonly reasoning: string | readonly ReasoningPart[];
}

export interface BroughtTeacher {
  /** One reply per question, in order; null: no reply, and it may be asked again. */
  ask(
    questions: readonly BroughtQuestion[],
  ): readonly (BroughtReply | null)[] | Promise<readonly (BroughtReply | null)[]>;
}
