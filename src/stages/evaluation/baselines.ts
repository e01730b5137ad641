/**
 * Systems without a language model, on the same slates: the input order, popularity, each pre-ranker of a fused list,
 * the evidence by trees and by regression, the fitted prior, and the user's own scores.
 */
import { readParts } from "../../artifacts/evidence.ts";
import { readLines } from "../../artifacts/files.ts";
import { toSlateItems } from "../../artifacts/slates.ts";
import { ConfigError } from "../../core/errors.ts";
import { trainingView } from "../../data/split.ts";
import { ndcgAt } from "../../eval/metrics.ts";
import { broughtSystem, findSystem, prerankerSystem } from "../../eval/systems.ts";
import { openBaselines } from "../../plugins/evaluation.ts";
import { computePrior, type Prior } from "../../policy/prior.ts";
import { type Slate, slateLabels } from "../../prerank/types.ts";
import { none, priorAnswer, type SystemResult, scored } from "./answers.ts";
import type { Asked } from "./asked.ts";

export async function baselineAnswers(asked: Asked): Promise<SystemResult[]> {
  return [
    {
      system: "prerank",
      validation: asked.selection.map((i) => slateLabels(asked.validation[i] as Slate)),
      test: asked.test.map(slateLabels),
      orders: asked.test.map((s) => s.candidates.map((_, i) => i)),
      tokens: none,
    },
    scoreAll("popularity", asked, byPopularity(asked)),
    ...prerankers(asked),
    ...readParts(asked.context).map(([name, scores]) =>
      scoreAll(name, asked, (s) => scores[s.id] as readonly number[]),
    ),
    {
      ...scoreAll("evidence", asked, (s) =>
        computePrior(evidenceAlone, { scores: s.scores, evidence: asked.evidence[s.id] as readonly number[] }),
      ),
      prior: evidenceAlone,
    },
    priorAnswer("prior", asked), // after the evidence: among equals, the recommendation takes the first
    ...Object.entries(asked.context.config.eval.baselines).flatMap(([name, from]) =>
      typeof from === "string" ? [broughtScores(name, from, asked)] : [],
    ),
    ...(await broughtModules(asked)),
  ];
}

/** Answers with the weights that the service uses. */
const evidenceAlone: Prior = { likelihood: 0, place: [0], preRank: 0, evidence: 1 };

const scoreAll = (system: string, asked: Asked, score: (slate: Slate) => readonly number[]): SystemResult =>
  scored(system, asked, { validation: asked.validation.map(score), test: asked.test.map(score) });

/** Interactions of each candidate before the positions on which the pre-ranker was evaluated. */
function byPopularity({ corpus, context }: Asked): (slate: Slate) => number[] {
  const counts = new Map<number, number>();
  for (const sequence of trainingView(corpus.split, context.config.refit ? "validation" : "rerank").sequences)
    for (const row of sequence) counts.set(row, (counts.get(row) ?? 0) + 1);
  return (slate) => slate.candidates.map((row) => counts.get(row) ?? 0);
}

/** Each pre-ranker of a fused list: on the slates by its scores, on all slates by the ranks in its own list. */
function prerankers(asked: Asked): SystemResult[] {
  const { test, missed } = asked;
  return Object.keys(test[0]?.experts ?? {}).map((name) => {
    const about = prerankerSystem(name);
    const result = scoreAll(about.name, asked, (s) =>
      (s.experts?.[name] ?? []).map((score) => score ?? Number.NEGATIVE_INFINITY),
    );
    const all = [...test, ...missed];
    const ownRanks = all.map((s) => ownRank(s, name));
    return { ...result, about, ...(all.every((s) => s.targetRanks) ? { ownRanks } : {}) };
  });
}

const ownRank = (slate: Slate, preranker: string): number => slate.targetRanks?.[preranker] ?? Number.POSITIVE_INFINITY;

/**
 * The system of the pre-ranker with the highest N@5 over validation slates, misses included; undefined unless several
 * were fused.
 */
export function bestPreranker(validation: readonly Slate[]): string | undefined {
  const score = (name: string): number => validation.reduce((sum, s) => sum + ndcgAt(ownRank(s, name), 5), 0);
  const ranked = Object.keys(validation[0]?.targetRanks ?? {})
    .map((name) => ({ name, score: score(name) }))
    .sort((a, b) => b.score - a.score);
  return ranked[0] && prerankerSystem(ranked[0].name).name;
}

/** The modules of eval.baselines. */
async function broughtModules(asked: Asked): Promise<SystemResult[]> {
  const { context, corpus, validation, test } = asked;
  const { config, signal } = context;
  const out: SystemResult[] = [];
  for (const { name, ask } of await openBaselines({ config, items: corpus.items, signal })) {
    checkName(name, asked);
    const score = (slates: readonly Slate[]) =>
      ask(slates.map((s) => toSlateItems(corpus, s, config.prompts.historyItems)));
    const scores = { validation: await score(validation), test: await score(test) };
    out.push({ ...scored(name, asked, scores), about: broughtSystem(name, "a module of yours") });
  }
  return out;
}

function checkName(name: string, asked: Asked): void {
  if (findSystem(name) || Object.keys(asked.test[0]?.experts ?? {}).some((e) => prerankerSystem(e).name === name))
    throw new ConfigError(`eval.baselines.${name}: GR2 already has a system with this name`, {
      advice: "Choose another name.",
    });
}

/** A file of eval.baselines. Throws ConfigError if a slate is missing or its candidates differ. */
function broughtScores(name: string, path: string, asked: Asked): SystemResult {
  const setting = `eval.baselines.${name}`;
  checkName(name, asked);
  const lines = readLines<{ slate: string; scores: readonly number[] }>(path);
  const byId = new Map(lines.map((line) => [line.slate, line.scores]));
  const score = (slate: Slate): readonly number[] => {
    const scores = byId.get(slate.id);
    const problem = !scores
      ? "has no line"
      : scores.length !== slate.candidates.length || !scores.every(Number.isFinite)
        ? `needs ${slate.candidates.length} finite scores`
        : undefined;
    if (!scores || problem)
      throw new ConfigError(`${setting}: ${path}: slate ${slate.id} ${problem}`, {
        advice:
          "It must have one line {slate, scores} for every line of stages/slates/validation.jsonl and test.jsonl " +
          "whose candidates include the true item.",
      });
    return scores;
  };
  return { ...scoreAll(name, asked, score), about: broughtSystem(name, "scores from a file") };
}
