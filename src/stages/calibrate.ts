/**
 * The pre-rank prior: the weights of the LM's likelihood and of each position of the input order, fitted on the re-rank
 * slates, which neither the LM nor their pre-ranker has seen. Generation uses it as the constraint's logit prior. The
 * same fit with the teacher's evidence gives the belief that SFT can distil.
 */

import { join } from "node:path";
import type { Priors } from "../artifacts/calibration.ts";
import { openCorpus } from "../artifacts/corpus.ts";
import { readEvidence } from "../artifacts/evidence.ts";
import { writeJson } from "../artifacts/files.ts";
import { type EvidenceBySlate, readHeads } from "../artifacts/heads.ts";
import { conditional, readSlates, toSlateInput } from "../artifacts/slates.ts";
import { readReasonings } from "../artifacts/traces.ts";
import { stateDir, tokenizerFile } from "../artifacts/weights.ts";
import { deriveSeed, unitHash } from "../core/rng.ts";
import { softmax } from "../eval/choice-model.ts";
import { openLanguageModel } from "../models/language-model.ts";
import { checkRenderedPrompts } from "../models/prompt-check.ts";
import { orderHelps } from "../policy/combination.ts";
import { directScores, fitPrior, flatPrior, type PriorExample } from "../policy/prior.ts";
import { type Slate, targetDistribution } from "../prerank/types.ts";
import type { Stage, StageContext, Summary } from "../run/stage.ts";
import { modelVerbs } from "../run/verbs.ts";

export const calibrate: Stage = {
  name: "calibrate",
  source: import.meta.url,
  inputs: ["data", "sid", "midtrain", "slates", "evidence", "traces"],
  verbs: modelVerbs,
  settings: (c) => ({
    history: c.prompts.historyItems,
    candidates: c.prompts.candidates,
    evidence: c.decoding.evidence,
  }),
  run,
};

async function run(context: StageContext): Promise<Summary> {
  const corpus = await openCorpus(context);
  const from = context.inputDir("midtrain");
  const model = await openLanguageModel(context, corpus, stateDir(from), tokenizerFile(from));
  const { slates: all, evidence } = readHeads(context, "rerank");
  const slates = conditional(all);
  const n = Math.max(...all.map((s) => s.candidates.length));
  if (slates.length < 300)
    context.log(`only ${slates.length} held-out slates to calibrate on; about 1,000 are needed for a reliable prior`);
  const policy = model.policy(flatPrior(n));
  const explained = readReasonings(context).map((r) => r.slate);
  const wanted = new Set([...explained, ...slates.map((s) => s.id)]);
  const asked = all.filter((s) => wanted.has(s.id));
  checkRenderedPrompts(context, corpus, asked, "the calibration");
  const likelihoods = await policy.logLikelihood(
    asked.map((s) => toSlateInput(corpus, s)),
    { signal: context.signal, onProgress: (done, total) => context.progress("scoring candidates", done, total) },
  );
  const foldSeed = deriveSeed(context.config.seed, "order-folds");
  const example = (s: Slate, evidence: EvidenceBySlate) => ({
    user: s.user,
    fold: Math.floor(unitHash(foldSeed, s.user) * folds),
    scores: s.scores,
    evidence: evidence[s.id] as readonly number[],
    truth: targetDistribution(s),
  });
  const byId = new Map(
    asked.map((s, i) => [s.id, { ...example(s, evidence), logLikelihood: likelihoods[i] as number[] }]),
  );
  const examples = slates.map((s) => byId.get(s.id) as PriorExample);
  // Without the language model nothing is left out.
  const ofAll = readEvidence(context);
  const whole = conditional(readSlates(context, "rerank")).map((s) => example(s, ofAll));
  const helps = orderHelps(whole, folds, { seed: foldSeed });
  const uses = context.config.decoding.evidence;
  const order = !uses || helps;
  if (!order) context.log("the input order adds nothing to the evidence and is left out of the prior");
  const terms = { likelihood: true, evidence: uses, order };
  const fitted = fitPrior(examples, terms);
  const prior = { ...fitted, likelihood: Math.max(minLikelihood, fitted.likelihood) };
  const priors: Priors = { withLikelihood: prior, alone: fitPrior(whole, { ...terms, likelihood: false }), order };
  writeJson(join(context.dir, "prior.json"), priors);
  const ensemble = fitPrior(examples, { likelihood: true, evidence: true, order: helps });
  const computeBelief = (e: PriorExample): number[] => softmax(directScores(ensemble, e, e.logLikelihood));
  writeJson(
    join(context.dir, "beliefs.json"),
    Object.fromEntries(explained.map((id) => [id, computeBelief(byId.get(id) as PriorExample)])),
  );
  context.log(
    `likelihood weight ${prior.likelihood.toFixed(3)}, ` +
      `pre-rank score weight ${prior.preRank.toFixed(3)}, evidence weight ${prior.evidence.toFixed(3)}`,
  );
  return {
    slates: slates.length,
    likelihood: prior.likelihood,
    preRank: prior.preRank,
    lastPlace: prior.place.at(-1) as number,
  };
}

/**
 * For generation: even a model contradicted by these slates keeps some weight, or training could not move the policy.
 */
const minLikelihood = 0.05;

/** Folds of users, to measure what the order adds out of sample. */
const folds = 5;
