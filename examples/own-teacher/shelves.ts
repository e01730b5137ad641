/**
 * A teacher without a language model: the candidate that shares most categories with the latest items comes first; at
 * every further attempt, the next best. The reasoning says so and names the item that supports the choice.
 */
import type { BroughtQuestion, BroughtReply, BroughtTeacher, Item } from "gr2/plugins";

const teacher: BroughtTeacher = { ask: (questions) => questions.map(answer) };
export default teacher;

const recent = 3;

export function answer({ slate, attempt, hint }: BroughtQuestion): BroughtReply {
  const latest = slate.history.slice(-recent);
  const fit = slate.candidates.map((candidate) => latest.reduce((sum, item) => sum + shared(item, candidate), 0));
  const byFit = [...fit.keys()].sort((a, b) => (fit[b] ?? 0) - (fit[a] ?? 0) || a - b);
  const first = hint ?? byFit[(attempt - 1) % byFit.length] ?? 0;
  const chosen = slate.candidates[first];
  const because = latest.findLastIndex((item) => chosen !== undefined && shared(item, chosen) > 0);
  const at = slate.history.length - latest.length + because;
  return {
    order: [first, ...byFit.filter((i) => i !== first)],
    reasoning: [
      `pattern: ${latest.at(-1)?.categories[0] ?? "none"}`,
      ...(because < 0 ? [] : [" because ", { history: at }]),
      " choice ",
      { candidate: first },
    ],
  };
}

const shared = (a: Item, b: Item): number => a.categories.filter((c) => b.categories.includes(c)).length;
