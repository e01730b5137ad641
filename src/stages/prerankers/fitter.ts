/** Opens pre-rankers by name. What they learn from: prerank/fits; how slates are made of them: propose.ts. */
import { type Corpus, openCorpus } from "../../artifacts/corpus.ts";
import { stateDir, tokenizerFile } from "../../artifacts/weights.ts";
import type { Config } from "../../config/schema.ts";
import { readScores } from "../../data/scores.ts";
import type { SplitDataset } from "../../data/types.ts";
import { openLanguageModel } from "../../models/language-model.ts";
import { fitItemKnn } from "../../prerank/item-knn.ts";
import { ownScores } from "../../prerank/own-scores.ts";
import { fitPopularity } from "../../prerank/popularity.ts";
import type { FitPreRanker, PreRanker } from "../../prerank/types.ts";
import { sequentialTask } from "../../prompts/tasks.ts";
import type { StageContext } from "../../run/stage.ts";
import { distinctIds } from "../../sid/distinct.ts";
import { Trie } from "../../sid/trie.ts";
import { beamPreRanker } from "./beam.ts";
import { sasrecFitter } from "./sasrec.ts";

/** Kinds that learn by themselves. */
export type ExpertKind = Config["prerank"]["experts"][number];

/** The pre-rankers of a recipe, cheap ones first; none where slates were logged. */
export function listExperts({ kind, experts, scores }: Config["prerank"]): string[] {
  if (kind === "logged") return [];
  const names = kind === "fused" ? [...experts, ...Object.keys(scores)] : [kind];
  const cost = (name: string): number => ["sasrec", "generative"].indexOf(name);
  return names.sort((a, b) => cost(a) - cost(b));
}

/** The language model's beams come from stage midtrain; all else needs the data alone. */
export const needsLanguageModel = (prerank: Config["prerank"]): boolean => listExperts(prerank).includes("generative");

/** Those that are fitted in seconds. */
export const isCheap = (name: string): boolean => name !== "sasrec" && name !== "generative";

/** How an expert is fitted on a training view. Only the generative one reads `sid` and `midtrain`. */
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
      return scoresFrom(context, data, name);
  }
}

/** Read once, whatever the fit. */
function scoresFrom(context: StageContext, data: SplitDataset, name: string): FitPreRanker {
  let read: Promise<PreRanker> | undefined;
  return () => {
    read ??= readScores(context.config.prerank.scores[name] as string, data.dataset).then(({ byUser, unknown }) => {
      const users = data.dataset.sequences.length;
      context.log(`${name}: scores of ${byUser.size} of ${users} users; ${unknown} rows are of unknown users or items`);
      return ownScores(name, byUser);
    });
    return read;
  };
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
    itemsAt: (row) => ids.items[row] ?? [],
    rowFor: (item) => ids.idByRow[item] as number,
    beamWidth: config.prerank.beamWidth,
    renderHistory: (history) => model.encoder.encode(sequentialTask(history.subarray(-config.prompts.historyItems))),
  });
}
