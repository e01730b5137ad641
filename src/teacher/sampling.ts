/**
 * Sampling reasoning traces from a teacher (GR2 v1, stage 2).
 *   rejection: the teacher does not know the answer; it is asked until its own first choice is the true item (of
 *   several:
 *              one with the highest label), at most maxTries times; otherwise the slate yields no trace.
 *   targeted:  the teacher is shown the answer and puts it first.
 * After the first choice, candidates follow by label if a log has several, then in the teacher's (or the input's)
 * order. Only this file compares with the answer; the teacher gets an UnlabelledSlate without it and, in targeted
 * sampling, a hint.
 */
import { Rng } from "../core/rng.ts";
import { softmax } from "../eval/choice-model.ts";
import { type Slate, slateLabels } from "../prerank/types.ts";
import type { AnyReasoning } from "../prompts/rerank.ts";
import type { StatisticalTeacher } from "./statistical.ts";
import type { Reply, Teacher, TeacherQuestion } from "./teacher.ts";
import { hideAnswer, type UnlabelledSlate } from "./unlabelled-slate.ts";

export type TraceMode = "rejection" | "targeted";

/** One reasoning trace; prompts/ turns it into tokens. */
export interface Trace {
  readonly slateId: string;
  /** Candidate indices, best first; a permutation of the slate. */
  readonly ranking: readonly number[];
  readonly reasoning: AnyReasoning;
  /** Number of attempts, from 1. */
  readonly tries: number;
  readonly mode: TraceMode;
  /** See Reply. */
  readonly seed: number | null;
  readonly time: string | null;
  readonly prompt: string | null;
}

export interface SamplingOptions {
  readonly mode: TraceMode;
  /** Most answers per slate. Default 4 (ours). */
  readonly maxTries: number;
  /** Order after the first choice: the teacher's (default) or the input's. */
  readonly rest?: "teacher" | "input";
}

const defaultSampling: SamplingOptions = { mode: "rejection", maxTries: 4 };

export interface SamplingStats {
  /** Slates whose answer is among the candidates; no others are offered. */
  readonly offered: number;
  readonly accepted: number;
  readonly acceptance: number;
  readonly meanTries: number;
  /** Share accepted by pre-rank position of the answer, index 0 = first; 0, never NaN, where none was offered. */
  readonly acceptanceByPosition: readonly number[];
  readonly offeredByPosition: readonly number[];
  /** Share of accepted traces whose ranking is the input order unchanged. */
  readonly identityRate: number;
  /** Counts by reason of answers that did not become traces, and of slates that were not asked (again). */
  readonly rejected: Readonly<Record<string, number>>;
}

/** Why a well-formed answer is not kept. */
const wrongChoice = "wrong first choice";

/** An answer that did not become a trace, for the log. */
export interface Rejection {
  readonly slateId: string;
  readonly attempt: number;
  readonly reason: string;
  readonly detail: string;
  readonly text: string;
}

/** Samples one trace per slate; every slate is asked once before any is asked again. Traces are in slate order. */
export async function sampleTraces(
  teacher: Teacher,
  slates: readonly Slate[],
  options: SamplingOptions = defaultSampling,
): Promise<{ traces: Trace[]; stats: SamplingStats; rejections: Rejection[] }> {
  const offered = slates.filter((s) => s.targetIndex >= 0);
  const traces = new Map<string, Trace>();
  const rejections: Rejection[] = [];
  const rejected: Record<string, number> = {};
  let open = offered;
  for (let attempt = 1; attempt <= options.maxTries && open.length > 0; attempt++) {
    const questions = open.map(
      (slate): TeacherQuestion => ({
        slate: hideAnswer(slate),
        hint: options.mode === "targeted" ? slate.targetIndex : null,
        attempt,
      }),
    );
    const replies = await teacher.ask(questions);
    const again: Slate[] = [];
    open.forEach((slate, i) => {
      const reply = replies[i] as Reply;
      const labels = slateLabels(slate);
      const right = reply.kind === "ranking" && labels[reply.order[0] as number] === Math.max(...labels);
      if (right) {
        const { reasoning, seed, time, prompt } = reply;
        const ranking = byLabel(options.rest === "input" ? inputOrder(reply.order) : reply.order, labels);
        traces.set(slate.id, {
          slateId: slate.id,
          ranking,
          reasoning,
          tries: attempt,
          mode: options.mode,
          seed,
          time,
          prompt,
        });
        return;
      }
      const reason = reply.kind === "ranking" ? wrongChoice : reply.reason;
      rejected[reason] = (rejected[reason] ?? 0) + 1;
      if (reply.kind === "unusable") {
        const { detail, text } = reply;
        rejections.push({ slateId: slate.id, attempt, reason, detail, text });
      }
      if (reply.kind !== "unasked") again.push(slate);
    });
    open = again;
  }
  const kept = offered.flatMap((s) => traces.get(s.id) ?? []);
  return { traces: kept, stats: summariseSampling(offered, traces, rejected), rejections };
}

function summariseSampling(
  offered: readonly Slate[],
  traces: ReadonlyMap<string, Trace>,
  rejected: Readonly<Record<string, number>>,
): SamplingStats {
  const numPositions = offered.reduce((n, s) => Math.max(n, s.candidates.length), 0);
  const offeredAt = new Array<number>(numPositions).fill(0);
  const acceptedAt = new Array<number>(numPositions).fill(0);
  let [tries, identical] = [0, 0];
  for (const { id, targetIndex } of offered) {
    offeredAt[targetIndex] = (offeredAt[targetIndex] ?? 0) + 1;
    const trace = traces.get(id);
    if (!trace) continue;
    acceptedAt[targetIndex] = (acceptedAt[targetIndex] ?? 0) + 1;
    tries += trace.tries;
    if (trace.ranking.every((c, k) => c === k)) identical++;
  }
  const share = (part: number, whole: number): number => (whole === 0 ? 0 : part / whole);
  return {
    offered: offered.length,
    accepted: traces.size,
    acceptance: share(traces.size, offered.length),
    meanTries: share(tries, traces.size),
    acceptanceByPosition: acceptedAt.map((n, k) => share(n, offeredAt[k] ?? 0)),
    offeredByPosition: offeredAt,
    identityRate: share(identical, traces.size),
    rejected,
  };
}

/**
 * The statistical teacher behind the Teacher interface: its first choice is drawn from softmax(scores / temperature),
 * the rest follow by score. Deterministic in seed, slate id and attempt.
 * @param temperature 1: the teacher's calibrated belief
 */
export function statisticalTeacher(
  fitted: StatisticalTeacher,
  o: { temperature: number; seed: number; explainChoice: (slate: UnlabelledSlate, choice: number) => AnyReasoning },
): Teacher {
  const reply = ({ slate, hint, attempt }: TeacherQuestion): Reply => {
    const scores = fitted.scores(slate);
    const first = hint ?? draw(scores, Rng.of(o.seed, "trace", slate.id), attempt, o.temperature);
    return {
      kind: "ranking",
      order: rankingFrom(scores, first),
      reasoning: o.explainChoice(slate, first),
      seed: null,
      time: null,
      prompt: null,
    };
  };
  return { kind: "statistical", model: "statistical", ask: async (questions) => questions.map(reply) };
}

/** The n-th draw of a stream, n = attempt. */
function draw(scores: readonly number[], rng: Rng, attempt: number, temperature: number): number {
  const belief = softmax(scores.map((s) => s / temperature));
  let u = 0;
  for (let k = 0; k < attempt; k++) u = rng.uniform();
  const first = belief.findIndex((p) => {
    u -= p;
    return u < 0;
  });
  return first < 0 ? belief.length - 1 : first;
}

/** All candidate indices by score, best first (ties: pre-rank order), with `first` in front if given. */
function rankingFrom(scores: readonly number[], first?: number): number[] {
  const order = scores.map((_, i) => i).sort((a, b) => (scores[b] ?? 0) - (scores[a] ?? 0) || a - b);
  return first === undefined ? order : [first, ...order.filter((i) => i !== first)];
}

/** The first choice, then the others in input order. */
const inputOrder = ([first, ...others]: readonly number[]): number[] => [
  ...(first === undefined ? [] : [first]),
  ...others.sort((a, b) => a - b),
];

/** The ideal order closest to `order`: by label, ties in the given order. */
const byLabel = (order: readonly number[], labels: readonly number[]): number[] =>
  [...order].sort((a, b) => (labels[b] ?? 0) - (labels[a] ?? 0));
