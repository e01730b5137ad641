/**
 * Ranking metrics. Pure. `rank` counts from 1; a miss has rank Infinity and every metric 0.
 *
 *   one positive:   R@K = [rank ≤ K]     N@K = [rank ≤ K] / log2(rank + 1)     MRR = 1 / rank
 *   graded:         DCG@K = Σ_{k=1..K} g_k / log2(k + 1)   N@K = DCG@K / ideal DCG@K   (linear gain, as scikit-learn)
 *   several:        R@K = share of the positives in the first K     MRR = 1 / rank of the first positive
 *                   AUC = share of (higher label, lower label) pairs in the right order (GR2 TR)
 */

/** The six metrics of metrics.json, in its order. */
export const metricNames = ["R@1", "R@3", "R@5", "N@3", "N@5", "MRR"] as const;
/** AUC only where slates have several positives: with one, it carries the same information as the rank in MRR. */
export type MetricName = (typeof metricNames)[number] | "AUC";

/** All six for one slate whose single positive is at `rank` (from 1; Infinity: missing), in metricNames order. */
export function metricsFromRank(rank: number): readonly number[] {
  return [recallAt(rank, 1), recallAt(rank, 3), recallAt(rank, 5), ndcgAt(rank, 3), ndcgAt(rank, 5), reciprocal(rank)];
}

/**
 * All six for one slate, in metricNames order, from the labels (≥ 0) of its candidates in the order of the answer.
 * Every candidate must be present; an empty list (no answer) scores 0. With one positive it equals metricsFromRank.
 */
export function metricsFromLabels(labelsInRankOrder: readonly number[]): readonly number[] {
  const positive = labelsInRankOrder.map((l) => l > 0);
  const recall = (k: number): number => multiRecall(positive, k);
  const ndcg = (k: number): number => gradedNdcg(labelsInRankOrder, k);
  return [recall(1), recall(3), recall(5), ndcg(3), ndcg(5), reciprocal(findRank(positive, true))];
}

export const recallAt = (rank: number, k: number): number => (rank <= k ? 1 : 0);
/** The ideal DCG of one positive is 1, so this is DCG. */
export const ndcgAt = (rank: number, k: number): number => (rank <= k ? 1 / Math.log2(rank + 1) : 0);
export const reciprocal = (rank: number): number => (Number.isFinite(rank) ? 1 / rank : 0);

/** Rank from 1 of the first `target` in a best-first list; Infinity if it is missing. */
export function findRank<T>(ranking: readonly T[], target: T): number {
  const at = ranking.indexOf(target);
  return at < 0 ? Number.POSITIVE_INFINITY : at + 1;
}

/**
 * NDCG@K of graded gains (≥ 0) in ranked order, best first; all-zero gains give 0. Every candidate must be in the list.
 */
export function gradedNdcg(gainsInRankOrder: readonly number[], k: number): number {
  const dcg = (gains: readonly number[]): number =>
    gains.slice(0, k).reduce((sum, g, i) => sum + g / Math.log2(i + 2), 0);
  const ideal = dcg([...gainsInRankOrder].sort((a, b) => b - a));
  return ideal === 0 ? 0 : dcg(gainsInRankOrder) / ideal;
}

/** Share of the positives among the first K; 0 without positives. */
export function multiRecall(positiveInRankOrder: readonly boolean[], k: number): number {
  const total = positiveInRankOrder.filter(Boolean).length;
  return total === 0 ? 0 : positiveInRankOrder.slice(0, k).filter(Boolean).length / total;
}

/** Share of (higher label, lower label) pairs in the right order; undefined when all labels are equal. O(n²). */
export function gradedAuc(labelsInRankOrder: readonly number[]): number | undefined {
  let [right, pairs] = [0, 0];
  for (let i = 0; i < labelsInRankOrder.length; i++) {
    const upper = labelsInRankOrder[i] as number;
    for (let j = i + 1; j < labelsInRankOrder.length; j++) {
      const lower = labelsInRankOrder[j] as number;
      if (upper !== lower) pairs++;
      if (upper > lower) right++;
    }
  }
  return pairs === 0 ? undefined : right / pairs;
}
