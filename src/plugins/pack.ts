/** Questions about slates as JSON: each slate once, items by row if the receiver has the catalogue. */
import type { LabelledSlate, SlateItems } from "../data/slate-items.ts";
import type { Item } from "../data/types.ts";

/** A slate, or an order of one. Labels are included only if the slate has them. */
export type Question =
  | SlateItems
  | {
      readonly slate: SlateItems | LabelledSlate;
      readonly order: readonly number[];
      readonly mode?: string;
      readonly reasoning?: string;
    }
  /** Asked of a teacher. */
  | { readonly slate: SlateItems; readonly hint: number | null; readonly attempt: number };

export interface Packed {
  readonly slates: readonly unknown[];
  /** Index of the slate; with mode, order and reasoning for an order, with hint and attempt for a teacher. */
  readonly asked: readonly (
    | number
    | readonly [slate: number, mode: string, order: readonly number[], reasoning: string]
    | readonly [slate: number, hint: number | null, attempt: number]
  )[];
}

const rowsByCatalogue = new WeakMap<readonly Item[], ReadonlyMap<Item, number>>();

/** @param items the receiver's catalogue; other items are sent in full */
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
    if (!("slate" in q)) return index;
    return "order" in q
      ? ([index, q.mode ?? "", q.order, q.reasoning ?? ""] as const)
      : ([index, q.hint, q.attempt] as const);
  });
  return { slates, asked };
}
