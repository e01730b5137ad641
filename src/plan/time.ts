/**
 * How long a recipe takes, stage by stage, before anything runs: floating-point work from the recipe and the data's
 * size, divided by measured rates (docs/data.md, "Minutes"). Accurate within a factor of two; enough to see which stage
 * costs most.
 *
 * Work of the language model, in multiply-adds of P parameters and T tokens: 6 P T to learn, 2 P T to score. P counts
 * the blocks and one vocabulary's rows.
 */
import type { Config } from "../config/schema.ts";
import { countAsked, countTokens } from "./memory.ts";
import { countParameters, type ModelShape } from "./shape.ts";

/** The cleaned data's size, on which the time depends. */
export interface DataSize {
  readonly users: number;
  readonly items: number;
  readonly interactions: number;
  /** Characters of an item's title, brand, categories and description, on average. */
  readonly textLength: number;
}

export interface StageTime {
  readonly stage: string;
  readonly seconds: number;
}

/** Rates of one core of the machine they were measured on. */
const rates = {
  /** Rows read, cleaned and split per second. */
  rows: 60_000,
  /** Embedding (MiniLM, six layers): items and characters per second; their times add up. */
  texts: 110,
  characters: 14_000,
  /** Items quantised per second, counted once per epoch. */
  quantised: 28_000,
  /** Learning and scoring, multiply-adds per second. */
  learning: 25e9,
  scoring: 25e9,
  /** SASRec's, whose matrices are small. */
  sasrec: 16e9,
  /** Slates of the pre-rankers and the teacher per second. */
  slates: 2_000,
  /** Candidates per second whose features are computed and learned from. */
  evidence: 60_000,
} as const;
/** Share of slates that hold the true item, which calibration and evaluation score. */
const hitRate = 0.2;
/** Evaluation's cost in passes over its slates: systems and controls share much of their work. */
const systems = 3;
/** Share of SFT's work that remains because prompts are computed once for all their candidates. */
const promptsOnce = 0.6;
/** Start of a stage with a worker, seconds. */
const start = 6;

/**
 * @param cores number the worker may use
 * @param speed of one core, relative to the one the rates were measured on
 */
export function estimateTime(
  config: Config,
  shape: ModelShape,
  added: number,
  size: DataSize,
  cores: number,
  speed = 1,
): StageTime[] {
  const { blocks } = countParameters(shape, 0);
  const parameters = blocks + (shape.vocabSize + added) * shape.hiddenSize;
  // Histories are at most as long as what is shown.
  const historyItems = Math.ceil(Math.min(config.prompts.historyItems, size.interactions / Math.max(1, size.users)));
  const text = countTokens({ ...config, prompts: { ...config.prompts, historyItems } });
  // Two threads do not halve the time of small matrix products.
  const power = speed * cores ** 0.8;
  const learn = (tokens: number): number => (6 * parameters * tokens) / (rates.learning * power);
  const score = (tokens: number): number => (2 * parameters * tokens) / (rates.scoring * power);
  const slates = collectSlates(config, size);
  const answer = countAsked(config) * (config.sid.levels + (config.sid.format === "wrapped" ? 2 : 0));
  const perSlate = text.prompt + answer;
  const taught = config.sft.target === "belief" ? slates.rerank : hitRate * slates.rerank;
  const sftTokens = config.sft.userShare * taught * (1 + config.sft.replayShare) * perSlate;
  const taughtSlates =
    config.prerank.folds > 0
      ? Math.min(config.prerank.trainSlates, size.interactions)
      : config.evidence.midtrainFolds * slates.all;
  const seconds: [string, number][] = [
    ["data", start + size.interactions / (rates.rows * speed)],
    ["candidates", start + (sasrecWork(config, size) / rates.sasrec + slates.all / rates.slates) / power],
    ["embed", start + (size.items / rates.texts + (size.items * size.textLength) / rates.characters) / power],
    ["sid", start + (size.items * config.sid.epochs) / (rates.quantised * power)],
    ["midtrain", start + learn(midtrainTokens(config, size))],
    ["slates", start],
    ["calibrate", start + score(hitRate * (slates.rerank + slates.validation) * perSlate)],
    ["evidence", start + ((slates.all + taughtSlates) * config.prerank.candidates) / (rates.evidence * power)],
    ["traces", start + slates.rerank / (rates.slates * power)],
    ["sft", start + config.sft.epochs * promptsOnce * learn(sftTokens)],
    ["rl", start + config.rl.steps * config.rl.prompts * config.rl.group * learn(perSlate + text.response)],
    [
      "evaluate",
      start +
        score(hitRate * (slates.validation + slates.test) * systems * (perSlate + text.response)) +
        learn(refitTokens(config, size)),
    ],
  ];
  return seconds.map(([stage, value]) => ({ stage, seconds: value }));
}

/** Tokens that mid-training reads over all epochs. */
export function midtrainTokens(config: Config, size: DataSize): number {
  const { midtrain, sid, data } = config;
  const item = sid.levels + (sid.format === "wrapped" ? 2 : 0);
  // leave-one-out: all but a user's last items
  const last = (2 + data.split.rerankItems) * size.users;
  const items =
    data.split.kind === "leave-one-out"
      ? Math.max(0, size.interactions - last)
      : data.split.midtrain * size.interactions;
  const overlap = midtrain.windowItems / Math.min(midtrain.windowItems, midtrain.windowStride);
  const { sequential, captioning, persona, language } = midtrain.mixture;
  const others = (sequential + captioning + persona + language) / sequential;
  return midtrain.epochs * items * item * overlap * others;
}

/**
 * Tokens of the refits: each stage's model once for validation, and again for test if it got weight, which about half
 * do. With leave-one-out nearly every window ends in a new item; otherwise a window's share of a segment does.
 */
function refitTokens(config: Config, size: DataSize): number {
  const { refit, midtrain, sid, data, rl } = config;
  if (!refit) return 0;
  const stages = rl.steps > 0 ? 3 : 2;
  const item = sid.levels + (sid.format === "wrapped" ? 2 : 0);
  const windows = data.split.kind === "leave-one-out" ? 1 : data.split.rerank + data.split.validation;
  return stages * 1.5 * midtrain.refit.epochs * windows * size.interactions * item;
}

/** Floating-point work of SASRec if it is a pre-ranker: one fit per fold and one on everything. */
function sasrecWork(config: Config, size: DataSize): number {
  const { kind, experts, folds, sasrec } = config.prerank;
  if (kind !== "sasrec" && !(kind === "fused" && experts.includes("sasrec"))) return 0;
  const scored = sasrec.negatives > 0 ? sasrec.negatives : size.items;
  const position = 6 * (12 * sasrec.layers * sasrec.hiddenSize ** 2 + scored * sasrec.hiddenSize);
  return Math.max(1, folds) * sasrec.maxEpochs * size.interactions * position;
}

/** Approximate number of slates of each segment. */
function collectSlates(config: Config, size: DataSize): Record<"rerank" | "validation" | "test" | "all", number> {
  const { split } = config.data;
  const cap = config.prerank.maxSlatesPerUser;
  const of = (share: number): number => {
    const each = split.kind === "leave-one-out" ? 1 : (share * size.interactions) / Math.max(1, size.users);
    return size.users * (cap > 0 ? Math.min(cap, each) : each);
  };
  const limit = (n: number, most: number): number => (most > 0 ? Math.min(n, most) : n);
  const [rerank, validation, test] = [of(split.rerank), of(split.validation), of(split.test)];
  return {
    rerank,
    validation: limit(validation, config.eval.validationSlates),
    test: limit(test, config.eval.maxSlates),
    all: rerank + validation + test,
  };
}
