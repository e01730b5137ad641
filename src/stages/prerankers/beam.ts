/** A pre-ranker that asks a loaded model's beam search over the catalogue: what SASRec and the generative one share. */
import type { PreRanker } from "../../prerank/types.ts";
import type { TokenIds, TokenTrie, WorkerClient } from "../../worker/types.ts";

export interface BeamPreRankerOptions {
  readonly name: string;
  readonly parameters: number;
  readonly modelId?: string;
  /** Over distinct sequences of token ids, the catalogue's rows. */
  readonly trie: TokenTrie;
  /** Which items a catalogue row stands for: several, where items share a semantic ID. */
  readonly itemsAt: (row: number) => readonly number[];
  /** The catalogue row of an item. */
  readonly rowFor: (item: number) => number;
  /** Beams, at least the number of items asked for. */
  readonly beamWidth: number;
  readonly renderHistory: (history: Int32Array) => TokenIds;
}

/** Ranks by a loaded model's beam search; exact where an item is one token. */
export function beamPreRanker(worker: WorkerClient, signal: AbortSignal, o: BeamPreRankerOptions): PreRanker {
  return {
    name: o.name,
    parameters: o.parameters,
    scale: "none",
    async rankTop(histories, n, repeats) {
      const beamWidth = Math.max(n, o.beamWidth);
      const seen = histories.map((h) => new Set(repeats === "unseen" ? h : []));
      const { rows, logprobs } = await worker.beamSearch(
        {
          ...(o.modelId ? { modelId: o.modelId } : {}),
          prompts: histories.map(o.renderHistory),
          trie: o.trie,
          beamWidth,
          excluded: seen.map((items) => {
            const itsRows = [...new Set([...items].map(o.rowFor))];
            return itsRows.filter((row) => o.itemsAt(row).every((item) => items.has(item)));
          }),
        },
        { signal },
      );
      return seen.map((excluded, i) => {
        const found = Array.from({ length: beamWidth }, (_, k) => i * beamWidth + k).flatMap((at) => {
          const row = rows.data[at] as number;
          if (row < 0) return [];
          const items = o.itemsAt(row).filter((item) => !excluded.has(item));
          return items.map((item) => ({ item, score: logprobs.data[at] as number }));
        });
        const best = found.slice(0, n);
        return { items: best.map((b) => b.item), scores: best.map((b) => b.score) };
      });
    },
  };
}
