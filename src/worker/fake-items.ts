/** What FakeWorker does with items: walking a trie, and an order of embeddings. */
import { hash01 } from "./fake-model.ts";
import type * as t from "./types.ts";

/** Every item of a trie with its tokens. */
export function* sequencesOf(
  trie: t.TokenTrie,
  node = 0,
  tokens: readonly number[] = [],
): Generator<[row: number, tokens: readonly number[]]> {
  const [start, end] = [trie.edgeStarts[node] as number, trie.edgeStarts[node + 1] as number];
  if (start === end && tokens.length > 0) yield [trie.rows[trie.rowStarts[node] as number] as number, tokens];
  for (let edge = start; edge < end; edge++)
    yield* sequencesOf(trie, edge + 1, [...tokens, trie.edgeTokens[edge] as number]);
}

/** Rows in the order of a seeded random projection. */
export function order(m: t.Matrix, seed: number): number[] {
  const projection = Array.from({ length: m.rows }, (_, r) => {
    let sum = 0;
    for (let c = 0; c < m.cols; c++) sum += (m.data[r * m.cols + c] ?? 0) * (hash01(seed, c, 2) - 0.5);
    return sum;
  });
  return projection.map((_, r) => r).sort((a, b) => (projection[a] ?? 0) - (projection[b] ?? 0) || a - b);
}
