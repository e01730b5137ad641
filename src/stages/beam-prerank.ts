/** A pre-ranker that asks a loaded model's beam search over the catalogue: what SASRec and the generative one share. */
import type { PreRanker } from "../prerank/types.ts";
import type { IntMatrix, TokenIds, WorkerClient } from "../worker/types.ts";

export interface BeamPreRankerOptions {
  readonly name: string;
  readonly parameters: number;
  readonly modelId?: string;
  /** Token ids of every item row. */
  readonly catalogue: IntMatrix;
  /** Beams, at least the number of items asked for. */
  readonly beamWidth: number;
  readonly promptOf: (history: Int32Array) => TokenIds;
}

/** Ranks by a loaded model's beam search; exact where an item is one token. */
export function beamPreRanker(worker: WorkerClient, signal: AbortSignal, o: BeamPreRankerOptions): PreRanker {
  return {
    name: o.name,
    parameters: o.parameters,
    async topOf(histories, n, repeats) {
      const beamWidth = Math.max(n, o.beamWidth);
      const { rows, logprobs } = await worker.beamSearch(
        {
          ...(o.modelId ? { modelId: o.modelId } : {}),
          prompts: histories.map(o.promptOf),
          catalogue: o.catalogue,
          beamWidth,
          ...(repeats === "unseen" ? { excluded: histories.map((h) => Int32Array.from(new Set(h))) } : {}),
        },
        { signal },
      );
      return histories.map((_, i) => {
        const found = Array.from(rows.data.subarray(i * beamWidth, (i + 1) * beamWidth));
        const items = found.filter((row) => row >= 0).slice(0, n);
        return { items, scores: Array.from(logprobs.data.subarray(i * beamWidth, i * beamWidth + items.length)) };
      });
    },
  };
}
