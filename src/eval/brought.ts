/** What a user may add to an evaluation: a metric of orders, and a baseline that scores candidates. */
import type { LabelledSlate, SlateItems } from "../data/slate-items.ts";

/** A slate with an order of its candidates. */
export interface OrderedSlate {
  readonly slate: LabelledSlate;
  /** Indices of the slate's candidates, best first: a permutation. */
  readonly order: readonly number[];
}

/** Pure. Larger is better if it measures quality, which it need not. */
export interface Metric {
  /**
   * One finite number per order, in the given order. Unreadable answers are not passed in and count 0, as everywhere.
   */
  measure(orders: readonly OrderedSlate[]): readonly number[] | Promise<readonly number[]>;
}

/** A system to compare with. It does not see which candidate is the true one. */
export interface Baseline {
  /** For every slate one finite score per candidate, larger is better; ties keep the pre-rank order. */
  score(slates: readonly SlateItems[]): readonly (readonly number[])[] | Promise<readonly (readonly number[])[]>;
}
