/**
 * The pre-rankers of a fused run in the service: the scores that evidence was trained on are stored with the run's
 * slates but must be computed for a caller's. The same fits that made the run's test slates compute them: cheap ones
 * are refitted at the start, the others use the run's weights in a worker. With folds, a user of the data is
 * scored by the fit that has not seen them, any other user by the first fit.
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

/** By pre-ranker, for every candidate; null: not in its list. */
export type ExpertScores = Readonly<Record<string, readonly (number | null)[]>>;

/** A model that a worker must load for the pre-rankers. */
export interface ExpertWeights {
  readonly fit: string;
  /** Folder of the saved state. */
  readonly path: string;
}

/** A worker with the models loaded. */
export interface AskedWorker {
  readonly client: WorkerClient;
  readonly nameModel: (path: string) => string;
  /** Spells the catalogue's items; only used if the language model's beams are a pre-ranker. */
  readonly encoder: () => Encoder;
}

/** A slate of known items. */
export interface ExpertQuestion {
  /** Oldest first. */
  readonly history: readonly number[];
  readonly candidates: readonly number[];
  /** Row of the user, if in the data. */
  readonly user: number | undefined;
}

interface Fit {
  readonly plan: FitPlan;
  readonly open: (worker: AskedWorker, signal: AbortSignal) => PreRanker;
}

interface Expert {
  readonly name: string;
  readonly fits: readonly Fit[];
  /** Whether it needs a history. */
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
  /** Folder of the language model's state, if its beams are a pre-ranker. */
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
   * Fits the cheap ones; takes seconds, and memory for a table of item pairs per fold.
   * @param names the pre-rankers that the evidence was trained on
   * @throws ConfigError if one of them cannot score a caller's candidates
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

  /** Every pre-ranker's scores of the candidates; rejects with WorkerError. */
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
  /** The catalogue for SASRec. */
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
  await new Promise(setImmediate); // lets requests be answered between fits
  const preRanker = name === "itemknn" ? fitItemKnn(plan.view) : fitPopularity(plan.view);
  return () => preRanker;
}

/** Caches the first value, whatever later arguments are. */
function once<A, T>(make: (argument: A) => T): (argument: A) => T {
  let made: { readonly value: T } | undefined;
  return (argument) => {
    made ??= { value: make(argument) };
    return made.value;
  };
}

const cannotAsk = (name: string): ConfigError =>
  new ConfigError(
    `the evidence of this run uses prerank.scores.${name}, a file of scores per user, which requests do not contain`,
    {
      advice:
        "Serve a system without evidence (serve.system), or rerun without that file " +
        "and send your ranker's scores as the candidates' scores.",
    },
  );
