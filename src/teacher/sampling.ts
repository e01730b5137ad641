/**
 * Sampling reasoning traces from a teacher (GR2 v1, stage 2).
 *   rejection: the teacher does not know the answer; its first choice is drawn from softmax(scores / temperature) until
 *              it is the true item (of several: one with the highest label), at most maxTries times, else the slate
 *              gives no trace.
 *   targeted:  the teacher is shown the answer and puts it first.
 * Everything behind the first choice follows by label where a log has several, then by score or as the input had it. Only this file compares with
 * the answer; the teacher gets a SlateView, which has none.
 */
import { Rng } from "../core/rng.ts";
import { softmax } from "../eval/choice-model.ts";
import { labelsOf, type Slate } from "../prerank/types.ts";
import { viewOf } from "./features.ts";
import type { Evidence, Teacher } from "./statistical.ts";

export type TraceMode = "rejection" | "targeted";

/** The material of one reasoning trace; prompts/ turns it into text. */
export interface Trace {
  readonly slateId: string;
  /** Candidate indices, best first; a permutation of the slate. */
  readonly ranking: readonly number[];
  readonly evidence: Evidence;
  /** Draws needed, from 1; targeted traces have 1. */
  readonly tries: number;
  readonly mode: TraceMode;
}

export interface SamplingOptions {
  readonly mode: TraceMode;
  /** Draws a slate before it is given up. Default 4 (ours). */
  readonly maxTries: number;
  /** 1: the teacher's calibrated belief. */
  readonly temperature: number;
  readonly seed: number;
  /** What follows the first choice. Default by score. */
  readonly rest?: "score" | "input";
}

export const defaultSampling: SamplingOptions = { mode: "rejection", maxTries: 4, temperature: 1, seed: 0 };

export interface SamplingStats {
  /** Slates whose answer is among the candidates; others are not offered. */
  readonly offered: number;
  readonly accepted: number;
  readonly acceptance: number;
  readonly meanTries: number;
  /** Share accepted by pre-rank position of the answer, index 0 = first; NaN-free: 0 where none was offered. */
  readonly acceptanceByPosition: readonly number[];
  readonly offeredByPosition: readonly number[];
  /** Share of accepted traces whose ranking is the input order unchanged. */
  readonly identityRate: number;
}

/** Samples a trace a slate. Deterministic in the seed and slate ids, whatever the order of the slates. */
export function sampleTraces(
  teacher: Teacher,
  slates: readonly Slate[],
  options: SamplingOptions = defaultSampling,
): { traces: Trace[]; stats: SamplingStats } {
  const offered = slates.filter((s) => s.targetIndex >= 0);
  const traces: Trace[] = [];
  const numPositions = offered.reduce((n, s) => Math.max(n, s.candidates.length), 0);
  const offeredAt = new Array<number>(numPositions).fill(0);
  const acceptedAt = new Array<number>(numPositions).fill(0);
  let [totalTries, identical] = [0, 0];
  for (const slate of offered) {
    const view = viewOf(slate);
    const scores = teacher.scores(view);
    const labels = labelsOf(slate);
    const attempt =
      options.mode === "targeted"
        ? { first: slate.targetIndex, tries: 1 }
        : reject(scores, labels, Rng.of(options.seed, "trace", slate.id), options);
    offeredAt[slate.targetIndex] = (offeredAt[slate.targetIndex] ?? 0) + 1;
    if (attempt === undefined) continue;
    acceptedAt[slate.targetIndex] = (acceptedAt[slate.targetIndex] ?? 0) + 1;
    totalTries += attempt.tries;
    const rest = options.rest === "input" ? scores.map(() => 0) : scores; // ties keep the pre-rank order
    const ranking = byLabel(rankingFrom(rest, attempt.first), labels);
    if (ranking.every((c, k) => c === k)) identical++;
    traces.push({
      slateId: slate.id,
      ranking,
      evidence: teacher.evidence(view),
      tries: attempt.tries,
      mode: options.mode,
    });
  }
  const share = (part: number, whole: number): number => (whole === 0 ? 0 : part / whole);
  return {
    traces,
    stats: {
      offered: offered.length,
      accepted: traces.length,
      acceptance: share(traces.length, offered.length),
      meanTries: share(totalTries, traces.length),
      acceptanceByPosition: acceptedAt.map((n, k) => share(n, offeredAt[k] ?? 0)),
      offeredByPosition: offeredAt,
      identityRate: share(identical, traces.length),
    },
  };
}

function reject(
  scores: readonly number[],
  labels: readonly number[],
  rng: Rng,
  options: SamplingOptions,
): { first: number; tries: number } | undefined {
  const belief = softmax(scores.map((s) => s / options.temperature));
  const best = Math.max(...labels);
  for (let tries = 1; tries <= options.maxTries; tries++) {
    let u = rng.uniform();
    let first = belief.findIndex((p) => {
      u -= p;
      return u < 0;
    });
    if (first < 0) first = belief.length - 1;
    if (labels[first] === best) return { first, tries };
  }
  return undefined;
}

/** All candidate indices by score, best first (ties: pre-rank order), with `first` in front if given. */
export function rankingFrom(scores: readonly number[], first?: number): number[] {
  const order = scores.map((_, i) => i).sort((a, b) => (scores[b] ?? 0) - (scores[a] ?? 0) || a - b);
  return first === undefined ? order : [first, ...order.filter((i) => i !== first)];
}

/** The ideal order that departs least from `order`: by label, equal labels as they stand. */
const byLabel = (order: readonly number[], labels: readonly number[]): number[] =>
  [...order].sort((a, b) => (labels[b] ?? 0) - (labels[a] ?? 0));
