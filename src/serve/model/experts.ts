/**
 * The pre-rankers of a fused run as the service asks them: what evidence was trained on comes with every slate of the run,
 * but not with a caller's. The fits that made the run's test slates answer, by the same lists: cheap ones are fitted again
 * at the start, the others' weights are the run's own and a worker computes. With folds, a user of the data is judged by
 * the fits that never saw them, everybody else by the first.
 */
import { proposingStage, sasrecState } from "../../artifacts/candidates.ts";
import { stateDir } from "../../artifacts/weights.ts";
import type { Config } from "../../config/schema.ts";
import { ConfigError } from "../../core/errors.ts";
import type { SplitDataset } from "../../data/types.ts";
import { type BeamItems, languageModelBeams, listBeams, oneTokenItems, sasrecBeams } from "../../models/beam-ranker.ts";
import { openPreRanker } from "../../plugins/prerank.ts";
import { listDepth, planExpert, scoresIn } from "../../prerank/experts.ts";
import type { FitPlan } from "../../prerank/fits.ts";
import { fitItemKnn } from "../../prerank/item-knn.ts";
import { fitPopularity } from "../../prerank/popularity.ts";
import { defaultSlates } from "../../prerank/slates.ts";
import type { PreRanker } from "../../prerank/types.ts";
import type { Encoder } from "../../prompts/pieces.ts";
import type { StageName } from "../../run/stage.ts";
import type { Catalogue } from "../../sid/catalogue.ts";
import type { WorkerClient } from "../../worker/types.ts";

/** By pre-ranker, for every candidate; null: it says nothing of it. */
export type ExpertScores = Readonly<Record<string, readonly (number | null)[]>>;

/** A model that a worker must have loaded for the pre-rankers. */
export interface ExpertWeights {
  readonly fit: string;
  /** Folder of the saved state. */
  readonly path: string;
}

/** A worker with the models in it. */
export interface AskedWorker {
  readonly client: WorkerClient;
  readonly nameModel: (path: string) => string;
  /** Spells the catalogue's items; only asked for where the language model's beams are a pre-ranker. */
  readonly encoder: () => Encoder;
}

/** A slate of known items. */
export interface ExpertQuestion {
  /** Oldest first. */
  readonly history: readonly number[];
  readonly candidates: readonly number[];
  /** Row of the user, if it is one of the data. */
  readonly user: number | undefined;
}

interface Fit {
  readonly plan: FitPlan;
  readonly open: (worker: AskedWorker, signal: AbortSignal) => PreRanker;
}

interface Expert {
  readonly name: string;
  readonly fits: readonly Fit[];
  /** Whether it needs a history to say anything. */
  readonly reads: boolean;
}

interface Parts {
  readonly config: Config;
  readonly data: SplitDataset;
  readonly catalogue: Catalogue;
  readonly stageDir: (stage: StageName) => string;
}

export class ServedExperts {
  /** SASRec's fits. */
  readonly weights: readonly ExpertWeights[];
  /** Folder of the language model's state, where its beams are a pre-ranker. */
  readonly languageModel: string | undefined;
  private readonly experts: readonly Expert[];
  private readonly prerank: Config["prerank"];

  private constructor(
    prerank: Config["prerank"],
    experts: readonly Expert[],
    o: Pick<ServedExperts, "weights" | "languageModel">,
  ) {
    this.prerank = prerank;
    this.experts = experts;
    this.weights = o.weights;
    this.languageModel = o.languageModel;
  }

  /**
   * Fits the cheap ones; seconds, and a table of item pairs for each of their folds.
   * @param names whom the evidence was trained on
   * @throws ConfigError if one of them cannot be asked about a caller's candidates
   */
  static async open(names: readonly string[], parts: Parts): Promise<ServedExperts> {
    const { config, data, stageDir } = parts;
    const { prerank, refit, seed } = config;
    for (const name of names) if (name in prerank.scores) throw cannotAsk(name);
    const experts: Expert[] = [];
    const weights: ExpertWeights[] = [];
    const midtrained = stateDir(stageDir("midtrain"));
    for (const name of names) {
      const all = planExpert(data, name, { folds: prerank.folds, refit, seed, midtrain: false });
      const plans = all.filter((plan) => plan.segments.includes("test"));
      const fits: Fit[] = [];
      const sasrec = oneTokenItems(name === "sasrec" ? data.dataset.items.length : 0);
      const beams = once((encoder: Encoder) => listBeams(parts.catalogue, encoder));
      for (const plan of plans) {
        const path = sasrecState(stageDir(proposingStage(prerank)), plan.name);
        if (name === "sasrec") weights.push({ fit: plan.name, path });
        fits.push({ plan, open: await openFit(name, plan, { config, data, sasrec, path, midtrained, beams }) });
      }
      experts.push({ name, fits, reads: name === "sasrec" || name === "generative" });
    }
    const languageModel = names.includes("generative") ? midtrained : undefined;
    return new ServedExperts(prerank, experts, { weights, languageModel });
  }

  /** What every pre-ranker says of the candidates; rejects with WorkerError. */
  async score(
    worker: AskedWorker,
    { history, candidates, user }: ExpertQuestion,
    signal: AbortSignal,
  ): Promise<ExpertScores> {
    const asked = this.experts.map(async ({ name, fits, reads }): Promise<[string, (number | null)[]]> => {
      const fit = fits.find(({ plan }) => user === undefined || plan.asks(user)) ?? fits[0];
      if (!fit || (reads && history.length === 0)) return [name, candidates.map(() => null)];
      const preRanker = fit.open(worker, signal);
      const depth = listDepth(name, this.prerank);
      const [list = { items: [], scores: [] }] = await preRanker.rankTop(
        [Int32Array.from(history)],
        depth,
        defaultSlates.repeats,
      );
      return [name, scoresIn(list, preRanker, candidates)];
    });
    return Object.fromEntries(await Promise.all(asked));
  }
}

interface FitParts {
  readonly config: Config;
  readonly data: SplitDataset;
  /** The catalogue as SASRec knows it. */
  readonly sasrec: BeamItems;
  readonly path: string;
  readonly midtrained: string;
  readonly beams: (encoder: Encoder) => BeamItems;
}

async function openFit(name: string, plan: FitPlan, p: FitParts): Promise<Fit["open"]> {
  const { config } = p;
  if (name === "sasrec")
    return ({ client, nameModel }, signal) =>
      sasrecBeams(client, signal, { config, items: p.sasrec, parameters: 0, modelId: nameModel(p.path) });
  if (name === "generative")
    return ({ client, nameModel, encoder }, signal) =>
      languageModelBeams(client, signal, {
        ...{ config, encoder: encoder(), items: p.beams(encoder()) },
        ...{ parameters: 0, modelId: nameModel(p.midtrained) },
      });
  if (name !== "itemknn" && name !== "popularity") {
    const { items, hash } = p.data.dataset;
    const preRanker = await (await openPreRanker({ config, items }, hash))?.fit(plan.view, plan);
    if (preRanker) return () => preRanker;
  }
  await new Promise(setImmediate); // requests are answered between two fits
  const preRanker = name === "itemknn" ? fitItemKnn(plan.view) : fitPopularity(plan.view);
  return () => preRanker;
}

/** The first value, whatever it is asked with later. */
function once<A, T>(make: (argument: A) => T): (argument: A) => T {
  let made: { readonly value: T } | undefined;
  return (argument) => {
    made ??= { value: make(argument) };
    return made.value;
  };
}

const cannotAsk = (name: string): ConfigError =>
  new ConfigError(
    `the evidence of this run rests on the scores of prerank.scores.${name}, a file by user, which no request carries`,
    {
      advice:
        "Serve a system that does not weigh evidence (serve.system), or run again without that file: your own ranker's scores are then what a request sends as its candidates' scores.",
    },
  );
