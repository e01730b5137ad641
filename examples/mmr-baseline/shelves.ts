/** How many different first categories the top of an order has. */
import type { Metric, Plugin } from "gr2/plugins";

const plugin: Plugin<Metric> = ({ options }) => ({
  measure: (orders) =>
    orders.map(({ slate, order }) => {
      const top = order.slice(0, Number(options.top ?? 3));
      return new Set(top.map((i) => slate.candidates[i]?.categories[0])).size;
    }),
});
export default plugin;
