/**
 * Admits or refuses requests, by how far the process lags, how many requests wait, and whether an answer can still come
 * in time. Refuses before any work is done for a request, with the time after which to retry.
 *
 * A burst may wait up to its deadlines. A queue that never empties means overload, and a longer queue answers nobody
 * sooner: a request is then admitted only if it would wait at most a small share of its deadline, which keeps answers
 * fast (the idea of CoDel, RFC 8289, applied at admission instead of in the queue).
 */
import { Refusal, type ServeMode } from "../request/types.ts";
import type { Batcher } from "./batcher.ts";
import type { LoopLag } from "./loop-lag.ts";

export interface AdmissionSettings {
  readonly maxQueue: number;
  readonly overload: "refuse" | "own-order";
  readonly maxLagMs: number;
  /** A queue that has not been empty for this long is standing. */
  readonly standingMs: number;
  /** Share of its deadline that a request may wait in a standing queue. */
  readonly standingWait: number;
}

/** The queue that a request would join. */
export interface Queue {
  readonly batcher: Pick<Batcher, "expected" | "load" | "standing" | "waiting">;
  /** Unanswered requests, waiting or being computed. */
  readonly accepted: number;
  /** Those of the client itself. */
  readonly ownAccepted: () => number;
}

export class Admission {
  private readonly settings: AdmissionSettings;
  private readonly lag: Pick<LoopLag, "standing">;
  private readonly now: () => number;
  /** When a request was last refused because of a standing queue, by mode. */
  private readonly refusedAt: Partial<Record<ServeMode, number>> = {};

  /** @param now milliseconds, monotonic */
  constructor(
    settings: AdmissionSettings,
    lag: Pick<LoopLag, "standing">,
    now: () => number = () => performance.now(),
  ) {
    this.settings = settings;
    this.lag = lag;
    this.now = now;
  }

  /** Lag of the process, in milliseconds. */
  lagMs(): number {
    return this.lag.standing();
  }

  /** Throws Refusal while the process lags too far to read requests. */
  shed(): void {
    const lag = this.lag.standing();
    if (lag <= this.settings.maxLagMs || this.settings.overload === "own-order") return;
    throw new Refusal(
      "overloaded",
      `requests arrive faster than they can be read: the service lags by ${Math.ceil(lag)} ms`,
      {
        retryAfterMs: 2 * Math.ceil(lag),
      },
    );
  }

  /** True: admitted. False: return the caller's own order. Throws Refusal if the service is set to refuse instead. */
  admits(queue: Queue, mode: ServeMode, client: string, deadlineMs: number): boolean {
    const { overload, maxLagMs } = this.settings;
    if (this.lag.standing() > maxLagMs && overload === "own-order") return false;
    const refusal = this.objection(queue, mode, client, deadlineMs);
    if (refusal === undefined) return true;
    if (overload === "own-order") return false;
    throw refusal;
  }

  private objection(
    { batcher, accepted, ownAccepted }: Queue,
    mode: ServeMode,
    client: string,
    deadlineMs: number,
  ): Refusal | undefined {
    const { maxQueue } = this.settings;
    const refuse = (why: string, retryAfterMs: number): Refusal =>
      new Refusal("overloaded", why, { retryAfterMs: Math.ceil(Math.max(10, retryAfterMs)) });
    const { wait, own } = batcher.expected(mode, client);
    const waiting = accepted - batcher.load().running;
    const line = batcher.waiting(mode, client);
    // A full queue is full for the clients that filled it; one request of another client still fits.
    if (waiting >= maxQueue && (waiting >= 2 * maxQueue || ownAccepted() > 0))
      return refuse(`${maxQueue} requests are waiting`, wait);
    // With nothing ahead, a request is tried whatever the estimate says: the estimate may be wrong.
    if (wait > 0 && wait + own > deadlineMs)
      return refuse(
        `an answer would take about ${Math.ceil(wait + own)} ms, the deadline is ${Math.round(deadlineMs)} ms`,
        wait + own - deadlineMs,
      );
    if (line.ahead >= line.atOnce && wait > this.settings.standingWait * deadlineMs && this.stands(batcher, mode)) {
      this.refusedAt[mode] = this.now();
      return refuse(
        `requests arrive faster than they can be answered; this one would wait about ${Math.ceil(wait)} ms`,
        wait,
      );
    }
    return undefined;
  }

  /** Recent refusals count too: they keep a queue short that would otherwise be standing. */
  private stands(batcher: Queue["batcher"], mode: ServeMode): boolean {
    const { standingMs } = this.settings;
    const refusedAt = this.refusedAt[mode];
    return batcher.standing(mode) > standingMs || (refusedAt !== undefined && this.now() - refusedAt < standingMs);
  }
}
