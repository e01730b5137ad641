/** Token buckets: limits how often each client may call. Owns no clock; the caller passes the time. */

interface Bucket {
  tokens: number;
  atMs: number;
}

export class RateLimiter {
  private readonly buckets = new Map<string, Bucket>();

  /**
   * Takes requests of a client from its bucket. A batch is admitted as a whole and may leave a debt.
   * @returns 0 if they are admitted, else the milliseconds after which they would be.
   */
  take(client: string, numRequests: number, perSecond: number, burst: number, nowMs: number): number {
    if (perSecond <= 0) return 0;
    const tokens = this.fill(client, perSecond, burst, nowMs);
    const allowed = tokens >= 1;
    this.buckets.set(client, { tokens: allowed ? tokens - numRequests : tokens, atMs: nowMs });
    return allowed ? 0 : Math.ceil(((1 - tokens) / perSecond) * 1000);
  }

  /** Charges work already done: a debt that later requests wait for. */
  charge(client: string, numRequests: number, perSecond: number, burst: number, nowMs: number): void {
    if (perSecond <= 0) return;
    this.buckets.set(client, { tokens: this.fill(client, perSecond, burst, nowMs) - numRequests, atMs: nowMs });
  }

  private fill(client: string, perSecond: number, burst: number, nowMs: number): number {
    const bucket = this.buckets.get(client) ?? { tokens: burst, atMs: nowMs };
    return Math.min(burst, bucket.tokens + (Math.max(0, nowMs - bucket.atMs) / 1000) * perSecond);
  }
}
