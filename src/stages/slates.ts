/**
 * The slates (GR2 v1 §3.3): logged by an incumbent ranker, proposed by the candidates stage, or made here from the
 * language model's own beams. Candidates that share a semantic ID with a better one are dropped, because the model
 * could not distinguish them. No pre-ranker has seen the answers of its slates (prerank/fits).
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { type Corpus, openCorpus } from "../artifacts/corpus.ts";
import { readLines, writeJson, writeLines } from "../artifacts/files.ts";
import { slateFile } from "../artifacts/slates.ts";
import { maxCandidates } from "../config/schema/numbers.ts";
import { RunError } from "../core/errors.ts";
import { checkLoggedSlates, checkSlates } from "../data/leakage.ts";
import type { Segment } from "../data/types.ts";
import { needsLanguageModel } from "../prerank/experts.ts";
import { loggedSlates } from "../prerank/logged.ts";
import { type SlateSegment, slateStats } from "../prerank/slates.ts";
import { type Slate, slateLabels } from "../prerank/types.ts";
import type { Stage, StageContext, Summary } from "../run/stage.ts";
import { modelVerbs } from "../run/verbs.ts";
import { proposalSettings, proposeCandidates } from "./prerankers/propose.ts";

export const slates: Stage = {
  name: "slates",
  source: import.meta.url,
  inputs: ["data", "candidates", "sid", "midtrain"],
  verbs: modelVerbs,
  plugins: ["prerank"],
  settings: ({ prerank, prompts, refit, seed }) => ({
    kind: prerank.kind,
    maxSlatesPerUser: prerank.maxSlatesPerUser,
    ...(needsLanguageModel(prerank)
      ? { proposed: proposalSettings(prerank, refit), historyItems: prompts.historyItems, seed }
      : {}),
  }),
  run,
};

const segments: readonly SlateSegment[] = ["rerank", "validation", "test"];

async function run(context: StageContext): Promise<Summary> {
  const { config } = context;
  const corpus = await openCorpus(context);
  const built = await collectSlates(context, corpus);
  const logged = config.prerank.kind === "logged";
  const summary: Record<string, number> = {};
  for (const segment of segments) {
    const proposed = built.slates[segment];
    const distinct = proposed.map((s) => withDistinctIds(s, (row) => corpus.catalogue.textAt(row)));
    summary[`${segment}_candidates_same_sid`] = distinct.reduce(
      (n, s, k) => n + (proposed[k]?.candidates.length ?? 0) - s.candidates.length,
      0,
    );
    const list = capPerUser(distinct.filter(isProblem), config.prerank.maxSlatesPerUser);
    if (logged) checkLoggedSlates(corpus.split, list);
    else checkSlates(corpus.split, list, { repeats: "unseen" });
    const size = logged ? list.reduce((most, s) => Math.max(most, s.candidates.length), 0) : config.prerank.candidates;
    const stats = slateStats(list, size);
    if (logged && stats.slates === 0)
      throw new RunError(`no logged slate with a history falls into the ${segment} segment`, {
        advice: "Give the segment a larger share (data.split), or choose another data.split that suits the log.",
      });
    if (stats.conditional === 0)
      throw new RunError(
        `none of the ${stats.slates} ${segment} slates has its true item among its ${size} candidates: ` +
          `there is nothing to re-rank`,
        { advice: "Use more data, raise prerank.candidates, or give the segment a larger share (data.split)." },
      );
    const mean = (of: (s: Slate) => number): string => (list.reduce((n, s) => n + of(s), 0) / list.length).toFixed(1);
    context.log(
      logged
        ? `${segment}: ${stats.slates} logged slates of ${stats.users} users, ` +
            `on average ${mean((s) => s.candidates.length)} candidates, ` +
            `${mean((s) => slateLabels(s).filter((l) => l > 0).length)} of them positive`
        : `${segment}: ${stats.slates} slates of ${stats.users} users, ` +
            `the true item is among the ${size} candidates in ${stats.conditional} of them ` +
            `(HR@${size} ${stats.hitRate.toFixed(4)})`,
    );
    writeLines(slateFile(context.dir, segment), list);
    writeJson(join(context.dir, `${segment}.stats.json`), stats);
    summary[`${segment}_slates`] = stats.slates;
    summary[`${segment}_conditional`] = stats.conditional;
    summary[`${segment}_hit_rate`] = stats.hitRate;
  }
  if (built.midtrain.length > 0) {
    const distinct = built.midtrain.map((s) => withDistinctIds(s, (row) => corpus.catalogue.textAt(row)));
    checkSlates(corpus.split, distinct, { repeats: "unseen" });
    writeLines(slateFile(context.dir, "midtrain"), distinct.filter(isProblem));
    summary.midtrain_slates = distinct.length;
    context.log(`midtrain: ${distinct.length} slates for rankers that learn from evidence`);
  }
  return summary;
}

/** Slates by segment, from whichever stage proposes the candidates. */
async function collectSlates(
  context: StageContext,
  corpus: Corpus,
): Promise<{ slates: Readonly<Record<SlateSegment, readonly Slate[]>>; midtrain: readonly Slate[] }> {
  const { prerank } = context.config;
  if (prerank.kind !== "logged") {
    const own = needsLanguageModel(prerank);
    if (own) await proposeCandidates(context, corpus.split);
    const dir = own ? context.dir : context.inputDir("candidates");
    const read = (segment: Segment): Slate[] => readLines<Slate>(slateFile(dir, segment));
    return {
      slates: { rerank: read("rerank"), validation: read("validation"), test: read("test") },
      midtrain: existsSync(slateFile(dir, "midtrain")) ? read("midtrain") : [],
    };
  }
  const { slates, skipped } = loggedSlates(corpus.split, maxCandidates);
  context.log(
    `dropped logged slates: ${skipped.midtrain} in the mid-training segment, ` +
      `${skipped.noHistory} without a history, ${skipped.straddling} across a segment boundary, ` +
      `${skipped.nothingToOrder} with nothing to order; ` +
      `dropped ${skipped.cutCandidates} candidates after the first ${maxCandidates}`,
  );
  return { slates, midtrain: [] };
}

/** Removes candidates that share a semantic ID with a better one: the model could not distinguish them. */
function withDistinctIds(slate: Slate, spell: (row: number) => string): Slate {
  const ids = slate.candidates.map(spell);
  const kept = ids.flatMap((id, k) => (ids.indexOf(id) === k ? [k] : []));
  if (kept.length === ids.length) return slate;
  const pick = <T>(values: readonly T[]): T[] => kept.map((k) => values[k] as T);
  const { experts, labels } = slate;
  return {
    ...slate,
    candidates: pick(slate.candidates),
    scores: pick(slate.scores),
    targetIndex: kept.indexOf(slate.targetIndex),
    ...(labels ? { labels: pick(labels) } : {}),
    ...(experts ? { experts: Object.fromEntries(Object.entries(experts).map(([e, v]) => [e, pick(v)])) } : {}),
  };
}

/** Whether there is something to order: two candidates and, in a log, two different labels including the best one. */
const isProblem = (s: Slate): boolean =>
  s.candidates.length >= 2 &&
  (s.labels === undefined || (s.targetIndex >= 0 && Math.min(...s.labels) < Math.max(...s.labels)));

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
