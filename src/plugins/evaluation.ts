/** Metrics and baselines that a recipe names: opened, and checked against their contracts. */
import type { SlateItems } from "../data/slate-items.ts";
import type { OrderedSlate } from "../eval/brought.ts";
import type { PluginPoint } from "../run/stage.ts";
import { type About, type Asked, askChecked, openFunction } from "./contract.ts";
import type { PluginIdentity } from "./identity.ts";
import { pluginsAt } from "./named.ts";
import { openModule, type Surroundings } from "./open.ts";
import type { Question } from "./pack.ts";

/**
 * An open module: its name in the recipe, and a call that returns one checked value per question or throws RunError.
 */
export interface OpenScorer<Q, R> {
  readonly name: string;
  readonly identity: PluginIdentity;
  ask(questions: readonly Q[]): Promise<readonly R[]>;
}

/** Maximum slates per call. */
const batch = 512;

export const openMetrics = (around: Surroundings): Promise<readonly OpenScorer<OrderedSlate, number>[]> =>
  openAll(around, "metrics", "measure", "a metric, {measure(orders)}", {
    getSlate: ({ slate }) => slate.id,
    describe: ({ order }) => order.map((i) => `c${i + 1}`).join(" "),
    findFault: (value) => (Number.isFinite(value) ? undefined : "expected a finite number"),
  });

export const openBaselines = (around: Surroundings): Promise<readonly OpenScorer<SlateItems, readonly number[]>[]> =>
  openAll(around, "baselines", "score", "a baseline, {score(slates)}", {
    getSlate: ({ id }) => id,
    findFault: (value, { candidates }) =>
      Array.isArray(value) && value.length === candidates.length && value.every(Number.isFinite)
        ? undefined
        : `expected ${candidates.length} finite numbers, one per candidate`,
  });

function openAll<Q extends Question, R>(
  around: Surroundings,
  point: PluginPoint,
  method: string,
  expected: string,
  about: About<Q>,
): Promise<readonly OpenScorer<Q, R>[]> {
  return Promise.all(
    pluginsAt(around.config, point).map(async (plugin) => {
      const opened = await openModule(plugin, around);
      const asked: Asked<Q> = openFunction(opened, plugin, method, expected);
      return {
        name: plugin.setting.split(".").at(-1) as string,
        identity: opened.identity,
        ask: async (questions) => {
          const values: R[] = [];
          for (let start = 0; start < questions.length; start += batch)
            values.push(
              ...((await askChecked(plugin, asked, questions.slice(start, start + batch), about)) as readonly R[]),
            );
          return values;
        },
      };
    }),
  );
}
