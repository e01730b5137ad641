/** Settings of the language model, its machine, its prompts and how it answers. */
import { z } from "zod";
import { count, countOrZero, positive } from "./numbers.ts";

export const runtime = z
  .strictObject({
    mode: z
      .enum(["embedded", "remote"])
      .default("embedded")
      .describe("embedded: boot a worker through pythonia and take it down at exit; remote: connect to `address`."),
    address: z.string().default("").describe("host:port or unix:/path of a running worker (mode: remote)."),
    tokenFile: z
      .string()
      .default("")
      .describe(
        "File with the secret that remote workers were started with (--token-file); empty = they ask for none.",
      ),
    python: z.string().default(".venv/bin/python").describe("Python that has the worker's packages (mode: embedded)."),
    threads: countOrZero
      .default(0)
      .describe("CPU threads of the worker; 0 = one per core. Results are bit-identical only for equal values."),
    device: z
      .enum(["auto", "cpu", "cuda"])
      .default("auto")
      .describe("Where tensors live; auto = cuda when there is one."),
    dtype: z
      .enum(["float32", "bfloat16"])
      .default("float32")
      .describe("Compute type of the language model; trained parameters keep float32 masters."),
    microBatchTokens: count
      .default(8192)
      .describe("Most tokens computed at once in training and scoring. Lower it when memory runs out."),
    sampleBatchTokens: count.default(65536).describe("Most tokens of KV cache held at once while sampling."),
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
        "Local folder or hub id of a causal LM of the Qwen3, Qwen2.5, Llama, SmolLM, Mistral or Gemma family (source: pretrained); smollm2-135m-instruct = that model from a package registry.",
      ),
    ggufFile: z.string().default("").describe("File in `path`, if the weights are GGUF."),
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
        "A transformers config (source: scratch). The default is small on purpose: about a million parameters, two CPU cores.",
      ),
    placeCodes: z
      .boolean()
      .default(true)
      .describe(
        "Start the embeddings of semantic-ID codes where the quantiser puts them, so that similar items start out similar.",
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
          .describe("r; 0 = off, all parameters are trained. Every semantic-ID token's row is trained either way."),
        alpha: positive.default(32).describe("Updates are scaled by alpha / rank."),
        dropout: z.number().min(0).lt(1).default(0.05).describe("On what the update reads; never in RL's update."),
        targets: z
          .array(z.string().min(1))
          .min(1)
          .default(["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"])
          .describe("Linear layers that get an update, by the last part of their name."),
      })
      .prefault({})
      .describe("Low-rank adaptation (2106.09685) of a pretrained model."),
    gradientCheckpointing: z
      .boolean()
      .default(false)
      .describe("Recompute activations in the backward pass: less memory, about a third more time."),
    padVocabMultiple: countOrZero.default(0).describe("Pad the vocabulary to a multiple of this; 0 = off."),
  })
  .prefault({});

/** How far a prompt is shortened. */
export const compress = z
  .strictObject({
    historyTokens: countOrZero
      .default(0)
      .describe(
        "Budget of the listed history: half for the latest items, half for those that share most title words with the candidates; 0 = no bound.",
      ),
    titleWords: countOrZero.default(0).describe("Words of a title that are kept; 0 = all."),
  })
  .prefault({});

export const prompts = z
  .strictObject({
    format: z
      .enum(["compact", "json"])
      .default("compact")
      .describe("compact: marker tokens, for small models; json: instructions in words and a JSON answer (GR2 v1)."),
    chat: z
      .enum(["auto", "on", "off"])
      .default("auto")
      .describe("Ask inside the model's chat template; auto = in the json format, if the checkpoint brings one."),
    historyItems: count.default(20).describe("Latest items of the history shown."),
    candidates: countOrZero
      .refine((n) => n !== 1, { error: "one candidate leaves nothing to order" })
      .default(0)
      .describe(
        "Candidates that the language model is asked about, whose cost is linear in them: the first so many by the evidence. The others follow in that order. 0 = all.",
      ),
    showCandidates: z.boolean().default(true).describe("Write the candidates, in pre-rank order, into the prompt."),
    showTitles: z.boolean().default(false).describe("Write titles next to semantic IDs."),
    maxTitleTokens: countOrZero.default(64).describe("Longer titles are cut there; 0 = never."),
    compress: compress.describe("Context compression of re-ranking prompts (TR), deterministic."),
    knowledgePriming: z.boolean().default(true).describe("json format: open with shopping heuristics (GR2 v1: KP)."),
  })
  .prefault({});

export const decoding = z
  .strictObject({
    constrained: z
      .boolean()
      .default(true)
      .describe("Restrict the ranking part to permutations of the slate: an invalid answer becomes impossible."),
    choice: z
      .enum(["item", "token"])
      .default("item")
      .describe(
        "item: choose among whole semantic IDs, one forward pass decides the order (Plackett-Luce); token: renormalise token by token along the trie of the slate.",
      ),
    prior: z
      .boolean()
      .default(true)
      .describe("Use the calibrated pre-rank prior as a logit prior in the constrained part; false = uniform."),
    evidence: z
      .boolean()
      .default(false)
      .describe(
        "Let the prior also weigh the statistical teacher's score (co-occurrence, transitions, categories, popularity); the `prior` row of the results shows what that alone is worth.",
      ),
    maxReasoningTokens: count.default(96).describe("Cut-off of visible reasoning."),
  })
  .prefault({});
