/**
 * The re-ranker for all transports: takes a request from arrival to answer, always within the deadline. The answer
 * comes from the model, or is the caller's own order with the reason. Admission is in admission.ts, the run that
 * answers in rotation.ts.
 *
 *   arrival ─ check ─ admission ─ items (unknown ones encoded) ─ prompt ─ cache ─ batcher ─ answer
 */
import { Gr2Error } from "../../core/errors.ts";
import { orderBy } from "../../policy/prior.ts";
import type { Order } from "../model/order.ts";
import type { PreparedRequest } from "../model/prepared-request.ts";
import { withoutBlanks } from "../request/blanks.ts";
import { checkItems, checkRequest } from "../request/check.ts";
import { ReasoningStream, reasoningText } from "../request/reasoning.ts";
import {
  type Caller,
  type CallOptions,
  type FallbackReason,
  type ItemReference,
  type OnFallback,
  Refusal,
  type RegisteredCount,
  type RerankAnswer,
  type RerankEvent,
  type Reranker,
  type RerankRequest,
  type ServedModel,
} from "../request/types.ts";
import { Admission, type AdmissionSettings } from "./admission.ts";
import { Job } from "./batcher.ts";
import type { Deployment } from "./deployment.ts";
import type { LoopLag } from "./loop-lag.ts";
import { Rotation } from "./rotation.ts";

export interface EngineSettings extends AdmissionSettings {
  readonly defaultDeadlineMs: number;
  /** Default for requests that do not set it. */
  readonly onFallback: OnFallback;
}

type OnReasoning = (piece: string) => void;

const nobody: Caller = { name: "", charge: () => {} };

/** A request and its client. */
interface Asked {
  readonly request: RerankRequest;
  readonly caller: Caller;
  /** Receives the reasoning as it is generated. */
  readonly onReasoning: OnReasoning | undefined;
  readonly traceparent: string | undefined;
}

/** The outcome of a request. */
type Outcome =
  | {
      readonly kind: "order";
      readonly prepared: PreparedRequest;
      readonly order: Order;
      readonly queueMs: number;
      readonly modelMs: number;
      readonly cached?: true;
    }
  | { readonly kind: "fallback"; readonly reason: FallbackReason; readonly queueMs: number; readonly modelMs: number }
  | { readonly kind: "gone" };

/** Abort reason of finished requests' signals; made once, since an error with its stack is costly. */
const over = new Error("the request is over");

/** @param jobs its queued jobs: settled once nobody waits any more */
type Work = (stop: AbortSignal, jobs: Job[]) => Promise<Outcome>;

const fallback = (reason: FallbackReason, times: { queueMs?: number; modelMs?: number } = {}): Outcome => ({
  kind: "fallback",
  reason,
  queueMs: times.queueMs ?? 0,
  modelMs: times.modelMs ?? 0,
});

/** Part of a deadline reserved for returning the answer. */
const reserveMs = (deadlineMs: number): number => Math.min(20, 0.05 * deadlineMs);

export class Engine implements Reranker {
  private readonly settings: EngineSettings;
  private readonly log: (message: string) => void;
  private readonly admission: Admission;
  private readonly rotation = new Rotation();

  constructor(settings: EngineSettings, log: (message: string) => void, lag: Pick<LoopLag, "standing">) {
    this.settings = settings;
    this.log = log;
    this.admission = new Admission(settings, lag);
  }

  shed(): void {
    this.admission.shed();
  }

  rerank(request: RerankRequest, options: CallOptions = {}): Promise<RerankAnswer> {
    return this.answer(request, options, undefined);
  }

  async *stream(request: RerankRequest, options: CallOptions = {}): AsyncGenerator<RerankEvent, void, void> {
    const left = new AbortController(); // aborted when the reader stops
    const signal = options.signal ? AbortSignal.any([options.signal, left.signal]) : left.signal;
    const pieces: string[] = [];
    let wake: () => void = () => {};
    let finished = false;
    const answer = this.answer(request, { ...options, signal }, (piece) => {
      pieces.push(piece);
      wake();
    });
    const ended = () => {
      finished = true;
      wake();
    };
    answer.then(ended, ended);
    try {
      for (;;) {
        while (pieces.length > 0) yield { kind: "reasoning", text: pieces.shift() as string };
        if (finished) break;
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
      yield { kind: "answer", answer: await answer };
    } finally {
      left.abort();
    }
  }

  async register(
    items: readonly ItemReference[],
    { signal, caller = nobody }: CallOptions = {},
  ): Promise<RegisteredCount> {
    const { current: deployment, draining } = this.rotation;
    if (!deployment || draining) throw new Refusal("unavailable", "no model is loaded", { retryAfterMs: 1_000 });
    checkItems(items, deployment.model.limits);
    try {
      return await deployment.items.register(items, caller, signal ?? new AbortController().signal);
    } catch (e) {
      if (e instanceof Refusal) throw e;
      this.log(`registering items failed: ${e instanceof Gr2Error ? e.message : String(e)}`);
      throw new Refusal("unavailable", "items cannot be registered now; earlier registrations are kept");
    }
  }

  /** Reads what other processes of the service have registered since. Never throws. */
  refreshItems(): void {
    try {
      this.rotation.current?.items.refresh();
    } catch (e) {
      this.log(`registered items cannot be read: ${e instanceof Error ? e.message : String(e)}`);
    }
  }

  itemsVersion(): number {
    return this.rotation.current?.items.version ?? 0;
  }

  model(): ServedModel | undefined {
    return this.rotation.current?.model;
  }

  ready(): boolean {
    return !this.rotation.draining && (this.rotation.current?.pool.ready().length ?? 0) > 0;
  }

  load() {
    const pool = this.rotation.current?.pool;
    return { ...this.rotation.load(), workers: pool?.size ?? 0, workersReady: pool?.ready().length ?? 0 };
  }

  /** Switches to this run; the previous one finishes its accepted requests and closes. */
  deploy(next: Deployment): void {
    this.rotation.deploy(next);
  }

  /** Stops accepting and finishes accepted requests; those not finished in time get the caller's own order. */
  drain(withinMs: number): Promise<void> {
    return this.rotation.drain(withinMs);
  }

  private async answer(
    request: RerankRequest,
    { signal, caller = nobody, traceparent }: CallOptions,
    onReasoning: OnReasoning | undefined,
  ): Promise<RerankAnswer> {
    const lag = this.admission.lagMs();
    const arrived = performance.now() - lag;
    const { current: deployment, draining } = this.rotation;
    if (!deployment || draining)
      throw new Refusal("unavailable", draining ? "the service is shutting down" : "no model is loaded", {
        retryAfterMs: 1_000,
      });
    checkRequest(request, deployment.model);
    const deadlineMs = (request.deadlineMs || this.settings.defaultDeadlineMs) - lag;
    const times = { encode: 0 };
    const { asked, restore } = withoutBlanks(request);
    const outcome = await this.outcome(deployment, request, caller, deadlineMs, signal, (stop, jobs) =>
      this.work(deployment, { request: asked, caller, onReasoning, traceparent }, stop, jobs, times),
    );
    if (outcome.kind === "gone") throw new Refusal("unavailable", "the caller disconnected");
    if (outcome.kind === "fallback" && (request.onFallback ?? this.settings.onFallback) === "error")
      throw new Refusal(
        outcome.reason === "overload" ? "overloaded" : "unavailable",
        `the model gave no answer (${outcome.reason}), and the request asked for an error instead of its own order`,
        { fallback: outcome.reason },
      );
    const ranking = outcome.kind === "order" ? restore(outcome.order.ranking) : ownOrder(request);
    return {
      ranking: ranking
        .slice(0, request.topN || ranking.length)
        .map(({ position, score }) => ({ position, id: request.candidates[position]?.id as string, score })),
      reasoning:
        outcome.kind === "order" && request.mode === "think"
          ? reasoningText(outcome.order.reasoning, deployment.reasoningParts(outcome.prepared))
          : "",
      ...(outcome.kind === "fallback" ? { fallback: outcome.reason } : {}),
      timings: {
        queue: outcome.queueMs,
        encode: times.encode,
        model: outcome.modelMs,
        total: performance.now() - arrived,
      },
      tokens:
        outcome.kind === "order"
          ? { prompt: outcome.prepared.prompt.length, generated: outcome.order.generated }
          : { prompt: 0, generated: 0 },
      modelVersion: deployment.model.version,
      ...(outcome.kind === "order" && outcome.cached ? { cached: true } : {}),
    };
  }

  /** Throws Refusal if the request is not admitted. */
  private async outcome(
    deployment: Deployment,
    { mode }: RerankRequest,
    caller: Caller,
    deadlineMs: number,
    signal: AbortSignal | undefined,
    work: Work,
  ): Promise<Outcome> {
    if (deployment.pool.ready().length === 0) return fallback("worker_lost");
    const queue = {
      batcher: deployment.batcher,
      accepted: this.rotation.accepted(deployment),
      ownAccepted: () => this.rotation.acceptedFrom(caller.name, deployment),
    };
    if (!this.admission.admits(queue, mode, caller.name, deadlineMs)) return fallback("overload");
    return this.within(deployment, caller, deadlineMs - reserveMs(deadlineMs), signal, work);
  }

  /** Runs `work` until the deadline, the caller's signal or the end of the service, then stops all of it. */
  private async within(
    deployment: Deployment,
    caller: Caller,
    ms: number,
    signal: AbortSignal | undefined,
    work: Work,
  ): Promise<Outcome> {
    const stop = new AbortController();
    const jobs: Job[] = [];
    let end: (outcome: Outcome) => void = () => {};
    const ended = new Promise<Outcome>((resolve) => {
      end = resolve;
    });
    const onAbort = () => end({ kind: "gone" });
    const late = () => end(fallback(deployment.pool.ready().length === 0 ? "worker_lost" : "deadline"));
    const timer = setTimeout(late, ms);
    const leave = this.rotation.enter(deployment, caller.name, (reason) => end(fallback(reason)));
    if (signal?.aborted) onAbort();
    signal?.addEventListener("abort", onAbort);
    try {
      return await Promise.race([ended, work(stop.signal, jobs)]);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", onAbort);
      stop.abort(over);
      for (const job of jobs) job.settle("lost");
      leave();
    }
  }

  /** From items to an order. Rejects only with Refusal. */
  private async work(
    deployment: Deployment,
    { request, caller, onReasoning, traceparent }: Asked,
    stop: AbortSignal,
    jobs: Job[],
    times: { encode: number },
  ): Promise<Outcome> {
    const start = performance.now();
    let prepared: PreparedRequest;
    try {
      const found = await deployment.items.find(request, caller, stop);
      const facts = await deployment.findFacts(request.mode, found, stop);
      const scores = request.candidates.map((c) => c.score);
      prepared = deployment.preparer.prepare(
        request.mode,
        found,
        scores.every((s) => s !== undefined) ? scores : undefined,
        request.topN,
        facts,
        request.candidateOrder,
      );
    } catch (e) {
      if (e instanceof Refusal) throw e;
      if (!stop.aborted) this.log(`failed to prepare a request: ${e instanceof Gr2Error ? e.message : String(e)}`);
      return fallback("worker_lost");
    } finally {
      times.encode = performance.now() - start;
    }
    if (stop.aborted) return { kind: "gone" };
    const known = request.mode === "direct" ? deployment.answers.get(prepared.key) : undefined;
    if (known) return { kind: "order", prepared, order: known, queueMs: 0, modelMs: 0, cached: true };
    const told = request.mode === "think" ? onReasoning : undefined;
    const job = new Job(prepared, caller.name, told && tokensTo(told, deployment, prepared), traceparent);
    jobs.push(job);
    deployment.batcher.push(job);
    const result = await job.result;
    if (result.kind === "lost") return fallback("worker_lost", result);
    if (result.kind === "invalid") return fallback("invalid_answer", result);
    if (request.mode === "direct") deployment.answers.set(prepared.key, result.order);
    const { order, queueMs, modelMs } = result;
    return { kind: "order", prepared, order, queueMs, modelMs };
  }
}

function tokensTo(onReasoning: OnReasoning, deployment: Deployment, prepared: PreparedRequest) {
  const stream = new ReasoningStream(deployment.reasoningParts(prepared));
  return (index: number, token: number): void => {
    const piece = stream.push(index, token);
    if (piece !== "") onReasoning(piece);
  };
}

/** By the caller's scores if given, else as listed. */
function ownOrder({ candidates }: RerankRequest): Order["ranking"] {
  const order = orderBy(candidates.map((c) => c.score ?? 0));
  return order.map((position, rank) => ({ position, score: 1 - rank / candidates.length }));
}
