/**
 * FakeWorker's pseudo language model: p(token | previous token) from hashed logits plus what training added, under the
 * permutation constraint of worker.proto. Deterministic; no tensors; microseconds per token.
 */
import { WorkerError } from "../core/errors.ts";
import type { ConstraintGroup, PermutationConstraint, TokenIds, TokenTrie } from "./types.ts";

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

/** Something that may come next: one token, or a whole sequence, chosen at its first token. */
export interface Option {
  /** As in TopTokens: the token, or the number of a whole sequence. */
  readonly id: number;
  readonly tokens: readonly number[];
  readonly logprob: number;
  /**
   * The logits that training on this choice moves: pairs of a token and the one before it. Empty if there is no choice.
   */
  readonly moves: readonly (readonly [previous: number, token: number])[];
}

/** Any token of the vocabulary. */
export const freeOption = (model: BigramModel, previous: number, token: number, temperature: number): Option => ({
  id: token,
  tokens: [token],
  logprob: model.logprob(previous, token, temperature),
  moves: [[previous, token]],
});

/** A token without an alternative. */
export const certain = (token: number): Option => ({ id: token, tokens: [token], logprob: 0, moves: [] });

/** Walks one response through the constraint: free, then trigger, then sequences with separators, then terminator. */
export class ConstraintWalk {
  private readonly sequences: number[][];
  private readonly prior: number[];
  private readonly scale: number;
  private readonly trigger: number[];
  private readonly separator: number[];
  private readonly terminator: number[];
  private readonly toEmit: number;
  private readonly wholeSequences: boolean;
  private readonly maxFreeTokens: number;
  private triggerSeen: number[] = [];
  private remaining: number[];
  private free = 0;
  private emitted = 0;
  private path: number[] = [];
  private forced: number[] = [];
  private state: "free" | "waiting" | "choosing" | "done";
  /** The token before the ranking part, after which whole sequences are scored. */
  private context: number | undefined;

  constructor(constraint: PermutationConstraint | undefined, group: ConstraintGroup | undefined) {
    this.sequences = (group?.sequences ?? []).map(ids);
    this.prior = this.sequences.map((_, j) => group?.prior?.[j] ?? 0);
    this.scale = constraint?.scale ?? 1;
    this.trigger = ids(constraint?.trigger);
    this.separator = ids(constraint?.separator);
    this.terminator = ids(constraint?.terminator);
    this.wholeSequences = constraint?.wholeSequences ?? false;
    this.maxFreeTokens = constraint?.maxFreeTokens ?? 0;
    this.remaining = this.sequences.map((_, j) => j);
    this.toEmit = Math.min(constraint?.maxSequences || this.sequences.length, this.sequences.length);
    this.state = this.sequences.length === 0 ? "free" : this.trigger.length > 0 ? "waiting" : "choosing";
  }

  /** True once the terminator has been written. */
  get done(): boolean {
    return this.state === "done" && this.forced.length === 0;
  }

  /** True until the trigger has been written. */
  get reasons(): boolean {
    return this.state === "waiting";
  }

  /** What may come next; undefined = the whole vocabulary, empty = nothing. */
  options(model: BigramModel, previous: number, temperature: number): Option[] | undefined {
    const next = this.forced[0];
    if (next !== undefined) return [certain(next)];
    if (this.state === "done") return [];
    if (this.state !== "choosing") return undefined;
    this.context ??= previous;
    return this.wholeSequences ? this.wholeOptions(model, temperature) : this.tokens(model, previous, temperature);
  }

  /** Plackett-Luce: softmax of (scale * log p(sequence | context) + prior) / temperature over what remains. */
  private wholeOptions(model: BigramModel, temperature: number): Option[] {
    const scored = this.remaining.map((j) => {
      const tokens = this.sequences[j] as number[];
      const moves = tokens.map((t, i) => [(i === 0 ? this.context : tokens[i - 1]) as number, t] as const);
      const likelihood = moves.reduce((sum, [previous, t]) => sum + model.logprob(previous, t, 1), 0);
      return { id: j, tokens, moves, score: (this.scale * likelihood + (this.prior[j] as number)) / temperature };
    });
    const z = logSumExp(scored.map((o) => o.score));
    return scored.map(({ score, ...o }) => ({ ...o, logprob: score - z }));
  }

  /** Token by token along the trie: logit scale * logit_LM + log of the prior mass under the token. */
  private tokens(model: BigramModel, previous: number, temperature: number): Option[] {
    const mass = new Map<number, number[]>();
    for (const j of this.remaining) {
      const sequence = this.sequences[j] as number[];
      if (this.path.some((t, i) => sequence[i] !== t)) continue;
      const token = sequence[this.path.length];
      if (token === undefined) continue;
      mass.set(token, [...(mass.get(token) ?? []), this.prior[j] as number]);
    }
    const scored = [...mass].map(([token, priors]) => ({
      token,
      score: (this.scale * model.logit(previous, token) + logSumExp(priors)) / temperature,
    }));
    if (scored.length === 1) return scored.map(({ token }) => certain(token));
    const z = logSumExp(scored.map((o) => o.score));
    return scored.map(({ token, score }) => ({
      ...{ id: token, tokens: [token], logprob: score - z },
      moves: [[previous, token]],
    }));
  }

  /** The option that a given response takes from `at` on. Throws WorkerError if it takes none. */
  taken(options: readonly Option[], response: TokenIds, at: number): Option {
    const found = options.find((o) => o.tokens.every((t, i) => response[at + i] === t));
    if (!found)
      throw new WorkerError(`token ${response[at]} is not allowed by the permutation constraint`, { retryable: false });
    return found;
  }

  /** Consumes one token, which options() allowed. */
  advance(token: number): void {
    if (this.forced.length > 0) {
      this.forced.shift();
      return;
    }
    if (this.state === "waiting") {
      this.free++;
      this.triggerSeen = [...this.triggerSeen, token].slice(-this.trigger.length);
      const seen = this.triggerSeen.length === this.trigger.length;
      if (seen && this.triggerSeen.every((t, i) => t === this.trigger[i])) this.state = "choosing";
      else if (this.maxFreeTokens > 0 && this.free >= this.maxFreeTokens) {
        this.forced = [...this.trigger];
        this.state = "choosing";
      }
      return;
    }
    if (this.state !== "choosing") return;
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
}

/** One of the options: the likeliest at temperature 0, else where `u` in [0, 1) falls. */
export function pick(options: readonly Option[], temperature: number, u: number): Option {
  if (temperature === 0) return options.reduce((best, o) => (o.logprob > best.logprob ? o : best));
  let left = u;
  for (const option of options) {
    left -= Math.exp(option.logprob);
    if (left < 0) return option;
  }
  return options.at(-1) as Option;
}

/** Every item of a trie and its tokens. */
export function* walkSequences(
  trie: TokenTrie,
  node = 0,
  tokens: readonly number[] = [],
): Generator<[row: number, tokens: readonly number[]]> {
  const [start, end] = [trie.edgeStarts[node] as number, trie.edgeStarts[node + 1] as number];
  if (start === end && tokens.length > 0) yield [trie.rows[trie.rowStarts[node] as number] as number, tokens];
  for (let edge = start; edge < end; edge++)
    yield* walkSequences(trie, edge + 1, [...tokens, trie.edgeTokens[edge] as number]);
}
