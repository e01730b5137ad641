/** Settings of the language model, its runtime, its prompts and decoding. */
import { z } from "zod";
import { count, countOrZero, positive } from "./numbers.ts";

export const runtime = z
  .strictObject({
    mode: z
      .enum(["embedded", "remote"])
      .default("embedded")
      .describe("embedded: start a worker through pythonia and stop it at exit; remote: connect to `address`."),
    address: z.string().default("").describe("host:port or unix:/path of a running worker (mode: remote)."),
    tokenFile: z
      .string()
      .default("")
      .describe("File with the token that remote workers were started with (--token-file); empty = they require none."),
    python: z
      .string()
      .default(".venv/bin/python")
      .describe("Python interpreter with the worker's packages (mode: embedded)."),
    threads: countOrZero
      .default(0)
      .describe(
        "CPU threads of the worker; 0 = one per core. Results are bit-identical only with the same number of threads.",
      ),
    device: z.enum(["auto", "cpu", "cuda"]).default("auto").describe("Device for tensors; auto = cuda if available."),
    dtype: z
      .enum(["float32", "bfloat16"])
      .default("float32")
      .describe("Compute type of the language model; trained parameters keep float32 masters."),
    microBatchTokens: count
      .default(8192)
      .describe("Maximum tokens computed at once in training and scoring. Lower it if memory runs out."),
    sampleBatchTokens: count.default(65536).describe("Maximum tokens held in the KV cache while sampling."),
  })
  .prefault({});

export const model = z
  .strictObject({
    source: z
      .enum(["scratch", "pretrained"])
      .default("scratch")
      .describe("scratch: `architecture` with its own tokenizer; pretrained: `path`."),
    path: z
      .string()
      .default("")
      .describe(
        "Local folder or hub id of a causal LM of the Qwen3, Qwen2.5, Llama, SmolLM, Mistral or Gemma family " +
          "(source: pretrained); smollm2-135m-instruct = that model from a package registry.",
      ),
    ggufFile: z.string().default("").describe("File within `path`, if the weights are GGUF."),
    architecture: z
      .record(z.string(), z.unknown())
      .default({
        model_type: "qwen3",
        hidden_size: 128,
        intermediate_size: 384,
        num_hidden_layers: 4,
        num_attention_heads: 4,
        num_key_value_heads: 4,
        head_dim: 32,
        max_position_embeddings: 1024,
        tie_word_embeddings: true,
        embedding_dropout: 0.2,
      })
      .describe(
        "A transformers config (source: scratch). " +
          "The default is deliberately small: about a million parameters, for two CPU cores.",
      ),
    placeCodes: z
      .boolean()
      .default(true)
      .describe(
        "Initialise the embeddings of semantic-ID codes from the quantiser's codebooks: " +
          "similar items start out similar.",
      ),
    bpeVocab: z
      .int()
      .min(256)
      .default(2000)
      .describe("Size of the byte-level BPE trained on the item texts (source: scratch)."),
    lora: z
      .strictObject({
        rank: countOrZero
          .default(0)
          .describe(
            "r; 0 = off, all parameters are trained. The embedding rows of semantic-ID tokens are trained either way.",
          ),
        alpha: positive.default(32).describe("Updates are scaled by alpha / rank."),
        dropout: z.number().min(0).lt(1).default(0.05).describe("Dropout on the input of the update; never during RL."),
        targets: z
          .array(z.string().min(1))
          .min(1)
          .default(["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"])
          .describe("Linear layers to adapt, by the last part of their name."),
      })
      .prefault({})
      .describe("Low-rank adaptation (2106.09685) of a pretrained model."),
    gradientCheckpointing: z
      .boolean()
      .default(false)
      .describe("Recompute activations in the backward pass: less memory, about one third more time."),
    padVocabMultiple: countOrZero.default(0).describe("Pad the vocabulary to a multiple of this; 0 = off."),
  })
  .prefault({});

/** How prompts are shortened. */
export const compress = z
  .strictObject({
    historyTokens: countOrZero
      .default(0)
      .describe(
        "Token budget of the history: half for the latest items, " +
          "half for those that share the most title words with the candidates; 0 = no limit.",
      ),
    titleWords: countOrZero.default(0).describe("Words kept of each title; 0 = all."),
  })
  .prefault({});

export const prompts = z
  .strictObject({
    format: z
      .enum(["compact", "json"])
      .default("compact")
      .describe("compact: marker tokens, for small models; json: written instructions and a JSON answer (GR2 v1)."),
    chat: z
      .enum(["auto", "on", "off"])
      .default("auto")
      .describe("Use the model's chat template; auto = in the json format, if the checkpoint has one."),
    historyItems: count.default(20).describe("Number of latest history items shown."),
    candidates: countOrZero
      .refine((n) => n !== 1, { error: "one candidate leaves nothing to order" })
      .default(0)
      .describe(
        "How many candidates the language model ranks (its cost is linear in them): the top ones by the evidence. " +
          "The rest follow in that order. 0 = all.",
      ),
    showCandidates: z.boolean().default(true).describe("List the candidates in the prompt, in pre-rank order."),
    showTitles: z.boolean().default(false).describe("Show titles next to semantic IDs."),
    maxTitleTokens: countOrZero.default(64).describe("Truncate titles to this many tokens; 0 = never."),
    compress: compress.describe("Deterministic context compression of re-ranking prompts (TR)."),
    knowledgePriming: z
      .boolean()
      .default(true)
      .describe("json format: begin the prompt with shopping heuristics (GR2 v1: KP)."),
  })
  .prefault({});

export const decoding = z
  .strictObject({
    constrained: z
      .boolean()
      .default(true)
      .describe("Restrict the ranking part to permutations of the slate, which makes invalid answers impossible."),
    choice: z
      .enum(["item", "token"])
      .default("item")
      .describe(
        "item: choose among whole semantic IDs; one forward pass decides the order (Plackett-Luce); " +
          "token: renormalise at every token along the slate's trie.",
      ),
    prior: z
      .boolean()
      .default(true)
      .describe("Add the calibrated pre-rank prior to the logits of the constrained part; false = uniform prior."),
    evidence: z
      .boolean()
      .default(false)
      .describe(
        "Let the prior also use the statistical teacher's score (co-occurrence, transitions, categories, " +
          "popularity); " +
          "the `prior` row of the results shows its effect alone.",
      ),
    maxReasoningTokens: count.default(96).describe("Maximum tokens of visible reasoning."),
  })
  .prefault({});
