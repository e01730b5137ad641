/** Maximal marginal relevance (Carbonell & Goldstein 1998): relevance: pre-rank; similarity: shared categories. */
import type { Baseline, Item, Plugin, SlateItems } from "gr2/plugins";

const plugin: Plugin<Baseline> = ({ options }) => ({
  score: (slates) => slates.map((slate) => mmr(slate, Number(options.lambda ?? 0.7))),
});
export default plugin;

/** One score per candidate: the later it is picked, the lower. */
export function mmr({ candidates }: SlateItems, lambda: number): number[] {
  const scores = new Array<number>(candidates.length).fill(0);
  const left = [...candidates.keys()];
  const taken: number[] = [];
  while (left.length > 0) {
    const value = (i: number): number => {
      const like = Math.max(0, ...taken.map((j) => likeness(candidates[i] as Item, candidates[j] as Item)));
      return lambda / (i + 1) - (1 - lambda) * like;
    };
    const best = left.reduce((a, b) => (value(b) > value(a) ? b : a));
    scores[best] = left.length;
    taken.push(best);
    left.splice(left.indexOf(best), 1);
  }
  return scores;
}

/** Jaccard over categories. */
function likeness(a: Item, b: Item): number {
  const all = new Set([...a.categories, ...b.categories]);
  return all.size === 0 ? 0 : a.categories.filter((c) => b.categories.includes(c)).length / all.size;
}
