/**
 * Who is let in: by how late the process is, how many requests wait, and whether an answer can still come in time. Says no
 * before any work is done for a request, with the time after which to try again.
 *
 * A burst may wait up to its deadlines. A queue that stands is overload, and then a longer one answers nobody sooner: a
 * request is let in if it waits a small share of its deadline at most, so that what is answered is fast (the idea of CoDel,
 * RFC 8289, at the door instead of in the queue).
 */
import { Refusal, type ServeMode } from "../request/types.ts";
import type { Batcher } from "./batcher.ts";
import type { LoopLag } from "./loop-lag.ts";

export interface AdmissionSettings {
  readonly maxQueue: number;
  readonly overload: "refuse" | "own-order";
  readonly maxLagMs: number;
  /** A queue that has not been empty for so long stands. */
  readonly standingMs: number;
  /** Share of its deadline that a request may wait in a queue that stands. */
  readonly standingWait: number;
}

/** What a request would queue for. */
export interface Queue {
  readonly batcher: Pick<Batcher, "expected" | "load" | "standing" | "waiting">;
  /** Requests it still owes an answer, waiting or being computed. */
  readonly accepted: number;
  /** The client's own of these. */
  readonly ownAccepted: () => number;
}

export class Admission {
  private readonly settings: AdmissionSettings;
  private readonly lag: Pick<LoopLag, "standing">;
  private readonly now: () => number;
  /** When a request was last refused because the queue stood, by mode. */
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

  /** Milliseconds the process is late. */
  lagMs(): number {
    return this.lag.standing();
  }

  /** Throws Refusal while the process is too late to read requests. */
  shed(): void {
    const lag = this.lag.standing();
    if (lag <= this.settings.maxLagMs || this.settings.overload === "own-order") return;
    throw new Refusal("overloaded", `more requests come than can be read: the service is ${Math.ceil(lag)} ms late`, {
      retryAfterMs: 2 * Math.ceil(lag),
    });
  }

  /** True: let it in. False: the caller's own order is to come back. Throws Refusal where the service refuses instead. */
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
    // A full queue is full for those who filled it; one more of somebody else's fits.
    if (waiting >= maxQueue && (waiting >= 2 * maxQueue || ownAccepted() > 0))
      return refuse(`${maxQueue} requests are waiting`, wait);
    // With nothing ahead a request is tried whatever it takes: what is known of the time may be wrong.
    if (wait > 0 && wait + own > deadlineMs)
      return refuse(
        `an answer would take about ${Math.ceil(wait + own)} ms, the deadline is ${Math.round(deadlineMs)} ms`,
        wait + own - deadlineMs,
      );
    if (line.ahead >= line.atOnce && wait > this.settings.standingWait * deadlineMs && this.stands(batcher, mode)) {
      this.refusedAt[mode] = this.now();
      return refuse(`more requests come than can be answered; it would wait about ${Math.ceil(wait)} ms`, wait);
    }
    return undefined;
  }

  /** Refusals keep a queue short that would stand without them. */
  private stands(batcher: Queue["batcher"], mode: ServeMode): boolean {
    const { standingMs } = this.settings;
    const refusedAt = this.refusedAt[mode];
    return batcher.standing(mode) > standingMs || (refusedAt !== undefined && this.now() - refusedAt < standingMs);
  }
}
