/** The models that bench/rl measures on, and how many floating-point operations their work takes. */

export const models = {
  /** From scratch, small enough for two cores to train in minutes. */
  small: architecture("qwen3", 4096, 256, 768, 6, 4, 2, 64),
  /** SmolLM2-135M. */
  "135m": architecture("llama", 49_152, 576, 1536, 30, 9, 3, 64),
  /** Qwen3-1.7B. */
  "qwen3-1.7b": architecture("qwen3", 151_936, 2048, 6144, 28, 16, 8, 128),
} as const;

export type ModelName = keyof typeof models;
export type Architecture = (typeof models)[ModelName];

export interface Shape {
  readonly prompts: number;
  readonly group: number;
  readonly promptTokens: number;
  readonly responseTokens: number;
  /** Rows the peer computes at once. */
  readonly rowsAtOnce: number;
}

function architecture(
  model_type: string,
  vocab_size: number,
  hidden_size: number,
  intermediate_size: number,
  num_hidden_layers: number,
  num_attention_heads: number,
  num_key_value_heads: number,
  head_dim: number,
) {
  return {
    model_type,
    vocab_size,
    hidden_size,
    intermediate_size,
    num_hidden_layers,
    num_attention_heads,
    num_key_value_heads,
    head_dim,
    max_position_embeddings: 4096,
    tie_word_embeddings: true,
  };
}

/**
 * Operations of a forward pass over prompts (once each) and their responses, a multiplication and an addition counting
 * one each: 2 per weight of a product and token, 2 products of queries with the keys they see, logits of response
 * tokens only.
 */
export function forwardFlops(model: Architecture, shape: Shape): number {
  const { hidden_size: c, num_hidden_layers: layers, head_dim: d, num_attention_heads: heads } = model;
  const weights = layers * (c * d * (2 * heads + 2 * model.num_key_value_heads) + 3 * c * model.intermediate_size);
  const { promptTokens: p, responseTokens: r, group } = shape;
  const tokens = p + group * r;
  const seen = (p * (p + 1)) / 2 + group * (r * p + (r * (r + 1)) / 2);
  const logits = 2 * c * model.vocab_size * group * r;
  return shape.prompts * (2 * weights * tokens + 4 * layers * heads * d * seen + logits);
}
