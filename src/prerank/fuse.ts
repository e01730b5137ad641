/**
 * Several pre-rankers as one. Each expert e lists its best items with scores; the pool of a query is the union of the
 * lists, and an item's fused score is log-linear in the experts' scores:
 *
 *   score(i) = sum over e of  value_e * v_e(i) + missing_e * [i is not in e's list]
 *   v_e(i)   = e's score on its log scale (log-probability; log of counts and similarities) where it has one,
 *              else the lowest of e's list; 0 if the list is empty
 *
 * The weights are a conditional logit (eval/choice-model) over pools that hold the true item, fitted on slates whose
 * answers the experts have not seen. `missing` lets an absent item count for more, or less, than the expert's lowest
 * score.
 *
 * Shapes: E experts, J items of a pool.
 */
import { type ChoiceExample, fitChoiceModel } from "../eval/choice-model.ts";
import { silentUpTo } from "./experts.ts";
import type { PreRanker, Ranked } from "./types.ts";

/** How to read an expert's scores. */
export type ExpertScale = Pick<PreRanker, "name" | "scale" | "floor">;

export interface ExpertWeight {
  readonly value: number;
  readonly missing: number;
}

/** By expert. */
export type Fusion = Readonly<Record<string, ExpertWeight>>;

export interface Pool {
  /** Item rows: the experts' lists in turn, each item once. */
  readonly items: readonly number[];
  /** Scores as the experts gave them [E][J]; null = not in the list, or said nothing. */
  readonly scores: readonly (readonly (number | null)[])[];
}

/** The union of the experts' lists. */
export function buildPool(lists: readonly Ranked[], experts: readonly ExpertScale[]): Pool {
  const at = new Map<number, number>();
  for (const list of lists) for (const item of list.items) if (!at.has(item)) at.set(item, at.size);
  const scores = lists.map((list, e) => {
    const row = new Array<number | null>(at.size).fill(null);
    const floor = silentUpTo(experts[e] ?? { scale: "none" });
    list.items.forEach((item, k) => {
      const score = list.scores[k] as number;
      if (score > floor) row[at.get(item) as number] = score;
    });
    return row;
  });
  return { items: [...at.keys()], scores };
}

/** [J, 2E]: value and missing of every expert. */
export function poolFeatures(pool: Pool, experts: readonly ExpertScale[]): Float64Array {
  const [J, K] = [pool.items.length, 2 * experts.length];
  const features_JK = new Float64Array(J * K);
  experts.forEach(({ scale }, e) => {
    const values = (pool.scores[e] ?? []).map((s) => (s === null ? null : scale === "log" ? Math.log(s) : s));
    const known = values.filter((v) => v !== null);
    const lowest = known.length === 0 ? 0 : known.reduce((low, v) => Math.min(low, v), Number.POSITIVE_INFINITY);
    values.forEach((v, j) => {
      features_JK[j * K + 2 * e] = v ?? lowest;
      features_JK[j * K + 2 * e + 1] = v === null ? 1 : 0;
    });
  });
  return features_JK;
}

export interface FusionExample {
  readonly lists: readonly Ranked[];
  readonly target: number;
}

/**
 * @param examples out of sample for every expert; those whose pool lacks the target are skipped
 * @returns undefined if no pool holds its target
 */
export function fitFusion(
  examples: readonly FusionExample[],
  experts: readonly ExpertScale[],
  l2 = 1e-4,
): Fusion | undefined {
  const choices = examples.flatMap(({ lists, target }): ChoiceExample[] => {
    const pool = buildPool(lists, experts);
    const at = pool.items.indexOf(target);
    if (at < 0) return [];
    const truth = pool.items.map((_, j) => (j === at ? 1 : 0));
    return [{ features_NK: poolFeatures(pool, experts), numCandidates: pool.items.length, truth_N: truth }];
  });
  if (choices.length === 0) return undefined;
  const names = experts.flatMap(({ name }) => [`${name} value`, `${name} missing`]);
  const { weights } = fitChoiceModel(choices, names, l2);
  return Object.fromEntries(
    experts.map(({ name }, e): [string, ExpertWeight] => [
      name,
      { value: weights[2 * e] as number, missing: weights[2 * e + 1] as number },
    ]),
  );
}

/** A single expert as a fusion: its own order, then whatever the others add. */
export const aloneAs = (chosen: string, experts: readonly ExpertScale[]): Fusion =>
  Object.fromEntries(
    experts.map(({ name }) => [name, name === chosen ? { value: 1, missing: -1e3 } : { value: 0, missing: 0 }]),
  );

export interface Fused extends Ranked {
  /** By expert, for every item. */
  readonly experts: Readonly<Record<string, readonly (number | null)[]>>;
}

/** The best `n` of the pool (default: all); equal scores keep the pool's order, which follows the experts' ranks. */
export function fuse(
  lists: readonly Ranked[],
  experts: readonly ExpertScale[],
  fusion: Fusion,
  n = Number.POSITIVE_INFINITY,
): Fused {
  const pool = buildPool(lists, experts);
  const K = 2 * experts.length;
  const features_JK = poolFeatures(pool, experts);
  const weights = experts.flatMap(({ name }) => [fusion[name]?.value ?? 0, fusion[name]?.missing ?? 0]);
  const score = pool.items.map((_, j) =>
    weights.reduce((sum, w, k) => sum + w * (features_JK[j * K + k] as number), 0),
  );
  const order = score
    .map((_, j) => j)
    .sort((a, b) => (score[b] as number) - (score[a] as number) || a - b)
    .slice(0, Math.min(n, score.length));
  return {
    items: order.map((j) => pool.items[j] as number),
    scores: order.map((j) => score[j] as number),
    experts: Object.fromEntries(experts.map(({ name }, e) => [name, order.map((j) => pool.scores[e]?.[j] ?? null)])),
  };
}
