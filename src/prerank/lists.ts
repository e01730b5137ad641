/**
 * What every pre-ranker proposes for each position that gets a slate: its best items with scores; and how good the
 * proposals are (hit rates, the best single pre-ranker). Fused lists count as a pre-ranker like any other.
 */
import type { Segment } from "../data/types.ts";
import { ndcgAt, recallAt, reciprocal } from "../eval/metrics.ts";
import type { FitPlan } from "./fits.ts";
import { type Query, rankInBatches } from "./slates.ts";
import type { FitPreRanker, PreRanker, Ranked, Repeats } from "./types.ts";

/** Queries or lists by segment, aligned. */
export type BySegment<T> = Partial<Record<Segment, readonly T[]>>;

export interface ExpertLists {
  /** As in recipes, slates and tables. */
  readonly name: string;
  readonly scale: PreRanker["scale"];
  readonly floor?: number;
  readonly lists: BySegment<Ranked>;
}

/** Fits one pre-ranker plan by plan, and asks it for its lists. */
export async function collectLists(
  name: string,
  plans: readonly FitPlan[],
  fitted: FitPreRanker,
  queries: BySegment<Query>,
  depth: number,
  repeats: Repeats,
  onProgress: (label: string, done: number, total: number) => void = () => {},
): Promise<ExpertLists> {
  const lists: Partial<Record<Segment, Ranked[]>> = {};
  let about: Pick<PreRanker, "scale" | "floor"> = { scale: "none" };
  for (const plan of plans) {
    const preRanker = await fitted(plan.view, plan);
    about = preRanker;
    for (const segment of plan.segments) {
      const all = queries[segment] ?? [];
      const into = lists[segment] ?? new Array<Ranked>(all.length);
      lists[segment] = into;
      const own = all.flatMap((q, k) => (plan.asks(q.user) ? [k] : []));
      const label = `${name}, fit ${plan.name}: ${segment}`;
      const asked = own.map((k) => all[k] as Query);
      const ranked = await rankInBatches(preRanker, asked, depth, repeats, (d, t) => onProgress(label, d, t));
      ranked.forEach((list, i) => {
        into[own[i] as number] = compact(list);
      });
    }
  }
  return { name, scale: about.scale, ...(about.floor === undefined ? {} : { floor: about.floor }), lists };
}

/** Typed arrays need a third of the memory; slates are made from a few at a time. */
const compact = ({ items, scores }: Ranked): Ranked => ({
  items: Int32Array.from(items),
  scores: Float64Array.from(scores),
});

/** Rank of every query's target, from 1; Infinity = not in the list. */
export const findTargetRanks = (lists: readonly Ranked[], queries: readonly Query[]): number[] =>
  lists.map(({ items }, k) => {
    const at = items.indexOf(queries[k]?.target ?? -1);
    return at < 0 ? Number.POSITIVE_INFINITY : at + 1;
  });

const recallDepths = [5, 10, 20, 50, 100] as const;
export type ListMetrics = Readonly<Record<string, number>>;

/** R@K up to `depth`, N@5, N@10 and MRR over all positions: a miss counts 0. */
export function listMetrics(ranks: readonly number[], depth: number): ListMetrics {
  const mean = (of: (rank: number) => number): number =>
    ranks.reduce((sum, rank) => sum + of(rank), 0) / Math.max(1, ranks.length);
  return {
    ...Object.fromEntries(recallDepths.filter((k) => k <= depth).map((k) => [`R@${k}`, mean((r) => recallAt(r, k))])),
    "N@5": mean((r) => ndcgAt(r, 5)),
    "N@10": mean((r) => ndcgAt(r, 10)),
    MRR: mean(reciprocal),
  };
}

/** The pre-ranker with the highest N@10; of equals the first. */
export const findBest = (byName: Readonly<Record<string, ListMetrics>>): string =>
  Object.entries(byName).reduce((best, next) => ((next[1]["N@10"] ?? 0) > (best[1]["N@10"] ?? 0) ? next : best))[0];
