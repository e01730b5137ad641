/**
 * The pre-rank prior: how much the LM's likelihood and each place of the input order weigh, fitted on the re-rank
 * slates, which neither the LM nor their pre-ranker has seen. Generation uses it as the constraint's logit prior. The same
 * fit with the teacher's evidence gives the belief that SFT can distil.
 */
import { join } from "node:path";
import { softmax } from "../eval/choice-model.ts";
import { directScores, fitPrior, flatPrior, type Prior, type PriorExample } from "../policy/prior.ts";
import { type Slate, truthOf } from "../prerank/types.ts";
import { openCorpus } from "./corpus.ts";
import { readEvidence } from "./evidence.ts";
import { readJson, writeJson } from "./files.ts";
import { openLanguageModel } from "./language-model.ts";
import { stateDir, tokenizerFile } from "./midtrain.ts";
import { checkPromptsOf } from "./prompt-check.ts";
import { conditional, readSlates, viewOf } from "./slates.ts";
import type { Stage, StageContext, Summary } from "./stage.ts";
import { readReasonings } from "./traces.ts";

export const calibrate: Stage = {
  name: "calibrate",
  inputs: ["data", "sid", "midtrain", "slates", "evidence", "traces"],
  settings: (c) => ({ history: c.prompts.historyItems, evidence: c.decoding.evidence }),
  run,
};

async function run(context: StageContext): Promise<Summary> {
  const corpus = await openCorpus(context);
  const from = context.inputDir("midtrain");
  const model = await openLanguageModel(context, corpus, stateDir(from), tokenizerFile(from));
  const all = readSlates(context, "rerank");
  const slates = conditional(all);
  const n = Math.max(...all.map((s) => s.candidates.length));
  if (slates.length < 300)
    context.log(`only ${slates.length} held-out slates to calibrate on; about 1,000 are needed for a reliable prior`);
  const policy = model.policy(flatPrior(n));
  const evidence = readEvidence(context);
  const pupils = readReasonings(context).map((r) => r.slate);
  const wanted = new Set([...pupils, ...slates.map((s) => s.id)]);
  const asked = all.filter((s) => wanted.has(s.id));
  checkPromptsOf(context, corpus, asked, "the calibration");
  const likelihoods = await policy.logLikelihood(
    asked.map((s) => viewOf(corpus, s)),
    { signal: context.signal, onProgress: (done, total) => context.progress("scoring candidates", done, total) },
  );
  const example = (s: Slate, i: number): PriorExample => ({
    scores: s.scores,
    evidence: evidence[s.id] as readonly number[],
    logLikelihood: likelihoods[i] as number[],
    truth: truthOf(s),
  });
  const byId = new Map(asked.map((s, i) => [s.id, example(s, i)]));
  const examples = slates.map((s) => byId.get(s.id) as PriorExample);
  const terms = { likelihood: true, evidence: context.config.decoding.evidence };
  const prior = fitPrior(examples, terms);
  const priors: Priors = { withLikelihood: prior, alone: fitPrior(examples, { ...terms, likelihood: false }) };
  writeJson(join(context.dir, "prior.json"), priors);
  const ensemble = fitPrior(examples, { likelihood: true, evidence: true });
  const beliefOf = (e: PriorExample): number[] => softmax(directScores(ensemble, e, e.logLikelihood));
  writeJson(
    join(context.dir, "beliefs.json"),
    Object.fromEntries(pupils.map((id) => [id, beliefOf(byId.get(id) as PriorExample)])),
  );
  context.log(
    `likelihood weight ${prior.likelihood.toFixed(3)}, pre-rank score weight ${prior.preRank.toFixed(3)}, evidence weight ${prior.evidence.toFixed(3)}`,
  );
  return {
    slates: slates.length,
    likelihood: prior.likelihood,
    preRank: prior.preRank,
    lastPlace: prior.place.at(-1) as number,
  };
}

export interface Priors {
  readonly withLikelihood: Prior;
  /** Fitted without the language model: the `prior` control. */
  readonly alone: Prior;
}

export const readPriors = (context: StageContext): Priors =>
  readJson(join(context.inputDir("calibrate"), "prior.json"));

/**
 * How likely each candidate of the re-rank slates of SFT's users is, by slate id: the teacher's evidence, the pre-rank and
 * the mid-trained LM's likelihood, weighed together. The answers enter through the few weights alone.
 */
export const readBeliefs = (context: StageContext): Readonly<Record<string, readonly number[]>> =>
  readJson(join(context.inputDir("calibrate"), "beliefs.json"));

/** The prior of generation. */
export const readPrior = (context: StageContext): Prior => readPriors(context).withLikelihood;
