/**
 * Slates of the mid-training segment, out of sample: users are divided into folds, and each fold's slates come from a
 * pre-ranker fitted on the other folds' mid-training interactions. Only for consumers that weigh statistics (the
 * teacher): the language model has seen these answers.
 */
import { unitHash } from "../core/rng.ts";
import { allowedFor, checkTrainingView } from "../data/leakage.ts";
import { type TrainingView, trainingView } from "../data/split.ts";
import type { SplitDataset } from "../data/types.ts";
import { buildSlates, type SlateOptions } from "./slates.ts";
import type { FitPreRanker, Slate } from "./types.ts";

export interface CrossFittedSlates {
  /** The other folds' users through the mid-training segment; this fold's users are empty. */
  readonly view: TrainingView;
  readonly slates: readonly Slate[];
}

/** One entry per fold; every user's slates are in exactly one. Fits `folds` pre-rankers. */
export async function crossFittedSlates(
  data: SplitDataset,
  fitted: FitPreRanker,
  folds: number,
  seed: number,
  options: SlateOptions,
  onProgress: (done: number, total: number) => void = () => {},
): Promise<CrossFittedSlates[]> {
  const assignFold = (user: number): number =>
    Math.floor(unitHash(seed, "cross-fit", String(data.dataset.sequences[user]?.user ?? user)) * folds);
  const all: CrossFittedSlates[] = [];
  for (let fold = 0; fold < folds; fold++) {
    const view = trainingView(data, "midtrain", (user) => assignFold(user) !== fold);
    checkTrainingView(data, view, allowedFor("rerank"), "the pre-ranker of mid-training slates");
    const asks = (user: number): boolean => assignFold(user) === fold;
    const preRanker = await fitted(view, { name: `midtrain-${fold}`, asks });
    const { slates } = await buildSlates(data, "midtrain", preRanker, options, asks);
    all.push({ view, slates });
    onProgress(fold + 1, folds);
  }
  return all;
}
