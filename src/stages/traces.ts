/**
 * Stage 2a, reasoning traces (GR2 v1 §4): the teacher answers the re-rank slates of SFT's users; rejection sampling
 * keeps those whose own first choice is the true item. It knows the mid-training segment alone, and its weights are
 * cross-fitted over users. Its scores for all slates are kept too: they can serve as evidence in the prior.
 */
import { join } from "node:path";
import type { Config } from "../config/schema.ts";
import { deriveSeed } from "../core/rng.ts";
import { allowedFor, checkTrainingView } from "../data/leakage.ts";
import { trainingView } from "../data/split.ts";
import type { SplitDataset } from "../data/types.ts";
import type { Slate } from "../prerank/types.ts";
import type { Reasoning } from "../prompts/rerank.ts";
import { viewOf } from "../teacher/features.ts";
import { sampleTraces } from "../teacher/sampling.ts";
import { defaultTeacher, type Evidence, fitTeacher } from "../teacher/statistical.ts";
import { openCorpus } from "./corpus.ts";
import { readJson, readLines, writeJson, writeLines } from "./files.ts";
import { conditional, isSftUser, readSlates } from "./slates.ts";
import type { Stage, StageContext, Summary } from "./stage.ts";

export const traces: Stage = {
  name: "traces",
  inputs: ["data", "sid", "slates"],
  settings: (c) => ({ teacher: c.teacher, userShare: c.sft.userShare, seed: c.seed }),
  run,
};

/** One line of reasonings.jsonl: what the teacher says of a slate by its own first choice; the answer plays no part. */
export interface ReasoningRecord {
  readonly slate: string;
  readonly reasoning: Reasoning;
}

/** One line of traces.jsonl. */
export interface TraceRecord {
  readonly slate: string;
  /** Candidate indices, best first; the true item is first. */
  readonly order: readonly number[];
  readonly reasoning: Reasoning;
  readonly tries: number;
  readonly teacher: string;
  readonly sampling: "rejection" | "targeted";
}

async function run(context: StageContext): Promise<Summary> {
  const { config } = context;
  const o = config.teacher;
  const { split } = await openCorpus(context);
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
  const knowledge = { rerank: trainingView(split, "midtrain"), heldOut: trainingView(split, "rerank") };
  checkTrainingView(split, knowledge.rerank, allowedFor("rerank"), "the teacher, on rerank slates");
  checkTrainingView(split, knowledge.heldOut, allowedFor("test"), "the teacher, on later slates");
  const teacher = fitTeacher(dataset, knowledge, students, { ...defaultTeacher, seed });
  const scoresOf = (list: readonly Slate[]) => Object.fromEntries(list.map((s) => [s.id, teacher.scores(viewOf(s))]));
  writeJson(join(context.dir, "evidence.json"), {
    ...scoresOf(slates.rerank),
    ...scoresOf(pupils),
    ...scoresOf(slates.validation),
    ...scoresOf(slates.test),
  });
  const { traces: kept, stats } = sampleTraces(teacher, students, {
    mode: o.sampling,
    maxTries: o.maxTries,
    temperature: o.temperature,
    seed,
    rest: o.rest,
  });
  writeLines(
    join(context.dir, "reasonings.jsonl"),
    pupils.map((s): ReasoningRecord => {
      const scores = teacher.scores(viewOf(s));
      const first = scores.indexOf(Math.max(...scores));
      return { slate: s.id, reasoning: reasoningOf(teacher.evidence(viewOf(s)), s, first, split, o) };
    }),
  );
  const byId = new Map(students.map((s) => [s.id, s]));
  writeLines(
    join(context.dir, "traces.jsonl"),
    kept.map((t): TraceRecord => {
      const slate = byId.get(t.slateId) as Slate;
      const reasoning = reasoningOf(t.evidence, slate, t.ranking[0] as number, split, o);
      return { slate: t.slateId, order: t.ranking, reasoning, tries: t.tries, teacher: o.kind, sampling: t.mode };
    }),
  );
  writeJson(join(context.dir, "teacher.json"), { weights: teacher.weights, stats });
  context.log(
    `${stats.accepted} of ${stats.offered} traces kept (${o.sampling}), ${stats.meanTries.toFixed(2)} tries each; ${(100 * stats.identityRate).toFixed(1)} % repeat the input order`,
  );
  return {
    pupils: pupils.length,
    offered: stats.offered,
    accepted: stats.accepted,
    acceptance: stats.acceptance,
    meanTries: stats.meanTries,
  };
}

/** Evidence by candidate index becomes citations by item row. */
function reasoningOf(
  evidence: Evidence,
  slate: Slate,
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

/** Of every re-rank slate of SFT's users, hit or miss. */
export const readReasonings = (context: StageContext): ReasoningRecord[] =>
  readLines<ReasoningRecord>(join(context.inputDir("traces"), "reasonings.jsonl"));

export const readTraces = (context: StageContext): TraceRecord[] =>
  readLines<TraceRecord>(join(context.inputDir("traces"), "traces.jsonl"));

/** The teacher's score of every candidate by slate id: out of sample for each slate. */
export const readEvidence = (context: StageContext): Readonly<Record<string, readonly number[]>> =>
  readJson(join(context.inputDir("traces"), "evidence.json"));
