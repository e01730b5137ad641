/**
 * How an RL step spends its time, from the costs that the worker's client records:
 *
 *   seconds_sample, _score, _gradient, _optimizer
 *                        inside the worker's verbs (score: pi_old and the reference, if needed)
 *   seconds_wire         from call to answer, minus the above: packing, transport, waiting
 *   seconds_typescript   the rest: time outside worker calls
 *
 * Assumes that a step's calls are sequential; for concurrent calls, their waiting would be counted as wire.
 */
import type { VerbStats, WorkerClient } from "../../worker/types.ts";

const parts = {
  sample: "seconds_sample",
  forward: "seconds_score",
  forwardBackward: "seconds_gradient",
  optimStep: "seconds_optimizer",
} as const;

type Costs = Readonly<Record<string, Readonly<Pick<VerbStats, "wallSeconds" | "computeSeconds">>>>;

export interface StepClock {
  /** The time spent since the last lap (or restart), by category; starts the next lap. */
  lap(): Record<string, number>;
  /** Discards the time since the last lap: evaluation, checkpoints. */
  restart(): void;
}

export function startStepClock(worker: Pick<WorkerClient, "stats">): StepClock {
  let began = performance.now();
  let before = worker.stats();
  return {
    lap() {
      const seconds = (performance.now() - began) / 1000;
      const after = worker.stats();
      const values = attributeSeconds(before, after, seconds);
      began = performance.now();
      before = after;
      return values;
    },
    restart() {
      began = performance.now();
      before = worker.stats();
    },
  };
}

/** @param seconds between the two readings of the costs */
export function attributeSeconds(before: Costs, after: Costs, seconds: number): Record<string, number> {
  const out: Record<string, number> = { seconds };
  let [called, computed] = [0, 0];
  for (const [verb, name] of Object.entries(parts)) {
    const [old, now] = [before[verb], after[verb]];
    const compute = (now?.computeSeconds ?? 0) - (old?.computeSeconds ?? 0);
    out[name] = compute;
    computed += compute;
    called += (now?.wallSeconds ?? 0) - (old?.wallSeconds ?? 0);
  }
  out.seconds_wire = Math.max(0, called - computed);
  out.seconds_typescript = Math.max(0, seconds - Math.max(called, computed));
  return out;
}
