/** `gr2 export`: arguments, a worker for as long as it is needed, and one line about what was written. */
import { ConfigError } from "../core/errors.ts";
import { RunFolder } from "../run/run-folder.ts";
import { type Exportable, exportable, exportRun } from "../stages/export.ts";
import { runtimeOf } from "../stages/pipeline.ts";
import { handleInterrupts } from "../worker/interrupt.ts";
import { type RunningWorker, startWorker } from "../worker/launcher.ts";
import type { WorkerClient } from "../worker/types.ts";
import { bytes } from "./format.ts";

export interface ExportArguments {
  readonly name: string;
  readonly root: string;
  readonly out: string;
  readonly stage?: string;
  readonly dtype?: string;
  /** Instead of a Python worker: a fake one, in tests. */
  readonly worker?: WorkerClient;
}

const dtypes = ["float32", "bfloat16"] as const;

export async function exportModel(args: ExportArguments, log: (message: string) => void): Promise<string> {
  const stage = oneOf<Exportable>("--stage", args.stage, exportable);
  const dtype = oneOf("--dtype", args.dtype, dtypes);
  const run = RunFolder.view(args.root, args.name);
  const { signal, dispose } = handleInterrupts();
  let running: RunningWorker | undefined;
  try {
    const written = await exportRun({
      run,
      ...(stage ? { stage } : {}),
      ...(dtype ? { dtype } : {}),
      out: args.out,
      log,
      signal,
      worker: async (config) => {
        if (args.worker) return args.worker;
        running = await startWorker(runtimeOf(config), signal);
        return running.client;
      },
    });
    return `${args.out}: the model of stage ${written.stage}, ${bytes(written.bytes)} of weights, tokenizer, semantic IDs and README.md`;
  } finally {
    await running?.close();
    dispose();
  }
}

function oneOf<T extends string>(option: string, value: string | undefined, known: readonly T[]): T | undefined {
  if (value === undefined) return undefined;
  const found = known.find((k) => k === value);
  if (found === undefined) throw new ConfigError(`${option} ${value}: expected one of ${known.join(", ")}`);
  return found;
}
