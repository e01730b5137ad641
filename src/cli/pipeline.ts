/** `gr2 pipeline`: sets up config, run folder, signals and progress, runs the stages, then prints report and table. */
import { basename, extname } from "node:path";
import type { Readable } from "node:stream";
import type { Metrics } from "../artifacts/results.ts";
import { configHash, loadConfig, resolvedYaml } from "../config/load.ts";
import { Gr2Error, InterruptedError } from "../core/errors.ts";
import { writeReport } from "../report/report.ts";
import { Run } from "../run/run.ts";
import { listRuns } from "../run/run-folder.ts";
import { stageNames } from "../run/stage.ts";
import { runStages } from "../stages/pipeline.ts";
import { handleInterrupts } from "../worker/interrupt.ts";
import { TelemetryBus } from "../worker/telemetry.ts";
import type { WorkerClient } from "../worker/types.ts";
import { duration } from "./format.ts";
import { drawProgress, type Output } from "./progress.ts";
import { resultsTable } from "./results.ts";

export interface PipelineArguments {
  readonly config: string;
  readonly set: readonly string[];
  /** Default: the config's file name. */
  readonly run?: string;
  readonly root: string;
  readonly from?: string;
  readonly until?: string;
  readonly fresh?: boolean;
  /** Reuse finished stages with the same keys from other runs under the same root; never with `fresh`. */
  readonly share: boolean;
  /** Replaces the Python worker in tests. */
  readonly worker?: WorkerClient;
}

export type PipelineOutput = Output & Partial<Readable>;

export const nameRun = ({ run, config }: PipelineArguments): string => run ?? basename(config, extname(config));

/**
 * Runs the pipeline, prints its results and returns them; throws the error that stopped it, once the run folder is
 * consistent.
 */
export async function runPipeline(args: PipelineArguments, out: PipelineOutput): Promise<Metrics | undefined> {
  const begin = performance.now();
  const config = loadConfig(args.config, args.set);
  const name = nameRun(args);
  const bus = new TelemetryBus(name);
  const interrupts = handleInterrupts(() => {
    bus.emit({
      kind: "log",
      level: "warn",
      text: "stopping after the current call; interrupt again to stop immediately",
    });
  });
  const { signal } = interrupts;
  const stopDrawing = drawProgress(bus, out);
  let run: Run | undefined;
  try {
    run = await Run.open({
      root: args.root,
      name,
      configYaml: resolvedYaml(config),
      configHash: configHash(config),
      seed: config.seed,
      stages: stageNames,
      from: args.from,
      until: args.until,
      fresh: args.fresh,
      shareWith: args.share && !args.fresh ? listRuns(args.root) : [],
      signal,
      bus,
    });
    const { path } = run.folder;
    const metrics = await runStages(run, {
      config,
      root: args.root,
      name,
      signal,
      bus,
      ...(args.worker ? { worker: args.worker } : {}),
    });
    const report = metrics ? await writeReport(path) : undefined;
    await run.close("finished");
    stopDrawing();
    if (metrics) out.write(`\n${resultsTable(metrics)}\n\nreport: ${report}\n`);
    out.write(
      `${metrics ? "" : `\nstopped after ${args.until}, as requested; `}total: ` +
        `${duration((performance.now() - begin) / 1000)}\n`,
    );
    return metrics;
  } catch (e) {
    stopDrawing();
    // A call interrupted by the user's signal may fail in many ways; report it as a requested stop.
    const reason = signal.aborted && !(e instanceof InterruptedError) ? new InterruptedError() : e;
    const closed =
      reason instanceof InterruptedError ? run?.close("interrupted") : run?.close("failed", toMessage(reason));
    await closed?.catch(() => {});
    throw reason;
  } finally {
    interrupts.dispose();
  }
}

const toMessage = (e: unknown): string => (e instanceof Gr2Error ? e.message : String(e));
