/**
 * The dimensions of a causal language model and what follows from them: parameters by part. From a transformers config
 * (config.json, or the architecture of a recipe), or for well-known hub ids from the table below. Pure.
 */
import { ConfigError } from "../core/errors.ts";

/** Model types the worker supports (FAMILIES in python_worker/gr2_worker/model/lm.py). */
export const families = [
  ...["qwen3", "qwen2", "llama", "smollm3", "mistral", "gemma", "gemma2", "gemma3_text", "gpt2"],
] as const;

export interface ModelShape {
  readonly family: string;
  readonly layers: number;
  readonly hiddenSize: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly intermediateSize: number;
  /** Rows of the embedding before anything is added. */
  readonly vocabSize: number;
  /** Embedding and output layer are one. */
  readonly tied: boolean;
}

/** The shape a transformers config describes. Throws ConfigError, naming `origin` and the missing key. */
export function readShape(json: Readonly<Record<string, unknown>>, origin: string): ModelShape {
  const number = (key: string, fallback?: number): number => {
    const value = json[key] ?? fallback;
    if (typeof value === "number" && Number.isInteger(value) && value > 0) return value;
    throw new ConfigError(`${origin}: ${key} = ${JSON.stringify(json[key])}, expected a whole number above 0`);
  };
  const family = String(json.model_type);
  const [hiddenSize, heads] = [number("hidden_size"), number("num_attention_heads")];
  return {
    family,
    layers: number("num_hidden_layers"),
    hiddenSize,
    heads,
    kvHeads: number("num_key_value_heads", heads),
    headDim: number("head_dim", hiddenSize / heads),
    intermediateSize: number("intermediate_size"),
    vocabSize: number("vocab_size"),
    // transformers' own default if the config does not say
    tied: typeof json.tie_word_embeddings === "boolean" ? json.tie_word_embeddings : family.startsWith("gemma"),
  };
}

type Row = readonly [family: string, ...dimensions: number[]];

/** family, layers, hidden, heads, key-value heads, head size, intermediate, vocabulary, tied. */
const table: Readonly<Record<string, Row>> = {
  "Qwen/Qwen3-0.6B": ["qwen3", 28, 1024, 16, 8, 128, 3072, 151936, 1],
  "Qwen/Qwen3-1.7B": ["qwen3", 28, 2048, 16, 8, 128, 6144, 151936, 1],
  "Qwen/Qwen3-4B": ["qwen3", 36, 2560, 32, 8, 128, 9728, 151936, 1],
  "Qwen/Qwen3-8B": ["qwen3", 36, 4096, 32, 8, 128, 12288, 151936, 0],
  "Qwen/Qwen3-14B": ["qwen3", 40, 5120, 40, 8, 128, 17408, 151936, 0],
  "Qwen/Qwen3-32B": ["qwen3", 64, 5120, 64, 8, 128, 25600, 151936, 0],
  "Qwen/Qwen2.5-0.5B": ["qwen2", 24, 896, 14, 2, 64, 4864, 151936, 1],
  "Qwen/Qwen2.5-1.5B": ["qwen2", 28, 1536, 12, 2, 128, 8960, 151936, 1],
  "Qwen/Qwen2.5-3B": ["qwen2", 36, 2048, 16, 2, 128, 11008, 151936, 1],
  "Qwen/Qwen2.5-7B": ["qwen2", 28, 3584, 28, 4, 128, 18944, 152064, 0],
  "meta-llama/Llama-3.2-1B": ["llama", 16, 2048, 32, 8, 64, 8192, 128256, 1],
  "meta-llama/Llama-3.2-3B": ["llama", 28, 3072, 24, 8, 128, 8192, 128256, 1],
  "meta-llama/Llama-3.1-8B": ["llama", 32, 4096, 32, 8, 128, 14336, 128256, 0],
  "HuggingFaceTB/SmolLM2-135M": ["llama", 30, 576, 9, 3, 64, 1536, 49152, 1],
  "HuggingFaceTB/SmolLM2-360M": ["llama", 32, 960, 15, 5, 64, 2560, 49152, 1],
  "HuggingFaceTB/SmolLM2-1.7B": ["llama", 24, 2048, 32, 32, 64, 8192, 49152, 1],
  "google/gemma-2-2b": ["gemma2", 26, 2304, 8, 4, 256, 9216, 256000, 1],
  "google/gemma-2-9b": ["gemma2", 42, 3584, 16, 8, 256, 14336, 256000, 1],
  "google/gemma-3-270m": ["gemma3_text", 18, 640, 4, 1, 256, 2048, 262144, 1],
  "google/gemma-3-1b": ["gemma3_text", 26, 1152, 4, 1, 256, 6912, 262144, 1],
};

/** Hub ids with a known shape. */
export const knownModels: readonly string[] = Object.keys(table);

/** By hub id, or by the last part of a path; suffixes such as -Instruct or -Base are ignored. */
export function knownShape(path: string): ModelShape | undefined {
  const matches = (id: string): boolean =>
    [id, id.slice(id.indexOf("/") + 1)].some((name) => {
      const at = path.toLowerCase().lastIndexOf(name.toLowerCase());
      const end = path.charAt(at + name.length);
      return at >= 0 && (at === 0 || path.charAt(at - 1) === "/") && (end === "" || end === "-");
    });
  const id = knownModels.find(matches);
  if (id === undefined) return undefined;
  const [family, layers, hiddenSize, heads, kvHeads, headDim, intermediateSize, vocabSize, tied] = table[id] as [
    ...[string, number, number, number, number, number, number, number, number],
  ];
  const shape = { family, layers, hiddenSize, heads, kvHeads, headDim, intermediateSize, vocabSize };
  return { ...shape, tied: tied === 1 };
}

/** Inputs and outputs of the linear layers of a block, by name. */
export function linearLayers(s: ModelShape): Readonly<Record<string, readonly [inputs: number, outputs: number]>> {
  const [q, kv] = [s.heads * s.headDim, s.kvHeads * s.headDim];
  return {
    q_proj: [s.hiddenSize, q],
    k_proj: [s.hiddenSize, kv],
    v_proj: [s.hiddenSize, kv],
    o_proj: [q, s.hiddenSize],
    gate_proj: [s.hiddenSize, s.intermediateSize],
    up_proj: [s.hiddenSize, s.intermediateSize],
    down_proj: [s.intermediateSize, s.hiddenSize],
  };
}

/** Whether queries and keys are normalised. */
export const hasQkNorm = (s: ModelShape): boolean => s.family === "qwen3" || s.family === "gemma3_text";

/** Parameters, given the number of rows in embedding and output layer. */
export function countParameters(
  s: ModelShape,
  rows = s.vocabSize,
): { readonly tables: number; readonly blocks: number } {
  const linear = Object.values(linearLayers(s)).reduce((n, [inputs, outputs]) => n + inputs * outputs, 0);
  const bias = s.family === "qwen2" ? (s.heads + 2 * s.kvHeads) * s.headDim : 0;
  const norms = (/^gemma[23]/.test(s.family) ? 4 : 2) * s.hiddenSize + (hasQkNorm(s) ? 2 * s.headDim : 0);
  return {
    tables: rows * s.hiddenSize * (s.tied ? 1 : 2),
    blocks: s.layers * (linear + bias + norms) + s.hiddenSize,
  };
}

/** What LoRA trains: updates of the named layers, and a row per added token in every table. */
export function loraParameters(s: ModelShape, rank: number, targets: readonly string[], added: number): number {
  const layers = linearLayers(s);
  const perBlock = targets.reduce((n, name) => {
    const [inputs, outputs] = layers[name] ?? [0, 0];
    return n + rank * (inputs + outputs);
  }, 0);
  return s.layers * perBlock + added * s.hiddenSize * (s.tied ? 1 : 2);
}
