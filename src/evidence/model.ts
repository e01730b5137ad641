/**
 * A fitted evidence model: maps the feature rows of a slate to one score per candidate, in log-odds: softmax(scores) is
 * its belief. Three kinds: boosted trees (LambdaMART), a listwise logistic regression, which needs no worker, and both
 * stacked, with weights fitted on out-of-sample scores: trees alone overfit small data, a regression alone misses
 * interactions of features.
 *
 * Shapes: N candidates, F features; features_NF row-major.
 */
import { type ChoiceExample, choiceScores, fitChoiceModel } from "../eval/choice-model.ts";
import { parseTrees, predictTrees, type Trees } from "./trees.ts";

export interface EvidenceModel {
  readonly kind: SavedModel["kind"];
  /** Names of the columns it was fitted on. */
  readonly features: readonly string[];
  /** One score per candidate. */
  scores(features_NF: Float32Array, numCandidates: number): number[];
  /** A serialisable form that can be opened again. */
  toJSON(): SavedModel;
}

export type SavedModel =
  | {
      readonly kind: "lambdamart";
      readonly features: readonly string[];
      /** Factor that turns the trees' sums into log-odds. */
      readonly scale: number;
      /** LightGBM's text format, which its own tools read too. */
      readonly trees: string;
    }
  | { readonly kind: "listwise"; readonly features: readonly string[]; readonly weights: readonly number[] }
  | {
      readonly kind: "stacked";
      readonly features: readonly string[];
      /** Models over the same features, and the weight of each one's scores. */
      readonly parts: readonly { readonly weight: number; readonly model: SavedModel }[];
    };

export function openModel(saved: SavedModel): EvidenceModel {
  switch (saved.kind) {
    case "lambdamart":
      return boosted(saved, parseTrees(saved.trees));
    case "listwise":
      return listwise(saved);
    case "stacked":
      return stacked(saved);
  }
}

function boosted(saved: SavedModel & { kind: "lambdamart" }, trees: Trees): EvidenceModel {
  return {
    kind: saved.kind,
    features: saved.features,
    scores(features_NF, numCandidates) {
      const out = new Float64Array(numCandidates);
      predictTrees(trees, features_NF, out);
      return Array.from(out, (s) => s * saved.scale);
    },
    toJSON: () => saved,
  };
}

function listwise(saved: SavedModel & { kind: "listwise" }): EvidenceModel {
  return {
    kind: saved.kind,
    features: saved.features,
    scores: (features_NF, numCandidates) =>
      choiceScores(saved.weights, withinSlate(features_NF, numCandidates), numCandidates),
    toJSON: () => saved,
  };
}

function stacked(saved: SavedModel & { kind: "stacked" }): EvidenceModel {
  const parts = saved.parts
    .filter(({ weight }) => weight > 0)
    .map(({ weight, model }) => ({ weight, model: openModel(model) }));
  return {
    kind: saved.kind,
    features: saved.features,
    scores(features_NF, numCandidates) {
      const out = new Array<number>(numCandidates).fill(0);
      for (const { weight, model } of parts)
        model.scores(features_NF, numCandidates).forEach((score, i) => {
          out[i] = (out[i] as number) + weight * score;
        });
      return out;
    },
    toJSON: () => saved,
  };
}

/**
 * Weights that sum the scores of several models into log-odds: a conditional logit on out-of-sample scores. Never
 * negative: a model that only helps with its sign reversed is left out.
 * @param slates per slate, per model, one score per candidate
 */
export function stackWeights(
  slates: readonly { readonly scores: readonly (readonly number[])[]; readonly truth_N: readonly number[] }[],
  numModels: number,
): number[] {
  const weigh = (models: readonly number[]): number[] => {
    const examples = slates.map(({ scores, truth_N }): ChoiceExample => {
      const features_NK = new Float64Array(truth_N.length * models.length);
      models.forEach((m, k) => {
        scores[m]?.forEach((score, i) => {
          features_NK[i * models.length + k] = score;
        });
      });
      return { features_NK, numCandidates: truth_N.length, truth_N };
    });
    const names = models.map((m) => `model ${m}`);
    const { weights } = fitChoiceModel(examples, names, 1e-6);
    const kept = models.filter((_, k) => (weights[k] as number) > 0);
    if (kept.length < models.length && kept.length > 0) return weigh(kept);
    const out = new Array<number>(numModels).fill(0);
    models.forEach((m, k) => {
      out[m] = Math.max(0, weights[k] as number);
    });
    return out;
  };
  const all = Array.from({ length: numModels }, (_, m) => m);
  return slates.length === 0 ? all.map(() => 1 / numModels) : weigh(all);
}

/** One slate to learn from. */
export interface Lesson {
  readonly features_NF: Float32Array;
  readonly numCandidates: number;
  /** Shares of the truth over the candidates. */
  readonly truth_N: readonly number[];
}

/** @param l2 ridge penalty on the sum over slates */
export function fitListwise(features: readonly string[], lessons: readonly Lesson[], l2: number): EvidenceModel {
  const examples = lessons.map(
    ({ features_NF, numCandidates, truth_N }): ChoiceExample => ({
      features_NK: withinSlate(features_NF, numCandidates),
      numCandidates,
      truth_N,
    }),
  );
  return openModel({
    kind: "listwise",
    features,
    weights: fitChoiceModel(examples, features, l2 / examples.length).weights,
  });
}

/** The factor that makes scores log-odds: a conditional logit on out-of-sample scores. Never negative. */
export function logOddsScale(
  slates: readonly { readonly scores: readonly number[]; readonly truth_N: readonly number[] }[],
): number {
  if (slates.length === 0) return 1;
  const examples = slates.map(
    ({ scores, truth_N }): ChoiceExample => ({
      features_NK: Float64Array.from(scores),
      numCandidates: scores.length,
      truth_N,
    }),
  );
  const [scale = 1] = fitChoiceModel(examples, ["score"], 1e-6).weights;
  return Math.max(0, scale);
}

/**
 * Every column standardised over the slate: only differences between candidates count. Unknown values become the mean.
 */
export function withinSlate(features_NF: Float32Array, numCandidates: number): Float64Array {
  const N = numCandidates;
  const F = features_NF.length / Math.max(1, N);
  const out = new Float64Array(features_NF.length);
  for (let f = 0; f < F; f++) {
    let [known, sum, squares] = [0, 0, 0];
    for (let i = 0; i < N; i++) {
      const x = features_NF[i * F + f] as number;
      if (Number.isNaN(x)) continue;
      known++;
      sum += x;
    }
    const mean = sum / Math.max(1, known);
    for (let i = 0; i < N; i++) {
      const x = features_NF[i * F + f] as number;
      if (!Number.isNaN(x)) squares += (x - mean) ** 2;
    }
    const deviation = Math.sqrt(squares / Math.max(1, known));
    if (deviation < 1e-9) continue;
    for (let i = 0; i < N; i++) {
      const x = features_NF[i * F + f] as number;
      if (!Number.isNaN(x)) out[i * F + f] = (x - mean) / deviation;
    }
  }
  return out;
}
