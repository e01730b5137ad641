/**
 * The evidence for a slate that no stage has seen: what a prior fitted with decoding.evidence needs when the re-ranker serves.
 * The model and the statistics that the run's own test slates were scored with (stage evidence), so equal slates get equal
 * scores.
 *
 * Items the data set does not hold have no statistics: in the history they are passed over, as candidates they get the mean
 * of the others. The clock is the end of the statistics, unless a time is given.
 */
import { openEvidence } from "../../artifacts/evidence.ts";
import { trainingView } from "../../data/split.ts";
import type { SplitDataset } from "../../data/types.ts";
import { Statistics } from "../../evidence/statistics.ts";

/** @param time of the last history item, seconds */
export type ComputeEvidence = (
  history: readonly number[],
  candidates: readonly number[],
  scores: readonly number[],
  time?: number,
) => number[];

/** @param evidenceDir folder of the stage evidence; @param refit as the run was made */
export function servingEvidence(split: SplitDataset, evidenceDir: string, refit: boolean): ComputeEvidence {
  const view = trainingView(split, refit ? "validation" : "rerank");
  const statistics = new Statistics(view, split.dataset.stats.hasClock !== false);
  const { model, features } = openEvidence(evidenceDir, split.dataset.items, statistics);
  const end = view.times.reduce((latest, times) => Math.max(latest, times.at(-1) ?? latest), 0);
  const known = (row: number): boolean => row < split.dataset.items.length;
  return (history, candidates, scores, time = end) => {
    const positions = candidates.flatMap((row, position) => (known(row) ? [position] : []));
    const input = {
      history: Int32Array.from(history.filter(known)),
      now: time,
      candidates: positions.map((position) => candidates[position] as number),
      scores: positions.map((position) => scores[position] as number),
    };
    const found = model.scores(features.of(input), positions.length);
    const mean = found.reduce((sum, e) => sum + e, 0) / Math.max(1, found.length);
    const out = candidates.map(() => mean);
    positions.forEach((position, i) => {
      out[position] = found[i] as number;
    });
    return out;
  };
}
