/**
 * The workers of a service: starts and loads them, checks their health, and restarts lost ones with growing pauses.
 * Ready and idle workers get work from the batcher.
 */
import type { WorkerClient } from "../../worker/types.ts";

/** A worker as returned by `start`. */
export interface StartedWorker {
  readonly client: WorkerClient;
  /** Resolves with a reason when its process ends; never, if that cannot be observed. */
  readonly gone?: Promise<string>;
  /** Disconnects; ends a process of our own. Never throws. */
  close(): Promise<void>;
}

export interface PoolWorker {
  readonly number: number;
  readonly client: WorkerClient;
  /** Has a call in progress. Set by the code that gives it work. */
  busy: boolean;
}

export interface PoolOptions {
  readonly count: number;
  /** Starts worker `number` (from 0). */
  readonly start: (number: number, signal: AbortSignal) => Promise<StartedWorker>;
  /** Loads the models; if it throws, the worker is unusable. */
  readonly prepare: (client: WorkerClient, signal: AbortSignal) => Promise<void>;
  /** Throws unless the worker can still answer. */
  readonly check: (client: WorkerClient) => Promise<void>;
  readonly healthMs: number;
  /** Pauses before retries after consecutive failed starts; the last one repeats. */
  readonly backoffMs?: readonly number[];
  readonly log: (message: string) => void;
}

const defaultBackoffMs = [500, 1_000, 2_000, 5_000, 10_000, 30_000];
/** A worker that has served this long restarts without a pause. */
const settledMs = 60_000;

interface Slot {
  readonly number: number;
  worker: (PoolWorker & { readonly close: () => Promise<void>; readonly since: number }) | undefined;
  failures: number;
}

export class WorkerPool {
  private readonly options: PoolOptions;
  private readonly slots: Slot[];
  private readonly ending = new AbortController();
  private readonly lost = new Map<PoolWorker, (reason: string) => void>();
  private readonly lives: Promise<void>[] = [];
  private readonly readyListeners: (() => void)[] = [];

  constructor(options: PoolOptions) {
    this.options = options;
    this.slots = Array.from({ length: options.count }, (_, number) => ({ number, worker: undefined, failures: 0 }));
  }

  get size(): number {
    return this.slots.length;
  }

  ready(): PoolWorker[] {
    return this.slots.flatMap(({ worker }) => (worker ? [worker] : []));
  }

  /** Called whenever a worker becomes available. */
  onReady(listener: () => void): void {
    this.readyListeners.push(listener);
  }

  /** Starts all workers; resolves with the first that is ready, rejects if the first attempts of all failed. */
  async begin(): Promise<void> {
    const firsts = this.slots.map(
      (slot) => new Promise<void>((resolve, reject) => this.lives.push(this.live(slot, resolve, reject))),
    );
    await Promise.any(firsts).catch((e: unknown) => {
      throw e instanceof AggregateError ? e.errors[0] : e;
    });
  }

  /** Removes a worker and restarts it. */
  drop(worker: PoolWorker, reason: string): void {
    this.lost.get(worker)?.(reason);
  }

  /** Ends all workers. Never throws; may be called twice. */
  async close(): Promise<void> {
    this.ending.abort();
    for (const drop of this.lost.values()) drop("the service is shutting down");
    await Promise.all(this.lives);
  }

  /** One slot's life: start, serve until lost, pause, again. */
  private async live(slot: Slot, first: () => void, failed: (e: unknown) => void): Promise<void> {
    const { signal } = this.ending;
    while (!signal.aborted) {
      let started: StartedWorker | undefined;
      try {
        started = await this.options.start(slot.number, signal);
        await this.options.prepare(started.client, signal);
      } catch (e) {
        await started?.close();
        if (signal.aborted) return failed(e);
        failed(e);
        slot.failures++;
        this.options.log(`worker ${slot.number}: ${e instanceof Error ? e.message : e}; trying again`);
        await this.pause(slot);
        continue;
      }
      const reason = await this.serve(slot, started, first);
      await started.close();
      if (signal.aborted) return;
      this.options.log(`worker ${slot.number} is lost: ${reason}; restarting it`);
      await this.pause(slot);
    }
    failed(new Error("the service is shutting down"));
  }

  /** Ready until lost; resolves with the reason. */
  private async serve(slot: Slot, started: StartedWorker, first: () => void): Promise<string> {
    const { client } = started;
    const worker = { number: slot.number, client, busy: false, close: started.close, since: performance.now() };
    const lost = new Promise<string>((resolve) =>
      this.lost.set(worker, (reason) => {
        slot.worker = undefined; // immediately: it must get no more work
        resolve(reason);
      }),
    );
    const health = setInterval(() => void this.check(worker), this.options.healthMs);
    health.unref();
    slot.worker = worker;
    first();
    for (const listener of this.readyListeners) listener();
    const reason = await Promise.race([lost, ...(started.gone ? [started.gone] : [])]);
    clearInterval(health);
    this.lost.delete(worker);
    slot.worker = undefined;
    slot.failures = performance.now() - worker.since > settledMs ? 0 : slot.failures + 1;
    return reason;
  }

  private async check(worker: PoolWorker): Promise<void> {
    try {
      await this.options.check(worker.client);
    } catch (e) {
      this.drop(worker, e instanceof Error ? e.message : String(e));
    }
  }

  private pause(slot: Slot): Promise<void> {
    const waits = this.options.backoffMs ?? defaultBackoffMs;
    const ms = slot.failures === 0 ? 0 : (waits[Math.min(slot.failures, waits.length) - 1] as number);
    const { signal } = this.ending;
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        signal.removeEventListener("abort", done);
        resolve();
      };
      const timer = setTimeout(done, ms);
      if (signal.aborted) done();
      else signal.addEventListener("abort", done);
    });
  }
}
