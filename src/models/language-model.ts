/**
 * Opens the run's language model in the worker: architecture or pretrained weights, tokenizer, semantic-ID tokens, and
 * the weights of the requested stage. One model stays loaded between stages; only its weights change.
 */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Corpus } from "../artifacts/corpus.ts";
import { readMatrix } from "../artifacts/files.ts";
import { codeVectorsFile } from "../artifacts/semantic-ids.ts";
import type { Config } from "../config/schema.ts";
import { CheckpointError, ConfigError } from "../core/errors.ts";
import { sha256 } from "../core/hash.ts";
import { deriveSeed } from "../core/rng.ts";
import { Policy } from "../policy/policy.ts";
import type { Prior } from "../policy/prior.ts";
import { chatFrame } from "../prompts/chat.ts";
import { buildCompressor } from "../prompts/compress.ts";
import { type ChatFrame, Encoder, markers } from "../prompts/pieces.ts";
import type { StageContext } from "../run/stage.ts";
import { codeTokens, sidTokens, spellCodes } from "../sid/semantic-id.ts";
import { Tokenizer } from "../worker/tokenizer.ts";
import type { LoadedModel, LoadedState, LoadModelRequest, Matrix, WorkerClient } from "../worker/types.ts";
import { checkMemory, checkStartingCodes, pretrainedSource } from "./base-model.ts";

/** All tokens GR2 adds to a vocabulary: markers, begin and end of an ID, every code. */
export const addedTokens = (config: Config): string[] => [
  ...Object.values(markers),
  ...sidTokens({ levels: config.sid.levels, codes: config.sid.codes, format: config.sid.format }),
];

/** Vectors of all added tokens: for codes the quantiser's, zeros for the others. */
function placement(context: StageContext): Matrix {
  const { config } = context;
  const vectors = readMatrix(codeVectorsFile(context.inputDir("sid")));
  const tokens = addedTokens(config);
  const rowByToken = new Map(codeTokens(config.sid.levels, config.sid.codes).map((token, row) => [token, row]));
  const data = new Float32Array(tokens.length * vectors.cols);
  tokens.forEach((token, t) => {
    const row = rowByToken.get(token);
    if (row !== undefined)
      data.set(vectors.data.subarray(row * vectors.cols, (row + 1) * vectors.cols), t * vectors.cols);
  });
  return { rows: tokens.length, cols: vectors.cols, data };
}

export interface LanguageModel {
  readonly tokenizer: Tokenizer;
  /** What its weights belong to; saved with every state. */
  readonly lineage: Lineage;
  readonly encoder: Encoder;
  readonly numParameters: number;
  /** @param compress how its prompts are shortened; default: the recipe's setting */
  policy(prior: Prior, compress?: Config["prompts"]["compress"]): Policy;
}

/** A code means nothing without the catalogue it was learned with, nor a token id without its tokenizer. */
export type Lineage = Readonly<Record<"catalogue" | "tokenizer", string>>;

/** Throws CheckpointError if the state at `path` was saved for another catalogue or tokenizer. */
export function checkLineage(path: string, state: Pick<LoadedState, "metadata">, expected: Partial<Lineage>): void {
  for (const [what, hash] of Object.entries(expected))
    if (state.metadata[what] !== hash)
      throw new CheckpointError(
        `${path}: these weights were trained with ${what} ${state.metadata[what] ?? "(not recorded)"}, this run has ${hash}`,
        {
          advice:
            "Rerun the stage that trains them, gr2 pipeline --from STAGE, or put back the semantic IDs they learned.",
        },
      );
}

/** What each worker has loaded, so stages do not load it again. */
const loaded = new WeakMap<WorkerClient, Map<string, { key: string; model: LoadedModel; weights: string }>>();

const countSlots = (worker: WorkerClient) => {
  const slots = loaded.get(worker) ?? new Map<string, { key: string; model: LoadedModel; weights: string }>();
  loaded.set(worker, slots);
  return slots;
};

/** Forgets what is loaded: call before training changes the weights. */
export function weightsChanged(worker: WorkerClient): void {
  const entry = countSlots(worker).get("policy");
  if (entry) entry.weights = "changed";
}

/** The model's chat template as a frame around question and answer; undefined if none is used. */
export function chooseChatFrame(config: Config, model: LoadedModel, tokenizer: Tokenizer): ChatFrame | undefined {
  const { chat, format } = config.prompts;
  if (chat === "off" || (chat === "auto" && (format !== "json" || model.chatTemplate === ""))) return undefined;
  if (model.chatTemplate === "")
    throw new ConfigError(
      `prompts.chat = on, but ${config.model.path || "a model from scratch"} has no chat template`,
      {
        advice: "Set prompts.chat=auto, or use an instruction-tuned checkpoint.",
      },
    );
  return chatFrame({
    template: model.chatTemplate,
    bosToken: model.bosToken,
    eosToken: tokenizer.idToken(model.eosTokenId) ?? "",
    specialTokens: [...tokenizer.special.values()],
  });
}

/**
 * The request that loads a model to which a state's weights fit: source, vocabulary, LoRA, compute type.
 * @param tokenizerJson for a model from scratch
 */
export async function modelRequest(
  config: Config,
  tokenizerJson: Uint8Array | undefined,
  log: (message: string) => void,
  signal: AbortSignal,
): Promise<LoadModelRequest> {
  const { architecture, padVocabMultiple, lora } = config.model;
  const { rank, alpha, dropout, targets } = lora;
  return {
    source: tokenizerJson
      ? { kind: "scratch", architecture, tokenizerJson }
      : await pretrainedSource(config.model, config, log, signal),
    addedTokens: addedTokens(config),
    dtype: config.runtime.dtype,
    seed: deriveSeed(config.seed, "model"),
    padVocabMultiple,
    ...(rank > 0 ? { lora: { rank, alpha, dropout, targets } } : {}),
  };
}

/**
 * @param weights folder of a saved state; undefined = fresh weights (mid-training starts here)
 * @param tokenizerFile written by mid-training for models from scratch
 * @param modelId reference = a frozen second copy, for RL's KL term
 */
export async function openLanguageModel(
  context: StageContext,
  corpus: Corpus,
  weights: string | undefined,
  tokenizerFile: string,
  modelId: "policy" | "reference" = "policy",
): Promise<LanguageModel> {
  const { config } = context;
  const worker = await context.worker();
  const scratch = config.model.source === "scratch";
  const tokenizerJson = scratch ? readFileSync(tokenizerFile) : undefined;
  const key = `${corpus.hash} ${tokenizerFile}`;
  let entry = countSlots(worker).get(modelId);
  if (!entry || entry.key !== key || (weights === undefined && entry.weights !== "fresh")) {
    const { signal } = context;
    const log = (message: string): void => context.log(message);
    if (modelId === "policy") checkMemory(config, addedTokens(config).length, await worker.getInfo({ signal }), log);
    checkStartingCodes(config, corpus.catalogue.hash());
    const model = await worker.loadModel(
      {
        modelId,
        ...(await modelRequest(config, tokenizerJson, log, signal)),
        gradientCheckpointing: config.model.gradientCheckpointing,
        trainable: modelId === "policy",
        ...(config.model.placeCodes && weights === undefined ? { addedTokenVectors: placement(context) } : {}),
      },
      { signal },
    );
    entry = { key, model, weights: "fresh" };
    countSlots(worker).set(modelId, entry);
  }
  const lineage = { catalogue: corpus.catalogue.hash(), tokenizer: sha256(entry.model.tokenizerJson) };
  if (weights !== undefined && entry.weights !== weights) {
    if (config.runtime.mode === "embedded" && !existsSync(join(weights)))
      throw new CheckpointError(`${weights}: saved weights are missing`, {
        advice: "Rerun the stage that trains them.",
      });
    entry.weights = "unknown"; // until checked below
    const state = await worker.loadState(
      { modelId, path: weights, includeOptimizer: false },
      { signal: context.signal },
    );
    checkLineage(weights, state, lineage);
    entry.weights = weights;
  }
  const tokenizer = Tokenizer.fromJson(entry.model.tokenizerJson);
  const chat = chooseChatFrame(config, entry.model, tokenizer);
  const encoder = new Encoder(
    { encode: (s) => tokenizer.encode(s), tokenId: (t) => tokenizer.requireTokenId(t) },
    { tokensAt: (row) => spellCodes(corpus.catalogue.codesAt(row), corpus.catalogue.shape.format) },
    { special: tokenizer.special, chat },
  );
  return {
    tokenizer,
    lineage,
    encoder,
    numParameters: entry.model.numParameters,
    policy: (prior, compress = config.prompts.compress) =>
      new Policy({
        compressor: buildCompressor({ ...config.prompts, compress }, encoder),
        worker,
        encoder,
        decoder: { decode: (ids) => tokenizer.decode(ids) },
        spell: (row) => corpus.catalogue.textAt(row),
        getTitle: (row) => corpus.items[row]?.title ?? "",
        prior,
        options: {
          prompts: config.prompts,
          decoding: config.decoding,
          microBatchTokens: config.runtime.microBatchTokens,
          sampleBatchTokens: config.runtime.sampleBatchTokens,
        },
      }),
  };
}
