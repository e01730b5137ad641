/** Inputs of every system in an evaluation: the slates, the evidence, the prior without a language model. */
import type { Corpus } from "../../artifacts/corpus.ts";
import type { Heads } from "../../artifacts/heads.ts";
import type { FoldedPriors } from "../../policy/prior.ts";
import type { Slate } from "../../prerank/types.ts";
import type { StageContext } from "../../run/stage.ts";

export interface Asked {
  readonly context: StageContext;
  readonly corpus: Corpus;
  readonly evidence: Readonly<Record<string, readonly number[]>>;
  /** The prior, fitted on validation without a language model. */
  readonly prior: FoldedPriors;
  /** Slates whose candidates include the true item. */
  readonly validation: readonly Slate[];
  readonly test: readonly Slate[];
  /** The same slates as language models see them, aligned. */
  readonly heads: { readonly validation: Heads; readonly test: Heads };
  /** Test slates whose true item is not among the candidates. */
  readonly missed: readonly Slate[];
  /** Indices of the validation slates that systems are chosen on. */
  readonly selection: readonly number[];
  /** Ids of the test slates that the report shows. */
  readonly shown: ReadonlySet<string>;
}
