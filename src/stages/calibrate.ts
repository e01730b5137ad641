/**
 * The pre-rank prior: how much the LM's likelihood and each place of the input order weigh, fitted on the re-rank
 * slates, which neither the LM nor their pre-ranker has seen. Generation uses it as the constraint's logit prior.
 */
import { join } from "node:path";
import { fitPrior, flatPrior, type Prior, type PriorExample } from "../policy/prior.ts";
import { openCorpus } from "./corpus.ts";
import { readJson, writeJson } from "./files.ts";
import { openLanguageModel } from "./language-model.ts";
import { stateDir, tokenizerFile } from "./midtrain.ts";
import { conditional, readSlates, viewOf } from "./slates.ts";
import type { Stage, StageContext, Summary } from "./stage.ts";
import { readEvidence } from "./traces.ts";

export const calibrate: Stage = {
  name: "calibrate",
  inputs: ["data", "sid", "midtrain", "slates", "traces"],
  settings: (c) => ({ history: c.prompts.historyItems, evidence: c.decoding.evidence }),
  run,
};

async function run(context: StageContext): Promise<Summary> {
  const corpus = openCorpus(context);
  const from = context.inputDir("midtrain");
  const model = await openLanguageModel(context, corpus, stateDir(from), tokenizerFile(from));
  const slates = conditional(readSlates(context, "rerank"));
  const n = context.config.prerank.candidates;
  if (slates.length < 300)
    context.log(`only ${slates.length} held-out slates to calibrate on; about 1,000 are needed for a reliable prior`);
  const policy = model.policy(flatPrior(n));
  const evidence = readEvidence(context);
  const likelihood = await policy.logLikelihood(
    slates.map((s) => viewOf(corpus, s)),
    { signal: context.signal, onProgress: (done, total) => context.progress("scoring candidates", done, total) },
  );
  const examples: PriorExample[] = slates.map((s, i) => ({
    scores: s.scores,
    evidence: evidence[s.id] as number[],
    logLikelihood: likelihood[i] as number[],
    chosen: s.targetIndex,
  }));
  const terms = { likelihood: true, evidence: context.config.decoding.evidence };
  const prior = fitPrior(examples, terms);
  const priors: Priors = { withLikelihood: prior, alone: fitPrior(examples, { ...terms, likelihood: false }) };
  writeJson(join(context.dir, "prior.json"), priors);
  context.log(
    `likelihood weight ${prior.likelihood.toFixed(3)}, pre-rank score weight ${prior.preRank.toFixed(3)}, evidence weight ${prior.evidence.toFixed(3)}`,
  );
  return {
    slates: slates.length,
    likelihood: prior.likelihood,
    preRank: prior.preRank,
    lastPlace: prior.place[n - 1] as number,
  };
}

export interface Priors {
  readonly withLikelihood: Prior;
  /** Fitted without the language model: the `prior` control. */
  readonly alone: Prior;
}

export const readPriors = (context: StageContext): Priors =>
  readJson(join(context.inputDir("calibrate"), "prior.json"));

/** The prior of generation. */
export const readPrior = (context: StageContext): Prior => readPriors(context).withLikelihood;
