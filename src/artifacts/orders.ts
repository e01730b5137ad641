/** Every system's answers on the test slates, and the slates: for consumers that read a finished run slate by slate. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { RunError } from "../core/errors.ts";
import { type MetricName, metricNames, metricsFromLabels, metricsFromRank } from "../eval/metrics.ts";
import { prerankerSystem } from "../eval/systems.ts";
import { type Slate, slateLabels } from "../prerank/types.ts";
import { readManifest } from "../run/manifest.ts";
import type { RunFolder } from "../run/run-folder.ts";
import { readJson, readLines } from "./files.ts";
import { slateFile } from "./slates.ts";

/** orders.json; stage evaluate. */
export interface TestOrders {
  /** Ids of the test slates that hold their true item, and of the others. */
  readonly slates: readonly string[];
  readonly missed: readonly string[];
  /** By system: for each of `slates` the candidate indices, best first; empty without a valid answer. */
  readonly systems: Readonly<Record<string, readonly (readonly number[])[]>>;
}

export const ordersFile = (dir: string): string => join(dir, "orders.json");

/** The test slates of a finished run and the systems' orders. */
export interface TestAnswers {
  /** Slates that hold their true item, in the order of `systems`' lists. */
  readonly slates: readonly Slate[];
  readonly missed: readonly Slate[];
  readonly systems: TestOrders["systems"];
}

/** Throws RunError unless the run's evaluation is finished and still up to date. */
export function readTestAnswers(run: RunFolder): TestAnswers {
  const again = { advice: `Finish it: gr2 pipeline --run ${run.name} with its recipe.` };
  const stage = readManifest(run.path)?.stages.evaluate;
  if (stage?.state !== "finished") throw new RunError(`run ${run.name}: the evaluation is not finished`, again);
  if (stage.stale)
    throw new RunError(`run ${run.name}: the evaluation was made with other settings, code or data`, again);
  const file = ordersFile(run.file("stages", "evaluate"));
  if (!existsSync(file)) throw new RunError(`run ${run.name}: evaluated by a version that did not store orders`, again);
  const { slates, missed, systems } = readJson<TestOrders>(file);
  const byId = new Map(readLines<Slate>(slateFile(run.file("stages", "slates"), "test")).map((s) => [s.id, s]));
  const find = (id: string): Slate => {
    const slate = byId.get(id);
    if (!slate) throw new RunError(`run ${run.name}: slate ${id} was evaluated, but is no longer a test slate`, again);
    return slate;
  };
  return { slates: slates.map(find), missed: missed.map(find), systems };
}

/**
 * A system's metric on each slate, then on each missed one (0 unless it has a list of its own); as in the results
 * table.
 */
export function slateMetrics(answers: TestAnswers, system: string, metric: Exclude<MetricName, "AUC">): Float64Array {
  const m = metricNames.indexOf(metric);
  const { slates, missed } = answers;
  const values = new Float64Array(slates.length + missed.length);
  for (const [i, slate] of slates.entries()) {
    const labels = slateLabels(slate);
    const order = answers.systems[system]?.[i] ?? [];
    values[i] = metricsFromLabels(order.map((c) => labels[c] ?? 0))[m] ?? 0;
  }
  return values;
}

/**
 * The same for a fused pre-ranker, by ranks in its own list, which may hold items the fused slate misses; undefined
 * without a list.
 */
export function ownListMetrics(
  answers: TestAnswers,
  system: string,
  metric: Exclude<MetricName, "AUC">,
): Float64Array | undefined {
  const all = [...answers.slates, ...answers.missed];
  const name = Object.keys(all[0]?.targetRanks ?? {}).find((n) => prerankerSystem(n).name === system);
  if (name === undefined) return undefined;
  const m = metricNames.indexOf(metric);
  return Float64Array.from(all, (s) => metricsFromRank(s.targetRanks?.[name] ?? Number.POSITIVE_INFINITY)[m] ?? 0);
}
