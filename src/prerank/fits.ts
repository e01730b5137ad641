/**
 * What each fit of a pre-ranker is trained on, and whose slates it makes. No fit sees what it has to predict:
 *
 *   by segment (folds = 0)    rerank slates      all users through midtrain
 *                             validation slates  all users through rerank
 *                             test slates        all users through rerank; with refit through validation
 *   by user (folds >= 2)      slates of any segment of the users of one fold: the other folds' users through rerank,
 *                             with refit through validation. A fit never includes the users it makes slates for, so
 *                             slates of all positions look alike, and mid-training positions can teach a ranker too
 *
 * Settings may be chosen with the first fit, on validation positions.
 */
import { unitHash } from "../core/rng.ts";
import { allowedFor, checkTrainingView } from "../data/leakage.ts";
import { type TrainingView, trainingView } from "../data/split.ts";
import type { Segment, SplitDataset } from "../data/types.ts";

export interface FitPlan {
  /** Unique within a plan; names the fit's seeds and files. */
  readonly name: string;
  readonly view: TrainingView;
  /** Segments whose slates it makes. */
  readonly segments: readonly Segment[];
  /** Users whose slates it makes. */
  readonly asks: (user: number) => boolean;
}

export interface FitOptions {
  /** Folds of users; 0 = by segment. */
  readonly folds: number;
  readonly refit: boolean;
  readonly seed: number;
  /** Also make slates of the mid-training segment; by user only. */
  readonly midtrain: boolean;
}

/** Checked for leaks, in the order to fit them. */
export function planFits(data: SplitDataset, o: FitOptions): FitPlan[] {
  const plans = o.folds >= 2 ? byUser(data, o) : bySegment(data, o.refit);
  for (const plan of plans) checkFit(data, plan, o.refit);
  return plans;
}

const everybody = (): boolean => true;

function bySegment(data: SplitDataset, refit: boolean): FitPlan[] {
  const plan = (through: Segment, segments: readonly Segment[]): FitPlan => ({
    name: through,
    view: trainingView(data, through),
    segments,
    asks: everybody,
  });
  return [
    plan("rerank", refit ? ["validation"] : ["validation", "test"]),
    plan("midtrain", ["rerank"]),
    ...(refit ? [plan("validation", ["test"])] : []),
  ];
}

function byUser(data: SplitDataset, o: FitOptions): FitPlan[] {
  const assignFold = data.dataset.sequences.map(({ user }) =>
    Math.floor(unitHash(o.seed, "pre-ranker-fold", String(user)) * o.folds),
  );
  return Array.from({ length: o.folds }, (_, fold) => {
    const asks = (user: number): boolean => assignFold[user] === fold;
    return {
      name: `fold-${fold}`,
      view: trainingView(data, allowedFor("test", o.refit), (user) => !asks(user)),
      segments: [...(o.midtrain ? (["midtrain"] as const) : []), "validation", "rerank", "test"],
      asks,
    };
  });
}

/**
 * Checks that a fit sees nothing of the segments it must predict for its own users, and of others no more than test
 * slates may.
 */
export function checkFit(data: SplitDataset, plan: FitPlan, refit: boolean): void {
  for (const segment of plan.segments) {
    const most = allowedFor(segment, refit);
    const heldOut = plan.asks === everybody ? undefined : allowedFor("test", refit);
    const allowed = heldOut === undefined ? most : heldOut;
    checkTrainingView(data, plan.view, allowed, `the pre-ranker of ${segment} slates`);
    if (heldOut === undefined) continue;
    const own = plan.view.sequences.map((s, user) => (plan.asks(user) ? s : new Int32Array()));
    const nothing = { ...data, splits: data.splits.map(() => none) };
    checkTrainingView(nothing, { sequences: own }, segment, `the pre-ranker of ${segment} slates of its own users`);
  }
}

const none = { midtrainEnd: 0, rerankEnd: 0, validationEnd: 0, testEnd: 0 };
