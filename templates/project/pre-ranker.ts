/** Proposes the items that others chose right after the user's latest item, then popular ones. */
import type { BroughtPreRanker, Training } from "gr2/plugins";

const preRanker: BroughtPreRanker = {
  fit(training) {
    const { popularity, next } = count(training);
    return {
      rankTop: async (histories, n, repeats) =>
        histories.map((history) => {
          const seen = new Set(repeats === "unseen" ? history : []);
          const follows = next.get(history.at(-1) ?? -1);
          // A transition counts more than any popularity, which only breaks ties.
          const score = (item: number): number => (follows?.get(item) ?? 0) + (popularity[item] ?? 0) / 1e9;
          const items = [...popularity.keys()].filter((item) => !seen.has(item));
          items.sort((a, b) => score(b) - score(a) || a - b);
          const best = items.slice(0, n);
          return { items: best, scores: best.map(score) };
        }),
    };
  },
};
export default preRanker;

/** How often each item occurs, and how often right after another. */
export function count({ numItems, sequences }: Pick<Training, "numItems" | "sequences">) {
  const popularity = new Float64Array(numItems);
  const next = new Map<number, Map<number, number>>();
  for (const sequence of sequences)
    sequence.forEach((item, k) => {
      popularity[item] = (popularity[item] ?? 0) + 1;
      const before = sequence[k - 1];
      if (before === undefined) return;
      const follows = next.get(before) ?? new Map<number, number>();
      follows.set(item, (follows.get(item) ?? 0) + 1);
      next.set(before, follows);
    });
  return { popularity, next };
}
