/**
 * The evidence: how likely each candidate of a slate is, without a language model. A learning-to-rank model over what
 * other users did, metadata, words, embeddings and time (src/evidence); it serves as baseline, prior, teacher and
 * fallback.
 *
 * Everything is out of sample. Statistics: evidence/views.ts decides whose sequences a slate's features use. Model:
 * users are split into folds; a user's training slates are scored by a model trained only on other folds, validation
 * and test slates by the model fitted on all training slates. Nothing is trained on validation or test slates. The
 * number of trees is chosen on held-out folds. One scale, fitted on out-of-sample scores, turns scores into log-odds.
 *
 *   evidence.json, evidence.f64   a score for every candidate of every slate of the re-rank, validation and test
 *                                 segments
 *   lambdamart.json/.f64, listwise.json/.f64   scores of trees or regression alone on validation and test slates,
 *                                 unless they are the model
 *   model.json                    the model fitted on all training slates, for serving
 *   item-vectors.f32              the embeddings that its features compare
 *   importance.json               importance of each feature in the model
 */
import { openData } from "../artifacts/dataset.ts";
import { embeddingFile } from "../artifacts/embeddings.ts";
import {
  type Importance,
  importanceFile,
  itemVectorsFile,
  modelFile,
  type PartName,
  type SavedEvidence,
  scoresName,
} from "../artifacts/evidence.ts";
import { readMatrix, writeJson, writeMatrix, writeScores } from "../artifacts/files.ts";
import { conditional, readSlates } from "../artifacts/slates.ts";
import type { Config } from "../config/schema.ts";
import { RunError } from "../core/errors.ts";
import { deriveSeed, Rng } from "../core/rng.ts";
import type { SplitDataset } from "../data/types.ts";
import { gradedNdcg } from "../eval/metrics.ts";
import type { FeatureInput } from "../evidence/families/family.ts";
import { Features } from "../evidence/features.ts";
import { itemTable } from "../evidence/items.ts";
import {
  type EvidenceModel,
  fitListwise,
  type Lesson,
  logOddsScale,
  openModel,
  stackWeights,
} from "../evidence/model.ts";
import { Statistics } from "../evidence/statistics.ts";
import { assignUserFold, planViews, type ViewPlan } from "../evidence/views.ts";
import { crossFittedSlates } from "../prerank/cross-fit.ts";
import { defaultSlates } from "../prerank/slates.ts";
import { type Slate, slateLabels, targetDistribution } from "../prerank/types.ts";
import type { Stage, StageContext, Summary } from "../run/stage.ts";
import { preRankerFitter } from "./prerankers/fitter.ts";

export const evidence: Stage = {
  name: "evidence",
  source: import.meta.url,
  verbs: ["fitTrees"],
  inputs: ["data", "embed", "slates"],
  settings: ({ evidence, prerank, refit, seed }) => ({
    evidence,
    ...(evidence.midtrainFolds > 0 ? { kind: prerank.kind, candidates: prerank.candidates } : {}),
    refit,
    seed,
  }),
  run,
};

async function run(context: StageContext): Promise<Summary> {
  const { config } = context;
  const o = config.evidence;
  const data = await openData(context);
  const items = itemTable(data.dataset.items, readMatrix(embeddingFile(context.inputDir("embed"))));
  const slates = {
    rerank: readSlates(context, "rerank"),
    validation: readSlates(context, "validation"),
    test: readSlates(context, "test"),
  };
  const taught = drawUsers(
    [...(await midtrainSlates(context, data, slates.rerank)), ...conditional(slates.rerank)],
    o.maxSlates,
    config.seed,
  );
  const seed = deriveSeed(config.seed, "evidence");
  const plans = planViews(data, { folds: o.folds, refit: config.refit, seed });
  const assignModelFold = (user: number): number => assignUserFold(data, user, { folds: o.folds, seed }) % o.modelFolds;
  const experts = Object.keys(slates.rerank[0]?.experts ?? {});
  const featuresFor = (plan: ViewPlan): Features =>
    new Features(items, new Statistics(plan.view, hasClock(data)), o.families, experts);

  // Features of the training slates, each from statistics without its user.
  const lessons: (Lesson & { readonly user: number; readonly gains_N: readonly number[] })[] = [];
  let names: readonly string[] = [];
  let families: readonly string[] = [];
  for (const [done, plan] of plans.filter((p) => p.fold !== undefined).entries()) {
    const features = featuresFor(plan);
    if (done > 0 && features.names.join() !== names.join())
      throw new RunError("the folds of users have different features", { advice: "Lower evidence.folds." });
    ({ names, families } = features);
    for (const slate of taught.filter((s) => assignUserFold(data, s.user, { folds: o.folds, seed }) === plan.fold))
      lessons.push({
        user: slate.user,
        features_NF: features.of(toFeatureInput(data, slate)),
        numCandidates: slate.candidates.length,
        truth_N: targetDistribution(slate),
        gains_N: slateLabels(slate),
      });
    context.progress("features of training slates", done + 1, o.folds);
  }
  const folds = lessons.map(({ user }) => assignModelFold(user));
  if (new Set(folds).size < o.modelFolds)
    throw new RunError(
      `the ${lessons.length} training slates have too few users for evidence.modelFolds = ${o.modelFolds}`,
      {
        advice: "Use more data, or lower evidence.modelFolds.",
      },
    );

  const fitted =
    o.model === "listwise" ? fitLight(names, lessons, folds, o) : await fitHeavy(context, names, lessons, folds);
  const { models, final, importance } = fitted;
  // Each component model alone, as a baseline.
  const parts = Object.entries(fitted.parts).map(([name, part]) => ({
    name,
    part,
    scores: new Map<string, readonly number[]>(),
  }));

  // Scores of all slates: a user's training slates by the model that was not trained on them.
  const scored = new Map<string, readonly number[]>();
  for (const [done, plan] of plans.entries()) {
    const features = featuresFor(plan);
    for (const segment of ["rerank", "validation", "test"] as const) {
      if (!plan.segments.includes(segment)) continue;
      for (const slate of slates[segment]) {
        if (plan.fold !== undefined && assignUserFold(data, slate.user, { folds: o.folds, seed }) !== plan.fold)
          continue;
        const model = segment === "rerank" ? (models[assignModelFold(slate.user)] as EvidenceModel) : final;
        const features_NF = features.of(toFeatureInput(data, slate));
        scored.set(slate.id, model.scores(features_NF, slate.candidates.length));
        if (segment !== "rerank")
          for (const { part, scores } of parts) scores.set(slate.id, part.scores(features_NF, slate.candidates.length));
      }
    }
    context.progress("scoring slates", done + 1, plans.length);
  }
  writeScores(context.dir, scoresName, scored);
  for (const { name, scores } of parts) writeScores(context.dir, name, scores);
  writeJson(modelFile(context.dir), { experts, families: o.families, model: final.toJSON() } satisfies SavedEvidence);
  if (items.embeddings) {
    const { dims: cols, vectors_ID } = items.embeddings;
    writeMatrix(itemVectorsFile(context.dir), { rows: items.numItems, cols, data: vectors_ID });
  }
  const ranked = names
    .map((feature, f): Importance => ({ feature, family: families[f] as string, share: importance[f] as number }))
    .sort((a, b) => b.share - a.share);
  writeJson(importanceFile(context.dir), ranked);

  const before = (s: Slate): number => gradedNdcg(slateLabels(s), 5);
  const after = (s: Slate): number => {
    const scores = scored.get(s.id) as readonly number[];
    const labels = slateLabels(s);
    const order = labels.map((_, i) => i).sort((a, b) => (scores[b] as number) - (scores[a] as number) || a - b);
    return gradedNdcg(
      order.map((i) => labels[i] as number),
      5,
    );
  };
  const summary: Record<string, number> = {
    ...fitted.summary,
    training_slates: lessons.length,
    features: names.length,
  };
  for (const segment of ["rerank", "validation"] as const) {
    const hits = conditional(slates[segment]);
    const mean = (of: (s: Slate) => number): number =>
      hits.reduce((sum, s) => sum + of(s), 0) / Math.max(1, hits.length);
    summary[`${segment}_prerank_ndcg5`] = mean(before);
    summary[`${segment}_ndcg5`] = mean(after);
  }
  context.log(
    `${o.model} on ${names.length} features and ${lessons.length} slates: ` +
      `N@5 ${summary.validation_prerank_ndcg5?.toFixed(4)} -> ${summary.validation_ndcg5?.toFixed(4)} ` +
      `on validation slates with the true item, ` +
      `${summary.rerank_prerank_ndcg5?.toFixed(4)} -> ${summary.rerank_ndcg5?.toFixed(4)} on re-rank slates, ` +
      `out of sample`,
  );
  return summary;
}

interface Fitted {
  /** One model per fold, trained on the other folds. */
  readonly models: readonly EvidenceModel[];
  readonly final: EvidenceModel;
  /** Other models fitted on all training slates, by the name of their baseline. */
  readonly parts: Readonly<Partial<Record<PartName, EvidenceModel>>>;
  /** Share of each feature; the shares add up to 1. */
  readonly importance: readonly number[];
  readonly summary: Summary;
}

type Taught = Lesson & { readonly gains_N: readonly number[] };

/** The trees, alone or stacked with the regression. */
async function fitHeavy(
  context: StageContext,
  names: readonly string[],
  lessons: readonly Taught[],
  folds: readonly number[],
): Promise<Fitted> {
  const o = context.config.evidence;
  const trees = await fitBoosted(context, names, lessons, folds);
  if (o.model === "lambdamart") return { ...trees, parts: { listwise: fitListwise(names, thinOut(lessons), o.l2) } };
  const light = fitLight(names, lessons, folds, o);
  const weights = stackWeights(
    lessons.map(({ features_NF, numCandidates, truth_N }, i) => ({
      scores: [trees, light].map(({ models }) =>
        (models[folds[i] as number] as EvidenceModel).scores(features_NF, numCandidates),
      ),
      truth_N,
    })),
    2,
  );
  const [treesWeight = 0, listwiseWeight = 0] = weights;
  const stack = (a: EvidenceModel, b: EvidenceModel): EvidenceModel =>
    openModel({
      kind: "stacked",
      features: names,
      parts: [
        { weight: treesWeight, model: a.toJSON() },
        { weight: listwiseWeight, model: b.toJSON() },
      ],
    });
  context.log(`stacked: weight of trees ${treesWeight.toFixed(2)}, of the regression ${listwiseWeight.toFixed(2)}`);
  return {
    models: trees.models.map((model, fold) => stack(model, light.models[fold] as EvidenceModel)),
    final: stack(trees.final, light.final),
    parts: { lambdamart: trees.final, listwise: light.final },
    importance: trees.importance,
    summary: { ...trees.summary, weight_trees: treesWeight, weight_listwise: listwiseWeight },
  };
}

async function fitBoosted(
  context: StageContext,
  names: readonly string[],
  lessons: readonly Taught[],
  folds: readonly number[],
): Promise<Fitted> {
  const { seed, evidence: o } = context.config;
  const rows = lessons.reduce((n, l) => n + l.numCandidates, 0);
  const data = new Float32Array(rows * names.length);
  const labels = new Int32Array(rows);
  const gains = [...new Set([0, ...lessons.flatMap((l) => l.gains_N)])].sort((a, b) => a - b);
  const level = new Map(gains.map((gain, k) => [gain, k]));
  let at = 0;
  for (const { features_NF, gains_N } of lessons) {
    data.set(features_NF, at * names.length);
    for (const gain of gains_N) labels[at++] = level.get(gain) as number;
  }
  const worker = await context.worker();
  const fitted = await worker.fitTrees(
    {
      features: { rows, cols: names.length, data },
      labels,
      gains,
      groupSizes: Int32Array.from(lessons, (l) => l.numCandidates),
      folds: Int32Array.from(folds),
      config: { ...o.trees, seed: deriveSeed(seed, "evidence-trees") },
    },
    ({ epoch, epochs }) => context.progress("trees", epoch, epochs),
    { signal: context.signal },
  );
  const unscaled = fitted.models.map((trees) => openModel({ kind: "lambdamart", features: names, scale: 1, trees }));
  const scale = logOddsScale(
    lessons.map(({ features_NF, numCandidates, truth_N }, i) => ({
      scores: (unscaled[folds[i] as number] as EvidenceModel).scores(features_NF, numCandidates),
      truth_N,
    })),
  );
  const models = fitted.models.map((trees) => openModel({ kind: "lambdamart", features: names, scale, trees }));
  return {
    models: models.slice(0, -1),
    final: models.at(-1) as EvidenceModel,
    parts: {},
    importance: shares(fitted.gains),
    summary: { trees: fitted.trees, scale, heldOut_ndcg: fitted.ndcg[fitted.trees - 1] ?? 0 },
  };
}

/** Slates for the regression: enough for a few dozen weights. */
const lightSlates = 8000;

/** At most `lightSlates` of them, evenly spread. */
function thinOut<T>(lessons: readonly T[]): readonly T[] {
  const step = Math.max(1, lessons.length / lightSlates);
  return Array.from({ length: Math.min(lessons.length, lightSlates) }, (_, k) => lessons[Math.floor(k * step)] as T);
}

function fitLight(
  names: readonly string[],
  lessons: readonly Taught[],
  folds: readonly number[],
  o: Config["evidence"],
): Fitted {
  const few = (fold: number | undefined): readonly Taught[] => thinOut(lessons.filter((_, i) => folds[i] !== fold));
  const final = fitListwise(names, few(undefined), o.l2);
  const saved = final.toJSON();
  return {
    models: Array.from({ length: o.modelFolds }, (_, fold) => fitListwise(names, few(fold), o.l2)),
    final,
    parts: {},
    importance: shares(saved.kind === "listwise" ? saved.weights.map(Math.abs) : []),
    summary: {},
  };
}

const shares = (values: readonly number[]): number[] => {
  const total = values.reduce((a, b) => a + b, 0);
  return values.map((v) => (total > 0 ? v / total : 0));
};

const hasClock = (data: SplitDataset): boolean => data.dataset.stats.hasClock !== false;

function toFeatureInput(data: SplitDataset, slate: Slate): FeatureInput {
  const sequence = data.dataset.sequences[slate.user];
  return {
    history: (sequence?.items ?? new Int32Array()).subarray(0, slate.position),
    now: sequence?.times[slate.position - 1] ?? 0,
    candidates: slate.candidates,
    scores: slate.scores,
    ...(slate.experts ? { experts: slate.experts } : {}),
  };
}

/**
 * Slates of the mid-training segment with their answer among the candidates: read from the stage before, or made here.
 */
async function midtrainSlates(context: StageContext, data: SplitDataset, rerank: readonly Slate[]): Promise<Slate[]> {
  const { config } = context;
  const folds = config.evidence.midtrainFolds;
  const { kind, candidates: size } = config.prerank;
  if (folds === 0 || kind === "logged") return conditional(readSlates(context, "midtrain")); // the config check refuses expensive pre-rankers
  // Positions with a shorter history than any re-rank slate are unlike those that are re-ranked.
  const minHistory = rerank.reduce((least, s) => Math.min(least, s.position), Number.POSITIVE_INFINITY);
  const made = await crossFittedSlates(
    data,
    preRankerFitter(context, data, kind),
    folds,
    deriveSeed(config.seed, "evidence"),
    { ...defaultSlates, size, minHistory },
    (done, total) => context.progress("slates of the mid-training segment", done, total),
  );
  return made.flatMap(({ slates }) => conditional(slates));
}

/** Slates of whole users, drawn until there are this many. */
function drawUsers(slates: readonly Slate[], most: number, seed: number): readonly Slate[] {
  if (slates.length <= most) return slates;
  const users = Rng.of(seed, "evidence-users").shuffle([...new Set(slates.map((s) => s.user))]);
  const indexByUser = new Map(users.map((user, k) => [user, k]));
  const counts = new Int32Array(users.length);
  for (const s of slates)
    counts[indexByUser.get(s.user) as number] = (counts[indexByUser.get(s.user) as number] as number) + 1;
  let total = 0;
  const end = counts.findIndex((n) => {
    total += n;
    return total > most;
  });
  return slates.filter((s) => (indexByUser.get(s.user) as number) < end);
}
