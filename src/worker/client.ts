/**
 * GrpcWorkerClient: the WorkerClient interface over gRPC. Translates plain types to worker.proto and back; retries and
 * costs are in channel.ts, packing in batch.ts. The worker has no defaults: for what a request leaves out, this sends
 * the neutral value (temperature 1, no bound, nothing asked for).
 */
import { randomUUID } from "node:crypto";
import { WorkerError } from "../core/errors.ts";
import * as batch from "./batch.ts";
import { checkBeams } from "./beams.ts";
import { Channel, type ChannelOptions, type MethodDefinition } from "./channel.ts";
import * as pb from "./generated/gr2/v1/worker.ts";
import type * as t from "./types.ts";

const service = pb.WorkerService;

/** grpc.health.v1.Health/Check with an empty request; the answer is one enum field, 1 = SERVING. */
const healthCheck: MethodDefinition<null, boolean> = {
  path: "/grpc.health.v1.Health/Check",
  requestSerialize: () => Buffer.alloc(0),
  responseDeserialize: (bytes) => bytes.length === 2 && bytes[0] === 0x08 && bytes[1] === 0x01,
};

export class GrpcWorkerClient implements t.WorkerClient {
  readonly address: string;
  private readonly channel: Channel;

  /** `address`: "unix:/path" or "host:port". Connects on the first call. */
  constructor(address: string, options: ChannelOptions = {}) {
    this.address = address;
    this.channel = new Channel(address, options);
  }

  /** True once the worker says it serves; throws like any other call if it does not answer. */
  health(call?: t.CallOptions): Promise<boolean> {
    return this.channel.unary("health", healthCheck, null, call);
  }

  getInfo(call?: t.CallOptions): Promise<t.WorkerInfo> {
    return this.channel.unary("getInfo", service.getInfo, {}, call);
  }

  trainTokenizer(request: t.TrainTokenizerRequest, call?: t.CallOptions): Promise<t.TrainedTokenizer> {
    const message = { ...request, texts: [...request.texts], specialTokens: [...request.specialTokens] };
    return this.channel.unary("trainTokenizer", service.trainTokenizer, message, call);
  }

  loadModel(request: t.LoadModelRequest, call?: t.CallOptions): Promise<t.LoadedModel> {
    const message: pb.LoadModelRequest = {
      modelId: request.modelId ?? "",
      source: toSource(request.source),
      addedTokens: [...(request.addedTokens ?? [])],
      dtype: toDType(request.dtype),
      gradientCheckpointing: request.gradientCheckpointing ?? false,
      seed: request.seed ?? 0,
      trainable: request.trainable ?? true,
      padVocabMultiple: request.padVocabMultiple ?? 0,
      addedTokenVectors: request.addedTokenVectors ? batch.packMatrix(request.addedTokenVectors) : undefined,
      lora: request.lora && { ...request.lora, targetModules: [...request.lora.targets] },
      prefixCacheBytes: request.prefixCacheBytes ?? 0,
    };
    return this.channel.unary("loadModel", service.loadModel, message, call);
  }

  async unloadModel(modelId: string, call?: t.CallOptions): Promise<void> {
    await this.channel.unary("unloadModel", service.unloadModel, { modelId }, call);
  }

  async forward(request: t.ForwardRequest, call?: t.CallOptions): Promise<t.ForwardResult> {
    const message: pb.ForwardRequest = {
      modelId: request.modelId ?? "",
      batch: batch.packBatch(request.batch),
      constraint: toConstraint(request.constraint, request.batch.groups.length),
      temperature: request.temperature ?? 1,
      wantEntropy: request.wantEntropy ?? false,
      microBatchTokens: request.microBatchTokens ?? 0,
      topK: request.topK ?? 0,
    };
    const r = await this.channel.unary("forward", service.forward, message, call);
    const result = {
      logprobs: batch.toFloat32(r.logprobs, "logprobs"),
      entropy: batch.toFloat32(r.entropy, "entropy"),
      reusedPromptTokens: r.reusedPromptTokens,
      weightsId: r.weightsId,
    };
    if (!request.topK) return result;
    const ids = batch.unpackIntMatrix(r.topIds, "topIds");
    return { ...result, top: { ids, logprobs: batch.unpackMatrix(r.topLogprobs, "topLogprobs") } };
  }

  async forwardBackward(request: t.ForwardBackwardRequest, call?: t.CallOptions): Promise<t.ForwardBackwardResult> {
    const targets = batch.numTargets(request.batch);
    expectTargets("weights", request.weights, targets);
    const message: pb.ForwardBackwardRequest = {
      requestId: randomUUID(), // one per logical call: every retry below repeats it
      modelId: request.modelId ?? "",
      batch: batch.packBatch(request.batch),
      constraint: toConstraint(request.constraint, request.batch.groups.length),
      weights: batch.toBytes(request.weights),
      loss: toLoss(request.loss, targets),
      temperature: request.temperature ?? 1,
      microBatchTokens: request.microBatchTokens ?? 0,
      seed: request.seed ?? 0,
      wantLogprobs: request.wantLogprobs ?? false,
    };
    const r = await this.channel.unary("forwardBackward", service.forwardBackward, message, call);
    return { ...r, metrics: byName(r.metrics), logprobs: batch.toFloat32(r.logprobs, "logprobs") };
  }

  optimStep(request: t.OptimStepRequest, call?: t.CallOptions): Promise<t.OptimStepResult> {
    const message: pb.OptimStepRequest = {
      requestId: randomUUID(),
      modelId: request.modelId ?? "",
      learningRate: request.learningRate,
      beta1: request.beta1,
      beta2: request.beta2,
      eps: request.eps,
      weightDecay: request.weightDecay ?? 0,
      maxGradNorm: request.maxGradNorm ?? 0,
    };
    return this.channel.unary("optimStep", service.optimStep, message, call);
  }

  async *sample(request: t.SampleRequest, call?: t.CallOptions): AsyncGenerator<t.SampleEvent> {
    const { flat, lengths } = batch.packRagged(request.prompts);
    const message: pb.SampleRequest = {
      modelId: request.modelId ?? "",
      promptTokens: batch.toBytes(flat),
      promptLengths: batch.toBytes(lengths),
      numSamples: request.numSamples ?? 1,
      maxNewTokens: request.maxNewTokens,
      temperature: request.temperature,
      topP: request.topP ?? 1,
      seed: request.seed,
      stopTokens: Array.from(request.stopTokens ?? []),
      stopStrings: Array.from(request.stopStrings ?? []),
      constraint: toConstraint(request.constraint, request.prompts.length),
      maxBatchTokens: request.maxBatchTokens ?? 0,
      streamTokens: request.streamTokens ?? false,
    };
    // A stream that breaks is sampled again from the start. The same seed gives the same responses, so those already
    // handed out are dropped here.
    const seen = new Set<string>();
    const toEvent = (r: pb.SampleResponse): t.SampleEvent => {
      const fresh = r.items.filter((i) => !seen.has(`${i.prompt}/${i.sample}`));
      for (const i of fresh) seen.add(`${i.prompt}/${i.sample}`);
      return {
        completions: fresh.map(toCompletion),
        ...(request.streamTokens ? { tokens: r.tokens } : {}),
        weightVersion: r.weightVersion,
        weightsId: r.weightsId,
        done: seen.size,
        total: r.total,
        reusedPromptTokens: r.reusedPromptTokens,
      };
    };
    yield* queued((push, signal) =>
      this.channel.stream("sample", service.sample, message, (r) => push(toEvent(r)), linked(call, signal)),
    );
  }

  async beamSearch(request: t.BeamSearchRequest, call?: t.CallOptions): Promise<t.BeamSearchResult> {
    const prompts = batch.packRagged(request.prompts);
    const excluded = request.excluded ? batch.packRagged(request.excluded) : undefined;
    const message: pb.BeamSearchRequest = {
      modelId: request.modelId ?? "",
      promptTokens: batch.toBytes(prompts.flat),
      promptLengths: batch.toBytes(prompts.lengths),
      trie: {
        edgeStarts: batch.toBytes(request.trie.edgeStarts),
        edgeTokens: batch.toBytes(request.trie.edgeTokens),
        rowStarts: batch.toBytes(request.trie.rowStarts),
        rowEnds: batch.toBytes(request.trie.rowEnds),
        rows: batch.toBytes(request.trie.rows),
      },
      beamWidth: request.beamWidth,
      excluded: excluded ? batch.toBytes(excluded.flat) : Buffer.alloc(0),
      excludedLengths: excluded ? batch.toBytes(excluded.lengths) : Buffer.alloc(0),
    };
    const r = await this.channel.unary("beamSearch", service.beamSearch, message, call);
    const result = {
      rows: batch.unpackIntMatrix(r.rows, "rows"),
      logprobs: batch.unpackMatrix(r.logprobs, "logprobs"),
    };
    checkBeams(request, result);
    return result;
  }

  async embed(request: t.EmbedRequest, call?: t.CallOptions): Promise<t.Matrix> {
    const message: pb.EmbedRequest = {
      modelPath: request.modelPath,
      texts: [...request.texts],
      batchSize: request.batchSize,
      normalize: request.normalize ?? false,
    };
    const r = await this.channel.unary("embed", service.embed, message, call);
    return batch.unpackMatrix(r.embeddings, "embeddings");
  }

  async factorize(request: t.FactorizeRequest, call?: t.CallOptions): Promise<t.Matrix> {
    const message: pb.FactorizeRequest = {
      size: request.size,
      rows: batch.toBytes(request.rows),
      cols: batch.toBytes(request.cols),
      values: batch.toBytes(request.values),
      dims: request.dims,
      seed: request.seed,
    };
    const r = await this.channel.unary("factorize", service.factorize, message, call);
    return batch.unpackMatrix(r.factors, "factors");
  }

  async fitTrees(
    request: t.FitTreesRequest,
    onProgress?: (progress: t.FitProgress) => void,
    call?: t.CallOptions,
  ): Promise<t.FittedTrees> {
    const message: pb.FitTreesRequest = {
      features: batch.packMatrix(request.features),
      labels: batch.toBytes(request.labels),
      gains: [...request.gains],
      groupSizes: batch.toBytes(request.groupSizes),
      folds: batch.toBytes(request.folds),
      config: request.config,
    };
    let result: pb.TreesResult | undefined;
    const onMessage = ({ event }: pb.FitTreesResponse) => {
      if (event?.$case === "progress") onProgress?.({ ...event.value, metrics: byName(event.value.metrics) });
      else if (event?.$case === "result") result = event.value;
    };
    await this.channel.stream("fitTrees", service.fitTrees, message, onMessage, call);
    if (result === undefined) throw new WorkerError("the worker sent no trees", { retryable: false });
    return result;
  }

  async fitCrossEncoder(
    request: t.FitCrossEncoderRequest,
    onProgress?: (progress: t.FitProgress) => void,
    call?: t.CallOptions,
  ): Promise<number[][]> {
    const { groups } = request;
    const texts = [...new Set(groups.flatMap((g) => g.candidates))];
    const rowByText = new Map(texts.map((text, row) => [text, row]));
    const message: pb.FitCrossEncoderRequest = {
      modelPath: request.modelPath,
      queries: groups.map((g) => g.query),
      texts,
      groupSizes: batch.toBytes(Int32Array.from(groups, (g) => g.candidates.length)),
      rows: batch.toBytes(Int32Array.from(groups.flatMap((g) => g.candidates.map((c) => rowByText.get(c) as number)))),
      targets: batch.toBytes(Int32Array.from(groups, (g) => g.target ?? -1)),
      config: request.config,
    };
    let scores: Float32Array | undefined;
    const onMessage = ({ event }: pb.FitCrossEncoderResponse) => {
      if (event?.$case === "progress") onProgress?.({ ...event.value, metrics: byName(event.value.metrics) });
      else if (event?.$case === "result") scores = batch.toFloat32(event.value.scores, "scores");
    };
    await this.channel.stream("fitCrossEncoder", service.fitCrossEncoder, message, onMessage, call);
    const asked = groups.filter((g) => g.target === undefined);
    const all = scores;
    if (all === undefined || all.length !== asked.reduce((n, g) => n + g.candidates.length, 0))
      throw new WorkerError("the worker sent no score for some candidates", { retryable: false });
    let at = 0;
    return asked.map(({ candidates }) => {
      at += candidates.length;
      return Array.from(all.subarray(at - candidates.length, at));
    });
  }

  async fitSemanticIds(
    request: t.FitSemanticIdsRequest,
    onProgress?: (progress: t.FitProgress) => void,
    call?: t.CallOptions,
  ): Promise<t.FittedSemanticIds> {
    const { config, positivePairs } = request;
    const message: pb.FitSemanticIdsRequest = {
      embeddings: batch.packMatrix(request.embeddings),
      config: {
        ...config,
        method:
          config.method === "rqkmeans"
            ? pb.QuantizerMethod.QUANTIZER_METHOD_RQKMEANS
            : pb.QuantizerMethod.QUANTIZER_METHOD_RQVAE,
        hiddenDims: [...config.hiddenDims],
      },
      positivePairs: positivePairs ? batch.packIntMatrix(positivePairs) : undefined,
    };
    let result: pb.FitResult | undefined;
    const onMessage = ({ event }: pb.FitSemanticIdsResponse) => {
      if (event?.$case === "progress") onProgress?.({ ...event.value, metrics: byName(event.value.metrics) });
      else if (event?.$case === "result") result = event.value;
    };
    await this.channel.stream("fitSemanticIds", service.fitSemanticIds, message, onMessage, call);
    return {
      codes: batch.unpackIntMatrix(result?.codes, "codes"),
      artifact: result?.artifact ?? new Uint8Array(),
      codeVectors: batch.unpackMatrix(result?.codeVectors, "codeVectors"),
      metrics: byName(result?.metrics ?? {}),
    };
  }

  async encodeSemanticIds(request: t.EncodeSemanticIdsRequest, call?: t.CallOptions): Promise<t.IntMatrix> {
    const message: pb.EncodeSemanticIdsRequest = {
      artifact: Buffer.from(request.artifact),
      embeddings: batch.packMatrix(request.embeddings),
      taken: batch.packIntMatrix(request.taken),
      apart: request.apart ?? false,
    };
    const r = await this.channel.unary("encodeSemanticIds", service.encodeSemanticIds, message, call);
    return batch.unpackIntMatrix(r.codes, "codes");
  }

  saveState(request: t.SaveStateRequest, call?: t.CallOptions): Promise<t.SavedState> {
    const message = { ...toState(request), metadata: { ...request.metadata } };
    return this.channel.unary("saveState", service.saveState, message, call);
  }

  loadState(request: t.LoadStateRequest, call?: t.CallOptions): Promise<t.LoadedState> {
    return this.channel.unary("loadState", service.loadState, toState(request), call);
  }

  async exportModel(request: t.ExportModelRequest, call?: t.CallOptions): Promise<number> {
    const files = Object.fromEntries(Object.entries(request.files).map(([name, text]) => [name, Buffer.from(text)]));
    const { modelId = "", path } = request;
    const message = { modelId, path, dtype: toDType(request.dtype), files };
    return (await this.channel.unary("exportModel", service.exportModel, message, call)).bytes;
  }

  async shutdown(call?: t.CallOptions): Promise<void> {
    await this.channel.unary("shutdown", service.shutdown, {}, call);
  }

  stats(): Readonly<Record<string, Readonly<t.VerbStats>>> {
    return structuredClone(this.channel.stats);
  }

  close(): void {
    this.channel.close();
  }
}

const toDType = (dtype: "float32" | "bfloat16" | undefined): pb.DType =>
  dtype === "bfloat16" ? pb.DType.DTYPE_BFLOAT16 : pb.DType.DTYPE_FLOAT32;

function toSource(source: t.ModelSource): pb.LoadModelRequest["source"] {
  return source.kind === "scratch"
    ? {
        $case: "scratch",
        value: {
          architectureJson: JSON.stringify(source.architecture),
          tokenizerJson: Buffer.from(source.tokenizerJson),
        },
      }
    : { $case: "pretrained", value: { path: source.path, ggufFile: source.ggufFile ?? "" } };
}

const toConstraint = (
  c: t.PermutationConstraint | undefined,
  numGroups: number,
): pb.PermutationConstraint | undefined => (c === undefined ? undefined : batch.packConstraint(c, numGroups));

/** The order of protobuf maps differs from run to run; files written from them must not. */
const byName = (metrics: Readonly<Record<string, number>>): Record<string, number> =>
  Object.fromEntries(Object.entries(metrics).sort(([a], [b]) => (a < b ? -1 : 1)));

function expectTargets(name: string, values: Float32Array, targets: number): void {
  if (values.length !== targets)
    throw new RangeError(`${name} has ${values.length} values for ${targets} response tokens`);
}

function toLoss(loss: t.Loss, targets: number): pb.Loss {
  if (loss.kind === "cross_entropy")
    return { kind: { $case: "crossEntropy", value: { negatives: loss.negatives ?? 0 } } };
  if (loss.kind === "distill") {
    const { ids, logprobs } = loss.teacher;
    if (ids.rows !== targets) throw new RangeError(`the teacher has ${ids.rows} rows for ${targets} response tokens`);
    const value = { ids: batch.packIntMatrix(ids), logprobs: batch.packMatrix(logprobs) };
    return { kind: { $case: "distill", value } };
  }
  expectTargets("advantages", loss.advantages, targets);
  expectTargets("oldLogprobs", loss.oldLogprobs, targets);
  if (loss.referenceLogprobs) expectTargets("referenceLogprobs", loss.referenceLogprobs, targets);
  return {
    kind: {
      $case: "policy",
      value: {
        advantages: batch.toBytes(loss.advantages),
        oldLogprobs: batch.toBytes(loss.oldLogprobs),
        referenceLogprobs: loss.referenceLogprobs ? batch.toBytes(loss.referenceLogprobs) : Buffer.alloc(0),
        clipLow: loss.clipLow,
        clipHigh: loss.clipHigh,
        klCoef: loss.klCoef ?? 0,
      },
    },
  };
}

const toCompletion = (item: pb.SampleResponse_Item): t.Completion => ({
  prompt: item.prompt,
  sample: item.sample,
  tokens: batch.toInt32(item.tokens, "tokens"),
  logprobs: batch.toFloat32(item.logprobs, "logprobs"),
  finishReason: item.finishReason === pb.FinishReason.FINISH_REASON_LENGTH ? "length" : "stop",
});

const toState = (r: t.LoadStateRequest): pb.LoadStateRequest => ({
  modelId: r.modelId ?? "",
  path: r.path,
  includeOptimizer: r.includeOptimizer ?? false,
});

const linked = (call: t.CallOptions | undefined, signal: AbortSignal): t.CallOptions => ({
  ...call,
  signal: call?.signal ? AbortSignal.any([call.signal, signal]) : signal,
});

/** Turns a push-style producer into an async generator; leaving the loop early aborts the producer. */
async function* queued<T>(
  produce: (push: (value: T) => void, signal: AbortSignal) => Promise<void>,
): AsyncGenerator<T, void, void> {
  const abort = new AbortController();
  const queue: T[] = [];
  let wake: () => void = () => {};
  let finished = false;
  let failure: { error: unknown } | undefined;
  produce((value) => {
    queue.push(value);
    wake();
  }, abort.signal)
    .catch((error: unknown) => {
      failure = { error };
    })
    .finally(() => {
      finished = true;
      wake();
    });
  try {
    for (;;) {
      while (queue.length > 0) yield queue.shift() as T;
      if (failure) throw failure.error;
      if (finished) return;
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
  } finally {
    abort.abort();
  }
}
