/**
 * A language model on top of the prior, never worse than the prior alone: stacking with non-negative weights (Breiman,
 * "Stacked regressions", 1996), accepted only if it helps out of sample.
 *
 *   score_j = a * prior_j + w * g(slate) * log p_LM(item_j | history) + views
 *
 * The prior's own weights stay as they were fitted without the model. Forms, each tried against the one accepted before
 * it:
 *
 *   likelihood  one weight w
 *   gated       a weight for each third of the slates by the prior's spread, which is how much the evidence says
 *   views       also the likelihood standardised within the slate, its rank, and the lead of the likeliest
 *
 * A form is accepted if its cross-fitted gain in log-likelihood is above zero (paired bootstrap over users) and it does
 * not lower N@5. If none is, the model's weight is exactly 0, the system equals the prior, and the model is not asked.
 * Owns the fit and its test; the score itself is in prior.ts. Ours.
 */
import { type BootstrapOptions, type Comparison, PairedBootstrap } from "../eval/bootstrap.ts";
import { type ChoiceExample, fitChoiceModel, softmax } from "../eval/choice-model.ts";
import { gradedNdcg } from "../eval/metrics.ts";
import {
  computePrior,
  type FoldedExample,
  type FoldedPriors,
  fitFolds,
  fitPrior,
  gateIndex,
  likelihoodViews,
  orderBy,
  outOfSample,
  type Prior,
  type PriorExample,
  spread,
} from "./prior.ts";

/**
 * Whether the prior should use the input order in addition to the evidence, which has seen it: by the same test, the
 * cross-fitted gain in log-likelihood over the evidence alone. Otherwise its weights would only add noise.
 * @param examples out of sample for the evidence
 */
export function orderHelps(
  examples: readonly (FoldedExample & { readonly user: number })[],
  numFolds: number,
  bootstrap: Partial<BootstrapOptions> = {},
): boolean {
  const fitted = [false, true].map((order) =>
    fitFolds(examples, numFolds, (some) => fitPrior(some, { likelihood: false, evidence: true, order })),
  );
  const logs = fitted.map((priors) => toLogs(examples)(outOfSample(priors, examples)));
  const users = examples.map((e) => e.user);
  return new PairedBootstrap(users, logs, bootstrap).compare(1, 0).ciLow > 0;
}

export type Form = "none" | "likelihood" | "gated" | "views";

export interface Combination {
  readonly form: Form;
  /** For form none, the prior's own. */
  readonly priors: FoldedPriors;
  /** Cross-fitted gain over the prior, nats per slate; for form none, that of a single weight. */
  readonly gain: Comparison;
}

/** An example with its user and the model's likelihoods. */
export type CombinationExample = FoldedExample & {
  readonly user: number;
  readonly logLikelihood: readonly number[];
};

/** Fits one form on top of a prior. */
type FitForm = (examples: readonly CombinationExample[], prior: Prior) => Prior;

const tried: readonly Exclude<Form, "none">[] = ["likelihood", "gated", "views"];

/**
 * @param examples held-out slates, as the priors were fitted on them
 * @param base the prior without the language model, whole and by fold
 */
export function combine(
  examples: readonly CombinationExample[],
  base: FoldedPriors,
  bootstrap: Partial<BootstrapOptions> = {},
): Combination {
  // The prior, only rescaled: a gain from calibration is not the language model's.
  const fits: readonly FitForm[] = [fitScale, ...tried.map((form) => forms[form])];
  const candidates = fits.map((fitForm) => fitOnTop(fitForm, examples, base));
  const scores = candidates.map((priors) => outOfSample(priors, examples));
  const users = examples.map((e) => e.user);
  const logs = new PairedBootstrap(users, scores.map(toLogs(examples)), bootstrap);
  const n5 = scores.map((s) => meanNdcg(s, examples));
  let accepted = 0;
  for (let i = 1; i < candidates.length; i++) {
    const prior = candidates[i]?.whole;
    const helps = logs.compare(i, accepted).ciLow > 0 && (n5[i] ?? 0) >= (n5[accepted] ?? 0);
    if (helps && prior && prior.likelihood > 0) accepted = i;
  }
  return {
    form: tried[accepted - 1] ?? "none",
    priors: accepted === 0 ? base : (candidates[accepted] ?? base),
    gain: logs.compare(accepted || 1, 0),
  };
}

const fitOnTop = (fitForm: FitForm, examples: readonly CombinationExample[], base: FoldedPriors): FoldedPriors => ({
  whole: fitForm(examples, base.whole),
  byFold: base.byFold.map((prior, fold) =>
    fitForm(
      examples.filter((e) => e.fold !== fold),
      prior,
    ),
  ),
});

/** log p(truth) of every slate under softmax(scores), nats. */
const toLogs = (examples: readonly PriorExample[]) => (scores: readonly (readonly number[])[]) => ({
  values: scores.map((s, i) => {
    const chances = softmax(s);
    const { truth } = examples[i] as PriorExample;
    return truth.reduce((sum, t, j) => sum + (t > 0 ? t * Math.log(Math.max(chances[j] as number, 1e-12)) : 0), 0);
  }),
});

function meanNdcg(scores: readonly (readonly number[])[], examples: readonly PriorExample[]): number {
  const sum = scores.reduce((total, s, i) => {
    const { truth } = examples[i] as PriorExample;
    return (
      total +
      gradedNdcg(
        orderBy(s).map((j) => truth[j] as number),
        5,
      )
    );
  }, 0);
  return sum / Math.max(1, scores.length);
}

const rescale = (prior: Prior, by: number): Prior => ({
  ...prior,
  place: prior.place.map((w) => w * by),
  preRank: prior.preRank * by,
  evidence: prior.evidence * by,
});

/**
 * Weights of the prior's score and of columns next to it. @param columns of an example, each with one value per
 * candidate
 */
function fitWeights(
  examples: readonly CombinationExample[],
  prior: Prior,
  names: readonly string[],
  columns: (e: CombinationExample, base: readonly number[]) => readonly (readonly number[])[],
): readonly number[] {
  const all = ["prior", ...names];
  const choices = examples.map((e): ChoiceExample => {
    const base = computePrior(prior, e);
    const features = [base, ...columns(e, base)];
    const features_NK = new Float64Array(base.length * all.length);
    features.forEach((column, f) => {
      column.forEach((value, j) => {
        features_NK[j * all.length + f] = value;
      });
    });
    return { features_NK, numCandidates: base.length, truth_N: e.truth };
  });
  return fitChoiceModel(choices, all, undefined, [1]).weights;
}

const notNegative = (weight: number | undefined): number => Math.max(0, weight ?? 0);

const fitScale: FitForm = (examples, prior) =>
  rescale(prior, notNegative(fitWeights(examples, prior, [], () => [])[0]));

const forms: Readonly<Record<Exclude<Form, "none">, FitForm>> = {
  likelihood(examples, prior) {
    const [scale, weight] = fitWeights(examples, prior, ["likelihood"], (e) => [e.logLikelihood]);
    return { ...rescale(prior, notNegative(scale)), likelihood: notNegative(weight) };
  },

  gated(examples, prior) {
    const spreads = examples.map((e) => spread(computePrior(prior, e))).sort((a, b) => a - b);
    const upTo = [1 / 3, 2 / 3].map((share) => spreads[Math.floor(share * spreads.length)] ?? 0);
    const bins = ["weak", "middling", "strong"];
    const [scale, ...weights] = fitWeights(examples, prior, bins, (e, base) =>
      bins.map((_, bin) => e.logLikelihood.map((l) => (gateIndex(upTo, base) === bin ? l : 0))),
    );
    const [by, trust] = [notNegative(scale), weights.map(notNegative)];
    const likelihood = Math.max(...trust);
    return {
      ...rescale(prior, by),
      likelihood,
      gate: { upTo: upTo.map((x) => x * by), factors: trust.map((w) => (likelihood > 0 ? w / likelihood : 0)) },
    };
  },

  views(examples, prior) {
    const names = ["likelihood", "standardised", "rank", "margin"];
    const [scale, likelihood, standardised, rank, margin] = fitWeights(examples, prior, names, (e) => {
      const views = likelihoodViews(e.logLikelihood);
      return [e.logLikelihood, views.standardised, views.rank, views.margin];
    });
    return {
      ...rescale(prior, notNegative(scale)),
      likelihood: notNegative(likelihood),
      views: { standardised: standardised ?? 0, rank: rank ?? 0, margin: margin ?? 0 },
    };
  },
};

/** A sentence that says what was accepted and why. */
export function describeCombination(system: string, { form, gain, priors }: Combination): string {
  const nats = `${signed(gain.delta)} [${signed(gain.ciLow)}, ${signed(gain.ciHigh)}] nats per validation slate over the prior`;
  if (form === "none") return `${system}: weight 0, the model is not asked: one weight gains ${nats}`;
  const trust = priors.whole.gate?.factors.map((f) => (f * priors.whole.likelihood).toFixed(3)).join(" / ");
  return `${system}: likelihood weight ${trust ?? priors.whole.likelihood.toFixed(3)} (${form}), ${nats}`;
}

const signed = (x: number): string => `${x < 0 ? "−" : "+"}${Math.abs(x).toFixed(4)}`;
