/**
 * Stage 0b, candidates: the slates of pre-rankers that need only the data. It runs right after the data: the hit rate,
 * which bounds every re-ranker, is known before anything expensive runs. If the language model's own beams are among
 * the pre-rankers, the slates stage makes the slates, and this stage only reports what item-kNN would reach. How slates
 * are made: prerankers/propose.ts.
 */
import { openData } from "../artifacts/dataset.ts";
import { deriveSeed, unitHash } from "../core/rng.ts";
import type { Segment, SplitDataset } from "../data/types.ts";
import { listExperts, needsLanguageModel } from "../prerank/experts.ts";
import { planFits } from "../prerank/fits.ts";
import { fitItemKnn } from "../prerank/item-knn.ts";
import { findTargetRanks, listMetrics } from "../prerank/lists.ts";
import { buildQueries, defaultSlates, rankInBatches } from "../prerank/slates.ts";
import type { Stage, StageContext, Summary } from "../run/stage.ts";
import { modelVerbs } from "../run/verbs.ts";
import { proposalSettings, proposeCandidates } from "./prerankers/propose.ts";

export const candidates: Stage = {
  name: "candidates",
  source: import.meta.url,
  inputs: ["data"],
  verbs: modelVerbs,
  plugins: ["prerank"],
  settings: ({ prerank, refit, seed }) => ({
    // Settings of slates made elsewhere do not matter here.
    ...(needsLanguageModel(prerank) || prerank.kind === "logged"
      ? { kind: prerank.kind }
      : proposalSettings(prerank, refit)),
    seed,
  }),
  run,
};

async function run(context: StageContext): Promise<Summary> {
  const { prerank } = context.config;
  if (prerank.kind === "logged") {
    context.log("the slates come from a log: nothing to do");
    return {};
  }
  const data = await openData(context);
  if (!listExperts(prerank).some((name) => name === "itemknn")) await sayWhatNeighboursReach(context, data);
  if (needsLanguageModel(prerank)) {
    context.log("the language model's own beams are among the pre-rankers: the slates stage makes the candidates");
    return {};
  }
  const { metrics, chosen, candidates: size } = await proposeCandidates(context, data);
  const of = (segment: Segment): number => metrics[segment]?.[chosen]?.[`R@${size}`] ?? 0;
  return { validation_hit_rate: of("validation"), rerank_hit_rate: of("rerank") };
}

/** What item-kNN would propose to some users: takes seconds, before a pre-ranker that takes minutes or hours. */
async function sayWhatNeighboursReach(context: StageContext, data: SplitDataset): Promise<void> {
  const { seed, prerank } = context.config;
  const share = probeUsers / Math.max(1, data.splits.length);
  const keepUser = (user: number): boolean => unitHash(deriveSeed(seed, "probe-users"), user) < share;
  const { queries } = buildQueries(data, "validation", defaultSlates, keepUser);
  const [plan] = planFits(data, { folds: 0, refit: false, seed, midtrain: false });
  if (!plan) return;
  const depth = Math.max(prerank.candidates, prerank.depth);
  const ranks = findTargetRanks(
    await rankInBatches(fitItemKnn(plan.view), queries, depth, defaultSlates.repeats),
    queries,
  );
  const metrics = Object.entries(listMetrics(ranks, depth)).filter(([name]) => name.startsWith("R@"));
  context.log(
    `for comparison, item-kNN would propose the true item of ${queries.length} validation positions: ` +
      `${metrics.map(([name, value]) => `${name} ${(100 * value).toFixed(1)} %`).join(", ")}`,
  );
}

const probeUsers = 2000;
