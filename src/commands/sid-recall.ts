/**
 * Next-item recall of semantic IDs: how often the mid-trained LM's trie-constrained beam search (the generative
 * pre-ranker, slates.ts) finds what users chose next, on validation positions. Never uses the test segment.
 *
 * IDs may collide here. The search runs over distinct IDs, but a hit counts items: if k items the user has not seen
 * share the found ID, the right one is shown with probability 1 / k, so the hit is worth 1 / k.
 */

import { type Corpus, openCorpus } from "../artifacts/corpus.ts";
import { stateDir, tokenizerFile } from "../artifacts/weights.ts";
import { unitHash } from "../core/rng.ts";
import { findRank, ndcgAt, recallAt } from "../eval/metrics.ts";
import { openLanguageModel } from "../models/language-model.ts";
import { buildQueries, type Query, slateId } from "../prerank/slates.ts";
import { sequentialTask } from "../prompts/tasks.ts";
import type { StageContext } from "../run/stage.ts";
import { type DistinctIds, distinctIds, seenIds } from "../sid/distinct.ts";
import { Trie } from "../sid/trie.ts";

export interface Recall {
  readonly positions: number;
  readonly recallAt10: number;
  readonly ndcgAt10: number;
}

const cutoff = 10;
const promptsPerCall = 256;

/** Reads data, sid and midtrain. `maxPositions`: the same ones for every seed, drawn by hash; 0 = all. */
export async function nextItemRecall(context: StageContext, maxPositions: number): Promise<Recall> {
  const { config, signal } = context;
  const corpus = await openCorpus(context);
  const positions = validationPositions(corpus, maxPositions);
  const from = context.inputDir("midtrain");
  const model = await openLanguageModel(context, corpus, stateDir(from), tokenizerFile(from));
  const worker = await context.worker();
  const ids = distinctIds(corpus.catalogue);
  const trie = new Trie(ids.items.map((items) => model.encoder.item(items[0] as number)));
  let [recall, ndcg] = [0, 0];
  for (let start = 0; start < positions.length; start += promptsPerCall) {
    const part = positions.slice(start, start + promptsPerCall);
    const histories = part.map((q) => q.history);
    const found = await worker.beamSearch(
      {
        prompts: histories.map((h) => model.encoder.encode(sequentialTask(h.subarray(-config.prompts.historyItems)))),
        trie,
        beamWidth: Math.max(cutoff, config.prerank.beamWidth),
        excluded: histories.map((h) => seenIds(ids, new Set(h))),
      },
      { signal },
    );
    part.forEach((s, i) => {
      const width = found.rows.cols;
      const list = Array.from(found.rows.data.subarray(i * width, (i + 1) * width));
      const credit = creditTarget(ids, list, s.target, new Set(histories[i]));
      recall += credit.recall;
      ndcg += credit.ndcg;
    });
    context.progress("beam search", Math.min(start + promptsPerCall, positions.length), positions.length);
  }
  const n = Math.max(1, positions.length);
  return { positions: positions.length, recallAt10: recall / n, ndcgAt10: ndcg / n };
}

/** Positions whose answer is new to the user; the same hash-drawn sample for every cell of an ablation. */
function validationPositions({ split }: Corpus, max: number): readonly Query[] {
  const { queries } = buildQueries(split, "validation");
  if (max === 0 || queries.length <= max) return queries;
  const draw = (q: Query): number => unitHash(0, slateId(split.dataset.hash, q.user, q.position));
  return [...queries].sort((a, b) => draw(a) - draw(b)).slice(0, max);
}

/** R@10 and N@10 of a best-first list of IDs for one true item, shared IDs divided among their unseen items. */
export function creditTarget(
  ids: DistinctIds,
  list: readonly number[],
  target: number,
  seen: ReadonlySet<number>,
): { readonly recall: number; readonly ndcg: number } {
  const id = ids.idByRow[target] as number;
  const sharing = (ids.items[id] ?? []).filter((row) => !seen.has(row)).length;
  const rank = findRank(list, id);
  return { recall: recallAt(rank, cutoff) / sharing, ndcg: ndcgAt(rank, cutoff) / sharing };
}
