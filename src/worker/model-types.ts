/** Requests and results about whole models: loading, saving, exporting. Conventions: see types.ts. */

/** Row-major float32 [rows, cols]. */
export interface Matrix {
  readonly rows: number;
  readonly cols: number;
  readonly data: Float32Array;
}

export type ModelSource =
  | {
      readonly kind: "scratch";
      /** A transformers config, e.g. {model_type: "qwen3", hidden_size: 128}; the worker sets vocab_size. */
      readonly architecture: Readonly<Record<string, unknown>>;
      readonly tokenizerJson: Uint8Array;
    }
  | { readonly kind: "pretrained"; readonly path: string; readonly ggufFile?: string };

/** Low-rank updates to frozen layers, and a trained row for every added token. */
export interface Lora {
  readonly rank: number;
  /** Updates are scaled by alpha / rank. */
  readonly alpha: number;
  readonly dropout: number;
  /** Last part of layer names, e.g. q_proj; each must match a layer. */
  readonly targets: readonly string[];
}

export interface LoadModelRequest {
  readonly modelId?: string;
  readonly source: ModelSource;
  readonly addedTokens?: readonly string[];
  /** Compute type, default float32. */
  readonly dtype?: "float32" | "bfloat16";
  readonly gradientCheckpointing?: boolean;
  readonly seed?: number;
  /** Default true. */
  readonly trainable?: boolean;
  readonly padVocabMultiple?: number;
  /** One row per token of addedTokens, any width: similar rows start as similar embeddings; zeros: no preference. */
  readonly addedTokenVectors?: Matrix;
  /** Pretrained sources only. Left out: all parameters are trained. */
  readonly lora?: Lora;
  /** Memory for the prefix cache, allocated at once; default 0 = none. Only with trainable = false. */
  readonly prefixCacheBytes?: number;
}

export interface LoadedModel {
  readonly modelId: string;
  readonly numParameters: number;
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly maxPositions: number;
  /** With added tokens: give it to Tokenizer.fromJson. */
  readonly tokenizerJson: Uint8Array;
  /** Ids of addedTokens, same order. */
  readonly addedTokenIds: readonly number[];
  /** -1 if none. */
  readonly eosTokenId: number;
  /** "" if none. */
  readonly chatTemplate: string;
  /** As spelled; "" if none. */
  readonly bosToken: string;
  /** Parameters that an optimizer step updates. */
  readonly numTrained: number;
}

export interface SavedState {
  readonly sha256: string;
  readonly bytes: number;
}

export interface LoadedState {
  readonly step: number;
  readonly weightVersion: number;
  readonly sha256: string;
  /** Identifies these weights in this worker's memory; changes with every loadModel, loadState and optimStep. */
  readonly weightsId: string;
  /** As given to saveState. */
  readonly metadata: Readonly<Record<string, string>>;
}

export interface SaveStateRequest {
  readonly modelId?: string;
  readonly path: string;
  readonly includeOptimizer?: boolean;
  /** Stored with the state: what the weights belong to. */
  readonly metadata?: Readonly<Record<string, string>>;
}

export interface LoadStateRequest {
  readonly modelId?: string;
  readonly path: string;
  readonly includeOptimizer?: boolean;
}

export interface ExportModelRequest {
  readonly modelId?: string;
  /** Folder; replaces an earlier export there. */
  readonly path: string;
  readonly dtype: "float32" | "bfloat16";
  /** Further files for the folder, by name; gr2_export.json is required. */
  readonly files: Readonly<Record<string, string>>;
}
