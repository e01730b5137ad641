/**
 * Builds slates: for every position of a segment the pre-ranker's top N given everything before it.
 *
 * What may be learnt from (checked in data/leakage): rerank slates come from a pre-ranker fitted on midtrain;
 * validation and test slates from one fitted on midtrain + rerank. A slate's history may reach past the fit: it is
 * what the user had really done by then.
 */
import { createHash } from "node:crypto";
import { allowedFor, checkTrainingView } from "../data/leakage.ts";
import { segmentRange, type TrainingView, trainingView } from "../data/split.ts";
import type { Segment, SplitDataset } from "../data/types.ts";
import type { FitPreRanker, PreRanker, Repeats, Slate } from "./types.ts";

export interface SlateOptions {
  /** Candidates a slate, N. Paper: 10. */
  readonly size: number;
  /** `unseen`: items of the history are no candidates, and positions whose answer is in the history are skipped. */
  readonly repeats: Repeats;
  /** Positions with a shorter history are skipped; at least 1. */
  readonly minHistory: number;
}

export const defaultSlates: SlateOptions = { size: 10, repeats: "unseen", minHistory: 1 };

export interface SlateStats {
  readonly slates: number;
  /** Slates whose target is among the candidates. */
  readonly conditional: number;
  /** conditional / slates: HR@N of the pre-ranker. */
  readonly hitRate: number;
  /** Mean of 1/rank over all slates, misses 0. */
  readonly mrr: number;
  /** How often the target stands at each candidate position. */
  readonly targetPositions: readonly number[];
  readonly users: number;
  /** Positions left out: answer already in the history, too little history, or too few candidates. */
  readonly skipped: { readonly repeat: number; readonly shortHistory: number; readonly fewCandidates: number };
}

export type SlateSegment = Exclude<Segment, "midtrain">;

/** The segment through which a pre-ranker for `segment`'s slates may learn. */
export const fitThrough = (segment: SlateSegment): "midtrain" | "rerank" =>
  segment === "rerank" ? "midtrain" : "rerank";

/** Opaque and stable: 20 hex digits of SHA-256 over data set hash, user row and position. */
export const slateId = (datasetHash: string, user: number, position: number): string =>
  createHash("sha256").update(`${datasetHash}/${user}/${position}`).digest("hex").slice(0, 20);

/** Histories ranked at once. */
const batchSize = 256;

/** A position of a segment to build a slate for. */
export interface Query {
  readonly user: number;
  readonly position: number;
  readonly target: number;
  /** Everything before the position. */
  readonly history: Int32Array;
}

/** The positions of a segment that slates are built for, by user row and position, and why others are not. */
export function queriesOf(
  data: SplitDataset,
  segment: Segment,
  options: SlateOptions = defaultSlates,
  keepUser: (user: number) => boolean = () => true,
): { queries: Query[]; skipped: { repeat: number; shortHistory: number } } {
  const queries: Query[] = [];
  const skipped = { repeat: 0, shortHistory: 0 };
  data.dataset.sequences.forEach(({ items }, user) => {
    const s = data.splits[user];
    if (s === undefined || !keepUser(user)) return;
    const [start, end] = segmentRange(s, segment);
    if (start >= end) return;
    const seen = new Set(items.subarray(0, start));
    for (let position = start; position < end; seen.add(items[position] ?? -1), position++) {
      const target = items[position] ?? -1;
      if (position < Math.max(1, options.minHistory)) skipped.shortHistory++;
      else if (options.repeats === "unseen" && seen.has(target)) skipped.repeat++;
      else queries.push({ user, position, target, history: items.subarray(0, position) });
    }
  });
  return { queries, skipped };
}

/** All slates of one segment, by user row and position. */
export async function buildSlates(
  data: SplitDataset,
  segment: Segment,
  preRanker: PreRanker,
  options: SlateOptions = defaultSlates,
  keepUser: (user: number) => boolean = () => true,
  onProgress: (done: number, total: number) => void = () => {},
): Promise<{ slates: Slate[]; stats: SlateStats }> {
  const { queries, skipped } = queriesOf(data, segment, options, keepUser);
  const slates: Slate[] = [];
  let fewCandidates = 0;
  for (let start = 0; start < queries.length; start += batchSize) {
    const batch = queries.slice(start, start + batchSize);
    const histories = batch.map((q) => q.history);
    const ranked = await preRanker.topOf(histories, options.size, options.repeats);
    batch.forEach(({ user, position, target }, i) => {
      const { items: candidates = [], scores = [] } = ranked[i] ?? {};
      const id = slateId(data.dataset.hash, user, position);
      const targetIndex = candidates.indexOf(target);
      if (candidates.length < options.size) fewCandidates++;
      else slates.push({ id, user, position, segment, candidates, scores, target, targetIndex });
    });
    onProgress(start + batch.length, queries.length);
  }
  return { slates, stats: slateStats(slates, options.size, { ...skipped, fewCandidates }) };
}

/** The view that a pre-ranker for `segment`'s slates learns from, checked for leaks. */
export function viewFor(data: SplitDataset, segment: SlateSegment): TrainingView {
  const view = trainingView(data, fitThrough(segment));
  checkTrainingView(data, view, allowedFor(segment), `the pre-ranker of ${segment} slates`);
  return view;
}

/**
 * Fits twice and builds the slates of the three segments: through rerank for validation and test, then through midtrain
 * for rerank. A pre-ranker is asked for slates only until the next one is fitted.
 */
export async function buildAllSlates(
  data: SplitDataset,
  fitted: FitPreRanker,
  options: SlateOptions = defaultSlates,
  onProgress: (segment: SlateSegment, done: number, total: number) => void = () => {},
): Promise<{ slates: Record<SlateSegment, Slate[]>; stats: Record<SlateSegment, SlateStats> }> {
  const build = (segment: SlateSegment, preRanker: PreRanker) =>
    buildSlates(data, segment, preRanker, options, undefined, (done, total) => onProgress(segment, done, total));
  const late = await fitted(viewFor(data, "test"));
  const validation = await build("validation", late);
  const test = await build("test", late);
  const rerank = await build("rerank", await fitted(viewFor(data, "rerank")));
  return {
    slates: { rerank: rerank.slates, validation: validation.slates, test: test.slates },
    stats: { rerank: rerank.stats, validation: validation.stats, test: test.stats },
  };
}

/** Counts over finished slates. */
export function slateStats(
  slates: readonly Slate[],
  size: number,
  skipped: SlateStats["skipped"] = { repeat: 0, shortHistory: 0, fewCandidates: 0 },
): SlateStats {
  const targetPositions = new Array<number>(size).fill(0);
  let conditional = 0;
  let mrr = 0;
  for (const { targetIndex } of slates) {
    if (targetIndex < 0) continue;
    conditional++;
    mrr += 1 / (targetIndex + 1);
    targetPositions[targetIndex] = (targetPositions[targetIndex] ?? 0) + 1;
  }
  const n = Math.max(1, slates.length);
  return {
    slates: slates.length,
    conditional,
    hitRate: conditional / n,
    mrr: mrr / n,
    targetPositions,
    users: new Set(slates.map((s) => s.user)).size,
    skipped,
  };
}
