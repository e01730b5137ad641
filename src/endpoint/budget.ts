/**
 * What a teacher may cost: requests, tokens, money. The most a request can cost is reserved before it is sent and
 * settled with what it did cost, so that no cap is ever passed, whatever runs at the same time.
 */

/** 0 = no cap, or no price. */
export interface BudgetOptions {
  readonly maxRequests: number;
  /** Read and written, together. */
  readonly maxTokens: number;
  /** In whatever currency the prices are. */
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
  /** What was settled so far. */
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

  /** Holds room for one request of at most this usage; waits while others hold it. False: there is none left. */
  async reserve(most: Usage): Promise<boolean> {
    while (!this.fits(most)) {
      if (this.reserved.requests === 0) return false;
      await new Promise<void>((resolve) => this.waiting.push(resolve));
    }
    this.hold(most, 1);
    return true;
  }

  /** Gives back what was reserved and notes what the request cost. */
  settle(most: Usage, actual: Usage): void {
    this.hold(most, -1);
    this.charge(actual);
    const waiting = this.waiting;
    this.waiting = [];
    for (const resolve of waiting) resolve();
  }

  /** Notes a request that nothing was reserved for: an answer that is already on disk. */
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
