/** A worker for commands that may need one: started on first use, stopped when the command ends. */
import type { Config } from "../config/schema.ts";
import { handleInterrupts } from "../worker/interrupt.ts";
import { type RunningWorker, runtimeOptions, startWorker } from "../worker/launcher.ts";
import type { WorkerClient } from "../worker/types.ts";

/** @param given for tests: a fake worker instead of a Python one; it is left running */
export async function withWorkerOnDemand<T>(
  given: WorkerClient | undefined,
  command: (o: { signal: AbortSignal; worker: (config: Config) => Promise<WorkerClient> }) => Promise<T>,
): Promise<T> {
  const { signal, dispose } = handleInterrupts();
  let running: RunningWorker | undefined;
  const worker = async (config: Config): Promise<WorkerClient> => {
    if (given) return given;
    running ??= await startWorker(runtimeOptions(config), signal);
    return running.client;
  };
  try {
    return await command({ signal, worker });
  } finally {
    await running?.close();
    dispose();
  }
}
