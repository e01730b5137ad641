/**
 * Seeded randomness. Every consumer derives its own stream from the run's seed and a label, so adding a consumer never
 * changes what another draws.
 */
import { createHash } from "node:crypto";
import { xoroshiro128plus } from "pure-rand/generator/xoroshiro128plus";
import type { RandomGenerator } from "pure-rand/types/RandomGenerator";

/** A non-negative 31-bit seed derived from a seed and labels; stable across machines. */
export function deriveSeed(seed: number, ...labels: (string | number)[]): number {
  const digest = createHash("sha256")
    .update(JSON.stringify([seed, ...labels]))
    .digest();
  return digest.readUInt32LE(0) >>> 1;
}

/** A number in [0, 1) that depends only on its arguments. For assigning users to folds and breaking ties. */
export function unitHash(seed: number, ...labels: (string | number)[]): number {
  const digest = createHash("sha256")
    .update(JSON.stringify([seed, ...labels]))
    .digest();
  return digest.readUInt32LE(0) / 2 ** 32;
}

export class Rng {
  private readonly generator: RandomGenerator;

  private constructor(generator: RandomGenerator) {
    this.generator = generator;
  }

  static of(seed: number, ...labels: (string | number)[]): Rng {
    const generator = xoroshiro128plus(deriveSeed(seed, ...labels));
    // The generator starts from (-1, ~seed, seed, 0): its first outputs are simple functions of the 31-bit seed (the
    // first
    // is always ≥ 1/2). After sixteen steps the state is mixed.
    for (let k = 0; k < 16; k++) generator.next();
    return new Rng(generator);
  }

  /** Uniform in [0, 1), 32 bits of randomness. */
  uniform(): number {
    return (this.generator.next() >>> 0) / 2 ** 32;
  }

  /** Uniform integer in [0, n). */
  int(n: number): number {
    return Math.floor(this.uniform() * n);
  }

  /** Fisher–Yates, in place; returns its argument. */
  shuffle<T>(items: T[]): T[] {
    for (let i = items.length - 1; i > 0; i--) {
      const j = this.int(i + 1);
      const t = items[i] as T;
      items[i] = items[j] as T;
      items[j] = t;
    }
    return items;
  }

  pick<T>(items: readonly T[]): T {
    if (items.length === 0) throw new RangeError("pick from an empty list");
    return items[this.int(items.length)] as T;
  }
}
