/** The requests and answers about whole models: loading, saving, exporting. Part of types.ts, which says what holds for all. */

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

/** Low-rank updates of frozen layers, and a trained row for every added token. */
export interface Lora {
  readonly rank: number;
  /** Updates are scaled by alpha / rank. */
  readonly alpha: number;
  readonly dropout: number;
  /** Last part of the layers' names, e.g. q_proj; each must match. */
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
  /** One row a token of addedTokens, any width: similar rows start out as similar embeddings; zeros = nowhere. */
  readonly addedTokenVectors?: Matrix;
  /** Pretrained sources only. Left out: all parameters are trained. */
  readonly lora?: Lora;
  /** Memory for what prompts begin with, taken at once; default 0 = none. Only with trainable = false. */
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
  /** Parameters that an optimizer step moves. */
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
  /** Names these weights in this worker's memory; changes with every loadModel, loadState and optimStep. */
  readonly weightsId: string;
  /** As given to saveState. */
  readonly metadata: Readonly<Record<string, string>>;
}

export interface SaveStateRequest {
  readonly modelId?: string;
  readonly path: string;
  readonly includeOptimizer?: boolean;
  /** Kept with the state: what the weights belong to. */
  readonly metadata?: Readonly<Record<string, string>>;
}

export interface LoadStateRequest {
  readonly modelId?: string;
  readonly path: string;
  readonly includeOptimizer?: boolean;
}

export interface ExportModelRequest {
  readonly modelId?: string;
  /** Folder; an earlier export there is replaced. */
  readonly path: string;
  readonly dtype: "float32" | "bfloat16";
  /** Further files of the folder by name; gr2_export.json is required. */
  readonly files: Readonly<Record<string, string>>;
}
