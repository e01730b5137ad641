/**
 * Lag of this process's event loop, from a timer that should fire every `beatMs`: incoming data waits that long before
 * it is read. Owns the estimate; the engine acts on it.
 *
 * The standing lag is the smallest of the last beats: one long batch or garbage collection passes, but a process that
 * receives more requests than it can read stays late (as in CoDel, RFC 8289).
 */

const beatMs = 20;
const numBeats = 4;

export class LoopLag {
  private readonly now: () => number;
  private readonly lags: number[] = [];
  private due: number;
  private timer: NodeJS.Timeout | undefined;

  /** @param now milliseconds, monotonic */
  constructor(now: () => number = () => performance.now()) {
    this.now = now;
    this.due = now() + beatMs;
  }

  /** Measures until stop. Does not keep the process alive. */
  start(): this {
    this.timer = setInterval(() => this.beat(), beatMs);
    this.timer.unref();
    return this;
  }

  stop(): void {
    clearInterval(this.timer);
  }

  beat(): void {
    const now = this.now();
    this.lags.push(Math.max(0, now - this.due));
    if (this.lags.length > numBeats) this.lags.shift();
    this.due = now + beatMs;
  }

  /** In milliseconds; 0 until there are enough beats. */
  standing(): number {
    return this.lags.length < numBeats ? 0 : Math.min(...this.lags);
  }
}
