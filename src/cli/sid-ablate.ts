/** `gr2 sid ablate` (npm run ablate:sid): arguments, signals, worker and one line per cell of the ablation. */
import { basename, extname, join, resolve } from "node:path";
import { type RowName, rowNames } from "../commands/sid-ablation.ts";
import { runAblation, type StoredCell } from "../commands/sid-ablation-cells.ts";
import { loadConfig } from "../config/load.ts";
import { ConfigError, InterruptedError } from "../core/errors.ts";
import { handleInterrupts } from "../worker/interrupt.ts";
import { type RunningWorker, runtimeOptions, startWorker } from "../worker/launcher.ts";
import type { WorkerClient } from "../worker/types.ts";
import { duration } from "./format.ts";
import { parseSeeds } from "./seeds.ts";

export interface AblateArguments {
  readonly config: string;
  readonly set: readonly string[];
  /** Comma-separated whole numbers. */
  readonly seeds: string;
  /** Comma-separated names of `rowNames`; undefined = all. */
  readonly rows?: string;
  /** Default: runs/ablate-RECIPE. */
  readonly out?: string;
  /** Maximum number of validation positions to search. */
  readonly positions: number;
}

/** @param given for tests: a worker to use instead of starting one */
export async function ablateSid(
  args: AblateArguments,
  out: { write(text: string): unknown },
  given?: WorkerClient,
): Promise<void> {
  const base = loadConfig(args.config, args.set);
  const folder = resolve(args.out ?? join("runs", `ablate-${basename(args.config, extname(args.config))}`));
  const interrupts = handleInterrupts(() => void out.write("stopping; finished cells are kept\n"));
  const { signal } = interrupts;
  let running: RunningWorker | undefined;
  try {
    const table = await runAblation({
      base,
      rows: args.rows === undefined ? rowNames : args.rows.split(",").map(rowNamed),
      seeds: parseSeeds(args.seeds),
      positions: args.positions,
      folder,
      asked: { recipe: args.config, set: args.set },
      worker: async () => {
        if (given) return given;
        running = await startWorker(runtimeOptions(base, join(folder, "worker.log")), signal);
        return running.client;
      },
      signal,
      onPlan: (cells, finished) => out.write(`${cells} cells, ${finished} already finished\n`),
      onCell: (cell, done, total, secondsLeft) => {
        const left = done < total ? `; about ${duration(secondsLeft)} left` : "";
        out.write(`${describeCell(cell)} (${done} of ${total}${left})\n`);
      },
    });
    out.write(`\n${table}\n${join(folder, "ablation.json")}\n`);
  } catch (e) {
    throw signal.aborted ? new InterruptedError() : e;
  } finally {
    interrupts.dispose();
    await running?.close();
  }
}

function describeCell({ row, seed, metrics, seconds }: StoredCell): string {
  const percent = (share: number | undefined): string => `${(100 * (share ?? 0)).toFixed(2)} %`;
  const total = Object.values(seconds).reduce((a, b) => a + b, 0);
  const recall = (metrics.recall_at_10 ?? 0).toFixed(4);
  return (
    `${row}, seed ${seed}: unique ${percent(metrics.uniqueness)} (nearest codes ` +
    `${percent(metrics.uniqueness_nearest)}), R@10 ${recall}, ${duration(total)}`
  );
}

function rowNamed(name: string): RowName {
  const found = rowNames.find((row) => row === name.trim());
  if (found === undefined) throw new ConfigError(`--rows ${name}: no such row; expected one of ${rowNames.join(", ")}`);
  return found;
}
