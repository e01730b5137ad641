/**
 * Ranks many slates with the service's own engine, in this process: the orders are those of `gr2 serve`. Several slates
 * are in progress at a time to fill the workers' batches; results come in the order of the slates. A slate that cannot
 * be ranked becomes a row with an error; after a worker is lost, its restart is awaited.
 */
import { setMaxListeners } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { InterruptedError, WorkerError } from "../../core/errors.ts";
import { Deployment, type DeploymentOptions } from "../engine/deployment.ts";
import { Engine } from "../engine/engine.ts";
import { Refusal, type RerankAnswer, type Reranker, type ServeMode } from "../request/types.ts";
import type { RankedSlate } from "./parts.ts";
import type { ReadSlate } from "./read-slates.ts";

export interface RankOptions {
  readonly reranker: Reranker;
  readonly mode: ServeMode;
  /** 0 = all. */
  readonly topN: number;
  /** Slates in progress at a time. */
  readonly concurrency: number;
  readonly signal: AbortSignal;
}

/** Nobody waits for an answer: none times out. */
const noDeadlineMs = 24 * 3_600_000;

/** An engine without the service around it. Close it with `drain(0)`. */
export async function openEngine(options: Omit<DeploymentOptions, "label">, signal: AbortSignal): Promise<Engine> {
  const engine = new Engine(
    {
      maxQueue: Number.MAX_SAFE_INTEGER,
      maxLagMs: Number.POSITIVE_INFINITY,
      standingMs: Number.POSITIVE_INFINITY,
      standingWait: 1,
      overload: "own-order",
      onFallback: "own-order",
      defaultDeadlineMs: noDeadlineMs,
    },
    options.log,
    { standing: () => 0 },
  );
  engine.deploy(await Deployment.open({ ...options, label: "batch" }, signal));
  return engine;
}

export async function* rankSlates(slates: AsyncIterable<ReadSlate>, options: RankOptions): AsyncGenerator<RankedSlate> {
  setMaxListeners(0, options.signal); // each slate waiting for a lost worker adds a listener
  const pending: Promise<RankedSlate | { readonly fatal: unknown }>[] = [];
  const next = async (): Promise<RankedSlate> => {
    const result = await (pending.shift() as (typeof pending)[number]);
    if ("fatal" in result) throw result.fatal;
    return result;
  };
  for await (const slate of slates) {
    if (options.signal.aborted) throw new InterruptedError();
    pending.push(rank(slate, options).catch((fatal: unknown) => ({ fatal })));
    if (pending.length >= options.concurrency) yield await next();
  }
  while (pending.length > 0) yield await next();
}

/** Seconds before the second, third, ... attempt with a worker that was lost. */
const pauses = [1, 2, 4, 8, 16, 32];

async function rank(slate: ReadSlate, { reranker, mode, topN, signal }: RankOptions): Promise<RankedSlate> {
  if ("fault" in slate) return failed(slate.slate, `line ${slate.line}: ${slate.fault}`);
  const { history, candidates } = slate;
  const request = { history, candidates, topN: Math.min(topN, candidates.length), mode, deadlineMs: 0 };
  for (const pause of [...pauses, undefined]) {
    let answer: RerankAnswer | undefined;
    try {
      answer = await reranker.rerank(request); // stopping the engine ends this call too
    } catch (e) {
      if (signal.aborted) throw new InterruptedError();
      if (!(e instanceof Refusal)) throw e;
      if (e.code === "invalid" || e.code === "too_large") return failed(slate.slate, e.message);
    }
    if (answer && answer.fallback !== "worker_lost") return describe(slate.slate, answer);
    if (pause !== undefined) await sleep(1000 * pause, undefined, { signal }).catch(() => {});
    if (signal.aborted) throw new InterruptedError();
  }
  throw new WorkerError("no worker has come back", {
    retryable: true,
    advice: "See serve-worker-*.log in the run's folder; the same command resumes.",
  });
}

const describe = (slate: string, { ranking, reasoning, fallback }: RerankAnswer): RankedSlate => ({
  slate,
  ranked: ranking.map((r) => r.id),
  scores: ranking.map((r) => Number(r.score.toPrecision(6))),
  reasoning: reasoning === "" ? null : reasoning,
  fallback: fallback ?? null,
  error: null,
});

const failed = (slate: string, error: string): RankedSlate => ({
  ...{ slate, ranked: [], scores: [], reasoning: null, fallback: null },
  error,
});
