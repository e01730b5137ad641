/**
 * A pre-ranker whose scores were computed elsewhere, by user: fixed, whatever the history, and never refitted. Whoever
 * supplies them is responsible for what they were learned from; lists.ts compares hit rates of the segments.
 */
import type { ScoredItems } from "../data/scores.ts";
import { oneByOne, type PreRanker } from "./types.ts";

/** @param byUser best first, by user row; users without an entry get an empty list */
export function ownScores(name: string, byUser: ReadonlyMap<number, ScoredItems>): PreRanker {
  const parameters = [...byUser.values()].reduce((n, { items }) => n + items.length, 0);
  return oneByOne({ name, parameters, scale: "none" }, (_history, n, exclude, user) => {
    const own = user === undefined ? undefined : byUser.get(user);
    const open = (own?.items ?? []).flatMap((item, k) => (exclude.has(item) ? [] : [k])).slice(0, n);
    return {
      items: open.map((k) => own?.items[k] as number),
      scores: open.map((k) => own?.scores[k] as number),
    };
  });
}
