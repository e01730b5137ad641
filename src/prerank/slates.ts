/**
 * Builds slates: for every position of a segment, the pre-ranker's top N given everything before it. What the
 * pre-ranker may learn from: fits.ts. A slate's history may reach past the fit: it is what the user had really done by
 * then.
 */
import { createHash } from "node:crypto";
import { segmentRange } from "../data/split.ts";
import type { Segment, SplitDataset } from "../data/types.ts";
import type { PreRanker, Ranked, Repeats, Slate } from "./types.ts";

export interface SlateOptions {
  /** Candidates per slate, N. Paper: 10. */
  readonly size: number;
  /** `unseen`: items of the history are not candidates, and positions whose answer is in the history are skipped. */
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
  /** How often the target is at each candidate position. */
  readonly targetPositions: readonly number[];
  readonly users: number;
  /** Positions left out: answer already in the history, too little history, or too few candidates. */
  readonly skipped: { readonly repeat: number; readonly shortHistory: number; readonly fewCandidates: number };
}

export type SlateSegment = Exclude<Segment, "midtrain">;

/** Opaque and stable: 20 hex digits of SHA-256 over data set hash, user row and position. */
export const slateId = (datasetHash: string, user: number, position: number): string =>
  createHash("sha256").update(`${datasetHash}/${user}/${position}`).digest("hex").slice(0, 20);

/** Histories per batch. */
const batchSize = 256;

/** A position of a segment to build a slate for. */
export interface Query {
  readonly user: number;
  readonly position: number;
  readonly target: number;
  /** Everything before the position. */
  readonly history: Int32Array;
}

/** The positions of a segment to build slates for, by user row and position, and why others were skipped. */
export function buildQueries(
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

/** Asks a pre-ranker about many positions, in batches. */
export async function rankInBatches(
  preRanker: PreRanker,
  queries: readonly Query[],
  n: number,
  repeats: Repeats,
  onProgress: (done: number, total: number) => void = () => {},
): Promise<Ranked[]> {
  const ranked: Ranked[] = [];
  for (let start = 0; start < queries.length; start += batchSize) {
    const batch = queries.slice(start, start + batchSize);
    const histories = batch.map((q) => q.history);
    const users = batch.map((q) => q.user);
    ranked.push(...(await preRanker.rankTop(histories, n, repeats, users)));
    onProgress(ranked.length, queries.length);
  }
  return ranked;
}

/** The slate of a position, from what a pre-ranker proposed. */
export function makeSlate(data: SplitDataset, segment: Segment, query: Query, proposed: Ranked): Slate {
  const { user, position, target } = query;
  const candidates = Array.from(proposed.items);
  return {
    id: slateId(data.dataset.hash, user, position),
    user,
    position,
    segment,
    candidates,
    scores: Array.from(proposed.scores),
    target,
    targetIndex: candidates.indexOf(target),
  };
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
  const { queries, skipped } = buildQueries(data, segment, options, keepUser);
  const ranked = await rankInBatches(preRanker, queries, options.size, options.repeats, onProgress);
  const made = queries.map((query, i) => makeSlate(data, segment, query, ranked[i] as Ranked));
  const slates = made.filter((s) => s.candidates.length === options.size);
  const fewCandidates = made.length - slates.length;
  return { slates, stats: slateStats(slates, options.size, { ...skipped, fewCandidates }) };
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
