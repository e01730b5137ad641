/** Small data sets in memory, for tests of everything after loading. */
import { itemId, userId } from "../../src/core/ids.ts";
import { Rng } from "../../src/core/rng.ts";
import { statistics } from "../../src/data/dataset.ts";
import type { Dataset } from "../../src/data/types.ts";

/** A data set with the given sequences of item rows; times are positions unless given. */
export function makeDataset(sequences: number[][], numItems: number, times?: number[][]): Dataset {
  const items = Array.from({ length: numItems }, (_, i) => ({
    id: itemId(`item-${i}`),
    title: `Title ${i} (${1950 + (i % 50)})`,
    brand: "",
    categories: [`genre-${i % 5}`],
    description: "",
  }));
  const rows = sequences.map((s, u) => ({
    user: userId(`user-${u}`),
    items: Int32Array.from(s),
    times: Float64Array.from(times?.[u] ?? s.map((_, k) => k)),
  }));
  return { name: "synthetic", items, sequences: rows, hash: "0".repeat(64), stats: statistics(items, rows, 0, {}) };
}

/** Users who walk a ring of items with noise: item i is mostly followed by one of the next few. Nobody repeats. */
export function walkers(numUsers: number, numItems: number, length: number, seed = 1): Dataset {
  const rng = Rng.of(seed, "walkers");
  // A shuffled ring, so that rows do not encode order.
  const ring = rng.shuffle(Array.from({ length: numItems }, (_, i) => i));
  const sequences = Array.from({ length: numUsers }, () => {
    const seen = new Set<number>();
    let at = rng.int(numItems);
    const items: number[] = [];
    while (items.length < length) {
      at = rng.uniform() < 0.15 ? rng.int(numItems) : (at + 1 + rng.int(4)) % numItems;
      const item = ring[at] ?? 0;
      if (seen.has(item)) continue;
      seen.add(item);
      items.push(item);
    }
    return items;
  });
  return makeDataset(sequences, numItems);
}
