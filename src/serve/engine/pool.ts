/**
 * The workers behind a service: started, loaded, asked how they are, started again with growing pauses when they are lost.
 * Who is ready and idle gets work; what the work is, the batcher knows.
 */
import type { WorkerClient } from "../../worker/types.ts";

/** A worker as `start` hands it over. */
export interface StartedWorker {
  readonly client: WorkerClient;
  /** Resolves with a reason when its process ends; never, where that cannot be seen. */
  readonly gone?: Promise<string>;
  /** Disconnects; ends a process of our own. Never throws. */
  close(): Promise<void>;
}

export interface PoolWorker {
  readonly number: number;
  readonly client: WorkerClient;
  /** Has a call under way. Set by whoever gives it work. */
  busy: boolean;
}

export interface PoolOptions {
  readonly count: number;
  /** Starts worker `number` (from 0). */
  readonly start: (number: number, signal: AbortSignal) => Promise<StartedWorker>;
  /** Loads what it needs to answer; what it throws makes the worker unfit. */
  readonly prepare: (client: WorkerClient, signal: AbortSignal) => Promise<void>;
  /** Throws unless the worker can still answer. */
  readonly check: (client: WorkerClient) => Promise<void>;
  readonly healthMs: number;
  /** Pauses before the second, third, ... start in a row that fails; the last one repeats. */
  readonly backoffMs?: readonly number[];
  readonly log: (message: string) => void;
}

const defaultBackoffMs = [500, 1_000, 2_000, 5_000, 10_000, 30_000];
/** A worker that has served so long starts again without a pause. */
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

  /** Called whenever one more worker can be given work, from now on. */
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

  /** Takes a worker out and starts it again. */
  drop(worker: PoolWorker, reason: string): void {
    this.lost.get(worker)?.(reason);
  }

  /** Ends all workers. Never throws; may be called twice. */
  async close(): Promise<void> {
    this.ending.abort();
    for (const drop of this.lost.values()) drop("the service ends");
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
      this.options.log(`worker ${slot.number} is lost: ${reason}; starting it again`);
      await this.pause(slot);
    }
    failed(new Error("the service ends"));
  }

  /** Ready until lost; resolves with the reason. */
  private async serve(slot: Slot, started: StartedWorker, first: () => void): Promise<string> {
    const { client } = started;
    const worker = { number: slot.number, client, busy: false, close: started.close, since: performance.now() };
    const lost = new Promise<string>((resolve) =>
      this.lost.set(worker, (reason) => {
        slot.worker = undefined; // at once: nothing more may be given to it
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
