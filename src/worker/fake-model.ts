/**
 * The pseudo language model behind FakeWorker: p(token | previous token) from hashed logits plus what training added,
 * and the permutation constraint of worker.proto on top. Deterministic; no tensors; microseconds a token.
 */
import { WorkerError } from "../core/errors.ts";
import type { ConstraintGroup, PermutationConstraint, TokenIds } from "./types.ts";

/** A 32-bit mix of three integers, as a float in [0, 1). */
export function hash01(a: number, b: number, c: number): number {
  let h =
    Math.imul(a ^ 0x9e3779b9, 0x85ebca6b) ^
    Math.imul(b ^ 0xc2b2ae35, 0x27d4eb2f) ^
    Math.imul(c + 0x165667b1, 0x9e3779b1);
  h = Math.imul(h ^ (h >>> 15), 0x2c1b3c6d);
  h = Math.imul(h ^ (h >>> 12), 0x297a2d39);
  return ((h ^ (h >>> 15)) >>> 0) / 2 ** 32;
}

const logSumExp = (xs: readonly number[]): number => {
  const max = Math.max(...xs);
  return max === -Infinity ? max : max + Math.log(xs.reduce((sum, x) => sum + Math.exp(x - max), 0));
};

/** logit(t | previous) = 3 hash(seed, previous, t) + learned[previous, t]. */
export class BigramModel {
  readonly vocabSize: number;
  readonly seed: number;
  step = 0;
  weightVersion = 0;
  /** Key: previous * vocabSize + token. */
  learned = new Map<number, number>();
  gradient = new Map<number, number>();
  /** Caches by "previous/temperature", emptied whenever weights change. */
  private readonly normaliser = new Map<string, number>();
  private readonly cumulatives = new Map<string, Float64Array>();

  constructor(vocabSize: number, seed: number) {
    this.vocabSize = vocabSize;
    this.seed = seed;
  }

  key(previous: number, token: number): number {
    return previous * this.vocabSize + token;
  }

  logit(previous: number, token: number): number {
    return 3 * hash01(this.seed, previous, token) + (this.learned.get(this.key(previous, token)) ?? 0);
  }

  /** log p(token | previous) over the whole vocabulary at a temperature. */
  logprob(previous: number, token: number, temperature: number): number {
    return this.logit(previous, token) / temperature - this.logNormaliser(previous, temperature);
  }

  /** Inverse-CDF draw with u in [0, 1); temperature 0 takes the most likely token. */
  draw(previous: number, temperature: number, u: number): number {
    const cumulative = this.cumulative(previous, temperature || 1);
    if (temperature === 0) {
      let best = 0;
      let bestMass = 0;
      for (let t = 0; t < this.vocabSize; t++) {
        const mass = (cumulative[t] as number) - (t > 0 ? (cumulative[t - 1] as number) : 0);
        if (mass > bestMass) [best, bestMass] = [t, mass];
      }
      return best;
    }
    let low = 0;
    let high = this.vocabSize - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((cumulative[middle] as number) > u) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  accumulate(previous: number, token: number, value: number): void {
    const key = this.key(previous, token);
    this.gradient.set(key, (this.gradient.get(key) ?? 0) + value);
  }

  /** Moves every touched logit against its gradient, the largest by 100 x the learning rate (at most 1). */
  applyGradient(learningRate: number): number {
    let norm = 0;
    let largest = 0;
    for (const g of this.gradient.values()) {
      norm += g * g;
      largest = Math.max(largest, Math.abs(g));
    }
    if (largest > 0) {
      const rate = Math.min(1, 100 * learningRate) / largest;
      for (const [key, g] of this.gradient) {
        const moved = (this.learned.get(key) ?? 0) - rate * g;
        this.learned.set(key, Math.max(-8, Math.min(8, moved)));
      }
    }
    this.gradient.clear();
    this.normaliser.clear();
    this.cumulatives.clear();
    this.step++;
    this.weightVersion++;
    return Math.sqrt(norm);
  }

  replaceWeights(learned: Map<number, number>, step: number, weightVersion: number): void {
    this.learned = learned;
    this.gradient.clear();
    this.normaliser.clear();
    this.cumulatives.clear();
    this.step = step;
    this.weightVersion = weightVersion;
  }

  private cumulative(previous: number, temperature: number): Float64Array {
    const key = `${previous}/${temperature}`;
    let cumulative = this.cumulatives.get(key);
    if (!cumulative) {
      if (this.cumulatives.size >= 2000) this.cumulatives.clear();
      const z = this.logNormaliser(previous, temperature);
      let sum = 0;
      cumulative = Float64Array.from({ length: this.vocabSize }, (_, t) => {
        sum += Math.exp(this.logit(previous, t) / temperature - z);
        return sum;
      });
      this.cumulatives.set(key, cumulative);
    }
    return cumulative;
  }

  private logNormaliser(previous: number, temperature: number): number {
    const key = `${previous}/${temperature}`;
    let z = this.normaliser.get(key);
    if (z === undefined) {
      let sum = 0;
      for (let t = 0; t < this.vocabSize; t++) sum += Math.exp(this.logit(previous, t) / temperature);
      z = Math.log(sum);
      this.normaliser.set(key, z);
    }
    return z;
  }
}

const ids = (tokens: TokenIds | undefined): number[] => Array.from(tokens ?? []);

/** Walks one response through the constraint: free, then trigger, then sequences with separators, then terminator. */
export class ConstraintWalk {
  private readonly sequences: number[][];
  private readonly prior: number[];
  private readonly scale: number;
  private readonly trigger: number[];
  private readonly separator: number[];
  private readonly terminator: number[];
  private readonly toEmit: number;
  private triggerSeen: number[] = [];
  private remaining: number[];
  private emitted = 0;
  private path: number[] = [];
  private forced: number[] = [];
  private state: "free" | "waiting" | "choosing" | "done";

  constructor(constraint: PermutationConstraint | undefined, group: ConstraintGroup | undefined) {
    this.sequences = (group?.sequences ?? []).map(ids);
    this.prior = this.sequences.map((_, j) => group?.prior?.[j] ?? 0);
    this.scale = constraint?.scale ?? 1;
    this.trigger = ids(constraint?.trigger);
    this.separator = ids(constraint?.separator);
    this.terminator = ids(constraint?.terminator);
    this.remaining = this.sequences.map((_, j) => j);
    this.toEmit = Math.min(constraint?.maxSequences || this.sequences.length, this.sequences.length);
    this.state = this.sequences.length === 0 ? "free" : this.trigger.length > 0 ? "waiting" : "choosing";
  }

  /** True once the terminator is out. */
  get done(): boolean {
    return this.state === "done" && this.forced.length === 0;
  }

  /** True while the trigger has not been seen; FakeWorker then writes the trigger itself after a few tokens. */
  get waiting(): boolean {
    return this.state === "waiting";
  }

  /** Allowed next tokens with the log of their prior mass; undefined = the whole vocabulary. */
  allowed(): Map<number, number> | undefined {
    const next = this.forced[0];
    if (next !== undefined) return new Map([[next, 0]]);
    if (this.state !== "choosing") return undefined;
    const mass = new Map<number, number[]>();
    for (const j of this.remaining) {
      const sequence = this.sequences[j] as number[];
      if (this.path.some((t, i) => sequence[i] !== t)) continue;
      const token = sequence[this.path.length];
      if (token === undefined) continue;
      mass.set(token, [...(mass.get(token) ?? []), this.prior[j] as number]);
    }
    return new Map([...mass].map(([token, priors]) => [token, logSumExp(priors)]));
  }

  /** Log-probabilities of the allowed tokens, or undefined where the model is free. */
  logprobs(model: BigramModel, previous: number, temperature: number): Map<number, number> | undefined {
    const allowed = this.allowed();
    if (!allowed) return undefined;
    if (allowed.size === 1) return new Map([...allowed.keys()].map((t) => [t, 0]));
    const logits = [...allowed].map(
      ([t, prior]) => [t, (this.scale * model.logit(previous, t) + prior) / temperature] as const,
    );
    const z = logSumExp(logits.map(([, l]) => l));
    return new Map(logits.map(([t, l]) => [t, l - z]));
  }

  advance(token: number): void {
    if (this.forced.length > 0) {
      if (this.forced[0] !== token) throw this.refuse(token);
      this.forced.shift();
      return;
    }
    if (this.state === "waiting") {
      this.triggerSeen = [...this.triggerSeen, token].slice(-this.trigger.length);
      if (this.triggerSeen.length === this.trigger.length && this.triggerSeen.every((t, i) => t === this.trigger[i])) {
        this.state = "choosing";
      }
      return;
    }
    if (this.state !== "choosing") return;
    if (!this.allowed()?.has(token)) throw this.refuse(token);
    this.path.push(token);
    const finished = this.remaining.find((j) => {
      const s = this.sequences[j] as number[];
      return s.length === this.path.length && s.every((t, i) => t === this.path[i]);
    });
    if (finished === undefined) return;
    this.remaining = this.remaining.filter((j) => j !== finished);
    this.path = [];
    this.emitted++;
    const last = this.emitted === this.toEmit;
    this.forced = [...(last ? this.terminator : this.separator)];
    if (last) this.state = "done";
  }

  private refuse(token: number): WorkerError {
    return new WorkerError(`token ${token} is not allowed by the permutation constraint`, { retryable: false });
  }
}
