/**
 * What a teacher may cost: requests, tokens, money. The most a request can cost is reserved before it is sent and
 * settled afterwards at its actual cost, so no cap is ever exceeded, whatever runs at the same time.
 */

/** 0 = no cap, or no price. */
export interface BudgetOptions {
  readonly maxRequests: number;
  /** Read and written, together. */
  readonly maxTokens: number;
  /** In the currency of the prices. */
  readonly maxCost: number;
  /** Per million tokens read, and written. */
  readonly inputPrice: number;
  readonly outputPrice: number;
}

export interface Usage {
  readonly inputTokens: number;
  readonly outputTokens: number;
}

export class Budget {
  /** Settled so far. */
  readonly spent = { requests: 0, inputTokens: 0, outputTokens: 0 };
  private readonly options: BudgetOptions;
  private readonly reserved = { requests: 0, tokens: 0, cost: 0 };
  private waiting: (() => void)[] = [];

  constructor(options: BudgetOptions) {
    this.options = options;
  }

  get cost(): number {
    return this.price(this.spent);
  }

  /** Reserves one request of at most this usage; waits while others hold reservations. False: the budget is used up. */
  async reserve(most: Usage): Promise<boolean> {
    while (!this.fits(most)) {
      if (this.reserved.requests === 0) return false;
      await new Promise<void>((resolve) => this.waiting.push(resolve));
    }
    this.hold(most, 1);
    return true;
  }

  /** Releases a reservation and records the actual cost. */
  settle(most: Usage, actual: Usage): void {
    this.hold(most, -1);
    this.charge(actual);
    const waiting = this.waiting;
    this.waiting = [];
    for (const resolve of waiting) resolve();
  }

  /** Records the cost of a request without a reservation: an answer already on disk. */
  charge(actual: Usage): void {
    this.spent.requests++;
    this.spent.inputTokens += actual.inputTokens;
    this.spent.outputTokens += actual.outputTokens;
  }

  private fits(most: Usage): boolean {
    const { maxRequests, maxTokens, maxCost } = this.options;
    const { requests, inputTokens, outputTokens } = this.spent;
    const { reserved } = this;
    return (
      (maxRequests === 0 || requests + reserved.requests + 1 <= maxRequests) &&
      (maxTokens === 0 || inputTokens + outputTokens + reserved.tokens + total(most) <= maxTokens) &&
      (maxCost === 0 || this.cost + reserved.cost + this.price(most) <= maxCost)
    );
  }

  private hold(most: Usage, sign: 1 | -1): void {
    this.reserved.requests += sign;
    this.reserved.tokens += sign * total(most);
    this.reserved.cost += sign * this.price(most);
  }

  private price(usage: Usage): number {
    return (usage.inputTokens * this.options.inputPrice + usage.outputTokens * this.options.outputPrice) / 1e6;
  }
}

const total = (usage: Usage): number => usage.inputTokens + usage.outputTokens;
