/** Estimates how long a worker takes for a batch, from finished batches; admission and retry times use it. */

/** Decay of older batches at each new one: about the last twenty count. */
const memory = 0.95;

/** milliseconds = fixed + each * requests, by least squares with fading memory. */
export class BatchTimes {
  private n = 0;
  private sizes = 0;
  private times = 0;
  private squares = 0;
  private products = 0;

  observe(size: number, ms: number): void {
    this.n = this.n * memory + 1;
    this.sizes = this.sizes * memory + size;
    this.times = this.times * memory + ms;
    this.squares = this.squares * memory + size * size;
    this.products = this.products * memory + size * ms;
  }

  /** Milliseconds for a batch of this size; undefined while there is no data. */
  expect(size: number): number | undefined {
    if (this.n === 0) return undefined;
    const meanSize = this.sizes / this.n;
    const meanTime = this.times / this.n;
    const spread = this.squares / this.n - meanSize * meanSize;
    if (spread < 1e-9) return meanTime; // only one size seen so far: the cost per request is unknown
    const each = Math.max(0, (this.products / this.n - meanSize * meanTime) / spread);
    const fixed = Math.max(0, meanTime - each * meanSize);
    return fixed + each * size;
  }
}

/**
 * Milliseconds until a request arriving now has its answer, and how many of these are spent waiting.
 * @param queued requests before it, by kind of batch, with that kind's times
 */
export function expectedWait(
  queued: readonly { readonly waiting: number; readonly times: BatchTimes }[],
  own: BatchTimes,
  workers: number,
  maxBatch: number,
  runningMs: number,
): { readonly wait: number; readonly own: number } {
  let work = runningMs;
  for (const { waiting, times } of queued) {
    const whole = Math.floor(waiting / maxBatch);
    const rest = waiting % maxBatch;
    work += whole * (times.expect(maxBatch) ?? 0) + (rest > 0 ? (times.expect(rest) ?? 0) : 0);
  }
  return { wait: work / Math.max(1, workers), own: own.expect(1) ?? 0 };
}
