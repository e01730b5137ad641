/**
 * The prior of the evaluated systems, fitted on validation: cross-fitted over users for validation's own numbers,
 * on all of validation for test. Regularised toward the prior of the re-rank slates, of which there are more. The
 * weight of a language model on top of it is chosen in policy/combination.ts on the same slates and folds.
 */
import { readPriors } from "../../artifacts/calibration.ts";
import { deriveSeed, unitHash } from "../../core/rng.ts";
import type { BootstrapOptions } from "../../eval/bootstrap.ts";
import {
  directScores,
  type FoldedExample,
  type FoldedPriors,
  fitFolds,
  fitPrior,
  type Prior,
  type PriorExample,
} from "../../policy/prior.ts";
import { type Slate, targetDistribution } from "../../prerank/types.ts";
import type { StageContext } from "../../run/stage.ts";
import type { Asked } from "./asked.ts";

const folds = 5;

export const bootstrapOptions = ({ config }: StageContext): Partial<BootstrapOptions> => ({
  resamples: config.eval.bootstrap,
  seed: deriveSeed(config.seed, "bootstrap"),
});

type Known = Pick<Asked, "context" | "evidence">;
type Example = FoldedExample & { readonly user: number };

export function makeExamples(known: Known, slates: readonly Slate[]): Example[];
export function makeExamples(
  known: Known,
  slates: readonly Slate[],
  likelihoods: readonly number[][],
): (Example & { readonly logLikelihood: readonly number[] })[];
export function makeExamples(known: Known, slates: readonly Slate[], likelihoods?: readonly number[][]): Example[];
export function makeExamples(
  { context, evidence }: Known,
  slates: readonly Slate[],
  likelihoods?: readonly number[][],
): Example[] {
  const seed = deriveSeed(context.config.seed, "calibration-folds");
  return slates.map((s, i) => ({
    scores: s.scores,
    evidence: evidence[s.id] as readonly number[],
    truth: targetDistribution(s),
    user: s.user,
    fold: Math.floor(unitHash(seed, s.user) * folds),
    ...(likelihoods ? { logLikelihood: likelihoods[i] as number[] } : {}),
  }));
}

export function fitValidationPrior(known: Known, validation: readonly Slate[]): FoldedPriors {
  const { context } = known;
  const { alone, order } = readPriors(context);
  const terms = { likelihood: false, evidence: context.config.decoding.evidence, order };
  return fitFolds(makeExamples(known, validation), folds, (examples) => fitPrior(examples, terms, alone));
}

export const scoreSlates = (prior: Prior, examples: readonly PriorExample[]): number[][] =>
  examples.map((e) => directScores(prior, e, e.logLikelihood));
