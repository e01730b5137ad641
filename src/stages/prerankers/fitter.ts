/** Opens pre-rankers by name. Their training data: prerank/fits; slates made from them: propose.ts. */
import { type Corpus, openCorpus } from "../../artifacts/corpus.ts";
import { stateDir, tokenizerFile } from "../../artifacts/weights.ts";
import { readScores } from "../../data/scores.ts";
import type { SplitDataset } from "../../data/types.ts";
import { languageModelBeams, listBeams } from "../../models/beam-ranker.ts";
import { openLanguageModel } from "../../models/language-model.ts";
import { openPreRanker } from "../../plugins/prerank.ts";
import { fitItemKnn } from "../../prerank/item-knn.ts";
import { ownScores } from "../../prerank/own-scores.ts";
import { fitPopularity } from "../../prerank/popularity.ts";
import type { FitPreRanker, PreRanker } from "../../prerank/types.ts";
import type { StageContext } from "../../run/stage.ts";
import { sasrecFitter } from "./sasrec.ts";

/** Fits an expert on a training view. Only the generative one reads `sid` and `midtrain`. */
export function preRankerFitter(context: StageContext, data: SplitDataset, name: string): FitPreRanker {
  switch (name) {
    case "itemknn":
      return (view) => fitItemKnn(view);
    case "popularity":
      return fitPopularity;
    case "sasrec":
      return sasrecFitter(context, data);
    case "generative":
      return async () => generative(context, await openCorpus(context));
    default:
      if (!(name in context.config.prerank.scores)) return brought(context, data);
      return scoresFrom(context, data, name);
  }
}

/** The module that the recipe names. */
function brought({ config, signal }: StageContext, data: SplitDataset): FitPreRanker {
  const { items, hash } = data.dataset;
  const opening = openPreRanker({ config, items, signal }, hash);
  opening.catch(() => undefined); // reported where it is awaited
  return async (view, purpose) => {
    const opened = await opening;
    if (!opened) throw new RangeError("a pre-ranker without a module");
    return opened.fit(view, purpose);
  };
}

/** Read once for all fits. */
function scoresFrom(context: StageContext, data: SplitDataset, name: string): FitPreRanker {
  let read: Promise<PreRanker> | undefined;
  return () => {
    read ??= readScores(context.config.prerank.scores[name] as string, data.dataset).then(({ byUser, unknown }) => {
      const users = data.dataset.sequences.length;
      context.log(`${name}: scores of ${byUser.size} of ${users} users; ${unknown} rows have unknown users or items`);
      return ownScores(name, byUser);
    });
    return read;
  };
}

/**
 * The mid-trained LM's own beam search over the catalogue (GR2 v1). It was trained only on the mid-training segment.
 */
async function generative(context: StageContext, corpus: Corpus): Promise<PreRanker> {
  const { config } = context;
  const from = context.inputDir("midtrain");
  const model = await openLanguageModel(context, corpus, stateDir(from), tokenizerFile(from));
  return languageModelBeams(await context.worker(), context.signal, {
    config,
    encoder: model.encoder,
    parameters: model.numParameters,
    items: listBeams(corpus.catalogue, model.encoder),
  });
}
