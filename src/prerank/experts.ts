/**
 * The pre-rankers of a recipe by name: which there are, what each learns from, and what one says of given candidates. The
 * stages make slates by it and the service asks by it, so that a caller's candidates are judged as the run's own were.
 */
import { nameModule } from "../core/module-name.ts";
import { deriveSeed } from "../core/rng.ts";
import type { SplitDataset } from "../data/types.ts";
import { type FitPlan, planFits } from "./fits.ts";
import type { PreRanker, Ranked } from "./types.ts";

/** The part of the recipe that names them. */
export interface ExpertNames {
  readonly kind: string;
  readonly experts: readonly string[];
  /** Files of scores that were computed elsewhere, by name. */
  readonly scores: Readonly<Record<string, string>>;
  /** A module of the user's; "" = none. */
  readonly module: string;
}

/** Cheap ones first; none where slates were logged. */
export function listExperts({ kind, experts, scores, module }: ExpertNames): string[] {
  if (kind === "logged") return [];
  const own = module === "" ? [] : [nameModule(module)];
  const names = kind === "fused" ? [...experts, ...Object.keys(scores), ...own] : kind === "module" ? own : [kind];
  const cost = (name: string): number => ["sasrec", "generative"].indexOf(name);
  return names.sort((a, b) => cost(a) - cost(b));
}

/** The language model's beams come from stage midtrain; all else needs the data alone. */
export const needsLanguageModel = (prerank: ExpertNames): boolean => listExperts(prerank).includes("generative");

/** Those that are fitted in seconds. */
const isCheap = (name: string): boolean => name !== "sasrec" && name !== "generative";

/** Fits are cheap enough to hold back only a tenth of the users. */
const cheapFolds = 10;

export interface ExpertFits {
  /** prerank.folds */
  readonly folds: number;
  readonly refit: boolean;
  /** Of the run. */
  readonly seed: number;
  /** Also for slates of the mid-training segment. */
  readonly midtrain: boolean;
}

/** What a pre-ranker is fitted on, and whose slates each fit makes. */
export function planExpert(data: SplitDataset, name: string, o: ExpertFits): FitPlan[] {
  const seed = deriveSeed(o.seed, "folds");
  const folds = o.folds === 0 || !isCheap(name) ? o.folds : Math.max(o.folds, cheapFolds);
  if (name !== "generative") return planFits(data, { ...o, folds, seed });
  // The LM has learned from the mid-training segment of all users.
  const plans = planFits(data, { ...o, folds: 0, seed });
  return plans.map((plan) => ({ ...plan, segments: plan.segments.filter((s) => s !== "midtrain") }));
}

/** Items it lists: beams as wide as the others' lists cost in proportion. */
export const listDepth = (name: string, prerank: { readonly candidates: number; readonly depth: number }): number =>
  name === "generative" ? prerank.candidates : Math.max(prerank.candidates, prerank.depth);

/** Scores at or below it only fill up a list. */
export const silentUpTo = ({ floor, scale }: Pick<PreRanker, "floor" | "scale">): number =>
  floor ?? (scale === "log" ? 0 : Number.NEGATIVE_INFINITY);

/** Six digits are enough for a feature, and half of a file. */
export const shortScore = (score: number | null): number | null =>
  score === null ? null : Number(score.toPrecision(6));

/** The score of every candidate by a pre-ranker's list, as a slate keeps it; null where the list says nothing of it. */
export function scoresIn(
  { items, scores }: Ranked,
  about: Pick<PreRanker, "floor" | "scale">,
  candidates: readonly number[],
): (number | null)[] {
  const floor = silentUpTo(about);
  return candidates.map((item) => {
    const score = scores[items.indexOf(item)];
    return score !== undefined && score > floor ? shortScore(score) : null;
  });
}
