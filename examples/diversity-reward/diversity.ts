/** NDCG of the order, and a share for every shelf at the top beyond the first. */
import type { Answer, Plugin, Reward, Score } from "gr2/plugins";

const plugin: Plugin<Reward> = ({ options }) => {
  const { weight, top } = options as { weight: number; top: number };
  return { score: (answers) => answers.map((answer) => judge(answer, weight, top)) };
};
export default plugin;

export function judge({ slate, order }: Answer, weight: number, top: number): Score {
  const gains = order.map((i) => slate.labels[i] ?? 0);
  const dcg = (of: readonly number[]): number => of.reduce((sum, gain, k) => sum + gain / Math.log2(k + 2), 0);
  const ndcg = dcg(gains) / dcg([...gains].sort((a, b) => b - a));
  const shelves = new Set(order.slice(0, top).map((i) => slate.candidates[i]?.categories[0]));
  const diversity = (weight * (shelves.size - 1)) / (top - 1);
  return { value: ndcg + diversity, parts: { ndcg, diversity }, because: `${shelves.size} shelves in the first ${top}` };
}
