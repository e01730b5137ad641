/**
 * What the orchestrator asks of a worker, in plain TypeScript: typed arrays and plain objects, never protobuf.
 * The contract behind it is proto/gr2/v1/worker.proto; field meanings, shapes and units are documented there and
 * restated here only where a caller needs them.
 *
 * "Per target" arrays are flat over response tokens: group by group, response by response, token by token.
 * `modelId` names a loaded model; left out it means "policy".
 */

import type { FitCrossEncoderRequest } from "./cross-encoder-types.ts";
import type * as pb from "./generated/gr2/v1/worker.ts";
import type {
  ExportModelRequest,
  LoadedModel,
  LoadedState,
  LoadModelRequest,
  LoadStateRequest,
  Matrix,
  SavedState,
  SaveStateRequest,
} from "./model-types.ts";
import type { FitTreesRequest, FittedTrees } from "./tree-types.ts";

export type * from "./cross-encoder-types.ts";
export type * from "./model-types.ts";
export type * from "./tree-types.ts";

export type TokenIds = readonly number[] | Int32Array;

/** One prompt and its responses, each at least one token long. */
export interface Group {
  readonly prompt: TokenIds;
  readonly responses: readonly TokenIds[];
}

/** Sequences that share prompts; a group's prompt is sent and computed once. */
export interface GroupBatch {
  readonly groups: readonly Group[];
}

/** The sequences that one group (when sampling: one prompt) must permute. No sequences: unconstrained. */
export interface ConstraintGroup {
  /** Token sequences, none a prefix of another. */
  readonly sequences: readonly TokenIds[];
  /** Log-prior of each sequence coming next; left out: all 0. */
  readonly prior?: readonly number[] | Float32Array;
}

/** See PermutationConstraint in worker.proto for the distribution. One entry of `groups` per group or prompt. */
export interface PermutationConstraint {
  readonly groups: readonly ConstraintGroup[];
  /** gamma > 0; left out: 1. */
  readonly scale?: number;
  /** Tokens that switch the constraint on; empty: on from the first response token. */
  readonly trigger?: TokenIds;
  readonly separator?: TokenIds;
  readonly terminator?: TokenIds;
  /** Sequences to emit before the terminator; 0 = all. */
  readonly maxSequences?: number;
  /** Choose among whole sequences in one forward pass instead of token by token. */
  readonly wholeSequences?: boolean;
  /** Most tokens before the trigger, which is then forced; 0 = no bound. */
  readonly maxFreeTokens?: number;
}

/** Row-major int32 [rows, cols]. */
export interface IntMatrix {
  readonly rows: number;
  readonly cols: number;
  readonly data: Int32Array;
}

export interface WorkerInfo {
  readonly workerVersion: string;
  readonly pythonVersion: string;
  readonly torchVersion: string;
  readonly transformersVersion: string;
  /** "cpu" or "cuda:0 NVIDIA H200". */
  readonly device: string;
  readonly numThreads: number;
  readonly memoryTotalBytes: number;
  /** Peak resident (CPU) or peak allocated (CUDA) of the worker. */
  readonly memoryUsedBytes: number;
  readonly modelIds: readonly string[];
  /** Seconds spent inside verbs since the worker started. */
  readonly busySeconds: number;
}

export interface TrainTokenizerRequest {
  readonly texts: readonly string[];
  /** Byte-level BPE size before special tokens; at least 256. */
  readonly vocabSize: number;
  readonly specialTokens: readonly string[];
}

export interface TrainedTokenizer {
  readonly tokenizerJson: Uint8Array;
  /** With special tokens. */
  readonly vocabSize: number;
}

export interface ForwardRequest {
  readonly modelId?: string;
  readonly batch: GroupBatch;
  readonly constraint?: PermutationConstraint;
  /** Left out: 1, the model as it is. */
  readonly temperature?: number;
  readonly wantEntropy?: boolean;
  /** Most tokens in one forward pass; left out: no bound. */
  readonly microBatchTokens?: number;
  /** Alternatives to return per target; 0 or left out: none. */
  readonly topK?: number;
}

/** The likeliest options at every target, [targets, k], likeliest first; see ForwardResponse in worker.proto. */
export interface TopTokens {
  /** Tokens, or indices of whole sequences where one is chosen; -1 where there are fewer options. */
  readonly ids: IntMatrix;
  /** -Infinity where the id is -1. */
  readonly logprobs: Matrix;
}

export interface ForwardResult {
  /** Per target. */
  readonly logprobs: Float32Array;
  /** Per target; empty unless asked for. */
  readonly entropy: Float32Array;
  /** Prompt tokens taken from the model's prefix cache instead of computed. */
  readonly reusedPromptTokens: number;
  /** The weights that computed this, as in LoadedState. */
  readonly weightsId: string;
  /** Only if topK > 0. */
  readonly top?: TopTokens;
}

export type Loss =
  | {
      readonly kind: "cross_entropy";
      /**
       * Normalise over the micro-batch's own targets and this many drawn tokens that stand for the rest; 0 = the whole
       * vocabulary.
       */
      readonly negatives?: number;
    }
  | {
      readonly kind: "policy";
      /** All per target. */
      readonly advantages: Float32Array;
      readonly oldLogprobs: Float32Array;
      /** Needed if klCoef > 0. */
      readonly referenceLogprobs?: Float32Array;
      readonly clipLow: number;
      readonly clipHigh: number;
      readonly klCoef?: number;
    }
  /** Forward KL to a teacher, over its likeliest alternatives and the rest; one row per target. */
  | { readonly kind: "distill"; readonly teacher: TopTokens };

export interface ForwardBackwardRequest {
  readonly modelId?: string;
  readonly batch: GroupBatch;
  readonly constraint?: PermutationConstraint;
  /** Per target; 0 = not trained on. Losses are sums, so include any normalisation here. */
  readonly weights: Float32Array;
  readonly loss: Loss;
  /** As in ForwardRequest. */
  readonly temperature?: number;
  /** As in ForwardRequest. */
  readonly microBatchTokens?: number;
  readonly seed?: number;
  readonly wantLogprobs?: boolean;
}

export interface ForwardBackwardResult {
  readonly loss: number;
  readonly metrics: Readonly<Record<string, number>>;
  /** Per target; empty unless asked for. */
  readonly logprobs: Float32Array;
  readonly computeSeconds: number;
}

export interface OptimStepRequest {
  readonly modelId?: string;
  readonly learningRate: number;
  readonly beta1: number;
  readonly beta2: number;
  readonly eps: number;
  readonly weightDecay?: number;
  /** 0 or left out: no clipping. */
  readonly maxGradNorm?: number;
}

export interface OptimStepResult {
  /** Before clipping. */
  readonly gradNorm: number;
  readonly step: number;
  readonly weightVersion: number;
}

export interface SampleRequest {
  readonly modelId?: string;
  readonly prompts: readonly TokenIds[];
  /** Responses per prompt, default 1. */
  readonly numSamples?: number;
  readonly maxNewTokens: number;
  /** 0 = greedy. Required: a default would hide the choice. */
  readonly temperature: number;
  /** Left out: 1, the whole distribution. */
  readonly topP?: number;
  readonly seed: number;
  readonly stopTokens?: TokenIds;
  /** A response ends with the token that completes one of these strings; none may be empty. */
  readonly stopStrings?: readonly string[];
  /** One entry of `groups` per prompt. */
  readonly constraint?: PermutationConstraint;
  /** Most tokens of KV cache held at once; left out: no bound. */
  readonly maxBatchTokens?: number;
  /** Also send tokens as they are drawn; where whole sequences are chosen, only the tokens before them. */
  readonly streamTokens?: boolean;
}

/** One token of an unfinished response; its completion repeats it. */
export interface DrawnToken {
  readonly prompt: number;
  readonly sample: number;
  /** Position in the response. A stream that broke and was repeated sends the same tokens again. */
  readonly index: number;
  readonly token: number;
}

export interface Completion {
  /** Index into `prompts`. */
  readonly prompt: number;
  /** 0 .. numSamples-1. */
  readonly sample: number;
  readonly tokens: Int32Array;
  /** Under the distribution sampled from. */
  readonly logprobs: Float32Array;
  readonly finishReason: "stop" | "length";
}

export interface SampleEvent {
  readonly completions: readonly Completion[];
  /** Only if streamTokens. */
  readonly tokens?: readonly DrawnToken[];
  readonly weightVersion: number;
  /** Of the weights that computed this, as in LoadedState. */
  readonly weightsId: string;
  readonly done: number;
  readonly total: number;
  /** As in ForwardResult, so far; present whenever there are completions. */
  readonly reusedPromptTokens: number;
}

/** See TokenTrie in worker.proto; sid/trie.ts builds it from the token ids that spell each item. */
export interface TokenTrie {
  readonly edgeStarts: Int32Array;
  readonly edgeTokens: Int32Array;
  readonly rowStarts: Int32Array;
  readonly rowEnds: Int32Array;
  readonly rows: Int32Array;
}

export interface BeamSearchRequest {
  readonly modelId?: string;
  readonly prompts: readonly TokenIds[];
  /** Of the catalogue; no two items may share a spelling. */
  readonly trie: TokenTrie;
  readonly beamWidth: number;
  /** Per prompt: catalogue rows that must not be returned. */
  readonly excluded?: readonly TokenIds[];
}

export interface BeamSearchResult {
  /** [prompts, beamWidth] catalogue rows, best first; -1 where a prompt has fewer left. */
  readonly rows: IntMatrix;
  readonly logprobs: Matrix;
}

export interface EmbedRequest {
  readonly modelPath: string;
  readonly texts: readonly string[];
  /** Texts per forward pass. */
  readonly batchSize: number;
  readonly normalize?: boolean;
}

/** A sparse square matrix by its entries; repeated entries are summed. */
export interface FactorizeRequest {
  readonly size: number;
  readonly rows: Int32Array;
  readonly cols: Int32Array;
  readonly values: Float32Array;
  /** Singular vectors kept. */
  readonly dims: number;
  readonly seed: number;
}

/** The message's fields; defaults are in the settings `sid`. */
export type QuantizerConfig = Readonly<Omit<pb.QuantizerConfig, "method" | "hiddenDims">> & {
  readonly method: "rqvae" | "rqkmeans";
  readonly hiddenDims: readonly number[];
};

export interface FitSemanticIdsRequest {
  readonly embeddings: Matrix;
  readonly config: QuantizerConfig;
  /** [pairs, 2] rows of co-interacted items. */
  readonly positivePairs?: IntMatrix;
}

export interface FitProgress {
  readonly epoch: number;
  readonly epochs: number;
  readonly metrics: Readonly<Record<string, number>>;
}

export interface FittedSemanticIds {
  /** [items, levels]. */
  readonly codes: IntMatrix;
  readonly artifact: Uint8Array;
  /** [levels * codes, dims]: every code as a point of the embedding space; zeros for unused codes. */
  readonly codeVectors: Matrix;
  readonly metrics: Readonly<Record<string, number>>;
}

export interface EncodeSemanticIdsRequest {
  readonly artifact: Uint8Array;
  readonly embeddings: Matrix;
  /** Codes that new items must avoid. */
  readonly taken: IntMatrix;
  /** New items do not avoid each other: each gets the ID it would get alone. */
  readonly apart?: boolean;
}

/** Per call. An aborted call rejects with InterruptedError. */
export interface CallOptions {
  readonly signal?: AbortSignal;
  /** Left out: no deadline (training calls may be long). */
  readonly timeoutMs?: number;
  /** W3C trace contexts of what is asked, sent as metadata of that name, one value each. */
  readonly traceparents?: readonly string[];
}

/** What one verb has cost so far, as the orchestrator sees it. */
export interface VerbStats {
  calls: number;
  retries: number;
  /** Serialised messages, without HTTP/2 framing. */
  bytesSent: number;
  bytesReceived: number;
  /** From call to answer, all attempts. Concurrent calls are summed. */
  wallSeconds: number;
  /** Share of wallSeconds spent in this process, packing and unpacking messages. */
  packSeconds: number;
  /** As the worker reports after every answer; 0 from a FakeWorker. */
  computeSeconds: number;
}

/**
 * One method per verb. Each rejects with WorkerError (the worker's one-sentence detail, `retryable`) once retries of
 * transient errors are used up, or with InterruptedError if the signal was aborted.
 */
export interface WorkerClient {
  readonly address: string;
  getInfo(options?: CallOptions): Promise<WorkerInfo>;
  trainTokenizer(request: TrainTokenizerRequest, options?: CallOptions): Promise<TrainedTokenizer>;
  loadModel(request: LoadModelRequest, options?: CallOptions): Promise<LoadedModel>;
  unloadModel(modelId: string, options?: CallOptions): Promise<void>;
  forward(request: ForwardRequest, options?: CallOptions): Promise<ForwardResult>;
  forwardBackward(request: ForwardBackwardRequest, options?: CallOptions): Promise<ForwardBackwardResult>;
  optimStep(request: OptimStepRequest, options?: CallOptions): Promise<OptimStepResult>;
  /** Completions as they finish, in any order, each exactly once. `sampleAll` collects them. */
  sample(request: SampleRequest, options?: CallOptions): AsyncIterable<SampleEvent>;
  beamSearch(request: BeamSearchRequest, options?: CallOptions): Promise<BeamSearchResult>;
  embed(request: EmbedRequest, options?: CallOptions): Promise<Matrix>;
  /** U sqrt(S) of a truncated singular value decomposition, one row per row of the matrix. */
  factorize(request: FactorizeRequest, options?: CallOptions): Promise<Matrix>;
  /** Boosted trees that order the rows of each group: one model without each fold, one on all. Deterministic. */
  fitTrees(
    request: FitTreesRequest,
    onProgress?: (progress: FitProgress) => void,
    options?: CallOptions,
  ): Promise<FittedTrees>;
  /**
   * Fine-tunes on the groups with a target; returns scores of the others' candidates, group by group. Deterministic.
   */
  fitCrossEncoder(
    request: FitCrossEncoderRequest,
    onProgress?: (progress: FitProgress) => void,
    options?: CallOptions,
  ): Promise<number[][]>;
  fitSemanticIds(
    request: FitSemanticIdsRequest,
    onProgress?: (progress: FitProgress) => void,
    options?: CallOptions,
  ): Promise<FittedSemanticIds>;
  encodeSemanticIds(request: EncodeSemanticIdsRequest, options?: CallOptions): Promise<IntMatrix>;
  saveState(request: SaveStateRequest, options?: CallOptions): Promise<SavedState>;
  loadState(request: LoadStateRequest, options?: CallOptions): Promise<LoadedState>;
  /** Writes an ordinary checkpoint, LoRA merged; returns bytes of weights. */
  exportModel(request: ExportModelRequest, options?: CallOptions): Promise<number>;
  shutdown(options?: CallOptions): Promise<void>;
  /** Costs by verb name since the client was created. */
  stats(): Readonly<Record<string, Readonly<VerbStats>>>;
  /** Closes the channel; does not stop the worker. */
  close(): void;
}

/** All completions of a request: [prompt][sample], in request order whatever order they arrived in. */
export async function sampleAll(
  worker: WorkerClient,
  request: SampleRequest,
  onProgress?: (done: number, total: number) => void,
  options?: CallOptions,
): Promise<{ completions: Completion[][]; weightVersion: number }> {
  const completions: Completion[][] = request.prompts.map(() => []);
  let weightVersion = 0;
  for await (const event of worker.sample(request, options)) {
    for (const c of event.completions) (completions[c.prompt] as Completion[])[c.sample] = c;
    weightVersion = event.weightVersion;
    onProgress?.(event.done, event.total);
  }
  return { completions, weightVersion };
}
