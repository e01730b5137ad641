/**
 * The interface of a reward, built in (kinds.ts) or a user's: it says what readable answers are worth. The penalty for
 * unreadable answers, the format bonus and the gate against copies are in verify.ts.
 */
import type { LabelledSlate } from "../data/slate-items.ts";
import type { PromptMode } from "../prompts/rerank.ts";

/** A readable answer. */
export interface Answer {
  readonly slate: LabelledSlate;
  /** `think`: with reasoning; `answer`: the order at once. */
  readonly mode: PromptMode;
  /** Indices of the slate's candidates, best first: a permutation. */
  readonly order: readonly number[];
  /** What was written before the order; "" in mode answer. */
  readonly reasoning: string;
}

export interface Score {
  readonly value: number;
  /** Addends of the value by name, for logs and plots. */
  readonly parts?: Readonly<Record<string, number>>;
  /** One sentence: why this number. */
  readonly because?: string;
}

/** Pure: the same answer always gets the same score, whatever the batch. */
export interface Reward {
  /** One score per answer, in order; a number is a score without parts. */
  score(answers: readonly Answer[]): readonly (number | Score)[] | Promise<readonly (number | Score)[]>;
}
