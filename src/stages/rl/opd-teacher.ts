/**
 * The teacher of on-policy distillation: the contents of the folder rl.opd.teacher, and loading it.
 *
 *   saved state      runs/NAME/stages/STAGE/state: whole weights, which load as a pretrained model
 *   one with LoRA    only the trained weights; the recipe of its run names the base model
 *   exported model   written by `gr2 export`; gr2_export.json records its catalogue and tokenizer
 */
import { existsSync, readdirSync, statSync } from "node:fs";
import { join, resolve } from "node:path";
import { findWeightsFile, readSavedWeights, type SavedWeights } from "../../artifacts/weights.ts";
import { loadConfig } from "../../config/load.ts";
import type { Config } from "../../config/schema.ts";
import { CheckpointError, ConfigError } from "../../core/errors.ts";
import { sha256 } from "../../core/hash.ts";
import { deriveSeed } from "../../core/rng.ts";
import { addedTokens, checkLineage, type Lineage, modelRequest } from "../../models/language-model.ts";
import type { StageContext } from "../../run/stage.ts";
import { startWorker } from "../../worker/launcher.ts";
import type { ForwardRequest, ForwardResult, LoadModelRequest, WorkerClient } from "../../worker/types.ts";

const modelId = "teacher";

/** Absolute path of rl.opd.teacher. */
export const teacherPath = (config: Config): string => resolve(config.rl.opd.teacher);

/** The recipe of a state's run: runs/NAME/stages/STAGE/state. */
export const recipePath = (folder: SavedWeights): string => join(folder.path, "..", "..", "..", "config.resolved.yaml");

/** Undefined if this machine has no such folder. Throws ConfigError for a folder that is not a teacher. */
export function readTeacherFolder(path: string): SavedWeights | undefined {
  const stat = statSync(path, { throwIfNoEntry: false });
  if (!stat) return undefined;
  const weights = readSavedWeights(path);
  if (weights !== undefined) return weights;
  const inside = stat.isDirectory() ? statesIn(path) : [];
  throw new ConfigError(`rl.opd.teacher = ${path}: contains neither saved weights nor an exported model`, {
    advice:
      inside.length > 0
        ? `Name one of ${inside.join(", ")}.`
        : "Name runs/NAME/stages/rl/state, or a folder that gr2 export wrote.",
  });
}

/** Saved weights below the folder of a run. */
function statesIn(path: string): string[] {
  const stages = join(path, "stages");
  return existsSync(stages)
    ? readdirSync(stages)
        .map((stage) => join(stages, stage, "state"))
        .filter((state) => findWeightsFile(state) !== undefined)
    : [];
}

/** The recipe of the run that LoRA weights belong to. Throws CheckpointError if it is missing. */
export function loraRecipe(folder: SavedWeights): Config {
  const file = recipePath(folder);
  if (existsSync(file)) return loadConfig(file);
  throw new CheckpointError(
    `rl.opd.teacher = ${folder.path}: contains LoRA weights outside the folder of their run, ` +
      `whose recipe (${file}) names the base model`,
    { advice: "Name the state in its run's folder, or write a whole model first: gr2 export RUN --out FOLDER." },
  );
}

export interface DistillationTeacher {
  /** Its scores of the student's answers. */
  score(request: ForwardRequest): Promise<ForwardResult>;
  close(): Promise<void>;
}

/**
 * Loads the teacher next to the student, or into the worker at rl.opd.address. Throws CheckpointError if its tokens
 * differ.
 */
export async function openTeacher(
  context: StageContext,
  own: WorkerClient,
  lineage: Lineage,
): Promise<DistillationTeacher> {
  const { config, signal } = context;
  const { address } = config.rl.opd;
  const { tokenFile } = config.runtime;
  const path = teacherPath(config);
  const folder = readTeacherFolder(path);
  const other = address === "" ? undefined : await startWorker({ mode: "remote", address, tokenFile }, signal);
  const worker = other?.client ?? own;
  const close = async (): Promise<void> => {
    await worker.unloadModel(modelId).catch(() => undefined); // a worker that is gone has no model
    await other?.close();
  };
  try {
    const request = await buildRequest(context, path, folder);
    const loaded = await worker.loadModel(
      { ...request, modelId, dtype: config.runtime.dtype, trainable: false },
      { signal },
    );
    if (sha256(loaded.tokenizerJson) !== lineage.tokenizer)
      throw new CheckpointError(`rl.opd.teacher = ${path}: its tokenizer differs from this run's`, {
        advice:
          "Train teacher and student on the same data, semantic IDs and tokenizer " +
          "(model.bpeVocab, or the same family).",
      });
    const state =
      folder?.kind === "export"
        ? folder
        : await worker.loadState({ modelId, path, includeOptimizer: false }, { signal });
    checkLineage(path, state, lineage);
    context.log(`teacher: ${(loaded.numParameters / 1e6).toFixed(2)}M parameters, from ${path}`);
  } catch (e) {
    await close();
    throw e;
  }
  return { score: (request) => worker.forward({ ...request, modelId }, { signal }), close };
}

/** A folder visible only to the worker is assumed to contain full weights. */
function buildRequest(
  { config, log, signal }: StageContext,
  path: string,
  folder: SavedWeights | undefined,
): LoadModelRequest | Promise<LoadModelRequest> {
  if (folder?.kind === "lora") return modelRequest(loraRecipe(folder), undefined, log, signal);
  return {
    source: { kind: "pretrained", path },
    addedTokens: addedTokens(config),
    seed: deriveSeed(config.seed, "model"),
  };
}
