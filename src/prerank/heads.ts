/**
 * The head of a long slate: a language model's cost is linear in the number of candidates, so it can be asked about
 * only the most promising ones (prompts.candidates), chosen by the evidence, else by the pre-rank. To the model the
 * head is a slate like any other, in pre-rank order; the rest follows in the order by which the head was chosen.
 *
 * Shapes: N candidates, k of them in the head. Indices refer to the whole slate.
 */
import { type Slate, slateLabels } from "./types.ts";

export interface Parted {
  /** Indices, ascending: the order of the whole slate. */
  readonly head: readonly number[];
  /** Indices of the others, best first. */
  readonly tail: readonly number[];
}

/**
 * @param most k; 0 = all
 * @param evidence score per candidate, larger is better, ties in slate order; absent: slate order decides
 */
export function partCandidates(numCandidates: number, most: number, evidence?: readonly number[]): Parted {
  const all = Array.from({ length: numCandidates }, (_, i) => i);
  if (most === 0 || numCandidates <= most) return { head: all, tail: [] };
  const best = evidence ? all.sort((a, b) => (evidence[b] as number) - (evidence[a] as number) || a - b) : all;
  return { head: best.slice(0, most).sort((a, b) => a - b), tail: best.slice(most) };
}

/** Turns an order of the head's own indices into one of the whole slate. */
export const wholeOrder = ({ head, tail }: Parted, order: readonly number[]): number[] => [
  ...order.map((i) => head[i] as number),
  ...tail,
];

export const pick = <T>(values: readonly T[], indices: readonly number[]): T[] => indices.map((i) => values[i] as T);

/** The head as a slate of its own; targetIndex -1: the true item is not in it. */
export function cutToHead(slate: Slate, { head, tail }: Parted): Slate {
  if (tail.length === 0) return slate;
  const labels = pick(slateLabels(slate), head);
  const highest = labels.reduce((most, label) => Math.max(most, label), 0);
  const targetIndex = highest > 0 ? labels.indexOf(highest) : -1;
  const { experts } = slate;
  return {
    ...slate,
    candidates: pick(slate.candidates, head),
    scores: pick(slate.scores, head),
    targetIndex,
    target: targetIndex < 0 ? slate.target : (slate.candidates[head[targetIndex] as number] as number),
    ...(slate.labels ? { labels } : {}),
    ...(experts
      ? { experts: Object.fromEntries(Object.entries(experts).map(([name, said]) => [name, pick(said, head)])) }
      : {}),
  };
}
