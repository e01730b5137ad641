/**
 * The pre-rank as a prior: what the order and the scores of the stage before say about each candidate, with weights
 * learned on held-out slates. In direct mode it is added to the LM's log-likelihood; in generation it is the logit prior
 * of the permutation constraint. Fitted by eval/choice-model; ours (PROBE: "product of experts").
 *
 *   score_j = likelihood * log p_LM(item_j | history) + place[position_j] + preRank * z_j
 */
import { type ChoiceExample, fitChoiceModel } from "../eval/choice-model.ts";

export interface Prior {
  /** Weight of the LM's log-likelihood; the constraint's `scale`. 0 = the LM is not asked (the `prior` control). */
  readonly likelihood: number;
  /** Weight of each place of the input order; the first is 0. */
  readonly place: readonly number[];
  /** Weight of the pre-rank score, standardised within the slate. */
  readonly preRank: number;
}

export const flatPrior = (numCandidates: number): Prior => ({
  likelihood: 1,
  place: Array.from({ length: numCandidates }, () => 0),
  preRank: 0,
});

/** Scores minus their mean, over their standard deviation; zeros when they are all equal. */
export function standardise(scores: readonly number[]): number[] {
  const mean = scores.reduce((a, b) => a + b, 0) / scores.length;
  const std = Math.sqrt(scores.reduce((a, s) => a + (s - mean) ** 2, 0) / scores.length);
  return scores.map((s) => (std > 1e-12 ? (s - mean) / std : 0));
}

/** The prior's part of the score of each candidate, in input order. */
export function priorOf(prior: Prior, preRankScores: readonly number[]): number[] {
  const z = standardise(preRankScores);
  return z.map((zj, j) => (prior.place[Math.min(j, prior.place.length - 1)] ?? 0) + prior.preRank * zj);
}

export interface PriorExample {
  readonly preRankScores: readonly number[];
  /** log p_LM(item_j | history) per candidate; undefined where the LM is not asked. */
  readonly logLikelihood?: readonly number[];
  readonly chosen: number;
}

/** Candidate indices, best first; ties keep the input order. */
export const orderBy = (scores: readonly number[]): number[] =>
  scores.map((_, j) => j).sort((a, b) => (scores[b] as number) - (scores[a] as number) || a - b);

function toChoice(e: PriorExample, numCandidates: number, useLikelihood: boolean): ChoiceExample {
  const k = numCandidates + 1; // places 1..N-1, pre-rank score, likelihood
  const z = standardise(e.preRankScores);
  const features = new Float64Array(numCandidates * k);
  for (let j = 0; j < numCandidates; j++) {
    if (j > 0) features[j * k + j - 1] = 1;
    features[j * k + numCandidates - 1] = z[j] as number;
    if (useLikelihood) features[j * k + numCandidates] = e.logLikelihood?.[j] as number;
  }
  return { features_NK: features, numCandidates, chosen: e.chosen };
}

/**
 * Fits the prior on held-out slates of equal size. At least a thousand are advised (PROBE: 300 give half the lift,
 * 100 hurt).
 */
export function fitPrior(examples: readonly PriorExample[], useLikelihood: boolean): Prior {
  const n = examples[0]?.preRankScores.length ?? 0;
  const names = [
    ...Array.from({ length: n - 1 }, (_, j) => `place ${j + 2}`),
    "pre-rank",
    ...(useLikelihood ? ["likelihood"] : ["unused"]),
  ];
  const model = fitChoiceModel(
    examples.map((e) => toChoice(e, n, useLikelihood)),
    names,
  );
  return {
    likelihood: useLikelihood ? Math.max(0, model.weights[n] as number) : 0,
    place: [0, ...model.weights.slice(0, n - 1)],
    preRank: model.weights[n - 1] as number,
  };
}

/** Direct-mode scores of a slate. */
export function directScores(
  prior: Prior,
  preRankScores: readonly number[],
  logLikelihood: readonly number[] | undefined,
): number[] {
  return priorOf(prior, preRankScores).map(
    (p, j) => p + (logLikelihood ? prior.likelihood * (logLikelihood[j] as number) : 0),
  );
}

/** Fits on all users but one fold, scores that fold, for every fold: honest scores on the slates it is fitted on. */
export function crossFittedScores(
  examples: readonly (PriorExample & { readonly fold: number })[],
  numFolds: number,
  useLikelihood: boolean,
): number[][] {
  const priors = Array.from({ length: numFolds }, (_, fold) =>
    fitPrior(
      examples.filter((e) => e.fold !== fold),
      useLikelihood,
    ),
  );
  return examples.map((e) => directScores(priors[e.fold] as Prior, e.preRankScores, e.logLikelihood));
}
