/**
 * The cost of a run: seconds and peak memory per stage, and the share of time in worker, wire and TypeScript.
 *   npm run bench -- pipeline                        reads the finished run nano-ml100k
 *   npm run bench -- pipeline --run NAME [--root R]  reads another run
 *   npm run bench -- pipeline --config FILE          runs a recipe from the start, as run bench-pipeline, then reads it
 */
import { parseArgs } from "node:util";
import { runPipeline } from "../src/cli/pipeline.ts";
import { RunError } from "../src/core/errors.ts";
import { tryReadJson } from "../src/run/files.ts";
import { readManifest } from "../src/run/manifest.ts";
import { RunFolder } from "../src/run/run-folder.ts";
import type { WorkerCosts } from "../src/stages/pipeline.ts";
import type { Benchmark, Measurement } from "./claim.ts";

const secondsBar = 720;
const memoryBarMb = 4096;

export const bench: Benchmark = async (emit, args) => {
  const { values } = parseArgs({
    args: [...args],
    options: {
      run: { type: "string" },
      root: { type: "string", default: "runs" },
      config: { type: "string" },
      set: { type: "string", multiple: true, default: [] },
    },
  });
  const { root, config, set } = values;
  const name = values.run ?? (config ? "bench-pipeline" : "nano-ml100k");
  if (config) await runPipeline({ config, set, run: name, root, fresh: true, share: false }, process.stderr);

  const folder = RunFolder.view(root, name);
  const manifest = readManifest(folder.path);
  if (manifest?.state !== "finished")
    throw new RunError(`run ${name} is not finished`, { advice: "Finish it, or give --config to run a recipe." });
  const stages = Object.entries(manifest.stages);
  for (const [stage, s] of stages) {
    emit({ claim: `pipeline/seconds of ${stage}`, value: s.seconds, unit: "s", n: 1 });
    emit({ claim: `pipeline/peak memory of ${stage}`, value: s.peak_bytes / 2 ** 20, unit: "MiB", n: 1 });
  }
  const seconds = stages.reduce((sum, [, s]) => sum + s.seconds, 0);
  const peak = Math.max(...stages.map(([, s]) => s.peak_bytes)) / 2 ** 20;
  const n = stages.length;
  emit({ claim: "pipeline/seconds in total", value: seconds, unit: "s", n, bar: ["value", "<=", secondsBar] });
  emit({ claim: "pipeline/peak memory", value: peak, unit: "MiB", n, bar: ["value", "<=", memoryBarMb] });

  const costs = tryReadJson(folder.file("worker-costs.json")) as WorkerCosts | undefined;
  if (costs?.stages) for (const m of shares(costs)) emit(m);
};

/**
 * Shares of the seconds of the stages that this worker served. Calls are made one after another, so the shares add up
 * to 1: worker = inside verbs; wire = from call to answer, minus worker and packing; TypeScript = the rest, including
 * packing.
 */
export function shares(costs: WorkerCosts): Measurement[] {
  const total = Object.values(costs.stages).reduce((a, b) => a + b, 0);
  const busy = costs.busySeconds;
  if (busy === undefined || total === 0) return [];
  const verbs = Object.values(costs.verbs);
  const sum = (f: (v: (typeof verbs)[number]) => number): number => verbs.reduce((a, v) => a + f(v), 0);
  const [calls, wall, pack] = [sum((v) => v.calls), sum((v) => v.wallSeconds), sum((v) => v.packSeconds)];
  const worker = busy / total;
  const wire = Math.max(0, wall - busy - pack) / total;
  const share = (claim: string, value: number): Measurement => ({ claim, value, unit: "share", n: calls });
  return [
    share("pipeline/share of time in the worker", worker),
    share("pipeline/share of time on the wire", wire),
    share("pipeline/share of time in TypeScript", Math.max(0, 1 - worker - wire)),
    share("pipeline/share of time packing messages (part of TypeScript)", pack / total),
    { claim: "pipeline/bytes sent", value: sum((v) => v.bytesSent) / 2 ** 20, unit: "MiB", n: calls },
    { claim: "pipeline/bytes received", value: sum((v) => v.bytesReceived) / 2 ** 20, unit: "MiB", n: calls },
  ];
}
