/**
 * Whose sequences go into the statistics for a slate's features. They never include anything of the answer, and treat
 * training, validation and test slates alike, so what a model learns from some holds for the others:
 *
 *   training slates (mid-training and re-rank segment) of a user in fold k    the other folds' users
 *   validation and test slates                                               all users, up to where their slates begin
 *
 * both through the re-rank segment. A user's own earlier interactions say nothing about unseen candidates, so "all
 * users" and "the others" differ only by a fold's worth of data; and with all users a served slate can be scored the
 * same way.
 *
 *   refit         through the validation segment instead; validation slates are then treated like training slates
 *   global time   no statistics from after a slate's segment begins: training slates see the others through the
 *                 mid-training segment, validation slates all users through the re-rank segment
 */
import { unitHash } from "../core/rng.ts";
import { allowedFor, checkHeldOut, checkTrainingView } from "../data/leakage.ts";
import { type TrainingView, trainingView } from "../data/split.ts";
import type { Segment, SplitDataset } from "../data/types.ts";

export interface ViewPlan {
  readonly view: TrainingView;
  /** Segments whose slates it is for. */
  readonly segments: readonly Segment[];
  /** The fold of users whose slates it is for, all excluded from it; undefined: all users. */
  readonly fold: number | undefined;
}

export interface ViewOptions {
  readonly folds: number;
  readonly refit: boolean;
  readonly seed: number;
}

/** Fold of a user, by the user's id, so it does not depend on who else is in the data. */
export const assignUserFold = (data: SplitDataset, user: number, o: Pick<ViewOptions, "folds" | "seed">): number =>
  Math.floor(unitHash(o.seed, "evidence-fold", String(data.dataset.sequences[user]?.user ?? user)) * o.folds);

/** Every slate of every segment belongs to exactly one view; the last is for test slates. Checked for leaks. */
export function planViews(data: SplitDataset, o: ViewOptions): ViewPlan[] {
  const byTime = data.cuts !== undefined;
  const late = o.refit ? "validation" : "rerank";
  const assignFold = data.splits.map((_, user) => assignUserFold(data, user, o));
  const validationByFold = o.refit && !byTime;
  const folds = Array.from({ length: o.folds }, (_, fold): ViewPlan => {
    const view = trainingView(data, byTime ? "midtrain" : late, (user) => assignFold[user] !== fold);
    return { view, segments: ["midtrain", "rerank", ...(validationByFold ? (["validation"] as const) : [])], fold };
  });
  const all = (through: Segment, segments: readonly Segment[]): ViewPlan => ({
    view: trainingView(data, through),
    segments,
    fold: undefined,
  });
  const plans = [
    ...folds,
    ...(o.refit
      ? [...(byTime ? [all("rerank", ["validation"])] : []), all("validation", ["test"])]
      : [all("rerank", ["validation", "test"])]),
  ];
  for (const { view, segments, fold } of plans)
    for (const segment of segments) {
      const consumer = `the evidence on ${segment} slates`;
      if (fold === undefined) checkTrainingView(data, view, allowedFor(segment, o.refit), consumer);
      else {
        checkTrainingView(data, view, late, consumer);
        checkHeldOut(view, (user) => assignFold[user] === fold, consumer);
      }
    }
  return plans;
}
