/** Questions about slates as JSON: every slate once, items by row where the other end has the catalogue. */
import type { LabelledSlate, SlateItems } from "../data/slate-items.ts";
import type { Item } from "../data/types.ts";

/** A slate, or an order of one. Labels go along only where the slate has them. */
export type Question =
  | SlateItems
  | {
      readonly slate: SlateItems | LabelledSlate;
      readonly order: readonly number[];
      readonly mode?: string;
      readonly reasoning?: string;
    };

export interface Packed {
  readonly slates: readonly unknown[];
  /** Index of the slate; with mode, order and reasoning, where it is asked about an order. */
  readonly asked: readonly (
    | number
    | readonly [slate: number, mode: string, order: readonly number[], reasoning: string]
  )[];
}

const rowsByCatalogue = new WeakMap<readonly Item[], ReadonlyMap<Item, number>>();

/** @param items the catalogue at the other end; others are written out */
export function packAnswers(questions: readonly Question[], items: readonly Item[] = []): Packed {
  let rows = rowsByCatalogue.get(items);
  if (!rows) {
    rows = new Map(items.map((item, row) => [item, row]));
    rowsByCatalogue.set(items, rows);
  }
  const refer = (item: Item): number | Item => rows.get(item) ?? item;
  const indexBySlate = new Map<SlateItems, number>();
  const slates: unknown[] = [];
  const asked = questions.map((q) => {
    const slate = "slate" in q ? q.slate : q;
    let index = indexBySlate.get(slate);
    if (index === undefined) {
      index = slates.length;
      indexBySlate.set(slate, index);
      const { id, scores, history, candidates } = slate;
      const labels = "labels" in slate ? { labels: slate.labels } : {};
      slates.push({ id, history: history.map(refer), candidates: candidates.map(refer), scores, ...labels });
    }
    return "slate" in q ? ([index, q.mode ?? "", q.order, q.reasoning ?? ""] as const) : index;
  });
  return { slates, asked };
}
