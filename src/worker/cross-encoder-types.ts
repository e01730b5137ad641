/** What the worker is asked about a cross-encoder, and what it answers. */

export interface CrossEncoderConfig {
  /** Passes over the groups to learn. */
  readonly epochs: number;
  /** Peak; linear decay to zero. */
  readonly learningRate: number;
  /** Groups per optimizer step. */
  readonly batchGroups: number;
  /** For query and candidate together. */
  readonly maxTokens: number;
  readonly seed: number;
}

/** A query with its candidates. */
export interface TextGroup {
  readonly query: string;
  readonly candidates: readonly string[];
  /** Index of the true candidate; undefined: score it, do not learn from it. */
  readonly target?: number | undefined;
}

export interface FitCrossEncoderRequest {
  /** Folder of an encoder and its tokenizer. */
  readonly modelPath: string;
  readonly groups: readonly TextGroup[];
  readonly config: CrossEncoderConfig;
}
