/** The reward of an order in RL: how far the true item moved up, plus a little for different kinds at the top. */
import type { Answer, Plugin, Reward, Score } from "gr2/plugins";

const plugin: Plugin<Reward> = ({ options }) => ({
  score: (answers) => answers.map((answer) => judge(answer, Number(options.weight ?? 0.2))),
});
export default plugin;

export function judge({ slate, order }: Answer, weight: number): Score {
  const target = slate.labels.indexOf(Math.max(...slate.labels));
  const promotion = (target - order.indexOf(target)) / order.length;
  const kinds = new Set(order.slice(0, 3).map((i) => slate.candidates[i]?.categories[0]));
  const diversity = (weight * (kinds.size - 1)) / 2;
  return { value: promotion + diversity, parts: { promotion, diversity } };
}
