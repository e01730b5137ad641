/**
 * Pre-rankers that use a loaded model's beam search over the catalogue: SASRec and the language model itself. Stages
 * and the service ask the same question; which weights answer is up to them.
 */
import type { Config } from "../config/schema.ts";
import type { PreRanker } from "../prerank/types.ts";
import type { Encoder } from "../prompts/pieces.ts";
import { sequentialTask } from "../prompts/tasks.ts";
import type { Catalogue } from "../sid/catalogue.ts";
import { distinctIds } from "../sid/distinct.ts";
import { Trie } from "../sid/trie.ts";
import type { TokenIds, TokenTrie, WorkerClient } from "../worker/types.ts";

/** What can be found. */
export interface BeamItems {
  /** Over distinct sequences of token ids, the catalogue's rows. */
  readonly trie: TokenTrie;
  /** The items of a catalogue row: several if they share a semantic ID. */
  readonly itemsAt: (row: number) => readonly number[];
  /** The catalogue row of an item. */
  readonly rowFor: (item: number) => number;
}

export interface BeamPreRankerOptions extends BeamItems {
  readonly name: string;
  readonly parameters: number;
  readonly modelId?: string;
  /** Number of beams, at least the number of items asked for. */
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

/** Items of a vocabulary whose token k is item row k. */
export const oneTokenItems = (numItems: number): BeamItems => ({
  trie: new Trie(Array.from({ length: numItems }, (_, row) => [row])),
  itemsAt: (row) => [row],
  rowFor: (item) => item,
});

/** Items as the language model spells them. */
export function listBeams(catalogue: Catalogue, encoder: Encoder): BeamItems {
  const ids = distinctIds(catalogue);
  return {
    trie: new Trie(ids.items.map(([first]) => encoder.item(first as number))),
    itemsAt: (row) => ids.items[row] ?? [],
    rowFor: (item) => ids.idByRow[item] as number,
  };
}

export interface SasrecParts {
  readonly config: Config;
  readonly items: BeamItems;
  readonly parameters: number;
  readonly modelId: string;
}

export const sasrecBeams = (worker: WorkerClient, signal: AbortSignal, p: SasrecParts): PreRanker =>
  beamPreRanker(worker, signal, {
    ...{ ...p.items, name: "sasrec", parameters: p.parameters, modelId: p.modelId, beamWidth: 1 },
    renderHistory: (history) => history.subarray(-p.config.prerank.sasrec.historyItems),
  });

export interface LanguageModelParts {
  readonly config: Config;
  readonly items: BeamItems;
  readonly encoder: Encoder;
  readonly parameters: number;
  readonly modelId?: string;
}

/** The LM's own beam search (GR2 v1). */
export const languageModelBeams = (worker: WorkerClient, signal: AbortSignal, p: LanguageModelParts): PreRanker =>
  beamPreRanker(worker, signal, {
    ...{ ...p.items, name: "generative", parameters: p.parameters, beamWidth: p.config.prerank.beamWidth },
    ...(p.modelId ? { modelId: p.modelId } : {}),
    renderHistory: (history) => p.encoder.encode(sequentialTask(history.subarray(-p.config.prompts.historyItems))),
  });
