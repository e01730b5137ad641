/**
 * FakeWorker: the WorkerClient interface without Python, deterministic and in milliseconds, so a unit test can drive
 * every stage. Its language model is hashed bigrams that training really moves (losses fall, log-probs of rewarded
 * tokens rise); sampling obeys the permutation constraint, and Forward returns the log-probs Sample reported. The
 * quality of its answers means nothing.
 */
import { randomUUID } from "node:crypto";
import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { InterruptedError, WorkerError } from "../core/errors.ts";
import { sha256 } from "../core/hash.ts";
import { numTargets } from "./batch.ts";
import { embeddings, encodedIds, fittedIds, fittedTrees } from "./fake-items.ts";
import { emptyTop, fillTop, lossAt } from "./fake-losses.ts";
import {
  BigramModel,
  ConstraintWalk,
  certain,
  freeOption,
  hash01,
  type Option,
  pick,
  walkSequences,
} from "./fake-model.ts";
import { byteTokenizerJson, chatMl, extendTokenizerJson } from "./fake-tokenizer.ts";
import { type StateNote, stateFile, stateFormatVersion } from "./saved-state.ts";
import type * as t from "./types.ts";

/** Letters FakeWorker writes before the constraint's trigger, within maxFreeTokens. */
const tokensBeforeTrigger = 4;
/** Maps any token to a letter of the byte tokenizer: reasoning made of random special tokens would be invalid. */
const toLetter = (token: number): number => "a".charCodeAt(0) + (token % 26);

interface FakeModel {
  readonly lm: BigramModel;
  readonly trainable: boolean;
  /** See LoadedState. */
  weightsId: string;
}

/** File of an exported model. */
const weightsFile = "fake-weights.json";

/** The real worker's note about what the weights belong to, plus the weights themselves. */
interface FakeState extends StateNote {
  readonly step: number;
  readonly weightVersion: number;
  readonly weights: string;
}

export class FakeWorker implements t.WorkerClient {
  readonly address = "fake:";
  /** Every verb called, in order; for assertions. */
  readonly log: string[] = [];
  private readonly models = new Map<string, FakeModel>();
  private readonly counts: Record<string, t.VerbStats> = {};
  private readonly onVerb: ((verb: string, calls: number) => void) | undefined;

  /** @param onVerb called before every verb with the number of calls so far; an error it throws fails the call */
  constructor(onVerb?: (verb: string, calls: number) => void) {
    this.onVerb = onVerb;
  }

  async getInfo(call?: t.CallOptions): Promise<t.WorkerInfo> {
    this.enter("getInfo", call);
    return {
      workerVersion: "fake",
      pythonVersion: "none",
      torchVersion: "none",
      transformersVersion: "none",
      device: "cpu",
      numThreads: 1,
      memoryTotalBytes: 2 ** 30,
      memoryUsedBytes: 2 ** 20,
      modelIds: [...this.models.keys()],
      busySeconds: 0,
    };
  }

  async trainTokenizer(request: t.TrainTokenizerRequest, call?: t.CallOptions): Promise<t.TrainedTokenizer> {
    this.enter("trainTokenizer", call);
    if (request.vocabSize < 256) throw refuse(`vocab_size ${request.vocabSize} is below 256`);
    const specialTokens = [...new Set(request.specialTokens)];
    return { tokenizerJson: byteTokenizerJson(specialTokens), vocabSize: 256 + specialTokens.length };
  }

  async loadModel(request: t.LoadModelRequest, call?: t.CallOptions): Promise<t.LoadedModel> {
    this.enter("loadModel", call);
    const modelId = request.modelId || "policy";
    const base = request.source.kind === "scratch" ? request.source.tokenizerJson : byteTokenizerJson(chatMl.tokens);
    const { json, ids, vocabSize, idByToken } = extendTokenizerJson(base, request.addedTokens ?? []);
    const multiple = request.padVocabMultiple || 1;
    const rows = Math.ceil(vocabSize / multiple) * multiple;
    const lm = new BigramModel(vocabSize, request.seed ?? 0);
    if (request.source.kind === "pretrained") {
      const exported = await readFile(join(request.source.path, weightsFile), "utf8").catch(() => "[]");
      lm.replaceWeights(new Map(JSON.parse(exported) as [number, number][]), 0, 0);
    }
    this.models.set(modelId, { lm, trainable: request.trainable ?? true, weightsId: randomUUID() });
    return {
      modelId,
      numParameters: rows * 8,
      vocabSize: rows,
      hiddenSize: 8,
      maxPositions: 4096,
      tokenizerJson: json,
      addedTokenIds: ids,
      eosTokenId: idByToken.get("<|endoftext|>") ?? idByToken.get("<|im_end|>") ?? -1,
      chatTemplate: request.source.kind === "pretrained" ? chatMl.template : "",
      bosToken: "",
      numTrained: (request.trainable ?? true) ? rows * 8 : 0,
    };
  }

  async unloadModel(modelId: string, call?: t.CallOptions): Promise<void> {
    this.enter("unloadModel", call);
    this.models.delete(modelId || "policy");
  }

  async forward(request: t.ForwardRequest, call?: t.CallOptions): Promise<t.ForwardResult> {
    this.enter("forward", call);
    const { lm, weightsId } = this.model(request.modelId);
    const logprobs = new Float32Array(numTargets(request.batch));
    let at = 0;
    const top = request.topK ? emptyTop(logprobs.length, request.topK) : undefined;
    this.walk(lm, request, (taken, open) => {
      if (top) fillTop(top, at, open());
      logprobs[at++] = taken.logprob;
    });
    const entropy = request.wantEntropy ? logprobs.map((l) => -l * Math.exp(l)) : new Float32Array();
    return { logprobs, entropy, reusedPromptTokens: 0, weightsId, ...(top ? { top } : {}) };
  }

  async forwardBackward(request: t.ForwardBackwardRequest, call?: t.CallOptions): Promise<t.ForwardBackwardResult> {
    this.enter("forwardBackward", call);
    const { lm, trainable } = this.model(request.modelId);
    if (!trainable) throw refuse(`model "${request.modelId ?? "policy"}" was loaded with trainable = false`);
    const { weights, loss } = request;
    const targets = numTargets(request.batch);
    if (weights.length !== targets) throw refuse(`weights has ${weights.length} values for ${targets} response tokens`);
    const logprobs = new Float32Array(targets);
    let at = 0;
    let total = 0;
    let trained = 0;
    const sums: Record<string, number> = {};
    this.walk(lm, request, (taken, open) => {
      const i = at++;
      logprobs[i] = taken.logprob;
      const weight = weights[i] as number;
      if (weight === 0) return;
      trained++;
      const { value, pushes, metrics } = lossAt(loss, i, taken, open);
      total += weight * value;
      for (const [{ moves }, push] of pushes)
        for (const [previous, token] of moves) lm.accumulate(previous, token, weight * push);
      for (const [name, sum] of Object.entries(metrics)) sums[name] = (sums[name] ?? 0) + sum;
    });
    const means = Object.fromEntries(Object.entries(sums).map(([name, sum]) => [name, sum / trained]));
    return {
      loss: total,
      metrics: { tokens: trained, ...means },
      logprobs: request.wantLogprobs ? logprobs : new Float32Array(),
      computeSeconds: 0,
    };
  }

  async optimStep(request: t.OptimStepRequest, call?: t.CallOptions): Promise<t.OptimStepResult> {
    this.enter("optimStep", call);
    const model = this.model(request.modelId);
    const { lm } = model;
    const gradNorm = lm.applyGradient(request.learningRate);
    model.weightsId = randomUUID();
    return { gradNorm, step: lm.step, weightVersion: lm.weightVersion };
  }

  async *sample(request: t.SampleRequest, call?: t.CallOptions): AsyncGenerator<t.SampleEvent> {
    this.enter("sample", call);
    const { lm, weightsId } = this.model(request.modelId);
    const numSamples = request.numSamples ?? 1;
    const total = request.prompts.length * numSamples;
    const same = { weightVersion: lm.weightVersion, weightsId, total, reusedPromptTokens: 0 };
    checkEntries(request.constraint, request.prompts.length, "prompts");
    for (const [prompt, tokens] of request.prompts.entries()) {
      if (call?.signal?.aborted) throw new InterruptedError();
      const completions = Array.from({ length: numSamples }, (_, sample) =>
        this.generate(lm, request, tokens, prompt, sample),
      );
      if (request.streamTokens) {
        const tokens = completions.flatMap(drawnTokens);
        yield { completions: [], tokens, done: prompt * numSamples, ...same };
      }
      yield { completions, done: (prompt + 1) * numSamples, ...same };
    }
  }

  async beamSearch(request: t.BeamSearchRequest, call?: t.CallOptions): Promise<t.BeamSearchResult> {
    this.enter("beamSearch", call);
    const { lm } = this.model(request.modelId);
    const { trie, beamWidth } = request;
    const items = [...walkSequences(trie)];
    const rows = new Int32Array(request.prompts.length * beamWidth).fill(-1);
    const logprobs = new Float32Array(rows.length).fill(-Infinity);
    for (const [p, prompt] of request.prompts.entries()) {
      const excluded = new Set(request.excluded?.[p] ?? []);
      const scored: [row: number, logprob: number][] = [];
      for (const [row, tokens] of items) {
        if (excluded.has(row)) continue;
        let previous = prompt[prompt.length - 1] as number;
        let logprob = 0;
        for (const token of tokens) {
          logprob += lm.logprob(previous, token, 1);
          previous = token;
        }
        scored.push([row, logprob]);
      }
      scored.sort((a, b) => b[1] - a[1] || a[0] - b[0]);
      for (const [k, [row, logprob]] of scored.slice(0, beamWidth).entries()) {
        rows[p * beamWidth + k] = row;
        logprobs[p * beamWidth + k] = logprob;
      }
    }
    const shape = { rows: request.prompts.length, cols: beamWidth };
    return { rows: { ...shape, data: rows }, logprobs: { ...shape, data: logprobs } };
  }

  async factorize(request: t.FactorizeRequest, call?: t.CallOptions): Promise<t.Matrix> {
    this.enter("factorize", call);
    const data = Float32Array.from({ length: request.size * request.dims }, (_, i) => hash01(request.seed, i, 2) - 0.5);
    return { rows: request.size, cols: request.dims, data };
  }

  async embed(request: t.EmbedRequest, call?: t.CallOptions): Promise<t.Matrix> {
    this.enter("embed", call);
    return embeddings(request);
  }

  async fitTrees(
    request: t.FitTreesRequest,
    onProgress?: (progress: t.FitProgress) => void,
    call?: t.CallOptions,
  ): Promise<t.FittedTrees> {
    this.enter("fitTrees", call);
    onProgress?.({ epoch: 1, epochs: 1, metrics: { ndcg: 0 } });
    return fittedTrees(request);
  }

  async fitCrossEncoder(
    { groups, config }: t.FitCrossEncoderRequest,
    onProgress?: (progress: t.FitProgress) => void,
    call?: t.CallOptions,
  ): Promise<number[][]> {
    this.enter("fitCrossEncoder", call);
    onProgress?.({ epoch: groups.length, epochs: groups.length, metrics: {} });
    const asked = groups.filter((g) => g.target === undefined);
    return asked.map((g) => g.candidates.map((text) => hash01(config.seed, text.length, g.query.length)));
  }

  async fitSemanticIds(
    request: t.FitSemanticIdsRequest,
    onProgress?: (progress: t.FitProgress) => void,
    call?: t.CallOptions,
  ): Promise<t.FittedSemanticIds> {
    this.enter("fitSemanticIds", call);
    return fittedIds(request, onProgress);
  }

  async encodeSemanticIds(request: t.EncodeSemanticIdsRequest, call?: t.CallOptions): Promise<t.IntMatrix> {
    this.enter("encodeSemanticIds", call);
    return encodedIds(request);
  }

  async saveState(request: t.SaveStateRequest, call?: t.CallOptions): Promise<t.SavedState> {
    this.enter("saveState", call);
    const { lm } = this.model(request.modelId);
    const weights = JSON.stringify([...lm.learned].sort(([a], [b]) => a - b));
    const path = join(request.path, stateFile);
    await mkdir(dirname(path), { recursive: true });
    const { step, weightVersion } = lm;
    const note = { format_version: stateFormatVersion, base: "", sha256: sha256(weights) };
    const state: FakeState = { ...note, step, weightVersion, weights, metadata: request.metadata ?? {} };
    await writeFile(`${path}.tmp`, JSON.stringify(state));
    await rename(`${path}.tmp`, path);
    return { sha256: note.sha256, bytes: weights.length };
  }

  async loadState(request: t.LoadStateRequest, call?: t.CallOptions): Promise<t.LoadedState> {
    this.enter("loadState", call);
    const model = this.model(request.modelId);
    const text = await readFile(join(request.path, stateFile), "utf8").catch((cause: unknown) => {
      throw new WorkerError(`loadState failed: no saved state at ${request.path}`, { cause, retryable: false });
    });
    const state = JSON.parse(text) as FakeState;
    const step = request.includeOptimizer ? state.step : 0;
    model.lm.replaceWeights(new Map(JSON.parse(state.weights) as [number, number][]), step, state.weightVersion);
    model.weightsId = randomUUID();
    const { weightVersion, metadata } = state;
    return { step, weightVersion, sha256: sha256(state.weights), metadata, weightsId: model.weightsId };
  }

  async exportModel(request: t.ExportModelRequest, call?: t.CallOptions): Promise<number> {
    this.enter("exportModel", call);
    const { lm } = this.model(request.modelId);
    await mkdir(request.path, { recursive: true });
    await writeFile(join(request.path, weightsFile), JSON.stringify([...lm.learned]));
    for (const [name, text] of Object.entries(request.files)) await writeFile(join(request.path, name), text);
    return lm.learned.size * 8;
  }

  async shutdown(call?: t.CallOptions): Promise<void> {
    this.enter("shutdown", call);
  }

  stats(): Readonly<Record<string, Readonly<t.VerbStats>>> {
    return structuredClone(this.counts);
  }

  close(): void {}

  private enter(verb: string, call: t.CallOptions | undefined): void {
    if (call?.signal?.aborted) throw new InterruptedError();
    this.log.push(verb);
    this.onVerb?.(verb, this.log.length);
    const empty = { retries: 0, bytesSent: 0, bytesReceived: 0, wallSeconds: 0, packSeconds: 0, computeSeconds: 0 };
    this.counts[verb] = { ...empty, calls: (this.counts[verb]?.calls ?? 0) + 1 };
  }

  private model(modelId: string | undefined): FakeModel {
    const model = this.models.get(modelId || "policy");
    if (!model) throw refuse(`no model "${modelId || "policy"}" is loaded`);
    return model;
  }

  /** Visits every target of a batch with the option taken and all that were open. */
  private walk(
    lm: BigramModel,
    request: t.ForwardRequest | t.ForwardBackwardRequest,
    visit: (taken: Option, open: () => readonly Option[]) => void,
  ): void {
    const temperature = request.temperature || 1;
    checkEntries(request.constraint, request.batch.groups.length, "groups");
    for (const [g, { prompt, responses }] of request.batch.groups.entries()) {
      for (const response of responses) {
        const walk = new ConstraintWalk(request.constraint, request.constraint?.groups[g]);
        let previous = prompt[prompt.length - 1] as number;
        for (let at = 0; at < response.length; ) {
          const token = response[at] as number;
          if (token < 0 || token >= lm.vocabSize)
            throw refuse(`token ${token} is outside the vocabulary of ${lm.vocabSize}`);
          const options = walk.options(lm, previous, temperature);
          const taken = options ? walk.taken(options, response, at) : freeOption(lm, previous, token, temperature);
          const before = previous;
          visit(
            taken,
            () =>
              options ?? Array.from({ length: lm.vocabSize }, (_, other) => freeOption(lm, before, other, temperature)),
          );
          for (const follows of taken.tokens.slice(1)) visit(certain(follows), () => [certain(follows)]);
          for (const emitted of taken.tokens) walk.advance(emitted);
          previous = taken.tokens.at(-1) as number;
          at += taken.tokens.length;
        }
      }
    }
  }

  private generate(
    lm: BigramModel,
    request: t.SampleRequest,
    prompt: t.TokenIds,
    p: number,
    sample: number,
  ): t.Completion {
    const walk = new ConstraintWalk(request.constraint, request.constraint?.groups[p]);
    if (request.stopStrings?.length) throw refuse("the fake worker has no stop strings");
    const stop = new Set(request.stopTokens ?? []);
    const trigger = Array.from(request.constraint?.trigger ?? []);
    const { temperature } = request;
    const tokens: number[] = [];
    const logprobs: number[] = [];
    let previous = prompt[prompt.length - 1] as number;
    let triggered = 0;
    let stopped = false;
    while (!stopped && tokens.length < request.maxNewTokens) {
      const u = hash01(request.seed, p * 7919 + sample, tokens.length);
      const options = walk.options(lm, previous, temperature || 1);
      let taken: Option;
      if (options) taken = pick(options, temperature, u);
      else {
        const most = Math.min(tokensBeforeTrigger, (request.constraint?.maxFreeTokens || Infinity) - 1);
        const drawn = lm.draw(previous, temperature, u);
        const token = !walk.reasons ? drawn : tokens.length < most ? toLetter(drawn) : (trigger[triggered++] as number);
        taken = freeOption(lm, previous, token, temperature || 1);
      }
      for (const [k, token] of taken.tokens.entries()) {
        tokens.push(token);
        logprobs.push(k === 0 ? taken.logprob : 0);
        walk.advance(token);
        previous = token;
      }
      stopped = walk.done || (!options && stop.has(previous));
    }
    return {
      prompt: p,
      sample,
      tokens: Int32Array.from(tokens),
      logprobs: Float32Array.from(logprobs),
      finishReason: stopped ? "stop" : "length",
    };
  }
}

const drawnTokens = ({ prompt, sample, tokens }: t.Completion): t.DrawnToken[] =>
  Array.from(tokens, (token, index) => ({ prompt, sample, index, token }));

const refuse = (message: string): WorkerError => new WorkerError(message, { retryable: false });

function checkEntries(constraint: t.PermutationConstraint | undefined, expected: number, of: string): void {
  if (constraint && constraint.groups.length !== expected)
    throw refuse(`the constraint has ${constraint.groups.length} entries for ${expected} ${of}`);
}
