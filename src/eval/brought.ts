/** What a user may bring to an evaluation: a metric of orders, and a baseline that scores candidates. */
import type { LabelledSlate, SlateItems } from "../data/slate-items.ts";

/** A slate with an order of its candidates. */
export interface OrderedSlate {
  readonly slate: LabelledSlate;
  /** Indices of the slate's candidates, best first: a permutation. */
  readonly order: readonly number[];
}

/** Pure. Larger is better where it says how good an order is; it need not say that. */
export interface Metric {
  /** One finite number an order, in their order. An answer that cannot be read is not shown and counts 0, as everywhere. */
  measure(orders: readonly OrderedSlate[]): readonly number[] | Promise<readonly number[]>;
}

/** A system to compare with. It does not see which candidate is the true one. */
export interface Baseline {
  /** For every slate one finite score a candidate, larger is better; equal ones stay in the order of the pre-rank. */
  score(slates: readonly SlateItems[]): readonly (readonly number[])[] | Promise<readonly (readonly number[])[]>;
}
