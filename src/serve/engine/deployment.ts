/**
 * One run in service: its workers with their loaded models, and the queues. A hot swap creates a second deployment and
 * lets the first finish; deployments do not know each other.
 */
import { CheckpointError, WorkerError } from "../../core/errors.ts";
import { hashJson, sha256 } from "../../core/hash.ts";
import { checkEmbedder } from "../../models/item-encoder.ts";
import { computePrior, type Prior } from "../../policy/prior.ts";
import { findFault } from "../../prompts/reasoning.ts";
import { Tokenizer } from "../../worker/tokenizer.ts";
import type { WorkerClient } from "../../worker/types.ts";
import type { SlateFacts } from "../model/evidence.ts";
import { type FoundItems, ItemResolver } from "../model/items.ts";
import { Lru } from "../model/lru.ts";
import { type LoadedRun, RunModel } from "../model/model.ts";
import { NewItems } from "../model/new-items.ts";
import type { Order } from "../model/order.ts";
import { type PreparedRequest, RequestPreparer } from "../model/prepared-request.ts";
import { RegisteredItems } from "../model/registered-items.ts";
import type { ServedRun } from "../model/served-run.ts";
import type { ReasoningParts } from "../request/reasoning.ts";
import type { Caller, PromptTokens, ServedModel, ServeMode } from "../request/types.ts";
import { Batcher } from "./batcher.ts";
import { type StartedWorker, WorkerPool } from "./pool.ts";

export interface DeploymentOptions {
  readonly run: ServedRun;
  /** Keeps the models of services that share a worker apart. */
  readonly label: string;
  readonly start: (number: number, signal: AbortSignal) => Promise<StartedWorker>;
  /** Starts the worker that encodes unknown texts, if there is a separate one. */
  readonly startEncoder?: ((signal: AbortSignal) => Promise<StartedWorker>) | undefined;
  /** Stores registered items. */
  readonly itemsFile: string;
  readonly log: (message: string) => void;
  readonly onPrompts?: (tokens: PromptTokens) => void;
  readonly backoffMs?: readonly number[];
}

/** Time limit for a worker's health check. */
const healthTimeoutMs = 10_000;

export class Deployment {
  readonly model: ServedModel;
  readonly pool: WorkerPool;
  readonly batcher: Batcher;
  readonly items: ItemResolver;
  readonly preparer: RequestPreparer;
  /** Direct answers by their question's key. */
  readonly answers: Lru<string, Order>;
  private readonly runModel: RunModel;
  private readonly tokenizer: Tokenizer | undefined;

  private readonly encoders: WorkerPool | undefined;
  private readonly newItems: NewItems;

  private constructor(
    { run, itemsFile }: DeploymentOptions,
    runModel: RunModel,
    { pool, encoders }: Pools,
    loaded: LoadedRun,
  ) {
    const { serve } = run.config;
    this.encoders = encoders;
    this.runModel = runModel;
    this.pool = pool;
    this.tokenizer = loaded.tokenizerJson && Tokenizer.fromJson(loaded.tokenizerJson);
    this.preparer = new RequestPreparer(run, this.tokenizer, loaded.chat);
    this.model = describeModel(run, loaded, this.preparer);
    this.batcher = new Batcher({
      maxBatch: serve.maxBatch,
      batchWaitMs: serve.batchWaitMs,
      pool,
      answer: (worker, mode, asked, signal, onToken, traceparents) =>
        runModel.answer(worker.client, mode, asked, this.preparer, { signal, traceparents }, onToken),
      probe: (worker) => runModel.probe(worker.client, serve.stallMs),
    });
    this.newItems = new NewItems(async (texts, signal) => runModel.encode(this.anyEncoder(), texts, signal), {
      capacity: serve.newItems,
      maxWaiting: serve.newItemsQueue,
      cost: serve.newItemCost,
    });
    const lineage = hashJson(run.tokenizer.identity);
    const registered = new RegisteredItems(itemsFile, lineage, (text, codes) => this.newItems.pin(text, codes));
    this.items = new ItemResolver(run, this.newItems, registered);
    this.answers = new Lru(serve.cache);
    pool.onReady(() => this.batcher.pump());
  }

  /** Resolves once the first worker is ready; rejects with the problem of the run or the workers. */
  static async open(options: DeploymentOptions, signal: AbortSignal): Promise<Deployment> {
    const { run, label, log, onPrompts } = options;
    const embedder = await checkEmbedder(run.config, run.tokenizer.identity, log, signal);
    const runModel = new RunModel(run, label, embedder, { log, ...(onPrompts ? { onPrompts } : {}) });
    let first: LoadedRun | undefined;
    const answers = workerPool(options, runModel, (loaded) => {
      first ??= loaded;
      return first;
    });
    const pools: Pools = { pool: answers, encoders: encoderPool(options, runModel) };
    const close = (): Promise<unknown> => Promise.all([pools.pool.close(), pools.encoders?.close()]);
    const stop = () => void close();
    signal.addEventListener("abort", stop);
    try {
      // Until it is ready the answering workers encode: it may come later, and its pool logs what is wrong.
      const encoding = pools.encoders?.begin().catch(() => {});
      await pools.pool.begin();
      await encoding;
      const deployment = new Deployment(options, runModel, pools, first as unknown as LoadedRun);
      void deployment.items
        .encodeRegistered(registrar, new AbortController().signal)
        .catch((e: unknown) => log(`encoding registered items failed: ${e instanceof Error ? e.message : e}`));
      return deployment;
    } catch (e) {
      await close();
      throw e;
    } finally {
      signal.removeEventListener("abort", stop);
    }
  }

  private anyEncoder(): WorkerClient {
    return this.encoders?.ready()[0]?.client ?? this.anyWorker();
  }

  private anyWorker(): WorkerClient {
    const ready = this.pool.ready();
    const worker = ready.find((w) => !w.busy) ?? ready[0];
    if (!worker) throw new WorkerError("no worker is ready", { retryable: true });
    return worker.client;
  }

  /** Scores of the pre-rankers that the evidence needs; rejects with WorkerError. */
  findFacts(mode: ServeMode, found: FoundItems, signal: AbortSignal): Promise<SlateFacts> {
    return this.runModel.findFacts(() => this.anyWorker(), mode, found, this.preparer, signal);
  }

  /** Decodes this model's reasoning to text. */
  reasoningParts({ prompt, titles }: Pick<PreparedRequest, "prompt" | "titles">): ReasoningParts {
    const { run } = this.runModel;
    const { encoder, decoding } = this.preparer.options;
    return {
      shape: run.catalogue.shape,
      decode: this.preparer.decode,
      trigger: this.preparer.constraintTokens().trigger,
      getTitle: (codes) => {
        const row = run.catalogue.findRow(codes);
        return titles.get(codes.join()) ?? (row === undefined ? undefined : run.items[row]?.title || "untitled");
      },
      isSound: (tokens) => findFault({ prompt, tokens }, encoder, decoding.maxReasoningTokens, false) === undefined,
    };
  }

  async close(): Promise<void> {
    this.newItems.close();
    await Promise.all([this.pool.close(), this.encoders?.close()]);
  }
}

interface Pools {
  readonly pool: WorkerPool;
  /** Runs with at most one worker. */
  readonly encoders: WorkerPool | undefined;
}

/** The client name under which registered items are encoded again for another run. */
const registrar: Caller = { name: " registered", charge: () => {} };

/** @param agree receives what a worker has loaded; returns what the first worker loaded */
function workerPool(
  { run, start, startEncoder, log, backoffMs }: DeploymentOptions,
  runModel: RunModel,
  agree: (loaded: LoadedRun) => LoadedRun,
): WorkerPool {
  const { serve } = run.config;
  const remote = serve.addresses.length > 0;
  return new WorkerPool({
    count: remote ? serve.addresses.length : serve.workers,
    start: async (number, ending) => {
      const started = await start(number, ending);
      if (!remote) return started;
      const close = async (): Promise<void> => {
        await runModel.unload(started.client);
        await started.close();
      };
      return { ...started, close };
    },
    prepare: async (client, ending) => {
      const loaded = await runModel.load(client, startEncoder === undefined, ending);
      const first = agree(loaded);
      if (loaded.weights !== first.weights || hashTokenizer(loaded) !== hashTokenizer(first))
        throw new CheckpointError(`the weights of run ${run.name} have changed since the service loaded them`, {
          advice: "Reload the run in the service: kill -HUP PID.",
        });
    },
    check: (client) => runModel.check(client, healthTimeoutMs),
    healthMs: serve.healthMs,
    ...(backoffMs ? { backoffMs } : {}),
    log,
  });
}

function encoderPool(
  { run, startEncoder, log, backoffMs }: DeploymentOptions,
  runModel: RunModel,
): WorkerPool | undefined {
  if (!startEncoder) return undefined;
  return new WorkerPool({
    count: 1,
    start: (_, ending) => startEncoder(ending),
    prepare: (client, ending) => runModel.loadEncoder(client, ending),
    check: async (client) => void (await client.getInfo({ timeoutMs: healthTimeoutMs })),
    healthMs: run.config.serve.healthMs,
    ...(backoffMs ? { backoffMs } : {}),
    log: (message) => log(`encoder: ${message}`),
  });
}

const hashTokenizer = ({ tokenizerJson }: LoadedRun): string => (tokenizerJson ? sha256(tokenizerJson) : "");

function describeModel(run: ServedRun, loaded: LoadedRun, preparer: RequestPreparer): ServedModel {
  const { limits, maxBatch } = run.config.serve;
  const { systems, catalogue } = run;
  const hashes = {
    config: run.configHash,
    weights: loaded.weights,
    tokenizer: hashTokenizer(loaded),
    data: hashJson({ data: run.dataHash, catalogue: catalogue.hash() }),
  };
  const named = {
    ...(systems.think ? { think: systems.think.name } : {}),
    ...(systems.direct ? { direct: systems.direct.name } : {}),
  };
  return {
    name: run.name,
    version: `${run.name}-${hashJson({ ...hashes, named, priors: Object.values(systems).map((s) => s.prior) }).slice(0, 12)}`,
    systems: named,
    recommendation: { system: run.recommendation.system, sentence: run.recommendation.sentence },
    positionOdds: {
      ...(systems.think ? { think: positionOdds(systems.think.prior, run.typical.score) } : {}),
      ...(systems.direct ? { direct: positionOdds(systems.direct.prior, run.typical.score) } : {}),
    },
    lifts: {
      ...(systems.think?.lift ? { think: systems.think.lift } : {}),
      ...(systems.direct?.lift ? { direct: systems.direct.lift } : {}),
    },
    hashes,
    numParameters: loaded.numParameters,
    modes: (["think", "direct"] as const).filter((mode: ServeMode) => systems[mode] !== undefined),
    limits: {
      maxCandidates: Math.min(limits.maxCandidates, preparer.mostCandidates("direct", loaded.maxPositions)),
      maxThinkCandidates: Math.min(limits.maxCandidates, preparer.mostCandidates("think", loaded.maxPositions)),
      maxHistory: limits.maxHistory,
      maxTextBytes: limits.maxTextBytes,
      maxRequestBytes: limits.maxRequestBytes,
      maxBatch,
      maxItems: limits.maxItems,
      maxDeadlineMs: limits.maxDeadlineMs,
    },
  };
}

/** @param scores standardised pre-rank score assumed for each position */
function positionOdds(prior: Prior, scores: readonly number[]): number[] {
  const weighed = computePrior({ ...prior, evidence: 0 }, { scores });
  return weighed.map((w) => Number(Math.exp(w - (weighed[0] as number)).toPrecision(3)));
}
