/**
 * The offline statistical teacher: a stand-in for an LLM teacher where there is none. It knows co-occurrence,
 * transitions, categories, popularity and recency of its training view, weighs them by listwise regression, and can
 * say which history items speak for a candidate.
 *
 * Out of sample: the weights that score a rerank slate were fitted on slates of the other users (cross-fitted by user).
 * Slates of later segments are scored by weights fitted on all of them.
 */
import { RunError } from "../core/errors.ts";
import { unitHash } from "../core/rng.ts";
import type { TrainingView } from "../data/split.ts";
import type { Dataset } from "../data/types.ts";
import { choiceScores, fitChoiceModel } from "../eval/choice-model.ts";
import type { CrossFittedSlates } from "../prerank/cross-fit.ts";
import { type Slate, truthOf } from "../prerank/types.ts";
import { featureNames, featuresOf, type SlateView, TeacherStatistics } from "./features.ts";

export interface TeacherOptions {
  /** Folds of users for cross-fitting; at least 2. */
  readonly folds: number;
  /** Ridge penalty of the listwise regression. */
  readonly l2: number;
  readonly seed: number;
}

/** Chosen on MovieLens-100K's rerank and validation slates. */
export const defaultTeacher: TeacherOptions = { folds: 5, l2: 30, seed: 0 };

/** What the teacher may know of interactions. */
export interface TeacherKnowledge {
  /** For rerank slates: through midtrain, never further. */
  readonly rerank: TrainingView;
  /** For validation and test slates: at most through rerank. Default: the same as for rerank slates. */
  readonly heldOut?: TrainingView;
  /** More slates to learn the weights from, each judged by the statistics of a view without its user. */
  readonly more?: readonly CrossFittedSlates[];
}

export type SupportKind = "transition" | "cooccurrence" | "category";

/** Why a candidate fits: which history items speak for it, and how. */
export interface Support {
  /** Index in the slate. */
  readonly candidate: number;
  /** Item rows of the history, strongest first; at most two. */
  readonly because: readonly number[];
  readonly kind: SupportKind;
  /** Direct transitions counted, shrunk cosine, or category overlap in [0, 1]: comparable within a kind only. */
  readonly strength: number;
}

export interface Evidence {
  /** The recent history's leading categories, strongest first; at most three. */
  readonly dominantCategories: readonly string[];
  /** At most one entry a candidate; candidates that nothing speaks for have none. */
  readonly support: readonly Support[];
}

export interface StatisticalTeacher {
  /** A score a candidate, in log-odds: softmax(scores) is the teacher's belief. Deterministic. */
  scores(slate: SlateView): number[];
  /** Facts behind the scores; the same whether or not the answer is known. */
  evidence(slate: SlateView): Evidence;
  /** Weight a feature, per fold and (last) from all folds; for the report. */
  readonly weights: readonly Readonly<Record<string, number>>[];
}

/**
 * @param rerankSlates slates of the rerank segment; those whose answer is among the candidates are learnt from
 * @throws RunError when the knowledge reaches past the allowed segment, or a view of `more` holds its own slates' users
 */
export function fitTeacher(
  dataset: Dataset,
  knowledge: TeacherKnowledge,
  rerankSlates: readonly Slate[],
  options: TeacherOptions = defaultTeacher,
): StatisticalTeacher {
  const { rerank, heldOut = rerank, more = [] } = knowledge;
  if (rerank.through !== "midtrain" || (heldOut.through !== "midtrain" && heldOut.through !== "rerank"))
    throw new RunError(
      `The teacher may know midtrain for rerank slates and rerank for later ones, not ${rerank.through} and ${heldOut.through}: it would know the answers.`,
    );
  for (const { view, slates } of more)
    if (view.through !== "midtrain" || slates.some((s) => (view.sequences[s.user]?.length ?? 0) > 0))
      throw new RunError("The teacher's further slates were made by somebody who had seen their users.");
  const statistics = new TeacherStatistics(dataset, rerank);
  const later = heldOut === rerank ? statistics : new TeacherStatistics(dataset, heldOut);
  const statisticsFor = (slate: SlateView): TeacherStatistics =>
    slate.segment === "validation" || slate.segment === "test" ? later : statistics;
  const folds = Math.max(2, Math.trunc(options.folds));
  const foldOf = (user: number): number =>
    Math.floor(unitHash(options.seed, "teacher-fold", String(dataset.sequences[user]?.user ?? user)) * folds);
  const observe = (slates: readonly Slate[], known: TeacherStatistics) =>
    slates
      .filter((s) => s.targetIndex >= 0)
      .map((s) => ({
        user: s.user,
        truth_N: truthOf(s),
        features_NK: featuresOf(known, s),
        numCandidates: s.candidates.length,
      }));
  const observations = [
    ...observe(rerankSlates, statistics),
    ...more.flatMap(({ view, slates }) => observe(slates, new TeacherStatistics(dataset, view))),
  ];
  const fold = new Map(observations.map(({ user }) => [user, foldOf(user)]));
  const weights = Array.from({ length: folds + 1 }, (_, k): readonly number[] => {
    const others = observations.filter(({ user }) => fold.get(user) !== k);
    if (others.length === 0) return featureNames.map(() => 0);
    return fitChoiceModel(others, featureNames, options.l2 / others.length).weights;
  });
  return {
    scores(slate) {
      const k = slate.segment === "rerank" ? foldOf(slate.user) : folds;
      return choiceScores(weights[k] ?? [], featuresOf(statisticsFor(slate), slate), slate.candidates.length);
    },
    evidence: (slate) => evidenceOf(statisticsFor(slate), slate),
    weights: weights.map((w) => Object.fromEntries(featureNames.map((name, f) => [name, w[f] ?? 0]))),
  };
}

function evidenceOf(statistics: TeacherStatistics, slate: SlateView): Evidence {
  const items = statistics.dataset.sequences[slate.user]?.items ?? new Int32Array();
  const history = [...new Set(items.subarray(Math.max(0, slate.position - 20), slate.position))].reverse();
  const mass = new Map<string, number>();
  history.forEach((h, age) => {
    for (const c of statistics.categoriesOf(h)) mass.set(c, (mass.get(c) ?? 0) + 0.9 ** age);
  });
  const dominantCategories = [...mass]
    .sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1))
    .slice(0, 3)
    .map(([name]) => name);
  const support: Support[] = [];
  slate.candidates.forEach((c, candidate) => {
    const found = (kind: SupportKind, strength: (h: number) => number, among: readonly number[], least: number) => {
      const best = among
        .map((h) => ({ h, s: strength(h) }))
        .filter(({ s }) => s >= least)
        .sort((a, b) => b.s - a.s)
        .slice(0, 2);
      return best[0] === undefined
        ? undefined
        : { candidate, because: best.map(({ h }) => h), kind, strength: best[0].s };
    };
    const s =
      found("transition", (h) => statistics.transitions(h, c), history.slice(0, 3), 2) ??
      found("cooccurrence", (h) => statistics.similarity(h, c), history, 0.1) ??
      found("category", (h) => statistics.categoryOverlap(h, c), history.slice(0, 5), 0.5);
    if (s !== undefined) support.push(s);
  });
  return { dominantCategories, support };
}
