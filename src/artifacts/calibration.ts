/** What stage calibrate left: the priors, and how likely it holds each candidate of SFT's slates to be. */
import { join } from "node:path";
import type { Prior } from "../policy/prior.ts";
import type { StageContext } from "../run/stage.ts";
import { readJson } from "./files.ts";

export interface Priors {
  /** Of generation; its likelihood weight is never 0. */
  readonly withLikelihood: Prior;
  /** Fitted without the language model: the `prior` control. */
  readonly alone: Prior;
  /** Whether the order that came in is part of the prior next to the evidence; always without evidence. */
  readonly order: boolean;
}

export const readPriors = (context: StageContext): Priors =>
  readJson(join(context.inputDir("calibrate"), "prior.json"));

/**
 * How likely each candidate of the re-rank slates of SFT's users is, by slate id: the teacher's evidence, the pre-rank and
 * the mid-trained LM's likelihood, weighed together. The answers enter through the few weights alone.
 */
export const readBeliefs = (context: StageContext): Readonly<Record<string, readonly number[]>> =>
  readJson(join(context.inputDir("calibrate"), "beliefs.json"));

/** The prior of generation. */
export const readPrior = (context: StageContext): Prior => readPriors(context).withLikelihood;
