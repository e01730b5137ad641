/** The model of SASRec as the worker loads it: a small GPT-2 whose vocabulary is the catalogue. The stages train it. */
import type { Config } from "../config/schema.ts";
import { deriveSeed } from "../core/rng.ts";
import type { LoadModelRequest } from "../worker/types.ts";

/** @param fit name of the fit, for the seed of its first weights */
export function sasrecModel(
  { seed, runtime, prerank }: Config,
  numItems: number,
  fit: string,
): Omit<LoadModelRequest, "modelId"> {
  const o = prerank.sasrec;
  return {
    source: {
      kind: "scratch",
      architecture: {
        model_type: "gpt2",
        n_layer: o.layers,
        n_head: o.heads,
        n_embd: o.hiddenSize,
        n_inner: o.hiddenSize,
        n_positions: o.historyItems + 1,
        activation_function: "relu",
        embd_pdrop: o.dropout,
        resid_pdrop: o.dropout,
        attn_pdrop: o.dropout,
        tie_word_embeddings: true,
      },
      tokenizerJson: itemTokenizer(numItems),
    },
    dtype: runtime.dtype,
    seed: deriveSeed(seed, "sasrec", fit),
  };
}

/** A tokenizer whose token k is item row k. */
function itemTokenizer(numItems: number): Uint8Array {
  const vocab = Object.fromEntries(Array.from({ length: numItems }, (_, row) => [`item${row}`, row]));
  const model = { type: "WordLevel", vocab, unk_token: "item0" };
  const none = { normalizer: null, pre_tokenizer: null, post_processor: null, decoder: null };
  const json = { version: "1.0", truncation: null, padding: null, added_tokens: [], ...none, model };
  return new TextEncoder().encode(JSON.stringify(json));
}
