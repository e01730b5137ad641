/**
 * Splits every user's sequence into midtrain, rerank, validation and test, in time order. Pure; positions only.
 *
 * by position:   with cumulative shares c1 < c2 < c3 of a sequence of n, the boundaries are round(n·c) with halves up.
 *                Boundaries never cross, and nothing is lost: midtrain + rerank + validation + test = n.
 * leave one out: the last interaction is test, the one before validation, the one before rerank (none, or several, by
 *                setting), the rest midtrain.
 * global time:   an interaction belongs to the segment of its time, with the same cuts for all users.
 */
import { ConfigError, DataError } from "../core/errors.ts";
import { type Dataset, type Segment, type SplitDataset, segments, type UserSplit } from "./types.ts";

export interface Shares {
  readonly midtrain: number;
  readonly rerank: number;
  readonly validation: number;
  readonly test: number;
}

export type SplitOptions =
  | { readonly kind: "position"; readonly shares: Shares }
  /** Interactions per user, before validation's, for the re-ranker; 0 = the literature's split. */
  | { readonly kind: "leave-one-out"; readonly rerankItems: number }
  /** Cuts at the times that are quantiles of all interactions, at the cumulative shares. */
  | { readonly kind: "global-time"; readonly shares: Shares };

export function split(dataset: Dataset, options: SplitOptions): SplitDataset {
  switch (options.kind) {
    case "position":
      return splitByPosition(dataset, options.shares);
    case "leave-one-out":
      return leaveOneOut(dataset, options.rerankItems);
    case "global-time":
      return globalTime(dataset, options.shares);
  }
}

function cumulative(shares: Shares): readonly [number, number, number] {
  const all = [shares.midtrain, shares.rerank, shares.validation, shares.test];
  const sum = all.reduce((a, b) => a + b, 0);
  if (all.some((s) => !(s >= 0)) || Math.abs(sum - 1) > 1e-6)
    throw new ConfigError(`split shares must be non-negative and add up to 1, got ${all.join(" + ")} = ${sum}`);
  const c1 = shares.midtrain;
  return [c1, c1 + shares.rerank, c1 + shares.rerank + shares.validation];
}

/** Half up, with a tolerance for floating point: 20 × (.6 + .15) is 15, not 14.999…→15.000…2. */
const boundary = (n: number, share: number): number => Math.min(n, Math.floor(n * share + 0.5 + 1e-9));

/** Splits each user by position. Default shares .6/.15/.10/.15 (ours, for MovieLens-100K's ≥ 1,000 test slates). */
export function splitByPosition(
  dataset: Dataset,
  shares: Shares = { midtrain: 0.6, rerank: 0.15, validation: 0.1, test: 0.15 },
): SplitDataset {
  const [c1, c2, c3] = cumulative(shares);
  const splits = dataset.sequences.map(({ items }): UserSplit => {
    const n = items.length;
    return {
      midtrainEnd: boundary(n, c1),
      rerankEnd: boundary(n, c2),
      validationEnd: boundary(n, c3),
      testEnd: n,
    };
  });
  return { dataset, splits };
}

/**
 * The usual split of Beauty and similar data, with some interactions for the re-ranker. Short sequences lose midtrain
 * first.
 */
export function leaveOneOut(dataset: Dataset, rerankItems = 1): SplitDataset {
  const splits = dataset.sequences.map(({ items }): UserSplit => {
    const n = items.length;
    return {
      midtrainEnd: Math.max(0, n - 2 - rerankItems),
      rerankEnd: Math.max(0, n - 2),
      validationEnd: Math.max(0, n - 1),
      testEnd: n,
    };
  });
  return { dataset, splits };
}

/** One cut in time for everybody: no interaction of a later segment is older than one of an earlier segment. */
export function globalTime(dataset: Dataset, shares: Shares): SplitDataset {
  if (dataset.stats.hasClock === false)
    throw new DataError(`${dataset.name} has no timestamps and cannot be split by global time.`, {
      advice: "Use a split by position or leave-one-out.",
    });
  const cuts = cumulative(shares);
  const times = new Float64Array(dataset.sequences.reduce((n, s) => n + s.times.length, 0));
  let at = 0;
  for (const s of dataset.sequences) {
    times.set(s.times, at);
    at += s.times.length;
  }
  if (times.length === 0) throw new DataError("A global-time split needs interactions.");
  times.sort();
  const [t1, t2, t3] = cuts.map((c) => {
    const k = boundary(times.length, c);
    return k >= times.length ? Number.POSITIVE_INFINITY : (times[k] ?? 0);
  }) as [number, number, number];
  const splits = dataset.sequences.map(({ times: t }): UserSplit => {
    return {
      midtrainEnd: countBefore(t, t1),
      rerankEnd: countBefore(t, t2),
      validationEnd: countBefore(t, t3),
      testEnd: t.length,
    };
  });
  return { dataset, splits, cuts: [t1, t2, t3] };
}

/** How many entries of the sorted array are < limit. */
export function countBefore(sorted: Float64Array, limit: number): number {
  let [low, high] = [0, sorted.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((sorted[middle] ?? 0) < limit) low = middle + 1;
    else high = middle;
  }
  return low;
}

/**
 * Throws if a requested segment is empty or all times are equal: no later stage could work.
 * @throws DataError with the counts
 */
export function checkSegments({ dataset, splits, cuts }: SplitDataset, options: SplitOptions): void {
  const { sequences, stats } = dataset;
  const first = sequences[0]?.times[0];
  if (stats.hasClock !== false && stats.interactions > 1 && sequences.every((s) => s.times.every((t) => t === first)))
    throw new DataError(`All ${stats.interactions} interactions have the same time (${first} s): they have no order.`, {
      advice: "Name another column with data.columns.time; without one, the order of the file is used.",
    });
  const counts = Object.fromEntries(segments.map((s) => [s, 0])) as Record<Segment, number>;
  for (const own of splits)
    for (const segment of segments) {
      const [start, end] = segmentRange(own, segment);
      counts[segment] += end - start;
    }
  const wanted = (segment: Segment): boolean =>
    options.kind === "leave-one-out" ? segment !== "rerank" || options.rerankItems > 0 : options.shares[segment] > 0;
  const empty = segments.filter((s) => wanted(s) && counts[s] === 0);
  if (empty.length === 0) return;
  const found = segments.map((s) => `${s} ${counts[s]}`).join(", ");
  const why =
    cuts !== undefined && new Set(cuts).size < cuts.length
      ? "; too many interactions have equal times for different cuts"
      : "";
  throw new DataError(
    `The split ${options.kind} leaves ${empty.join(" and ")} without interactions (${found}, ` +
      `of ${sequences.length} users)${why}.`,
    { advice: "Choose another data.split, or use more data: every segment needs some." },
  );
}

/** Positions [start, end) of a segment. */
export function segmentRange(s: UserSplit, segment: Segment): readonly [start: number, end: number] {
  switch (segment) {
    case "midtrain":
      return [0, s.midtrainEnd];
    case "rerank":
      return [s.midtrainEnd, s.rerankEnd];
    case "validation":
      return [s.rerankEnd, s.validationEnd];
    case "test":
      return [s.validationEnd, s.testEnd];
  }
}

/** Training data of a model: each user's sequence up to the end of a segment. Index = user row. */
export interface TrainingView {
  readonly numItems: number;
  /** The last segment it contains. */
  readonly through: Segment;
  /** Item rows, oldest first; empty for a user held out. */
  readonly sequences: readonly Int32Array[];
  /** Seconds, same shape. */
  readonly times: readonly Float64Array[];
}

/** Prefixes through the end of `through`; users for whom `keepUser` is false have empty sequences. */
export function trainingView(
  data: SplitDataset,
  through: Segment,
  keepUser: (user: number) => boolean = () => true,
): TrainingView {
  const end = (user: number): number => {
    const s = data.splits[user];
    return s === undefined || !keepUser(user) ? 0 : segmentRange(s, through)[1];
  };
  return {
    numItems: data.dataset.items.length,
    through,
    sequences: data.dataset.sequences.map((s, user) => s.items.subarray(0, end(user))),
    times: data.dataset.sequences.map((s, user) => s.times.subarray(0, end(user))),
  };
}
