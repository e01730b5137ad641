/**
 * A fitted evidence model: from the feature rows of a slate to a score a candidate, in log-odds, so that softmax(scores) is
 * its belief. Two kinds: boosted trees (LambdaMART) and a listwise logistic regression, which needs no worker.
 *
 * Shapes: N candidates, F features; features_NF row-major.
 */
import { type ChoiceExample, choiceScores, fitChoiceModel } from "../eval/choice-model.ts";
import { parseTrees, predictTrees, type Trees } from "./trees.ts";

export interface EvidenceModel {
  readonly kind: "lambdamart" | "listwise";
  /** Names of the columns it was fitted on. */
  readonly features: readonly string[];
  /** One score a candidate. */
  scores(features_NF: Float32Array, numCandidates: number): number[];
  /** What can be written down and opened again. */
  toJSON(): SavedModel;
}

export type SavedModel =
  | {
      readonly kind: "lambdamart";
      readonly features: readonly string[];
      /** What the trees' sums are multiplied by to become log-odds. */
      readonly scale: number;
      /** LightGBM's text format: its own tools read it too. */
      readonly trees: string;
    }
  | { readonly kind: "listwise"; readonly features: readonly string[]; readonly weights: readonly number[] };

export function openModel(saved: SavedModel): EvidenceModel {
  return saved.kind === "lambdamart" ? boosted(saved, parseTrees(saved.trees)) : listwise(saved);
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

/** The factor that makes scores log-odds: a conditional logit on scores that are out of sample. Never negative. */
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

/** Every column standardised over the slate: only differences between candidates count. What is not known is the mean. */
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
