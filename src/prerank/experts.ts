/**
 * The pre-rankers of a recipe by name: which there are, what each learns from, and how each scores given candidates.
 * Both the stages and the service use this, so a caller's candidates are judged as the run's own were.
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
  /** Files of scores computed elsewhere, by name. */
  readonly scores: Readonly<Record<string, string>>;
  /** The user's module; "" = none. */
  readonly module: string;
}

/** Cheap ones first; none if slates were logged. */
export function listExperts({ kind, experts, scores, module }: ExpertNames): string[] {
  if (kind === "logged") return [];
  const own = module === "" ? [] : [nameModule(module)];
  const names = kind === "fused" ? [...experts, ...Object.keys(scores), ...own] : kind === "module" ? own : [kind];
  const cost = (name: string): number => ["sasrec", "generative"].indexOf(name);
  return names.sort((a, b) => cost(a) - cost(b));
}

/** The language model's beams come from stage midtrain; the others need only the data. */
export const needsLanguageModel = (prerank: ExpertNames): boolean => listExperts(prerank).includes("generative");

/** Fitted in seconds. */
const isCheap = (name: string): boolean => name !== "sasrec" && name !== "generative";

/** Folds of cheap pre-rankers: each fit holds out only a tenth of the users. */
const cheapFolds = 10;

export interface ExpertFits {
  /** prerank.folds */
  readonly folds: number;
  readonly refit: boolean;
  /** The run's seed. */
  readonly seed: number;
  /** Also make slates of the mid-training segment. */
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

/** Items it lists: fewer for beam search, whose cost grows with them. */
export const listDepth = (name: string, prerank: { readonly candidates: number; readonly depth: number }): number =>
  name === "generative" ? prerank.candidates : Math.max(prerank.candidates, prerank.depth);

/** Scores at or below this only fill up a list. */
export const silentUpTo = ({ floor, scale }: Pick<PreRanker, "floor" | "scale">): number =>
  floor ?? (scale === "log" ? 0 : Number.NEGATIVE_INFINITY);

/** Six digits are enough for a feature and halve the file. */
export const shortScore = (score: number | null): number | null =>
  score === null ? null : Number(score.toPrecision(6));

/** Every candidate's score in a pre-ranker's list, as a slate stores it; null where the list has none. */
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
