/**
 * Stage 2a, reasoning traces (GR2 v1 §4): the teacher answers the re-rank slates of SFT's users; rejection sampling
 * keeps those whose own first choice is the true item. It knows the mid-training segment alone, and its weights are
 * cross-fitted over users. Its scores for all slates are kept too: they can serve as evidence in the prior.
 */
import { join } from "node:path";
import { deriveSeed } from "../core/rng.ts";
import { trainingView } from "../data/split.ts";
import type { Slate } from "../prerank/types.ts";
import type { Reasoning } from "../prompts/rerank.ts";
import { viewOf } from "../teacher/features.ts";
import { sampleTraces, type Trace } from "../teacher/sampling.ts";
import { defaultTeacher, fitTeacher } from "../teacher/statistical.ts";
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
  const { split } = openCorpus(context);
  const { dataset } = split;
  const slates = {
    rerank: conditional(readSlates(context, "rerank")),
    validation: conditional(readSlates(context, "validation")),
    test: conditional(readSlates(context, "test")),
  };
  const students = slates.rerank.filter((s) => isSftUser(config.seed, config.sft.userShare, s.user));
  const seed = deriveSeed(config.seed, "teacher");
  // What the pre-rankers of these slates know, and no more.
  const knowledge = { rerank: trainingView(split, "midtrain"), heldOut: trainingView(split, "rerank") };
  const teacher = fitTeacher(dataset, knowledge, students, { ...defaultTeacher, seed });
  const scoresOf = (list: readonly Slate[]) => Object.fromEntries(list.map((s) => [s.id, teacher.scores(viewOf(s))]));
  writeJson(join(context.dir, "evidence.json"), {
    ...scoresOf(slates.rerank),
    ...scoresOf(slates.validation),
    ...scoresOf(slates.test),
  });
  const { traces: kept, stats } = sampleTraces(teacher, students, {
    mode: o.sampling,
    maxTries: o.maxTries,
    temperature: o.temperature,
    seed,
  });
  const byId = new Map(students.map((s) => [s.id, s]));
  writeLines(
    join(context.dir, "traces.jsonl"),
    kept.map((t) => record(t, byId.get(t.slateId) as Slate, o.supportItems, o.kind)),
  );
  writeJson(join(context.dir, "teacher.json"), { weights: teacher.weights, stats });
  context.log(
    `${stats.accepted} of ${stats.offered} traces kept (${o.sampling}), ${stats.meanTries.toFixed(2)} tries each; ${(100 * stats.identityRate).toFixed(1)} % repeat the input order`,
  );
  return { offered: stats.offered, accepted: stats.accepted, acceptance: stats.acceptance, meanTries: stats.meanTries };
}

/** Evidence by candidate index becomes citations by item row. */
function record(trace: Trace, slate: Slate, supportItems: number, teacher: string): TraceRecord {
  const choice = trace.ranking[0] as number;
  const support = trace.evidence.support.find((s) => s.candidate === choice)?.because ?? [];
  return {
    slate: trace.slateId,
    order: trace.ranking,
    reasoning: {
      pattern: trace.evidence.dominantCategories,
      support: support.slice(0, supportItems),
      choice: slate.candidates[choice] as number,
    },
    tries: trace.tries,
    teacher,
    sampling: trace.mode,
  };
}

export const readTraces = (context: StageContext): TraceRecord[] =>
  readLines<TraceRecord>(join(context.inputDir("traces"), "traces.jsonl"));

/** The teacher's score of every candidate by slate id: out of sample for each slate. */
export const readEvidence = (context: StageContext): Readonly<Record<string, readonly number[]>> =>
  readJson(join(context.inputDir("traces"), "evidence.json"));
