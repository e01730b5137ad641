/** `gr2 export`: parses arguments, starts a worker if needed, and prints a one-line summary. */

import { type Exportable, exportable, exportRun } from "../commands/export.ts";
import { ConfigError } from "../core/errors.ts";
import { RunFolder } from "../run/run-folder.ts";
import type { WorkerClient } from "../worker/types.ts";
import { bytes } from "./format.ts";
import { withWorkerOnDemand } from "./worker-on-demand.ts";

export interface ExportArguments {
  readonly name: string;
  readonly root: string;
  readonly out: string;
  readonly stage?: string;
  readonly dtype?: string;
  /** For tests: a fake worker instead of a Python one. */
  readonly worker?: WorkerClient;
}

const dtypes = ["float32", "bfloat16"] as const;

export async function exportModel(args: ExportArguments, log: (message: string) => void): Promise<string> {
  const stage = parseChoice<Exportable>("--stage", args.stage, exportable);
  const dtype = parseChoice("--dtype", args.dtype, dtypes);
  const run = RunFolder.view(args.root, args.name);
  const written = await withWorkerOnDemand(args.worker, (o) =>
    exportRun({ run, ...(stage ? { stage } : {}), ...(dtype ? { dtype } : {}), out: args.out, log, ...o }),
  );
  return (
    `${args.out}: the model of stage ${written.stage}, ${bytes(written.bytes)} of weights, tokenizer, ` +
    `semantic IDs and README.md`
  );
}

function parseChoice<T extends string>(option: string, value: string | undefined, known: readonly T[]): T | undefined {
  if (value === undefined) return undefined;
  const found = known.find((k) => k === value);
  if (found === undefined) throw new ConfigError(`${option} ${value}: expected one of ${known.join(", ")}`);
  return found;
}
