/**
 * Who is let in: by how late the process is, how many requests wait, and whether an answer can still come in time. Says no
 * before any work is done for a request, with the time after which to try again.
 */
import { Refusal, type ServeMode } from "../request/types.ts";
import type { Batcher } from "./batcher.ts";
import type { LoopLag } from "./loop-lag.ts";

export interface AdmissionSettings {
  readonly maxQueue: number;
  readonly overload: "refuse" | "own-order";
  readonly maxLagMs: number;
}

/** What a request would queue for. */
export interface Queue {
  readonly batcher: Pick<Batcher, "expected" | "load">;
  /** Requests it still owes an answer, waiting or being computed. */
  readonly accepted: number;
}

export class Admission {
  private readonly settings: AdmissionSettings;
  private readonly lag: Pick<LoopLag, "standing">;

  constructor(settings: AdmissionSettings, lag: Pick<LoopLag, "standing">) {
    this.settings = settings;
    this.lag = lag;
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
  admits({ batcher, accepted }: Queue, mode: ServeMode, deadlineMs: number): boolean {
    const { overload, maxLagMs, maxQueue } = this.settings;
    if (this.lag.standing() > maxLagMs && overload === "own-order") return false;
    const waiting = accepted - batcher.load().running;
    const { wait, own } = batcher.expected(mode);
    // With nothing ahead a request is tried whatever it takes: what is known of the time may be wrong.
    const late = wait > 0 && wait + own > deadlineMs;
    if (waiting < maxQueue && !late) return true;
    if (overload === "own-order") return false;
    const retryAfterMs = Math.ceil(Math.max(10, waiting < maxQueue ? wait + own - deadlineMs : wait));
    throw new Refusal(
      "overloaded",
      late
        ? `an answer would take about ${Math.ceil(wait + own)} ms, the deadline is ${Math.round(deadlineMs)} ms`
        : `${maxQueue} requests are waiting`,
      { retryAfterMs },
    );
  }
}
