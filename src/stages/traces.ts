/**
 * Stage 2a, reasoning traces (GR2 v1 §4): the teacher answers the re-rank slates of SFT's users; rejection sampling
 * keeps those whose own first choice is the true item. The statistical teacher is fitted whoever writes the traces: it
 * knows the mid-training segment alone, its weights are cross-fitted over users, and its scores for all slates are kept,
 * since they can serve as evidence in the prior.
 *
 *   traces.jsonl      what SFT learns from, with provenance        reasonings.jsonl  what the statistical teacher would say
 *   rejected.jsonl    answers in words that were of no use         teacher.json      acceptance by difficulty, reasons
 */
import { join } from "node:path";
import { openCorpus } from "../artifacts/corpus.ts";
import { writeJson, writeLines } from "../artifacts/files.ts";
import { conditional, isSftUser, readSlates } from "../artifacts/slates.ts";
import type { ReasoningRecord, TraceRecord } from "../artifacts/traces.ts";
import type { Config } from "../config/schema.ts";
import { RunError } from "../core/errors.ts";
import { deriveSeed, Rng } from "../core/rng.ts";
import { allowedFor, checkTrainingView } from "../data/leakage.ts";
import { trainingView } from "../data/split.ts";
import type { SplitDataset } from "../data/types.ts";
import { type CrossFittedSlates, crossFittedSlates } from "../prerank/cross-fit.ts";
import { defaultSlates } from "../prerank/slates.ts";
import type { Slate } from "../prerank/types.ts";
import type { Reasoning } from "../prompts/rerank.ts";
import { modelVerbs } from "../run/code-hash.ts";
import type { Stage, StageContext, Summary } from "../run/stage.ts";
import { type SlateView, viewOf } from "../teacher/features.ts";
import { sampleTraces, statisticalTeacher } from "../teacher/sampling.ts";
import { defaultTeacher, type Evidence, fitTeacher } from "../teacher/statistical.ts";
import { preRankerFitter } from "./prerankers/fitter.ts";
import { teacherInWords } from "./teachers/in-words.ts";

export const traces: Stage = {
  name: "traces",
  source: import.meta.url,
  inputs: ["data", "sid", "slates"],
  verbs: modelVerbs,
  settings: (c) => ({
    teacher: c.teacher,
    userShare: c.sft.userShare,
    ...(c.teacher.midtrainFolds > 0 ? { kind: c.prerank.kind, candidates: c.prerank.candidates } : {}),
    seed: c.seed,
    ...(c.teacher.kind === "statistical" ? {} : { prompts: c.prompts, dtype: c.runtime.dtype }),
  }),
  run,
};

async function run(context: StageContext): Promise<Summary> {
  const { config } = context;
  const o = config.teacher;
  const corpus = await openCorpus(context);
  const { split } = corpus;
  const { dataset } = split;
  const all = readSlates(context, "rerank");
  const slates = {
    rerank: conditional(all),
    validation: conditional(readSlates(context, "validation")),
    test: conditional(readSlates(context, "test")),
  };
  const students = slates.rerank.filter((s) => isSftUser(config.seed, config.sft.userShare, s.user));
  const pupils = all.filter((s) => isSftUser(config.seed, config.sft.userShare, s.user));
  const seed = deriveSeed(config.seed, "teacher");
  // What the pre-rankers of these slates know, and no more.
  const knowledge = {
    rerank: trainingView(split, "midtrain"),
    heldOut: trainingView(split, "rerank"),
    more: await moreSlates(context, split),
  };
  checkTrainingView(split, knowledge.rerank, allowedFor("rerank"), "the teacher, on rerank slates");
  checkTrainingView(split, knowledge.heldOut, allowedFor("test"), "the teacher, on later slates");
  const fitted = fitTeacher(dataset, knowledge, students, { ...defaultTeacher, seed });
  const scoresOf = (list: readonly Slate[]) => Object.fromEntries(list.map((s) => [s.id, fitted.scores(viewOf(s))]));
  writeJson(join(context.dir, "evidence.json"), {
    ...scoresOf(slates.rerank),
    ...scoresOf(pupils),
    ...scoresOf(slates.validation),
    ...scoresOf(slates.test),
  });
  const thoughtOf = (slate: SlateView, choice: number): Reasoning =>
    reasoningOf(fitted.evidence(slate), slate, choice, split, o);
  writeLines(
    join(context.dir, "reasonings.jsonl"),
    pupils.map((s): ReasoningRecord => {
      const scores = fitted.scores(viewOf(s));
      const first = scores.indexOf(Math.max(...scores));
      return { slate: s.id, reasoning: thoughtOf(viewOf(s), first) };
    }),
  );
  const asked = o.kind === "statistical" ? students : someOf(students, o.maxSlates, config.seed);
  const teacher =
    o.kind === "statistical"
      ? statisticalTeacher(fitted, { temperature: o.temperature, seed, thoughtOf })
      : await teacherInWords(context, corpus, seed);
  const {
    traces: kept,
    stats,
    rejections,
  } = await sampleTraces(teacher, asked, { mode: o.sampling, maxTries: o.maxTries, rest: o.rest }).finally(() =>
    teacher.close?.(),
  );
  writeLines(
    join(context.dir, "traces.jsonl"),
    kept.map(
      ({ slateId, ranking, thought, tries, mode, seed, time, prompt }): TraceRecord => ({
        ...{ slate: slateId, order: ranking, reasoning: thought, tries },
        ...{ teacher: teacher.kind, model: teacher.model, sampling: mode, seed, time, prompt },
      }),
    ),
  );
  if (o.kind !== "statistical") writeLines(join(context.dir, "rejected.jsonl"), rejections);
  writeJson(join(context.dir, "teacher.json"), { weights: fitted.weights, stats });
  context.log(
    `${stats.accepted} of ${stats.offered} traces kept (${o.sampling}), ${stats.meanTries.toFixed(2)} tries each; ${(100 * stats.identityRate).toFixed(1)} % repeat the input order`,
  );
  for (const [reason, n] of Object.entries(stats.rejected)) context.log(`${n} x not kept: ${reason}`);
  if (o.kind !== "statistical" && stats.accepted === 0)
    throw new RunError(
      `not one answer of the teacher ${teacher.model} was kept; stages/traces/rejected.jsonl has them`,
      {
        advice: "Raise teacher.maxTries or the budget, use a stronger teacher, or teacher.sampling=targeted.",
      },
    );
  return {
    pupils: pupils.length,
    offered: stats.offered,
    accepted: stats.accepted,
    acceptance: stats.acceptance,
    meanTries: stats.meanTries,
    ...Object.fromEntries(stats.acceptanceByPosition.map((share, k) => [`acceptance_place_${k + 1}`, share])),
    ...Object.fromEntries(Object.entries(stats.rejected).map(([r, n]) => [`rejected_${r.replaceAll(" ", "_")}`, n])),
  };
}

/** A seeded draw of so many slates; 0 = all. */
const someOf = (slates: readonly Slate[], n: number, seed: number): readonly Slate[] =>
  n === 0
    ? slates
    : Rng.of(seed, "teacher-slates")
        .shuffle([...slates])
        .slice(0, n);

/** Slates of the mid-training segment for the teacher's weights, if asked for. */
async function moreSlates(context: StageContext, split: SplitDataset): Promise<CrossFittedSlates[]> {
  const { config } = context;
  const folds = config.teacher.midtrainFolds;
  const { kind, candidates: size } = config.prerank;
  if (folds === 0 || kind === "logged") return []; // costly pre-rankers are refused with the config
  const made = await crossFittedSlates(
    split,
    preRankerFitter(context, split, kind),
    folds,
    deriveSeed(config.seed, "teacher"),
    { ...defaultSlates, size, minHistory: leastHistory },
    (done, total) => context.progress("slates of the mid-training segment", done, total),
  );
  const learnt = made.reduce((n, { slates }) => n + conditional(slates).length, 0);
  context.log(`${learnt} slates of the mid-training segment for the teacher's weights`);
  return made;
}

/** Positions with less before them are unlike those that are re-ranked. */
const leastHistory = 10;

/** Evidence by candidate index becomes citations by item row. */
function reasoningOf(
  evidence: Evidence,
  slate: SlateView,
  choice: number,
  split: SplitDataset,
  o: Config["teacher"],
): Reasoning {
  const support = evidence.support.find((s) => s.candidate === choice)?.because ?? [];
  const history = (split.dataset.sequences[slate.user]?.items ?? new Int32Array()).subarray(0, slate.position);
  return {
    pattern: evidence.dominantCategories.slice(0, o.patternCategories),
    support: support.slice(0, o.supportItems),
    recap: o.recapItems > 0 ? Array.from(history.slice(-o.recapItems)) : [],
    choice: o.stateChoice ? (slate.candidates[choice] as number) : null,
  };
}
