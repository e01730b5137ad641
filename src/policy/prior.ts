/**
 * The pre-rank as a prior: what the previous stage's order and scores say about each candidate, with weights learned on
 * held-out slates. In direct mode it is added to the LM's log-likelihood; in generation it is the logit prior of the
 * permutation constraint. Fitted by eval/choice-model; ours: a product of experts. The LM's weight in direct mode is
 * decided in combination.ts.
 *
 *   score_j = likelihood * log p_LM(item_j | history) + place[position_j] + preRank * z_j + evidence * e_j
 */
import { type ChoiceExample, fitChoiceModel } from "../eval/choice-model.ts";

export interface Prior {
  /** Weight of the LM's log-likelihood; the constraint's `scale`. 0 = the LM is not asked (the `prior` control). */
  readonly likelihood: number;
  /** Weight of each position of the input order; the first is 0. Named as in the stored file. */
  readonly place: readonly number[];
  /** Weight of the pre-rank score, standardised within the slate. */
  readonly preRank: number;
  /** Weight of the statistical teacher's score, where it is part of the prior; else 0. */
  readonly evidence: number;
  /** Where the LM is trusted more or less; absent: the same everywhere. */
  readonly gate?: Gate;
  /** Weights of further features of the likelihood; absent: none. */
  readonly views?: Readonly<Record<keyof LikelihoodViews, number>>;
}

/** Scales the likelihood's weight by the spread of the prior over the slate. */
export interface Gate {
  /** Upper ends of all bins but the last, nats. */
  readonly upTo: readonly number[];
  /** Factor of each bin, 0 to 1. */
  readonly factors: readonly number[];
}

/** A slate's likelihoods relative to each other, one value per candidate. */
export interface LikelihoodViews {
  readonly standardised: readonly number[];
  /** -log2(rank + 1), from 1. */
  readonly rank: readonly number[];
  /** The likeliest candidate's lead over the second, nats; 0 for the others. */
  readonly margin: readonly number[];
}

export function likelihoodViews(logLikelihood: readonly number[]): LikelihoodViews {
  const order = orderBy(logLikelihood);
  const rank = new Array<number>(order.length).fill(0);
  order.forEach((j, place) => {
    rank[j] = -Math.log2(place + 2);
  });
  const [first = 0, second = first] = order;
  const lead = (logLikelihood[first] as number) - (logLikelihood[second] as number);
  return {
    standardised: standardise(logLikelihood),
    rank,
    margin: logLikelihood.map((_, j) => (j === first ? lead : 0)),
  };
}

/** Standard deviation over the candidates, nats: how much the prior says about a slate. */
export function spread(weighed: readonly number[]): number {
  const mean = weighed.reduce((a, b) => a + b, 0) / weighed.length;
  return Math.sqrt(weighed.reduce((a, w) => a + (w - mean) ** 2, 0) / weighed.length);
}

/** The bin of a slate. @param upTo see Gate @param weighed the prior of each candidate */
export function gateIndex(upTo: readonly number[], weighed: readonly number[]): number {
  const s = spread(weighed);
  const bin = upTo.findIndex((end) => s <= end);
  return bin < 0 ? upTo.length : bin;
}

/** Inputs of the prior, per candidate in input order. */
export interface PriorInput {
  readonly scores: readonly number[];
  /** Candidates with equal scores share the average of their positions' weights; default: input order decides. */
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

/** The prior's contribution to each candidate's score, in input order. */
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
  /** The previous stage's scores and positions; default true. */
  readonly order?: boolean;
}

/** Number of position weights for slates of up to n candidates, the fixed 0 of the first position included. */
const positionsIn = (n: number, { order = true }: Terms): number => (order ? numPositionWeights(n) : Math.min(1, n));

/**
 * Beyond the tenth, positions up to each of these share a weight: few true items are that low, and a fit's cost is
 * quadratic.
 */
const sharedUpTo = [15, 20, 30, 50, 75];

/** Index of the weight for a position of the input order, from 0. */
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
  const { order = true } = terms;
  const columns = [
    ...(order ? [standardise(e.scores)] : []),
    ...(terms.likelihood ? [e.logLikelihood] : []),
    ...(terms.evidence ? [e.evidence] : []),
  ];
  const k = positions - 1 + columns.length; // all position weights except the first, then the columns
  const features = new Float64Array(n * k);
  for (let j = 0; j < n; j++) {
    if (order && j > 0) features[j * k + weightIndex(j) - 1] = 1;
    columns.forEach((column, c) => {
      features[j * k + positions - 1 + c] = column?.[j] as number;
    });
  }
  return { features_NK: features, numCandidates: n, truth_N: e.truth };
}

/**
 * Fits the prior on held-out slates of any sizes. Each of the first ten positions has its own weight; later ones share.
 * Use at least a thousand slates (in a prototype 300 gave half the lift, 100 hurt). With `centre`, the fit is pulled
 * towards that prior (MAP).
 */
export function fitPrior(examples: readonly PriorExample[], terms: Terms, centre?: Prior): Prior {
  const n = examples.reduce((most, e) => Math.max(most, e.scores.length), centre?.place.length ?? 0);
  const positions = positionsIn(n, terms);
  const names = [
    ...Array.from({ length: positions - 1 }, (_, j) => `position ${j + 2}`),
    ...(terms.order === false ? [] : ["pre-rank"]),
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
    likelihood: terms.likelihood ? Math.max(0, getWeight("likelihood")) : 0,
    place: Array.from({ length: n }, (_, j) => (j === 0 ? 0 : getWeight(`position ${weightIndex(j) + 1}`))),
    preRank: getWeight("pre-rank"),
    evidence: terms.evidence ? getWeight("evidence") : 0,
  };
}

/** Strength of the pull towards `centre`; with this value, a thousand slates move a weight about half-way. */
const centrePenalty = 0.03;

const packWeights = (p: Prior, n: number, terms: Terms): number[] => [
  ...Array.from({ length: positionsIn(n, terms) - 1 }, (_, w) => {
    const position = Array.from({ length: n }, (__, j) => j).find((j) => weightIndex(j) === w + 1) ?? 0;
    return (p.place[position] ?? p.place.at(-1) ?? 0) - (p.place[0] ?? 0);
  }),
  ...(terms.order === false ? [] : [p.preRank]),
  ...(terms.likelihood ? [p.likelihood] : []),
  ...(terms.evidence ? [p.evidence] : []),
];

/** Direct-mode scores of a slate. */
export const directScores = (prior: Prior, input: PriorInput, logLikelihood: readonly number[] | undefined): number[] =>
  addLikelihood(prior, computePrior(prior, input), logLikelihood);

/** Direct-mode scores, given the prior's contribution. */
export function addLikelihood(
  { likelihood, gate, views }: Pick<Prior, "likelihood" | "gate" | "views">,
  weighed: readonly number[],
  logLikelihood: readonly number[] | undefined,
): number[] {
  if (!logLikelihood) return [...weighed];
  const weight = likelihood * (gate ? (gate.factors[gateIndex(gate.upTo, weighed)] ?? 1) : 1);
  const seen = views && likelihoodViews(logLikelihood);
  return weighed.map((p, j) => {
    const more = seen
      ? views.standardised * (seen.standardised[j] as number) +
        views.rank * (seen.rank[j] as number) +
        views.margin * (seen.margin[j] as number)
      : 0;
    return p + weight * (logLikelihood[j] as number) + more;
  });
}

/** A prior fitted on all slates, and one per fold that has not seen that fold. */
export interface FoldedPriors {
  readonly whole: Prior;
  readonly byFold: readonly Prior[];
}

export type FoldedExample = PriorExample & { readonly fold: number };

export const fitFolds = <E extends FoldedExample>(
  examples: readonly E[],
  numFolds: number,
  fitOne: (examples: readonly E[]) => Prior,
): FoldedPriors => ({
  whole: fitOne(examples),
  byFold: Array.from({ length: numFolds }, (_, fold) => fitOne(examples.filter((e) => e.fold !== fold))),
});

/** Out-of-sample scores on the slates the priors were fitted on: each fold by the prior that has not seen it. */
export const outOfSample = ({ byFold }: FoldedPriors, examples: readonly FoldedExample[]): number[][] =>
  examples.map((e) => directScores(byFold[e.fold] as Prior, e, e.logLikelihood));
