/**
 * Dynamic batching: questions wait in one queue per mode, clients in turn; a free worker takes a batch of waiting
 * questions of one mode. Each job is settled exactly once: by an answer, by a failure, or by the code that queued it
 * (deadline, caller gone). A call whose jobs are all settled is cancelled in the worker.
 *
 * If a worker is lost, its jobs return once to the head of the queue for another ready worker; otherwise they fail. A
 * call that the worker refuses is repeated question by question: one bad question does not fail the others.
 */
import { WorkerError } from "../../core/errors.ts";
import { FairQueue } from "../model/fair-queue.ts";
import type { Order } from "../model/order.ts";
import type { PreparedRequest } from "../model/prepared-request.ts";
import type { ServeMode } from "../request/types.ts";
import { BatchTimes, expectedWait } from "./latency.ts";
import type { PoolWorker, WorkerPool } from "./pool.ts";

export type JobResult =
  | { readonly kind: "order"; readonly order: Order; readonly queueMs: number; readonly modelMs: number }
  | { readonly kind: "invalid"; readonly queueMs: number; readonly modelMs: number }
  | { readonly kind: "lost"; readonly queueMs: number; readonly modelMs: number };

export class Job {
  readonly request: PreparedRequest;
  /** The client it belongs to. */
  readonly client: string;
  readonly result: Promise<JobResult>;
  readonly onToken: ((index: number, token: number) => void) | undefined;
  readonly traceparent: string | undefined;
  readonly queuedAt = performance.now();
  startedAt: number | undefined;
  /** How often a worker was lost while computing it. */
  losses = 0;
  settled = false;
  private resolve: (result: JobResult) => void = () => {};
  private readonly watchers: (() => void)[] = [];

  constructor(
    request: PreparedRequest,
    client: string,
    onToken?: (index: number, token: number) => void,
    traceparent?: string,
  ) {
    this.request = request;
    this.client = client;
    this.onToken = onToken;
    this.traceparent = traceparent;
    this.result = new Promise((resolve) => {
      this.resolve = resolve;
    });
  }

  /** Only the first call has an effect. */
  settle(kind: "order" | "invalid" | "lost", order?: Order): void {
    if (this.settled) return;
    this.settled = true;
    const now = performance.now();
    const from = this.startedAt ?? now;
    const times = { queueMs: from - this.queuedAt, modelMs: now - from };
    this.resolve(kind === "order" ? { kind, order: order as Order, ...times } : { kind, ...times });
    for (const watch of this.watchers) watch();
  }

  onSettled(watch: () => void): void {
    if (this.settled) watch();
    else this.watchers.push(watch);
  }
}

export interface BatcherOptions {
  readonly maxBatch: number;
  readonly batchWaitMs: number;
  readonly pool: Pick<WorkerPool, "ready" | "drop">;
  /** One worker call: one order per question, undefined for an invalid answer. */
  readonly answer: (
    worker: PoolWorker,
    mode: ServeMode,
    requests: readonly PreparedRequest[],
    signal: AbortSignal,
    onToken: ((request: number, index: number, token: number) => void) | undefined,
    traceparents: readonly string[],
  ) => Promise<(Order | undefined)[]>;
  /** Resolves once the worker is free again after a cancelled call; rejects if it is stuck. */
  readonly probe: (worker: PoolWorker) => Promise<void>;
}

const modes: readonly ServeMode[] = ["direct", "think"];

export class Batcher {
  private readonly options: BatcherOptions;
  private readonly queues: Readonly<Record<ServeMode, FairQueue<Job>>> = {
    direct: new FairQueue(),
    think: new FairQueue(),
  };
  /** Since when full batches have left jobs waiting, by mode. */
  private readonly fullSince: Partial<Record<ServeMode, number>> = {};
  private readonly times: Readonly<Record<ServeMode, BatchTimes>> = {
    direct: new BatchTimes(),
    think: new BatchTimes(),
  };
  private readonly running = new Map<PoolWorker, { mode: ServeMode; jobs: readonly Job[]; since: number }>();
  private timer: NodeJS.Timeout | undefined;

  constructor(options: BatcherOptions) {
    this.options = options;
  }

  /** Jobs waiting and jobs being computed that somebody waits for. */
  load(): { readonly queued: number; readonly running: number } {
    let running = 0;
    for (const { jobs } of this.running.values()) running += jobs.filter((job) => !job.settled).length;
    return { queued: this.queues.direct.size + this.queues.think.size, running };
  }

  /**
   * Milliseconds that a request of this mode arriving now would wait for a worker, and then take. Calls that nobody
   * waits for do not count: they are being cancelled, and may have been this client's own.
   */
  expected(mode: ServeMode, client: string): { readonly wait: number; readonly own: number } {
    const now = performance.now();
    let left = 0;
    for (const { mode: m, jobs, since } of this.running.values())
      if (jobs.some((job) => !job.settled))
        left += Math.max(0, (this.times[m].expect(jobs.length) ?? 0) - (now - since));
    const queued = modes.map((m) => ({
      waiting: m === mode ? this.queues[m].ahead(client) : this.queues[m].size,
      times: this.times[m],
    }));
    const workers = this.options.pool.ready().length;
    return expectedWait(queued, this.times[mode], workers, this.options.maxBatch, left);
  }

  /** How long the queue has been standing: milliseconds for which every batch of the mode has left jobs waiting. */
  standing(mode: ServeMode): number {
    const since = this.fullSince[mode];
    return since === undefined ? 0 : performance.now() - since;
  }

  /** Jobs of the mode ahead of one that the client adds now, and how many jobs the workers take at once. */
  waiting(mode: ServeMode, client: string): { readonly ahead: number; readonly atOnce: number } {
    const atOnce = this.options.maxBatch * Math.max(1, this.options.pool.ready().length);
    return { ahead: this.queues[mode].ahead(client), atOnce };
  }

  push(job: Job): void {
    const queue = this.queues[job.request.mode];
    queue.push(job.client, job);
    job.onSettled(() => {
      queue.remove(job.client, job);
      if (queue.size === 0) delete this.fullSince[job.request.mode];
    });
    this.pump();
  }

  /** Gives work to every idle worker. Called whenever work or workers may have changed. */
  pump(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    for (const worker of this.options.pool.ready()) {
      if (worker.busy) continue;
      const mode = this.longestWaiting();
      if (mode === undefined) return;
      const queue = this.queues[mode];
      const patience = this.options.batchWaitMs - (performance.now() - this.oldest(mode));
      if (queue.size < this.options.maxBatch && patience > 0) {
        this.timer = setTimeout(() => this.pump(), patience);
        return;
      }
      const jobs = queue.take(this.options.maxBatch);
      if (queue.size > 0) this.fullSince[mode] ??= performance.now();
      else delete this.fullSince[mode];
      void this.run(worker, mode, jobs);
    }
  }

  /** When the job that has waited longest was queued; Infinity if none waits. */
  private oldest(mode: ServeMode): number {
    return Math.min(...this.queues[mode].heads().map((job) => job.queuedAt));
  }

  private longestWaiting(): ServeMode | undefined {
    const waiting = modes.filter((m) => this.queues[m].size > 0);
    return waiting.sort((a, b) => this.oldest(a) - this.oldest(b))[0];
  }

  private async run(worker: PoolWorker, mode: ServeMode, jobs: readonly Job[]): Promise<void> {
    worker.busy = true;
    const since = performance.now();
    this.running.set(worker, { mode, jobs, since });
    try {
      if (await this.call(worker, mode, jobs)) this.times[mode].observe(jobs.length, performance.now() - since);
    } finally {
      this.running.delete(worker);
      worker.busy = false;
      this.pump();
    }
  }

  /** Calls the worker and settles every job. True if the worker answered. */
  private async call(worker: PoolWorker, mode: ServeMode, jobs: readonly Job[]): Promise<boolean> {
    const wanted = jobs.filter((job) => !job.settled);
    const cancel = new AbortController();
    let open = wanted.length;
    for (const job of wanted) {
      job.startedAt ??= performance.now();
      job.onSettled(() => {
        if (--open === 0) cancel.abort();
      });
    }
    if (open === 0) return false;
    const began = performance.now();
    const told = wanted.some((job) => job.onToken)
      ? (q: number, index: number, token: number) => wanted[q]?.onToken?.(index, token)
      : undefined;
    try {
      const requests = wanted.map((job) => job.request);
      const traceparents = wanted.flatMap((job) => job.traceparent ?? []);
      const orders = await this.options.answer(worker, mode, requests, cancel.signal, told, traceparents);
      wanted.forEach((job, i) => {
        const order = orders[i];
        if (order) job.settle("order", order);
        else job.settle("invalid");
      });
      return true;
    } catch (e) {
      if (cancel.signal.aborted) {
        this.tookAtLeast(mode, wanted.length, performance.now() - began);
        await this.waitUntilFree(worker);
      } else if (e instanceof WorkerError && !e.retryable) await this.askOneByOne(worker, mode, wanted);
      else this.lose(worker, wanted, e);
      return false;
    }
  }

  /** Cancelled batches count too; otherwise a worker too slow for every deadline would never be recognised. */
  private tookAtLeast(mode: ServeMode, size: number, ms: number): void {
    const times = this.times[mode];
    times.observe(size, Math.max(ms, times.expect(size) ?? 0));
  }

  /** Nobody waits for this call any more; the next one must not queue up after it. */
  private async waitUntilFree(worker: PoolWorker): Promise<void> {
    try {
      await this.options.probe(worker);
    } catch (e) {
      this.options.pool.drop(
        worker,
        `it does not return from a cancelled call (${e instanceof Error ? e.message : e})`,
      );
    }
  }

  private async askOneByOne(worker: PoolWorker, mode: ServeMode, jobs: readonly Job[]): Promise<void> {
    const [only] = jobs;
    if (jobs.length === 1) return only?.settle("invalid");
    for (const job of jobs) await this.call(worker, mode, [job]);
  }

  private lose(worker: PoolWorker, jobs: readonly Job[], e: unknown): void {
    this.options.pool.drop(worker, e instanceof Error ? e.message : String(e));
    const others = this.options.pool.ready().some((w) => w !== worker);
    for (const job of [...jobs].reverse()) {
      if (job.settled) continue;
      if (others && job.losses++ === 0) this.queues[job.request.mode].unshift(job.client, job);
      else job.settle("lost");
    }
  }
}
