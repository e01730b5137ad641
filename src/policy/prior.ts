/**
 * The pre-rank as a prior: what the order and the scores of the stage before say about each candidate, with weights
 * learned on held-out slates. In direct mode it is added to the LM's log-likelihood; in generation it is the logit prior
 * of the permutation constraint. Fitted by eval/choice-model; ours: a product of experts.
 *
 *   score_j = likelihood * log p_LM(item_j | history) + place[position_j] + preRank * z_j + evidence * e_j
 */
import { type ChoiceExample, fitChoiceModel } from "../eval/choice-model.ts";

export interface Prior {
  /** Weight of the LM's log-likelihood; the constraint's `scale`. 0 = the LM is not asked (the `prior` control). */
  readonly likelihood: number;
  /** Weight of each position of the input order; the first is 0. The name is that of the file. */
  readonly place: readonly number[];
  /** Weight of the pre-rank score, standardised within the slate. */
  readonly preRank: number;
  /** Weight of the statistical teacher's score, where it is part of the prior; else 0. */
  readonly evidence: number;
}

/** What the prior looks at, per candidate in input order. */
export interface PriorInput {
  readonly scores: readonly number[];
  /** Candidates with equal scores share the positions that they take up together; default: input order decides. */
  readonly sharePositions?: boolean;
  /** The statistical teacher's scores, out of sample for this slate. */
  readonly evidence?: readonly number[];
}

export const flatPrior = (numCandidates: number): Prior => ({
  likelihood: 1,
  place: Array.from({ length: numCandidates }, () => 0),
  preRank: 0,
  evidence: 0,
});

/** Scores minus their mean, over their standard deviation; zeros when they are all equal. */
export function standardise(scores: readonly number[]): number[] {
  const mean = scores.reduce((a, b) => a + b, 0) / scores.length;
  const std = Math.sqrt(scores.reduce((a, s) => a + (s - mean) ** 2, 0) / scores.length);
  return scores.map((s) => (std > 1e-12 ? (s - mean) / std : 0));
}

/** The prior's part of the score of each candidate, in input order. */
export function computePrior(prior: Prior, input: PriorInput): number[] {
  const listed = input.scores.map((_, j) => prior.place[Math.min(j, prior.place.length - 1)] ?? 0);
  const place = input.sharePositions ? averageOverTies(input.scores, listed) : listed;
  return standardise(input.scores).map(
    (zj, j) =>
      (place[j] as number) +
      prior.preRank * zj +
      (prior.evidence === 0 ? 0 : prior.evidence * (input.evidence?.[j] ?? 0)),
  );
}

/** Each value, or the mean of the values of all candidates with the same score. */
export function averageOverTies(scores: readonly number[], values: readonly number[]): number[] {
  const tied = new Map<number, { sum: number; n: number }>();
  scores.forEach((score, j) => {
    const { sum, n } = tied.get(score) ?? { sum: 0, n: 0 };
    tied.set(score, { sum: sum + (values[j] as number), n: n + 1 });
  });
  return scores.map((score) => {
    const { sum, n } = tied.get(score) as { sum: number; n: number };
    return sum / n;
  });
}

export interface PriorExample extends PriorInput {
  /** log p_LM(item_j | history) per candidate; undefined where the LM is not asked. */
  readonly logLikelihood?: readonly number[];
  /** Shares of the truth over the candidates; 1 for a single true item. */
  readonly truth: readonly number[];
}

/** Candidate indices, best first; ties keep the input order. */
export const orderBy = (scores: readonly number[]): number[] =>
  scores.map((_, j) => j).sort((a, b) => (scores[b] as number) - (scores[a] as number) || a - b);

/** Which terms a fit may use. */
export interface Terms {
  readonly likelihood: boolean;
  readonly evidence: boolean;
}

/** Beyond the tenth, positions share a weight up to each of these: few true items stand so low, and a fit costs their square. */
const sharedUpTo = [15, 20, 30, 50, 75];

/** Which weight a position of the input order has, from 0. */
function weightIndex(position: number): number {
  if (position < 10) return position;
  const bin = sharedUpTo.findIndex((end) => position < end);
  return 10 + (bin < 0 ? sharedUpTo.length : bin);
}

/** Weights for positions of slates of up to n candidates. */
const numPositionWeights = (n: number): number => (n === 0 ? 0 : weightIndex(n - 1) + 1);

/** @param positions number of position weights, by the largest slate; a shorter slate leaves the last ones unused */
function toChoice(e: PriorExample, positions: number, terms: Terms): ChoiceExample {
  const n = e.scores.length;
  const columns = [
    standardise(e.scores),
    ...(terms.likelihood ? [e.logLikelihood] : []),
    ...(terms.evidence ? [e.evidence] : []),
  ];
  const k = positions - 1 + columns.length; // all position weights but the first, then the columns
  const features = new Float64Array(n * k);
  for (let j = 0; j < n; j++) {
    if (j > 0) features[j * k + weightIndex(j) - 1] = 1;
    columns.forEach((column, c) => {
      features[j * k + positions - 1 + c] = column?.[j] as number;
    });
  }
  return { features_NK: features, numCandidates: n, truth_N: e.truth };
}

/**
 * Fits the prior on held-out slates of any sizes; there is a weight for every position of the largest up to the tenth, and
 * shared ones beyond. At least a thousand are advised (in a prototype 300 gave half the lift, 100 hurt). With `centre` the fit starts from that prior and leaves it as far as the slates ask for (MAP).
 */
export function fitPrior(examples: readonly PriorExample[], terms: Terms, centre?: Prior): Prior {
  const n = examples.reduce((most, e) => Math.max(most, e.scores.length), centre?.place.length ?? 0);
  const positions = numPositionWeights(n);
  const names = [
    ...Array.from({ length: positions - 1 }, (_, j) => `position ${j + 2}`),
    "pre-rank",
    ...(terms.likelihood ? ["likelihood"] : []),
    ...(terms.evidence ? ["evidence"] : []),
  ];
  const { weights } = fitChoiceModel(
    examples.map((e) => toChoice(e, positions, terms)),
    names,
    centre ? centrePenalty : undefined,
    centre ? packWeights(centre, n, terms) : undefined,
  );
  const getWeight = (name: string): number => weights[names.indexOf(name)] ?? 0;
  return {
    likelihood: terms.likelihood ? Math.max(minLikelihood, getWeight("likelihood")) : 0,
    place: Array.from({ length: n }, (_, j) => (j === 0 ? 0 : (weights[weightIndex(j) - 1] as number))),
    preRank: getWeight("pre-rank"),
    evidence: terms.evidence ? getWeight("evidence") : 0,
  };
}

/** Strength of the pull toward a prior fitted on other slates; a thousand slates move a weight about half-way at this. */
const centrePenalty = 0.03;

const packWeights = (p: Prior, n: number, terms: Terms): number[] => [
  ...Array.from({ length: numPositionWeights(n) - 1 }, (_, w) => {
    const position = Array.from({ length: n }, (__, j) => j).find((j) => weightIndex(j) === w + 1) ?? 0;
    return (p.place[position] ?? p.place.at(-1) ?? 0) - (p.place[0] ?? 0);
  }),
  p.preRank,
  ...(terms.likelihood ? [p.likelihood] : []),
  ...(terms.evidence ? [p.evidence] : []),
];

/** An LM that held-out slates contradict still has a say, so that training can move the policy. */
const minLikelihood = 0.05;

/** Direct-mode scores of a slate. */
export const directScores = (prior: Prior, input: PriorInput, logLikelihood: readonly number[] | undefined): number[] =>
  addLikelihood(prior, computePrior(prior, input), logLikelihood);

/** Direct-mode scores where the prior's part is known. */
export const addLikelihood = (
  { likelihood }: Pick<Prior, "likelihood">,
  weighed: readonly number[],
  logLikelihood: readonly number[] | undefined,
): number[] => weighed.map((p, j) => p + (logLikelihood ? likelihood * (logLikelihood[j] as number) : 0));

/** Fits on all users but one fold, scores that fold, for every fold: honest scores on the slates it is fitted on. */
export function crossFittedScores(
  examples: readonly (PriorExample & { readonly fold: number })[],
  numFolds: number,
  terms: Terms,
  centre?: Prior,
): number[][] {
  const priors = Array.from({ length: numFolds }, (_, fold) =>
    fitPrior(
      examples.filter((e) => e.fold !== fold),
      terms,
      centre,
    ),
  );
  return examples.map((e) => directScores(priors[e.fold] as Prior, e, e.logLikelihood));
}
