/**
 * The run's models in one worker: loads them, verifies that they are the expected ones, and runs batches of requests.
 * Every batch is one worker call.
 */
import { readFileSync } from "node:fs";
import { WorkerError } from "../../core/errors.ts";
import { hashJson, sha256 } from "../../core/hash.ts";
import { encodeTexts } from "../../models/item-encoder.ts";
import { checkLineage, chooseChatFrame, modelRequest } from "../../models/language-model.ts";
import { sasrecModel } from "../../models/sasrec.ts";
import { decodingRules, sumLogLikelihoods } from "../../policy/ask.ts";
import type { ChatFrame } from "../../prompts/pieces.ts";
import { Tokenizer } from "../../worker/tokenizer.ts";
import type { LoadedModel, WorkerClient } from "../../worker/types.ts";
import type { PromptTokens, ServeMode } from "../request/types.ts";
import { AnswerAlarm } from "./answer-alarm.ts";
import type { SlateFacts } from "./evidence.ts";
import type { FoundItems } from "./items.ts";
import { countWanted, directOrder, type Order, priorOrder, writtenOrder } from "./order.ts";
import type { PreparedRequest, RequestPreparer } from "./prepared-request.ts";
import { type ServedRun, type ServedSystem, usesEvidence } from "./served-run.ts";

/** The result of loading; equal for every worker of a service. */
export interface LoadedRun {
  /** The tokenizer of the language model; undefined if no served system has one. */
  readonly tokenizerJson: Uint8Array | undefined;
  readonly numParameters: number;
  readonly maxPositions: number;
  /** The chat template; undefined = none. */
  readonly chat: ChatFrame | undefined;
  /** Hash of all weights in use. */
  readonly weights: string;
}

/** A language model's weights and the prior they are combined with. */
type Weighed = Pick<ServedSystem, "prior"> & { readonly weights: string };

/** Receives tokens as they are sampled: index of the request, position in the response, token. */
export type OnToken = (request: number, index: number, token: number) => void;

/** Options of a batch: a signal aborted when nobody waits for it, and the traces of its requests. */
type WorkerCall = { readonly signal: AbortSignal; readonly traceparents?: readonly string[] };

/** Time limit for a worker that refused a call to list its models. */
const checkTimeoutMs = 10_000;

export class RunModel {
  readonly run: ServedRun;
  private readonly label: string;
  private readonly embedder: string;
  private readonly onPrompts: (tokens: PromptTokens) => void;
  private readonly alarm: AnswerAlarm;
  /** By worker and weights folder: the id in every answer from these weights. */
  private readonly weightsIds = new WeakMap<WorkerClient, Map<string, string>>();

  /**
   * @param label keeps the models of services that share a worker apart
   * @param embedder folder of the embedding model
   * @param told receives the prompts of every answered batch, and messages for the operator
   */
  constructor(
    run: ServedRun,
    label: string,
    embedder: string,
    told: { readonly onPrompts?: (tokens: PromptTokens) => void; readonly log?: (message: string) => void } = {},
  ) {
    this.run = run;
    this.label = label;
    this.embedder = embedder;
    this.onPrompts = told.onPrompts ?? (() => {});
    this.alarm = new AnswerAlarm(told.log ?? (() => {}));
  }

  /**
   * Loads every model that answers; one copy if two modes share weights. Throws CheckpointError or WorkerError.
   * @param encodes loads the embedding model too
   */
  async load(client: WorkerClient, encodes: boolean, signal: AbortSignal): Promise<LoadedRun> {
    const { config, tokenizer, systems } = this.run;
    const hashes: Record<string, string> = {};
    let loaded: LoadedModel | undefined;
    const own = config.model.source === "scratch" ? readFileSync(this.run.tokenizerFile) : undefined;
    for (const weights of this.weights()) {
      const modelId = this.nameModel(weights);
      loaded = await client.loadModel(
        {
          modelId,
          ...(await modelRequest(config, own, () => {}, signal)),
          trainable: false,
          prefixCacheBytes: config.serve.prefixCacheMb * 2 ** 20,
        },
        { signal },
      );
      const state = await client.loadState({ modelId, path: weights, includeOptimizer: false }, { signal });
      checkLineage(weights, state, {
        catalogue: tokenizer.catalogue.hash(),
        tokenizer: sha256(loaded.tokenizerJson),
      });
      this.remember(client, weights, state.weightsId);
      if (weights === this.run.experts?.languageModel) hashes.generative = state.sha256;
      for (const [mode, system] of Object.entries(systems)) if (system.weights === weights) hashes[mode] = state.sha256;
    }
    for (const { fit, path } of this.run.experts?.weights ?? []) {
      const modelId = this.nameModel(path);
      const sasrec = await client.loadModel(
        { modelId, ...sasrecModel(config, this.run.items.length, fit), trainable: false },
        { signal },
      );
      const state = await client.loadState({ modelId, path, includeOptimizer: false }, { signal });
      checkLineage(path, state, { catalogue: this.run.dataHash, tokenizer: sha256(sasrec.tokenizerJson) });
      hashes[`sasrec, fit ${fit}`] = state.sha256;
    }
    if (encodes) await this.loadEncoder(client, signal);
    if (!loaded)
      return {
        tokenizerJson: undefined,
        numParameters: 0,
        maxPositions: 0,
        chat: undefined,
        weights: hashJson(hashes),
      };
    const { tokenizerJson, numParameters, maxPositions } = loaded;
    const chat = chooseChatFrame(config, loaded, Tokenizer.fromJson(tokenizerJson));
    return { tokenizerJson, numParameters, maxPositions, chat, weights: hashJson(hashes) };
  }

  /** The first use loads the embedding model, which takes seconds. */
  async loadEncoder(client: WorkerClient, signal: AbortSignal): Promise<void> {
    await this.encode(client, [""], signal);
  }

  private remember(client: WorkerClient, weights: string, weightsId: string): void {
    const known = this.weightsIds.get(client) ?? new Map<string, string>();
    this.weightsIds.set(client, known.set(weights, weightsId));
  }

  /** Throws WorkerError (the worker is lost) if an answer was not computed by the weights that load() checked. */
  private checkWeights(client: WorkerClient, weights: string, weightsId: string): void {
    const known = this.weightsIds.get(client)?.get(weights);
    if (known !== undefined && known !== "" && known === weightsId) return;
    throw new WorkerError("the model in the worker is not the one the service loaded: another client changed it", {
      retryable: true,
      advice: "Protect the workers of a service from other clients: --token-file and --serving.",
    });
  }

  /** Throws WorkerError (the worker is lost) if it does not answer or no longer has the models. */
  async check(client: WorkerClient, timeoutMs: number): Promise<void> {
    const { modelIds } = await client.getInfo({ timeoutMs });
    const missing = this.allWeights().filter((weights) => !modelIds.includes(this.nameModel(weights)));
    if (missing.length > 0) throw new WorkerError("the worker has lost its model", { retryable: true });
  }

  /** Unloads the models from a worker that keeps running. Never throws. */
  async unload(client: WorkerClient): Promise<void> {
    for (const weights of this.allWeights())
      await client.unloadModel(this.nameModel(weights), { timeoutMs: 5_000 }).catch(() => {});
  }

  /** Resolves once the worker reaches a new call: it has then finished or abandoned all earlier ones. */
  async probe(client: WorkerClient, timeoutMs: number): Promise<void> {
    const [weights] = this.weights();
    if (weights === undefined) return void (await client.getInfo({ timeoutMs }));
    const modelId = this.nameModel(weights);
    await client.forward({ modelId, batch: { groups: [{ prompt: [0], responses: [[0]] }] } }, { timeoutMs });
  }

  encode(client: WorkerClient, texts: readonly string[], signal: AbortSignal) {
    const { collaborativeDims } = this.run.config.sid;
    return encodeTexts(client, this.run.tokenizer, this.embedder, texts, { collaborativeDims, signal });
  }

  /** Facts about a request's items, besides their statistics, that evidence needs. */
  async findFacts(
    client: () => WorkerClient,
    mode: ServeMode,
    found: FoundItems,
    preparer: RequestPreparer,
    signal: AbortSignal,
  ): Promise<SlateFacts> {
    const { experts, findUser, items, systems } = this.run;
    if (!systems[mode] || !usesEvidence(this.run.config, systems[mode])) return {};
    const isKnown = (row: number): boolean => row < items.length;
    const history = found.history.map((f) => f.row).filter(isKnown);
    const known = findUser(history);
    if (!experts) return { time: known?.time };
    const worker = {
      client: client(),
      nameModel: (path: string) => this.nameModel(path),
      encoder: () => preparer.catalogueEncoder(),
    };
    const question = { history, candidates: found.candidates.map((f) => f.row), user: known?.user };
    return { time: known?.time, experts: await experts.score(worker, question, signal) };
  }

  /** One order per request; undefined for an invalid answer. All requests have the same mode. */
  async answer(
    client: WorkerClient,
    mode: ServeMode,
    requests: readonly PreparedRequest[],
    preparer: RequestPreparer,
    call: WorkerCall,
    onToken?: OnToken,
  ): Promise<(Order | undefined)[]> {
    const { weights, prior, writes } = this.run.systems[mode] as ServedSystem;
    if (weights === undefined) return requests.map((q) => priorOrder(q));
    try {
      const written = mode === "think" ? mode : writes;
      return written === undefined
        ? await this.direct(client, { weights, prior }, requests, call)
        : await this.write(client, { weights, prior, writes: written }, requests, preparer, call, onToken);
    } catch (e) {
      // If the worker has lost the model, its refusal would look like a bad request.
      if (e instanceof WorkerError && !e.retryable && !call.signal.aborted) await this.check(client, checkTimeoutMs);
      throw e;
    }
  }

  private async direct(
    client: WorkerClient,
    { weights, prior }: Weighed,
    requests: readonly PreparedRequest[],
    call: WorkerCall,
  ): Promise<Order[]> {
    const groups = requests.map((q) => ({ prompt: q.prompt, responses: q.sequences }));
    const { logprobs, reusedPromptTokens, weightsId } = await client.forward(
      {
        modelId: this.nameModel(weights),
        batch: { groups },
        microBatchTokens: this.run.config.runtime.microBatchTokens,
      },
      call,
    );
    this.checkWeights(client, weights, weightsId);
    this.count(requests, reusedPromptTokens);
    const sums = sumLogLikelihoods(groups, logprobs);
    return requests.map((q, i) => directOrder(q, prior, sums[i] as number[]));
  }

  private async write(
    client: WorkerClient,
    { weights, prior, writes }: Weighed & { readonly writes: "think" | "answer" },
    requests: readonly PreparedRequest[],
    preparer: RequestPreparer,
    call: WorkerCall,
    onToken: OnToken | undefined,
  ): Promise<(Order | undefined)[]> {
    const wanted = countWanted(requests);
    const out: (Order | undefined)[] = requests.map(() => undefined);
    let answered = 0;
    let reused = 0;
    const events = client.sample(
      {
        modelId: this.nameModel(weights),
        prompts: requests.map((q) => q.prompt),
        ...decodingRules(preparer.options, requests, prior, writes, wanted),
        temperature: 0,
        seed: 0,
        maxBatchTokens: this.run.config.runtime.sampleBatchTokens,
        streamTokens: onToken !== undefined,
      },
      call,
    );
    for await (const event of events) {
      this.checkWeights(client, weights, event.weightsId);
      for (const t of event.tokens ?? []) onToken?.(t.prompt, t.index, t.token);
      reused = Math.max(reused, event.reusedPromptTokens);
      for (const c of event.completions) {
        answered++;
        const request = requests[c.prompt] as PreparedRequest;
        out[c.prompt] = writtenOrder(preparer.options, request, c, writes, wanted, preparer.decode, this.alarm.note);
      }
    }
    if (answered < requests.length)
      throw new WorkerError(`the worker answered ${answered} of ${requests.length} requests`, { retryable: true });
    this.count(requests, reused);
    return out;
  }

  private count(requests: readonly PreparedRequest[], reused: number): void {
    this.onPrompts({ computed: requests.reduce((sum, q) => sum + q.prompt.length, 0) - reused, reused });
  }

  /** The weights folders of the language models, each once. */
  private weights(): string[] {
    const all = [...Object.values(this.run.systems).map((s) => s.weights), this.run.experts?.languageModel];
    return [...new Set(all.filter((weights) => weights !== undefined))];
  }

  private allWeights(): string[] {
    return [...this.weights(), ...(this.run.experts?.weights ?? []).map(({ path }) => path)];
  }

  private nameModel(weights: string): string {
    return `serve-${this.label}-${this.allWeights().indexOf(weights)}`;
  }
}
