/**
 * The re-ranker behind every transport: admits, finds items, queues, and answers within the deadline whatever happens: by
 * the model, or by the caller's own order with the reason why. Swaps runs without losing a request; drains at the end.
 *
 *   arrival ─ check ─ admission ─ items (unknown ones encoded) ─ question ─ cache ─ batcher ─ answer
 */
import { Gr2Error } from "../../core/errors.ts";
import type { Order, Question } from "../model/question.ts";
import { checkRequest } from "../request/check.ts";
import { ThoughtStream, thoughtText } from "../request/thought.ts";
import {
  type FallbackReason,
  Refusal,
  type RerankAnswer,
  type RerankEvent,
  type Reranker,
  type RerankRequest,
  type ServedModel,
} from "../request/types.ts";
import { Job } from "./batcher.ts";
import type { Deployment } from "./deployment.ts";
import type { LoopLag } from "./loop-lag.ts";

export interface EngineSettings {
  readonly maxQueue: number;
  readonly defaultDeadlineMs: number;
  readonly overload: "refuse" | "own-order";
  readonly maxLagMs: number;
}

type OnThought = (piece: string) => void;

/** What a request came to. */
type Outcome =
  | {
      readonly kind: "order";
      readonly question: Question;
      readonly order: Order;
      readonly queueMs: number;
      readonly modelMs: number;
    }
  | { readonly kind: "fallback"; readonly reason: FallbackReason; readonly queueMs: number; readonly modelMs: number }
  | { readonly kind: "gone" };

const fallback = (reason: FallbackReason, times: { queueMs?: number; modelMs?: number } = {}): Outcome => ({
  kind: "fallback",
  reason,
  queueMs: times.queueMs ?? 0,
  modelMs: times.modelMs ?? 0,
});

/** Kept back of a deadline for the way home. */
const reserveMs = (deadlineMs: number): number => Math.min(20, 0.05 * deadlineMs);

export class Engine implements Reranker {
  private readonly settings: EngineSettings;
  private readonly log: (message: string) => void;
  private readonly lag: Pick<LoopLag, "standing">;
  private current: Deployment | undefined;
  /** Requests under way, by the run that answers them; retired runs included. */
  private readonly underWay = new Map<Deployment, Set<(reason: FallbackReason) => void>>();
  private readonly retiring = new Set<Promise<void>>();
  private idle: (() => void)[] = [];
  private draining = false;

  constructor(settings: EngineSettings, log: (message: string) => void, lag: Pick<LoopLag, "standing">) {
    this.settings = settings;
    this.log = log;
    this.lag = lag;
  }

  shed(): void {
    const lag = this.lag.standing();
    if (lag <= this.settings.maxLagMs || this.settings.overload === "own-order") return;
    throw new Refusal("overloaded", `more requests come than can be read: the service is ${Math.ceil(lag)} ms late`, {
      retryAfterMs: 2 * Math.ceil(lag),
    });
  }

  rerank(request: RerankRequest, options: { readonly signal?: AbortSignal } = {}): Promise<RerankAnswer> {
    return this.answer(request, options.signal, undefined);
  }

  async *stream(
    request: RerankRequest,
    options: { readonly signal?: AbortSignal } = {},
  ): AsyncGenerator<RerankEvent, void, void> {
    const left = new AbortController(); // whoever stops reading
    const signal = options.signal ? AbortSignal.any([options.signal, left.signal]) : left.signal;
    const pieces: string[] = [];
    let wake: () => void = () => {};
    let finished = false;
    const answer = this.answer(request, signal, (piece) => {
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
        while (pieces.length > 0) yield { kind: "thought", text: pieces.shift() as string };
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

  model(): ServedModel | undefined {
    return this.current?.model;
  }

  ready(): boolean {
    return !this.draining && (this.current?.pool.ready().length ?? 0) > 0;
  }

  load() {
    let [queued, running] = [0, 0];
    for (const deployment of this.underWay.keys()) {
      const load = deployment.batcher.load();
      queued += load.queued;
      running += load.running;
    }
    const pool = this.current?.pool;
    return { queued, running, workers: pool?.size ?? 0, workersReady: pool?.ready().length ?? 0 };
  }

  /** Answers from now on with this run; the one before finishes what it has accepted and closes. */
  deploy(next: Deployment): void {
    const before = this.current;
    this.underWay.set(next, new Set());
    this.current = next;
    if (before) {
      const retired = this.whenIdle(before).then(() => this.close(before));
      this.retiring.add(retired);
      void retired.finally(() => this.retiring.delete(retired));
    }
  }

  /** Accepts nothing more, finishes what is accepted; what is not finished in time gets the caller's own order. */
  async drain(withinMs: number): Promise<void> {
    this.draining = true;
    const force = setTimeout(() => {
      for (const requests of this.underWay.values()) for (const end of [...requests]) end("shutting_down");
    }, withinMs);
    await Promise.all([...this.underWay.keys()].map((d) => this.whenIdle(d)));
    clearTimeout(force);
    await Promise.all(this.retiring);
    if (this.current) await this.close(this.current);
    this.current = undefined;
  }

  private async close(deployment: Deployment): Promise<void> {
    await deployment.close();
    this.underWay.delete(deployment);
  }

  private async whenIdle(deployment: Deployment): Promise<void> {
    while ((this.underWay.get(deployment)?.size ?? 0) > 0)
      await new Promise<void>((resolve) => {
        this.idle.push(resolve);
      });
  }

  private async answer(
    request: RerankRequest,
    signal: AbortSignal | undefined,
    onThought: OnThought | undefined,
  ): Promise<RerankAnswer> {
    const lag = this.lag.standing();
    const arrived = performance.now() - lag;
    const deployment = this.current;
    if (!deployment || this.draining)
      throw new Refusal("unavailable", this.draining ? "the service is shutting down" : "no model is loaded", {
        retryAfterMs: 1_000,
      });
    checkRequest(request, deployment.model);
    const deadlineMs = (request.deadlineMs || this.settings.defaultDeadlineMs) - lag;
    const times = { encode: 0 };
    const outcome =
      deployment.pool.ready().length === 0
        ? fallback("worker_lost")
        : (this.admission(deployment, request, deadlineMs) ??
          (await this.within(deployment, deadlineMs - reserveMs(deadlineMs), signal, (stop, jobs) =>
            this.work(deployment, request, stop, jobs, times, onThought),
          )));
    if (outcome.kind === "gone") throw new Refusal("unavailable", "the caller has gone away");
    const ranking = outcome.kind === "order" ? outcome.order.ranking : ownOrder(request);
    return {
      ranking: ranking
        .slice(0, request.topN || ranking.length)
        .map(({ place, score }) => ({ place, id: request.candidates[place]?.id as string, score })),
      thought:
        outcome.kind === "order" && request.mode === "think"
          ? thoughtText(outcome.order.thought, deployment.thoughtParts(outcome.question.titles))
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
          ? { prompt: outcome.question.prompt.length, generated: outcome.order.generated }
          : { prompt: 0, generated: 0 },
      modelVersion: deployment.model.version,
    };
  }

  /** Undefined: let it in. Throws Refusal, or says that the caller's order is to come back. */
  private admission(deployment: Deployment, request: RerankRequest, deadlineMs: number): Outcome | undefined {
    if (this.lag.standing() > this.settings.maxLagMs && this.settings.overload === "own-order")
      return fallback("overload");
    const waiting = (this.underWay.get(deployment)?.size ?? 0) - deployment.batcher.load().running;
    const { wait, own } = deployment.batcher.expected(request.mode);
    // With nothing ahead a request is tried whatever it takes: what is known of the time may be wrong.
    const late = wait > 0 && wait + own > deadlineMs;
    if (waiting < this.settings.maxQueue && !late) return undefined;
    if (this.settings.overload === "own-order") return fallback("overload");
    const retryAfterMs = Math.ceil(Math.max(10, waiting < this.settings.maxQueue ? wait + own - deadlineMs : wait));
    throw new Refusal(
      "overloaded",
      late
        ? `an answer would take about ${Math.ceil(wait + own)} ms, the deadline is ${Math.round(deadlineMs)} ms`
        : `${this.settings.maxQueue} requests are waiting`,
      { retryAfterMs },
    );
  }

  /** Runs `work` against the clock, the caller's signal and the end of the service; then nothing of it goes on. */
  private async within(
    deployment: Deployment,
    ms: number,
    signal: AbortSignal | undefined,
    work: (stop: AbortSignal, jobs: Job[]) => Promise<Outcome>,
  ): Promise<Outcome> {
    const stop = new AbortController();
    const jobs: Job[] = [];
    const requests = this.underWay.get(deployment) as Set<(reason: FallbackReason) => void>;
    let end: (outcome: Outcome) => void = () => {};
    const ended = new Promise<Outcome>((resolve) => {
      end = resolve;
    });
    const onEnd = (reason: FallbackReason) => end(fallback(reason));
    const onAbort = () => end({ kind: "gone" });
    const late = () => end(fallback(deployment.pool.ready().length === 0 ? "worker_lost" : "deadline"));
    const timer = setTimeout(late, ms);
    requests.add(onEnd);
    if (signal?.aborted) onAbort();
    signal?.addEventListener("abort", onAbort);
    try {
      return await Promise.race([ended, work(stop.signal, jobs)]);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", onAbort);
      stop.abort();
      for (const job of jobs) job.settle("lost");
      requests.delete(onEnd);
      if (requests.size === 0) for (const wake of this.idle.splice(0)) wake();
    }
  }

  /** From items to an order. Rejects with Refusal alone. */
  private async work(
    deployment: Deployment,
    request: RerankRequest,
    stop: AbortSignal,
    jobs: Job[],
    times: { encode: number },
    onThought: OnThought | undefined,
  ): Promise<Outcome> {
    const start = performance.now();
    let question: Question;
    try {
      const found = await deployment.items.find(request, stop);
      const scores = request.candidates.map((c) => c.score);
      question = deployment.questions.ask(
        request.mode,
        found,
        scores.every((s) => s !== undefined) ? scores : undefined,
        request.topN,
      );
    } catch (e) {
      if (e instanceof Refusal) throw e;
      if (!stop.aborted)
        this.log(`a request's items cannot be found: ${e instanceof Gr2Error ? e.message : String(e)}`);
      return fallback("worker_lost");
    } finally {
      times.encode = performance.now() - start;
    }
    if (stop.aborted) return { kind: "gone" };
    const known = request.mode === "direct" ? deployment.answers.get(question.key) : undefined;
    if (known) return { kind: "order", question, order: known, queueMs: 0, modelMs: 0 };
    const job = new Job(question, onThought && tokensTo(onThought, deployment, question));
    jobs.push(job);
    deployment.batcher.push(job);
    const result = await job.result;
    if (result.kind === "lost") return fallback("worker_lost", result);
    if (result.kind === "invalid") return fallback("invalid_answer", result);
    if (request.mode === "direct") deployment.answers.set(question.key, result.order);
    const { order, queueMs, modelMs } = result;
    return { kind: "order", question, order, queueMs, modelMs };
  }
}

function tokensTo(onThought: OnThought, deployment: Deployment, question: Question) {
  const stream = new ThoughtStream(deployment.thoughtParts(question.titles));
  return (index: number, token: number): void => {
    const piece = stream.push(index, token);
    if (piece !== "") onThought(piece);
  };
}

const ownOrder = ({ candidates }: RerankRequest): Order["ranking"] =>
  candidates.map((_, place) => ({ place, score: 1 - place / candidates.length }));
