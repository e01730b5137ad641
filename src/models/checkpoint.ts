/**
 * Checkpoints within a training stage. Every checkpoint has a folder of its own, which the cursor names; older ones are
 * removed once the cursor is on disk. So after a kill at any time, the weights and the step to resume from belong
 * together (with one folder for all, a kill between weights and cursor would train some steps twice).
 */
import { readdirSync, rmSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import type { StageContext } from "../run/stage.ts";
import type { WorkerClient } from "../worker/types.ts";
import { checkLineage, type Lineage } from "./language-model.ts";

interface Cursor<T> {
  /** Name of the checkpoint's folder among the stage's work. */
  readonly checkpoint: string;
  readonly value: T;
}

/** Saves weights and optimizer after `step`, then `value`, from which the stage resumes. */
export async function saveCheckpoint<T>(
  context: StageContext,
  worker: WorkerClient,
  metadata: Lineage,
  step: number,
  value: T,
  modelId = "policy",
): Promise<void> {
  const path = context.work(`checkpoint-${step}`);
  await worker.saveState({ modelId, path, includeOptimizer: true, metadata }, { signal: context.signal });
  context.cursor.write({ checkpoint: basename(path), value } satisfies Cursor<T>);
  for (const name of readdirSync(dirname(path)))
    if (name.includes("checkpoint-") && name !== basename(path))
      rmSync(join(dirname(path), name), { recursive: true, force: true });
}

/** The value of a killed attempt's newest checkpoint; undefined = there is none. */
export const checkpointValue = <T>(context: StageContext): T | undefined => context.cursor.read<Cursor<T>>()?.value;

/** Restores the newest checkpoint of a killed attempt and returns its value; undefined = start from the beginning. */
export async function resume<T>(
  context: StageContext,
  worker: WorkerClient,
  lineage: Lineage,
  modelId = "policy",
): Promise<T | undefined> {
  const cursor = context.cursor.read<Cursor<T>>();
  if (cursor === undefined) return undefined;
  const path = context.work(cursor.checkpoint);
  const state = await worker.loadState({ modelId, path, includeOptimizer: true }, { signal: context.signal });
  checkLineage(path, state, lineage);
  return cursor.value;
}
