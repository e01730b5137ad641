/**
 * The candidates (GR2 v1 §3.3): as an incumbent ranker logged them, or every position of the rerank, validation and test
 * segments becomes a slate of the pre-ranker's top N. The pre-ranker never saw the answer: rerank slates come from one
 * fitted on the mid-training segment, validation and test slates from one fitted through the rerank segment.
 */
import { join } from "node:path";
import { type Corpus, openCorpus } from "../artifacts/corpus.ts";
import { writeJson, writeLines } from "../artifacts/files.ts";
import { slateFile } from "../artifacts/slates.ts";
import { maxCandidates } from "../config/schema/data.ts";
import { RunError } from "../core/errors.ts";
import { checkLoggedSlates, checkSlates } from "../data/leakage.ts";
import { loggedSlates } from "../prerank/logged.ts";
import { buildAllSlates, defaultSlates, type SlateSegment, slateStats } from "../prerank/slates.ts";
import { labelsOf, type Slate } from "../prerank/types.ts";
import { modelVerbs } from "../run/code-hash.ts";
import type { Stage, StageContext, Summary } from "../run/stage.ts";
import { preRankerFitter } from "./prerankers/fitter.ts";
import { unloadSasrec } from "./prerankers/sasrec.ts";

export const slates: Stage = {
  name: "slates",
  source: import.meta.url,
  inputs: ["data", "sid", "midtrain"],
  verbs: modelVerbs,
  settings: ({ prerank: { sasrec, ...prerank }, prompts, seed }) => ({
    prerank,
    ...(prerank.kind === "generative" ? { historyItems: prompts.historyItems } : {}),
    ...(prerank.kind === "sasrec" ? { sasrec } : {}),
    seed,
  }),
  run,
};

const segments: readonly SlateSegment[] = ["rerank", "validation", "test"];

async function run(context: StageContext): Promise<Summary> {
  const { config } = context;
  const corpus = await openCorpus(context);
  const built = await slatesOf(context, corpus);
  const logged = config.prerank.kind === "logged";
  const summary: Record<string, number> = {};
  for (const segment of segments) {
    let list = built.slates[segment];
    const distinct = list.filter(
      (s) => new Set(s.candidates.map((c) => corpus.catalogue.textOf(c))).size === s.candidates.length,
    );
    summary[`${segment}_dropped_same_sid`] = list.length - distinct.length;
    list = capPerUser(distinct, config.prerank.maxSlatesPerUser);
    if (logged) checkLoggedSlates(corpus.split, list);
    else checkSlates(corpus.split, list, { repeats: "unseen" });
    const size = logged ? list.reduce((most, s) => Math.max(most, s.candidates.length), 0) : config.prerank.candidates;
    const stats = slateStats(list, size);
    if (logged && stats.slates === 0)
      throw new RunError(`no logged slate with a history falls into the ${segment} segment`, {
        advice: "Give the segment a larger share (data.split), or choose the kind of split that fits the log.",
      });
    if (stats.conditional === 0)
      throw new RunError(
        `none of the ${stats.slates} ${segment} slates holds its true item among ${size} candidates: there is nothing to re-rank`,
        { advice: "Use more data, raise prerank.candidates, or give the segment a larger share (data.split)." },
      );
    const mean = (of: (s: Slate) => number): string => (list.reduce((n, s) => n + of(s), 0) / list.length).toFixed(1);
    context.log(
      logged
        ? `${segment}: ${stats.slates} logged slates of ${stats.users} users, on average ${mean((s) => s.candidates.length)} candidates, ${mean((s) => labelsOf(s).filter((l) => l > 0).length)} of them positive`
        : `${segment}: ${stats.slates} slates of ${stats.users} users, true item among the ${size} in ${stats.conditional} (HR@${size} ${stats.hitRate.toFixed(4)})`,
    );
    writeLines(slateFile(context.dir, segment), list);
    writeJson(join(context.dir, `${segment}.stats.json`), stats);
    summary[`${segment}_slates`] = stats.slates;
    summary[`${segment}_conditional`] = stats.conditional;
    summary[`${segment}_hit_rate`] = stats.hitRate;
  }
  return summary;
}

/** Slates of the three segments, from whoever proposes the candidates. */
async function slatesOf(
  context: StageContext,
  corpus: Corpus,
): Promise<{ slates: Readonly<Record<SlateSegment, readonly Slate[]>> }> {
  const { kind, candidates: size } = context.config.prerank;
  if (kind !== "logged") {
    const fitted = preRankerFitter(context, corpus.split, kind);
    const built = await buildAllSlates(corpus.split, fitted, { ...defaultSlates, size }, (segment, done, total) =>
      context.progress(`${segment} slates`, done, total),
    );
    if (kind === "sasrec") await unloadSasrec(await context.worker(), context.signal);
    return built;
  }
  const { slates, skipped } = loggedSlates(corpus.split, maxCandidates);
  context.log(
    `logged slates left out: ${skipped.midtrain} of the mid-training segment, ${skipped.noHistory} without a history, ${skipped.straddling} across the end of a segment, ${skipped.nothingToOrder} with nothing to order; ${skipped.cutCandidates} candidates beyond ${maxCandidates} cut`,
  );
  return { slates };
}

/** The latest slates of each user; 0 = all. */
function capPerUser(list: readonly Slate[], cap: number): Slate[] {
  if (cap === 0) return [...list];
  const left = new Map<number, number>();
  return [...list]
    .reverse()
    .filter((s) => {
      const n = (left.get(s.user) ?? 0) + 1;
      left.set(s.user, n);
      return n <= cap;
    })
    .reverse();
}
