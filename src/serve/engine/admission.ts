/**
 * Admission: decides by the process's lag, the number of waiting requests, and whether an answer can still come in
 * time. Refuses before any work is done for a request, and says when to retry.
 */
import { Refusal, type ServeMode } from "../request/types.ts";
import type { Batcher } from "./batcher.ts";
import type { LoopLag } from "./loop-lag.ts";

export interface AdmissionSettings {
  readonly maxQueue: number;
  readonly overload: "refuse" | "own-order";
  readonly maxLagMs: number;
}

/** The queue that a request would join. */
export interface Queue {
  readonly batcher: Pick<Batcher, "expected" | "load">;
  /** Unanswered requests, waiting or being computed. */
  readonly accepted: number;
}

export class Admission {
  private readonly settings: AdmissionSettings;
  private readonly lag: Pick<LoopLag, "standing">;

  constructor(settings: AdmissionSettings, lag: Pick<LoopLag, "standing">) {
    this.settings = settings;
    this.lag = lag;
  }

  /** Lag of the process, in milliseconds. */
  lagMs(): number {
    return this.lag.standing();
  }

  /** Throws Refusal while the process lags too far behind to read requests. */
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
  admits({ batcher, accepted }: Queue, mode: ServeMode, deadlineMs: number): boolean {
    const { overload, maxLagMs, maxQueue } = this.settings;
    if (this.lag.standing() > maxLagMs && overload === "own-order") return false;
    const waiting = accepted - batcher.load().running;
    const { wait, own } = batcher.expected(mode);
    // With nothing ahead, a request is always tried: the time estimate may be wrong.
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
