/**
 * Makes the slates of a recipe's pre-rankers: each is fitted without the answers (prerank/fits) and lists its best
 * items for every position; several are fused with weights fitted on re-rank positions, and the fused order is used
 * only if it is no worse on validation than the best single pre-ranker. Recall is reported as soon as it is known.
 *
 *   SEGMENT.jsonl    slates, with each pre-ranker's rank of the true item; if fused, also with each one's score of
 *                    every candidate
 *   recall.json      R@K, N@K, MRR of each pre-ranker by segment; weights, choice and comparison of a fused one
 */
import { readFileSync } from "node:fs";
import { type CandidatesReport, recallFile } from "../../artifacts/candidates.ts";
import { writeJson, writeLines } from "../../artifacts/files.ts";
import { slateFile } from "../../artifacts/slates.ts";
import { maxCandidates } from "../../config/schema/numbers.ts";
import type { Config } from "../../config/schema.ts";
import { RunError } from "../../core/errors.ts";
import { sha256 } from "../../core/hash.ts";
import { deriveSeed, Rng, unitHash } from "../../core/rng.ts";
import type { Segment, SplitDataset } from "../../data/types.ts";
import { PairedBootstrap } from "../../eval/bootstrap.ts";
import { ndcgAt, recallAt } from "../../eval/metrics.ts";
import { listDepth, listExperts, planExpert, shortScore } from "../../prerank/experts.ts";
import { aloneAs, type Fusion, fitFusion, fuse } from "../../prerank/fuse.ts";
import {
  type BySegment,
  collectLists,
  type ExpertLists,
  findBest,
  findTargetRanks,
  type ListMetrics,
  listMetrics,
} from "../../prerank/lists.ts";
import { buildQueries, defaultSlates, makeSlate, type Query } from "../../prerank/slates.ts";
import type { Ranked, Slate } from "../../prerank/types.ts";
import type { StageContext } from "../../run/stage.ts";
import { preRankerFitter } from "./fitter.ts";
import { unloadSasrec } from "./sasrec.ts";

/** Positions with fewer items in their pool leave nothing to re-rank. */
const fewestCandidates = 2;
/** Maximum number of positions to fit the fusion's few weights on. */
const fusionPositions = 20_000;

/** What these pre-rankers' slates depend on; score files by content. */
export function proposalSettings(prerank: Config["prerank"], refit: boolean): Record<string, unknown> {
  const { kind, candidates: size, depth, folds, trainSlates, sasrec, beamWidth } = prerank;
  const names = listExperts(prerank);
  const { module, options, version } = prerank;
  return {
    ...{ kind, size, depth, folds, trainSlates, refit, names },
    ...(module === "" ? {} : { module, options, version }),
    scores: Object.fromEntries(Object.entries(prerank.scores).map(([name, path]) => [name, hashContent(path)])),
    ...(names.includes("sasrec") ? { sasrec } : {}),
    ...(names.includes("generative") ? { beamWidth } : {}),
  };
}

function hashContent(path: string): string {
  try {
    return sha256(readFileSync(path));
  } catch {
    return "missing"; // reading the file reports the error
  }
}

export async function proposeCandidates(context: StageContext, data: SplitDataset): Promise<CandidatesReport> {
  const { kind, candidates: size, depth: asked, folds, trainSlates } = context.config.prerank;
  const { seed, refit } = context.config;
  const depth = Math.max(size, asked);
  const names = listExperts(context.config.prerank);
  const queries = selectPositions(data, folds > 0 ? trainSlates : 0, deriveSeed(seed, "train-slates"));
  const experts: ExpertLists[] = [];
  for (const name of names) {
    const plans = planExpert(data, name, { folds, refit, seed, midtrain: queries.midtrain !== undefined });
    const lists = listDepth(name, context.config.prerank);
    const fitted = preRankerFitter(context, data, name);
    const made = await collectLists(name, plans, fitted, queries, lists, defaultSlates.repeats, context.progress);
    experts.push({ ...made, lists: filled(made.lists, queries) });
    if (name === "sasrec") await unloadSasrec(await context.worker(), context.signal);
    sayRecall(context, name, listMetrics(ranksIn(experts.at(-1) as ExpertLists, queries, "validation"), depth), size);
  }
  const { chosen, bestSingle, fusion } = choose(context, experts, queries);
  const metrics: Partial<Record<Segment, Record<string, ListMetrics>>> = {};
  const comparisons: CandidatesReport["comparisons"][number][] = [];
  for (const segment of Object.keys(queries) as Segment[]) {
    const { slates, ranks } = assemble(data, segment, experts, queries, fusion, { size, depth });
    writeLines(slateFile(context.dir, segment), slates);
    metrics[segment] = Object.fromEntries(Object.entries(ranks).map(([name, r]) => [name, listMetrics(r, depth)]));
    if (segment !== "midtrain")
      comparisons.push(...compare(context, segment, queries[segment] ?? [], ranks, bestSingle));
    if (segment !== "validation") continue;
    if (fusion) sayRecall(context, "fused", metrics.validation?.fused ?? {}, size);
    sayCeiling(context, ranks.fused ?? ranks[chosen] ?? [], size);
  }
  const report: CandidatesReport = {
    ...{ candidates: size, kind, chosen, bestSingle, metrics, comparisons },
    ...(fusion ? { fusion } : {}),
  };
  writeJson(recallFile(context.dir), report);
  return report;
}

/** Positions of all users by segment; for the mid-training segment, a random sample of size `train`. */
function selectPositions(data: SplitDataset, train: number, seed: number): BySegment<Query> {
  const of = (segment: Segment): Query[] => buildQueries(data, segment).queries;
  const all = { rerank: of("rerank"), validation: of("validation"), test: of("test") };
  if (train === 0) return all;
  const midtrain = of("midtrain");
  const share = train / Math.max(1, midtrain.length);
  const drawn = midtrain.filter((q) => unitHash(seed, String(q.user), String(q.position)) < share);
  return { midtrain: drawn, ...all };
}

/** An expert without lists for a segment has an empty list for every position. */
function filled(lists: BySegment<Ranked>, queries: BySegment<Query>): BySegment<Ranked> {
  const nothing: Ranked = { items: [], scores: [] };
  return Object.fromEntries(
    (Object.keys(queries) as Segment[]).map((s) => [s, lists[s] ?? (queries[s] ?? []).map(() => nothing)]),
  );
}

const ranksIn = (expert: ExpertLists, queries: BySegment<Query>, segment: Segment): number[] =>
  findTargetRanks(expert.lists[segment] ?? [], queries[segment] ?? []);

const percent = (share: number | undefined): string => `${(100 * (share ?? 0)).toFixed(1)} %`;

function sayRecall(context: StageContext, name: string, metrics: ListMetrics, size: number): void {
  const recalls = Object.entries(metrics).filter(([metric]) => metric.startsWith("R@"));
  const at = recalls.map(([metric, value]) => `${metric} ${percent(value)}`).join(", ");
  context.log(`${name}: ${at}, N@10 ${metrics["N@10"]?.toFixed(4)} (validation; ${size} candidates per slate)`);
}

interface Choice {
  readonly chosen: string;
  readonly bestSingle: string;
  readonly fusion: Fusion | undefined;
}

/** Fits the fusion on re-rank (and mid-training) positions; validation decides whether it is used. */
function choose(context: StageContext, experts: readonly ExpertLists[], queries: BySegment<Query>): Choice {
  const validation = queries.validation ?? [];
  const single = Object.fromEntries(
    experts.map((e) => [e.name, listMetrics(ranksIn(e, queries, "validation"), Number.POSITIVE_INFINITY)]),
  );
  const bestSingle = findBest(single);
  if (context.config.prerank.kind !== "fused") return { chosen: bestSingle, bestSingle, fusion: undefined };
  // Re-rank positions resemble validation's most; earlier ones are used only if there are too few.
  const rng = Rng.of(context.config.seed, "fusion");
  const examples = (["rerank", "midtrain"] as const)
    .flatMap((segment) =>
      rng.shuffle((queries[segment] ?? []).map((query, k) => ({ segment, k, target: query.target }))),
    )
    .map(({ segment, k, target }) => ({ target, lists: listsAt(experts, segment, k) }))
    .slice(0, fusionPositions);
  const fitted = fitFusion(examples, experts);
  if (!fitted)
    throw new RunError("the pre-rankers cannot be fused: none lists a true item of the re-rank segment", {
      advice: "Raise prerank.depth, give data.split a re-rank segment, or use a single pre-ranker.",
    });
  const ranks = validation.map((query, k) => {
    const at = fuse(listsAt(experts, "validation", k), experts, fitted).items.indexOf(query.target);
    return at < 0 ? Number.POSITIVE_INFINITY : at + 1;
  });
  const fused = listMetrics(ranks, Number.POSITIVE_INFINITY);
  const weights = Object.entries(fitted).map(
    ([name, w]) => `${name} ${w.value.toFixed(2)} (${w.missing.toFixed(2)} if not listed)`,
  );
  context.log(`fused weights: ${weights.join(", ")}`);
  const [with_, without] = [fused["N@10"] ?? 0, single[bestSingle]?.["N@10"] ?? 0];
  if (with_ >= without) return { chosen: "fused", bestSingle, fusion: fitted };
  context.log(
    `N@10 on validation: fused ${with_.toFixed(4)}, ${bestSingle} alone ${without.toFixed(4)}; ` +
      `the single order is used`,
  );
  return { chosen: bestSingle, bestSingle, fusion: aloneAs(bestSingle, experts) };
}

const listsAt = (experts: readonly ExpertLists[], segment: Segment, k: number): Ranked[] =>
  experts.map((e) => e.lists[segment]?.[k] ?? { items: [], scores: [] });

interface Assembled {
  readonly slates: readonly Slate[];
  /** Rank of every position's target, by pre-ranker, `fused` included; Infinity = not in the list. */
  readonly ranks: Readonly<Record<string, readonly number[]>>;
}

/** The slates of a segment, and each pre-ranker's ranks of the true items. */
function assemble(
  data: SplitDataset,
  segment: Segment,
  experts: readonly ExpertLists[],
  queries: BySegment<Query>,
  fusion: Fusion | undefined,
  limits: { readonly size: number; readonly depth: number },
): Assembled {
  const own = queries[segment] ?? [];
  const ranks: Record<string, readonly number[]> = Object.fromEntries(
    experts.map((e) => [e.name, ranksIn(e, queries, segment)]),
  );
  const fused: number[] = [];
  const slates = own.flatMap((query, k): Slate[] => {
    const lists = listsAt(experts, segment, k);
    const { items, scores, experts: said } = fuse(lists, experts, fusion ?? aloneAs(experts[0]?.name ?? "", experts));
    const index = items.slice(0, limits.depth).indexOf(query.target);
    fused.push(index < 0 ? Number.POSITIVE_INFINITY : index + 1);
    const first = Math.min(limits.size, items.length);
    if (first < fewestCandidates) return [];
    // A single pre-ranker keeps its own scores.
    const [only] = lists;
    const proposed = fusion || !only ? { items, scores } : only;
    const cut = { items: proposed.items.slice(0, first), scores: proposed.scores.slice(0, first) };
    const slate = makeSlate(data, segment, query, cut);
    const findRank = (name: string): number | null => {
      const rank = ranks[name]?.[k] ?? Number.POSITIVE_INFINITY;
      return Number.isFinite(rank) ? rank : null;
    };
    return [
      {
        ...slate,
        ...(fusion ? { experts: cutTo(said, first) } : {}),
        targetRanks: Object.fromEntries(experts.map(({ name }) => [name, findRank(name)])),
      },
    ];
  });
  return { slates, ranks: fusion ? { ...ranks, fused } : ranks };
}

/** The pre-rankers' scores of the first candidates. */
const cutTo = (said: NonNullable<Slate["experts"]>, first: number): Slate["experts"] =>
  Object.fromEntries(Object.entries(said).map(([name, all]) => [name, all.slice(0, first).map(shortScore)]));

/** Metrics of the slates' order minus those of the best single pre-ranker: all positions, paired over users. */
function compare(
  context: StageContext,
  segment: Segment,
  queries: readonly Query[],
  ranks: Assembled["ranks"],
  bestSingle: string,
): CandidatesReport["comparisons"][number][] {
  const { fused, [bestSingle]: single } = ranks;
  if (!fused || !single) return [];
  const { candidates } = context.config.prerank;
  const measures: [string, (rank: number) => number][] = [
    ["N@5", (r) => ndcgAt(r, 5)],
    ["N@10", (r) => ndcgAt(r, 10)],
    ...[...new Set([10, candidates])].map((k): [string, (rank: number) => number] => [`R@${k}`, (r) => recallAt(r, k)]),
  ];
  const bootstrap = new PairedBootstrap(
    queries.map((q) => q.user),
    measures.flatMap(([, of]) => [{ values: fused.map(of) }, { values: single.map(of) }]),
    { seed: deriveSeed(context.config.seed, "candidates"), resamples: comparisonResamples },
  );
  return measures.map(([metric], m) => {
    const { delta, ciLow, ciHigh } = bootstrap.compare(2 * m, 2 * m + 1);
    return { segment, metric, delta, ciLow, ciHigh };
  });
}

const comparisonResamples = 2000;

/** The upper bound of every re-ranker, and advice if it is low. */
function sayCeiling(context: StageContext, ranks: readonly number[], size: number): void {
  const among = (k: number): number => ranks.reduce((n, r) => n + recallAt(r, k), 0) / Math.max(1, ranks.length);
  const share = among(size);
  context.log(
    `the true item is among the ${size} candidates for ${percent(share)} of validation positions: ` +
      `a re-ranker can improve only those`,
  );
  const more = [20, 50, 100].find((k) => k > size && k <= maxCandidates && among(k) > 1.3 * share);
  if (share < lowHitRate && more)
    context.log(`that is low: with prerank.candidates=${more} it would be ${percent(among(more))}`);
  if (share < lowHitRate && context.config.prerank.kind !== "fused")
    context.log("that is low: prerank.kind=fused combines several pre-rankers and may find more");
}

const lowHitRate = 0.3;
