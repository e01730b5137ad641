/** What stage calibrate left: the priors, and its probability for each candidate of SFT's slates. */
import { join } from "node:path";
import type { Prior } from "../policy/prior.ts";
import type { StageContext } from "../run/stage.ts";
import { readJson } from "./files.ts";

export interface Priors {
  /** For generation; its likelihood weight is never 0. */
  readonly withLikelihood: Prior;
  /** Fitted without the language model: the `prior` control. */
  readonly alone: Prior;
  /** Whether the prior uses the input order besides the evidence; always true without evidence. */
  readonly order: boolean;
}

export const readPriors = (context: StageContext): Priors =>
  readJson(join(context.inputDir("calibrate"), "prior.json"));

/**
 * How likely each candidate of the re-rank slates of SFT's users is, by slate id: the teacher's evidence, the pre-rank
 * and the mid-trained LM's likelihood, combined. The answers enter only through the few weights.
 */
export const readBeliefs = (context: StageContext): Readonly<Record<string, readonly number[]>> =>
  readJson(join(context.inputDir("calibrate"), "beliefs.json"));

/** The prior of generation. */
export const readPrior = (context: StageContext): Prior => readPriors(context).withLikelihood;
