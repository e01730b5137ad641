/**
 * The offline statistical teacher: a stand-in for an LLM teacher. It orders by the run's evidence (stage evidence: out
 * of sample for every slate) and can say which history items support a candidate.
 */
import type { Dataset } from "../data/types.ts";
import { type ItemTable, overlap } from "../evidence/items.ts";
import type { Statistics } from "../evidence/statistics.ts";
import type { UnlabelledSlate } from "./unlabelled-slate.ts";

export type SupportKind = "transition" | "cooccurrence" | "category";

/** Why a candidate fits: which history items support it, and how. */
export interface Support {
  /** Index in the slate. */
  readonly candidate: number;
  /** Item rows of the history, strongest first; at most two. */
  readonly because: readonly number[];
  readonly kind: SupportKind;
  /** Direct transitions counted, shrunk cosine, or category overlap in [0, 1]: comparable within a kind only. */
  readonly strength: number;
}

export interface Evidence {
  /** The recent history's leading categories, strongest first; at most three. */
  readonly dominantCategories: readonly string[];
  /** At most one entry per candidate; none for candidates without support. */
  readonly support: readonly Support[];
}

export interface StatisticalTeacher {
  /** One score per candidate, in log-odds: softmax(scores) is the teacher's belief. Deterministic. */
  scores(slate: UnlabelledSlate): readonly number[];
  /** Facts behind the scores; the same whether or not the answer is known. */
  evidence(slate: UnlabelledSlate): Evidence;
}

/**
 * What supports a slate's candidates: transitions, co-occurrence, categories.
 * @param statistics of a view that holds nothing of the slate's answer
 */
export function supportFor(
  dataset: Dataset,
  table: ItemTable,
  statistics: Statistics,
  slate: UnlabelledSlate,
): Evidence {
  const items = dataset.sequences[slate.user]?.items ?? new Int32Array();
  const history = [...new Set(items.subarray(Math.max(0, slate.position - 20), slate.position))].reverse();
  const mass = new Map<string, number>();
  history.forEach((h, age) => {
    for (const c of new Set(dataset.items[h]?.categories)) mass.set(c, (mass.get(c) ?? 0) + 0.9 ** age);
  });
  const dominantCategories = [...mass]
    .sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1))
    .slice(0, 3)
    .map(([name]) => name);
  const support: Support[] = [];
  slate.candidates.forEach((c, candidate) => {
    const found = (kind: SupportKind, strength: (h: number) => number, among: readonly number[], least: number) => {
      const best = among
        .map((h) => ({ h, s: strength(h) }))
        .filter(({ s }) => s >= least)
        .sort((a, b) => b.s - a.s)
        .slice(0, 2);
      return best[0] === undefined
        ? undefined
        : { candidate, because: best.map(({ h }) => h), kind, strength: best[0].s };
    };
    const s =
      found("transition", (h) => statistics.transitions(h, c), history.slice(0, 3), 2) ??
      found("cooccurrence", (h) => statistics.similarity(h, c), history, 0.1) ??
      found("category", (h) => overlap(table.categories, h, c), history.slice(0, 5), 0.5);
    if (s !== undefined) support.push(s);
  });
  return { dominantCategories, support };
}
