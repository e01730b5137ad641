/**
 * Evidence for new slates, for priors fitted with decoding.evidence. It uses the model and the statistics that scored
 * the run's own test slates (evidence stage): equal slates get equal scores. The pre-rankers of a fused run score the
 * candidates in experts.ts.
 *
 * Items that are not in the data set have no statistics: in the history they are skipped, as candidates they get the
 * mean of the others. The default time is the end of the statistics.
 */
import { openEvidence } from "../../artifacts/evidence.ts";
import { RunError } from "../../core/errors.ts";
import { trainingView } from "../../data/split.ts";
import type { SplitDataset } from "../../data/types.ts";
import { Statistics } from "../../evidence/statistics.ts";
import type { ExpertScores } from "./experts.ts";

/** Facts about a slate besides the request. */
export interface SlateFacts {
  /** Time of the last history item, seconds. */
  readonly time?: number | undefined;
  /** Scores of every pre-ranker the evidence was trained on, aligned with the candidates. */
  readonly experts?: ExpertScores | undefined;
  /** Positions of the candidates, from 0, if some share one; default: their indices. */
  readonly positions?: readonly number[] | undefined;
}

export type ComputeEvidence = (
  history: readonly number[],
  candidates: readonly number[],
  scores: readonly number[],
  facts?: SlateFacts,
) => number[];

export interface ServedEvidence {
  readonly compute: ComputeEvidence;
  /** Pre-rankers whose scores are needed. */
  readonly experts: readonly string[];
}

/** @param evidenceDir folder of the stage evidence; @param refit the run's setting */
export function servingEvidence(split: SplitDataset, evidenceDir: string, refit: boolean): ServedEvidence {
  const view = trainingView(split, refit ? "validation" : "rerank");
  const statistics = new Statistics(view, split.dataset.stats.hasClock !== false);
  const { model, features, experts } = openEvidence(evidenceDir, split.dataset.items, statistics);
  const end = view.times.reduce((latest, times) => Math.max(latest, times.at(-1) ?? latest), 0);
  const known = (row: number): boolean => row < split.dataset.items.length;
  const compute: ComputeEvidence = (history, candidates, scores, facts = {}) => {
    const positions = candidates.flatMap((row, position) => (known(row) ? [position] : []));
    const missing = experts.find((name) => facts.experts?.[name] === undefined);
    if (missing !== undefined)
      throw new RunError(`the evidence needs the scores of pre-ranker ${missing}, which was not run`, {
        advice: "This is a bug in GR2: please report it.",
      });
    const input = {
      history: Int32Array.from(history.filter(known)),
      now: facts.time ?? end,
      candidates: positions.map((position) => candidates[position] as number),
      scores: positions.map((position) => scores[position] as number),
      ...(facts.positions ? { positions: positions.map((p) => facts.positions?.[p] ?? p) } : {}),
      experts: Object.fromEntries(
        experts.map((name) => [name, positions.map((position) => facts.experts?.[name]?.[position] ?? null)]),
      ),
    };
    const found = model.scores(features.of(input), positions.length);
    const mean = found.reduce((sum, e) => sum + e, 0) / Math.max(1, found.length);
    const out = candidates.map(() => mean);
    positions.forEach((position, i) => {
      out[position] = found[i] as number;
    });
    return out;
  };
  return { compute, experts };
}
