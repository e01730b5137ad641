/**
 * Stage 2a, reasoning traces (GR2 v1 §4): the teacher answers the re-rank slates of SFT's users; rejection sampling
 * keeps those whose first choice is the true item. The statistical teacher's answers are stored too, whichever teacher
 * writes the traces: it orders by evidence, out of sample, and cites the mid-training segment in support of a
 * candidate.
 *
 *   traces.jsonl      what SFT learns from, with provenance
 *   reasonings.jsonl  the statistical teacher's reasoning
 *   rejected.jsonl    rejected answers of a model
 *   teacher.json      acceptance by difficulty, reasons
 */

import { join } from "node:path";
import { type Corpus, openCorpus } from "../artifacts/corpus.ts";
import { writeJson, writeLines } from "../artifacts/files.ts";
import { readHeads } from "../artifacts/heads.ts";
import { conditional, isSftUser, toSlateItems } from "../artifacts/slates.ts";
import type { ReasoningRecord, TraceRecord } from "../artifacts/traces.ts";
import type { Config } from "../config/schema.ts";
import { RunError } from "../core/errors.ts";
import { deriveSeed, Rng } from "../core/rng.ts";
import { allowedFor, checkTrainingView } from "../data/leakage.ts";
import { trainingView } from "../data/split.ts";
import type { SplitDataset } from "../data/types.ts";
import { itemTable } from "../evidence/items.ts";
import { Statistics } from "../evidence/statistics.ts";
import { openTeacher } from "../plugins/teacher.ts";
import type { Slate } from "../prerank/types.ts";
import type { ReasoningSteps } from "../prompts/rerank.ts";
import type { Stage, StageContext, Summary } from "../run/stage.ts";
import { modelVerbs } from "../run/verbs.ts";
import { sampleTraces, statisticalTeacher } from "../teacher/sampling.ts";
import { type Evidence, type StatisticalTeacher, supportFor } from "../teacher/statistical.ts";
import type { Teacher } from "../teacher/teacher.ts";
import { hideAnswer, type UnlabelledSlate } from "../teacher/unlabelled-slate.ts";
import { teacherInWords } from "./teachers/in-words.ts";

export const traces: Stage = {
  name: "traces",
  source: import.meta.url,
  inputs: ["data", "sid", "slates", "evidence"],
  verbs: modelVerbs,
  plugins: ["teacher"],
  settings: (c) => ({
    teacher: c.teacher,
    userShare: c.sft.userShare,
    candidates: c.prompts.candidates,
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
  const { slates: all, evidence } = readHeads(context, "rerank");
  const sftConditional = conditional(all).filter((s) => isSftUser(config.seed, config.sft.userShare, s.user));
  const sftSlates = all.filter((s) => isSftUser(config.seed, config.sft.userShare, s.user));
  const seed = deriveSeed(config.seed, "teacher");
  const view = trainingView(split, "midtrain");
  checkTrainingView(split, view, allowedFor("rerank"), "the teacher, on rerank slates");
  const statistics = new Statistics(view, dataset.stats.hasClock !== false);
  const table = itemTable(dataset.items);
  const fitted: StatisticalTeacher = {
    scores: ({ id }) => evidence[id] as readonly number[],
    evidence: (slate) => supportFor(dataset, table, statistics, slate),
  };
  const explainChoice = (slate: UnlabelledSlate, choice: number): ReasoningSteps =>
    citeEvidence(fitted.evidence(slate), slate, choice, split, o);
  writeLines(
    join(context.dir, "reasonings.jsonl"),
    sftSlates.map((s): ReasoningRecord => {
      const scores = fitted.scores(hideAnswer(s));
      const first = scores.indexOf(Math.max(...scores));
      return { slate: s.id, reasoning: explainChoice(hideAnswer(s), first) };
    }),
  );
  const asked = o.kind === "statistical" ? sftConditional : drawSome(sftConditional, o.maxSlates, config.seed);
  const teacher =
    o.kind === "statistical"
      ? statisticalTeacher(fitted, { temperature: o.temperature, seed, explainChoice })
      : ((await ownTeacher(context, corpus)) ?? (await teacherInWords(context, corpus, seed)));
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
      ({ slateId, ranking, reasoning, tries, mode, seed, time, prompt }): TraceRecord => ({
        ...{ slate: slateId, order: ranking, reasoning, tries },
        ...{ teacher: teacher.kind, model: teacher.model, sampling: mode, seed, time, prompt },
      }),
    ),
  );
  if (o.kind !== "statistical") writeLines(join(context.dir, "rejected.jsonl"), rejections);
  writeJson(join(context.dir, "teacher.json"), { stats });
  context.log(
    `${stats.accepted} of ${stats.offered} traces kept (${o.sampling}), ` +
      `${stats.meanTries.toFixed(2)} tries each; ${(100 * stats.identityRate).toFixed(1)} % repeat the input order`,
  );
  for (const [reason, n] of Object.entries(stats.rejected)) context.log(`${n} rejected: ${reason}`);
  if (o.kind !== "statistical" && stats.accepted === 0)
    throw new RunError(`no answer of teacher ${teacher.model} was kept; stages/traces/rejected.jsonl lists them`, {
      advice: "Raise teacher.maxTries or the budget, use a stronger teacher, or teacher.sampling=targeted.",
    });
  return {
    slates: sftSlates.length,
    offered: stats.offered,
    accepted: stats.accepted,
    acceptance: stats.acceptance,
    meanTries: stats.meanTries,
    ...Object.fromEntries(stats.acceptanceByPosition.map((share, k) => [`acceptance_place_${k + 1}`, share])),
    ...Object.fromEntries(Object.entries(stats.rejected).map(([r, n]) => [`rejected_${r.replaceAll(" ", "_")}`, n])),
  };
}

/** The module that the recipe names. */
async function ownTeacher(context: StageContext, corpus: Corpus): Promise<Teacher | undefined> {
  const { config, signal } = context;
  const { historyItems } = config.prompts;
  const opened = await openTeacher({ config, items: corpus.items, signal });
  return opened?.makeTeacher({
    show: (slate) => toSlateItems(corpus, slate, historyItems),
    getHistory: ({ user, position }) =>
      (corpus.split.dataset.sequences[user]?.items ?? new Int32Array()).subarray(
        Math.max(0, position - historyItems),
        position,
      ),
  });
}

/** A seeded sample of `n` slates; 0 = all. */
const drawSome = (slates: readonly Slate[], n: number, seed: number): readonly Slate[] =>
  n === 0
    ? slates
    : Rng.of(seed, "teacher-slates")
        .shuffle([...slates])
        .slice(0, n);

/** Converts evidence by candidate index to citations by item row. */
function citeEvidence(
  evidence: Evidence,
  slate: UnlabelledSlate,
  choice: number,
  split: SplitDataset,
  o: Config["teacher"],
): ReasoningSteps {
  const support = evidence.support.find((s) => s.candidate === choice)?.because ?? [];
  const history = (split.dataset.sequences[slate.user]?.items ?? new Int32Array()).subarray(0, slate.position);
  return {
    pattern: evidence.dominantCategories.slice(0, o.patternCategories),
    support: support.slice(0, o.supportItems),
    recap: o.recapItems > 0 ? Array.from(history.slice(-o.recapItems)) : [],
    choice: o.stateChoice ? (slate.candidates[choice] as number) : null,
  };
}
