/** Opens pre-rankers that learn (`prerank.kind`). How slates are made of it: prerank/slates. */

import { type Corpus, openCorpus } from "../../artifacts/corpus.ts";
import { stateDir, tokenizerFile } from "../../artifacts/weights.ts";
import type { Config } from "../../config/schema.ts";
import type { SplitDataset } from "../../data/types.ts";
import { openLanguageModel } from "../../models/language-model.ts";
import { fitItemKnn } from "../../prerank/item-knn.ts";
import { fitPopularity } from "../../prerank/popularity.ts";
import type { FitPreRanker, PreRanker } from "../../prerank/types.ts";
import { sequentialTask } from "../../prompts/tasks.ts";
import type { StageContext } from "../../run/stage.ts";
import { distinctIds } from "../../sid/distinct.ts";
import { Trie } from "../../sid/trie.ts";
import { beamPreRanker } from "./beam.ts";
import { sasrecFitter } from "./sasrec.ts";

/** Kinds that learn; logged slates are read. */
export type FittedKind = Exclude<Config["prerank"]["kind"], "logged">;

/** How a pre-ranker is fitted on a training view. Only the generative one reads `sid` and `midtrain`. */
export function preRankerFitter(context: StageContext, data: SplitDataset, kind: FittedKind): FitPreRanker {
  switch (kind) {
    case "itemknn":
      return fitItemKnn;
    case "popularity":
      return fitPopularity;
    case "sasrec":
      return sasrecFitter(context, data);
    case "generative":
      return async () => generative(context, await openCorpus(context));
  }
}

/** The mid-trained LM's own beam search over the catalogue (GR2 v1). It learned from the mid-training segment alone. */
async function generative(context: StageContext, corpus: Corpus): Promise<PreRanker> {
  const { config } = context;
  const from = context.inputDir("midtrain");
  const model = await openLanguageModel(context, corpus, stateDir(from), tokenizerFile(from));
  const ids = distinctIds(corpus.catalogue);
  return beamPreRanker(await context.worker(), context.signal, {
    name: "generative",
    parameters: model.numParameters,
    trie: new Trie(ids.items.map(([first]) => model.encoder.item(first as number))),
    itemsOf: (row) => ids.items[row] ?? [],
    rowOf: (item) => ids.idOf[item] as number,
    beamWidth: config.prerank.beamWidth,
    promptOf: (history) => model.encoder.encode(sequentialTask(history.subarray(-config.prompts.historyItems))),
  });
}
