/**
 * How much memory a recipe needs on the worker's device, stage by stage, before anything is loaded; whether it fits,
 * and which settings to change if not. Pure arithmetic over the recipe and the model's shape, following what the worker
 * does (float32 masters of trained weights, bfloat16 autocast, logits in chunks, prompts computed once).
 *
 * P parameters, T trained ones, B bytes of a stored number. Everything in bytes.
 *   weights      full: 4P.  LoRA: B (P - rows of codes) + 4T
 *   gradients    4T; twice where a step accumulates over several calls, each of which can be undone
 *   optimizer    8T (two moments)
 *   activations  tokens of a micro-batch x what a block keeps for its backward pass, x blocks; with checkpointing one
 *                block and the blocks' inputs
 *   logits       a chunk of rows x vocabulary, four float32 copies; full: and the output layer's gradient
 *   cache        keys and values of the sampled tokens, and the first logits
 */
import type { Config } from "../config/schema.ts";
import { countParameters, hasQkNorm, linearLayers, loraParameters, type ModelShape } from "./shape.ts";

export const parts = ["weights", "gradients", "optimizer", "activations", "logits", "cache", "runtime"] as const;
export type Part = (typeof parts)[number];

export interface Phase {
  readonly name: string;
  readonly bytes: Readonly<Record<Part, number>>;
  readonly total: number;
}

export interface Device {
  readonly kind: "cpu" | "cuda";
  readonly memoryBytes: number;
}

export interface MemoryPlan {
  readonly parameters: number;
  readonly trained: number;
  readonly phases: readonly Phase[];
  /** Total of the largest phase. */
  readonly peak: number;
  /** Weights, gradients and optimizer of the largest phase: no smaller batch lowers it. */
  readonly fixed: number;
  /** peak is at most `usable` of the device. */
  readonly fits: boolean;
  /** Settings, as `path=value`, with which it would fit; empty if it fits or nothing helps. */
  readonly change: readonly string[];
}

/** Usable share of a device; the rest is left to the allocator and other processes. */
export const usable = 0.92;

/** Interpreter, libraries and the device's context; measured (bench/plan.ts). */
const runtimeBytes = { cpu: 0.75 * 2 ** 30, cuda: 0.9 * 2 ** 30 };
/** As in the worker: scoring.py and engine.py. */
const logitsAtOnce = { cpu: 2 ** 21, cuda: 2 ** 27 };
const minLogitRows = 64;
const preferredTokensCpu = 2048;
/** Families whose layers the worker copies into another layout for sampling: a second copy of the weights. */
const laidOutFamilies: ReadonlySet<string> = new Set(["llama", "qwen2", "qwen3"]);
/** Tokens of a title, on average, and of the instructions of the two formats. */
const titleTokens = 24;
const instructionTokens = { compact: 12, json: 240 };

/** @param added tokens added to the vocabulary: markers and codes */
export function planMemory(config: Config, shape: ModelShape, added: number, device: Device): MemoryPlan {
  const plan = planned(config, shape, added, device);
  return { ...plan, change: plan.fits ? [] : changes(config, shape, added, device) };
}

function planned(config: Config, shape: ModelShape, added: number, device: Device): Omit<MemoryPlan, "change"> {
  const rows = padded(shape.vocabSize + added, config.model.padVocabMultiple);
  const { tables, blocks } = countParameters(shape, rows);
  const { lora } = config.model;
  const full = lora.rank === 0;
  const half = config.runtime.dtype === "bfloat16";
  const trained = full ? tables + blocks : loraParameters(shape, lora.rank, lora.targets, added);
  const weights = full ? 4 * trained : (half ? 2 : 4) * (tables + blocks) + 4 * trained;
  const runtime = runtimeBytes[device.kind];
  const learning = { weights, gradients: 4 * trained, optimizer: 8 * trained, runtime };
  const logits = logitBytes(rows, shape, full, device);
  const text = countTokens(config);
  const training = (name: string, tokens: number, longest: number, extra: Partial<Record<Part, number>>): Phase => {
    const limit = config.runtime.microBatchTokens;
    const atOnce = Math.min(
      2 * tokens, // rows are padded to the longest
      device.kind === "cpu" ? Math.max(longest, Math.min(limit, preferredTokensCpu)) : limit,
    );
    const activations = activationBytes(shape, config, Math.max(longest, atOnce), longest, full, half);
    return phase(name, { ...learning, logits, activations, ...extra });
  };
  const cache = cacheBytes(config, shape, rows, text, half && !full ? 2 : 4);
  const reference = config.rl.klCoef > 0 ? (half ? 2 : 4) * (tables + blocks) : 0;
  const group = Math.min(
    text.prompt + config.rl.group * text.response,
    Math.max(text.prompt + text.response, tokenLimit(config)),
  );
  const twice = { gradients: 8 * trained };
  const laidOut = full && laidOutFamilies.has(shape.family) ? (half ? 2 : 4) * (tables + blocks) : 0;
  const phases = [
    training("midtrain", config.midtrain.batchTokens, text.document, {}),
    training("sft", config.sft.batchSlates * (text.prompt + text.response), text.prompt + text.response, twice),
    phase("rl: sample", { ...learning, gradients: 0, weights: weights + reference + laidOut, cache }),
    training("rl: update", config.rl.prompts * group, group, { ...twice, weights: weights + reference }),
  ];
  const largest = phases.reduce((a, b) => (b.total > a.total ? b : a));
  const sumFixed = ({ bytes }: Phase): number => bytes.weights + bytes.gradients + bytes.optimizer + bytes.runtime;
  return {
    parameters: tables + blocks,
    trained,
    phases,
    peak: largest.total,
    fixed: Math.max(...phases.map(sumFixed)),
    fits: largest.total <= usable * device.memoryBytes,
  };
}

const tokenLimit = (config: Config): number => config.runtime.microBatchTokens;

const padded = (rows: number, multiple: number): number =>
  multiple > 0 ? Math.ceil(rows / multiple) * multiple : rows;

function phase(name: string, some: Partial<Record<Part, number>>): Phase {
  const bytes = Object.fromEntries(parts.map((part) => [part, some[part] ?? 0])) as Record<Part, number>;
  return { name, bytes, total: parts.reduce((sum, part) => sum + bytes[part], 0) };
}

/** Candidates that the language model is asked about. */
export const countAsked = ({ prompts, prerank }: Config): number =>
  prompts.candidates > 0 ? Math.min(prompts.candidates, prerank.candidates) : prerank.candidates;

/** Approximate tokens of a prompt, of its response and of a mid-training document. */
export function countTokens(config: Config): { prompt: number; response: number; document: number } {
  const { prompts, sid, decoding, midtrain } = config;
  const item = sid.levels + (sid.format === "wrapped" ? 2 : 0);
  const title = prompts.showTitles ? Math.min(prompts.maxTitleTokens || titleTokens, titleTokens) : 0;
  const line = item + title + (prompts.format === "json" ? 4 : 1);
  const shown = prompts.historyItems + (prompts.showCandidates ? countAsked(config) : 0);
  const answer = countAsked(config) * (item + 3);
  return {
    prompt: instructionTokens[prompts.format] + shown * line,
    response: decoding.maxReasoningTokens + answer,
    document: Math.min(512, Math.max(midtrain.windowItems * item, 256)),
  };
}

/** What the backward pass of a micro-batch of plain and packed rows keeps. */
function activationBytes(
  s: ModelShape,
  config: Config,
  tokens: number,
  longest: number,
  full: boolean,
  half: boolean,
): number {
  const [C, I] = [s.hiddenSize, s.intermediateSize];
  const [q, kv] = [s.heads * s.headDim, s.kvHeads * s.headDim];
  const b = half ? 2 : 4;
  // Two norms, in float32 whatever the autocast: input, normalised, output; under autocast the output once more as
  // bfloat16.
  const norms = 2 * (3 * 4 * C + (half ? 2 * C : 0)) + (hasQkNorm(s) ? 2 * 4 * (q + kv) : 0);
  // Query, key and value with heads repeated, contiguous copies of them for the packed blocks, and the output twice.
  const attention = b * (7 * q + 2 * kv);
  const capped = s.family === "gemma2" ? 3 * 4 * s.heads * longest : 0;
  const mlp = 4 * b * I;
  // LoRA's dropout keeps another copy of every adapted layer's input, and its mask.
  const { lora } = config.model;
  const layers = linearLayers(s);
  const inputs = lora.targets.reduce((n, name) => n + (layers[name]?.[0] ?? 0), 0);
  const adapted = full || lora.dropout === 0 ? 0 : (half ? 10 : 8) * inputs;
  const block = norms + attention + capped + mlp + adapted;
  // Gradients on their way back through one block.
  const transient = 4 * (3 * C + 3 * I);
  const kept = config.model.gradientCheckpointing ? (full || !half ? 4 : 2) * C * s.layers + block : block * s.layers;
  // bfloat16 copies of float32 masters, which the autograd graph keeps alive.
  const copies =
    full && half ? (2 * countParameters(s, 0).blocks) / (config.model.gradientCheckpointing ? s.layers : 1) : 0;
  return tokens * (kept + transient + 3 * 4 * C) + copies;
}

function logitBytes(rows: number, s: ModelShape, full: boolean, device: Device): number {
  const chunk = Math.max(minLogitRows * rows, logitsAtOnce[device.kind]);
  return 4 * 4 * chunk + (full ? 4 * rows * s.hiddenSize : 0);
}

/** Suffix buffers double as they grow, and the old one exists while it is copied: half as much again. */
function cacheBytes(
  config: Config,
  s: ModelShape,
  rows: number,
  text: { prompt: number; response: number },
  b: number,
): number {
  const one = text.prompt + config.rl.group * text.response;
  const tokens = Math.min(config.runtime.sampleBatchTokens, config.rl.evalSlates * one);
  const responses = Math.max(1, Math.floor(tokens / one)) * config.rl.group;
  return 1.5 * tokens * 2 * s.layers * s.kvHeads * s.headDim * b + 3 * 4 * responses * rows;
}

/** Each change is tried on top of the previous ones; those that turn out unnecessary are removed. */
function changes(config: Config, shape: ModelShape, added: number, device: Device): string[] {
  const { runtime, model } = config;
  const steps: [string, (c: Config) => Config][] = [];
  const set = (path: string, change: (c: Config) => Config): void => void steps.push([path, change]);
  if (!model.gradientCheckpointing)
    set("model.gradientCheckpointing=true", (c) => ({ ...c, model: { ...c.model, gradientCheckpointing: true } }));
  const lower = (value: number): number => Math.max(1024, 2 ** Math.floor(Math.log2(value / 4)));
  for (const name of ["microBatchTokens", "sampleBatchTokens"] as const)
    if (lower(runtime[name]) < runtime[name])
      set(`runtime.${name}=${lower(runtime[name])}`, (c) => ({
        ...c,
        runtime: { ...c.runtime, [name]: lower(runtime[name]) },
      }));
  if (runtime.dtype === "float32" && device.kind === "cuda")
    set("runtime.dtype=bfloat16", (c) => ({ ...c, runtime: { ...c.runtime, dtype: "bfloat16" } }));
  if (config.rl.klCoef > 0) set("rl.klCoef=0", (c) => ({ ...c, rl: { ...c.rl, klCoef: 0 } }));
  if (model.source === "pretrained" && model.lora.rank === 0)
    set("model.lora.rank=16", (c) => ({ ...c, model: { ...c.model, lora: { ...c.model.lora, rank: 16 } } }));
  const fits = (some: typeof steps): boolean =>
    planned(
      some.reduce((c, [, change]) => change(c), config),
      shape,
      added,
      device,
    ).fits;
  const count = steps.findIndex((_, i) => fits(steps.slice(0, i + 1)));
  if (count < 0) return [];
  let needed = steps.slice(0, count + 1);
  for (const step of [...needed]) {
    const without = needed.filter((s) => s !== step);
    if (fits(without)) needed = without;
  }
  return needed.map(([path]) => path);
}
