/**
 * The statistical teacher's score for a slate that no stage has seen: what a prior fitted with decoding.evidence needs when
 * the re-ranker serves. Statistics of the same segments and the same weights as the run's own validation and test slates
 * were scored with (stage traces), so equal slates get equal scores.
 *
 * Items the data set does not hold have no statistics: in the history they are passed over, as candidates they get the mean
 * of the others. The clock is the end of the statistics, unless a time is given.
 */
import { join } from "node:path";
import { readJson } from "../../artifacts/files.ts";
import { RunError } from "../../core/errors.ts";
import { userId } from "../../core/ids.ts";
import { trainingView } from "../../data/split.ts";
import type { SplitDataset, UserSequence } from "../../data/types.ts";
import { choiceScores } from "../../eval/choice-model.ts";
import { featureNames, featuresOf, TeacherStatistics } from "../../teacher/features.ts";

/** @param time of the last history item, seconds */
export type EvidenceOf = (
  history: readonly number[],
  candidates: readonly number[],
  scores: readonly number[],
  time?: number,
) => number[];

/** @param tracesDir folder of the stage traces, whose teacher.json has the weights */
export function servingEvidence(split: SplitDataset, tracesDir: string): EvidenceOf {
  const { dataset } = split;
  const { weights: folds } = readJson<{ weights: readonly Readonly<Record<string, number>>[] }>(
    join(tracesDir, "teacher.json"),
  );
  const named = folds.at(-1); // fitted on all rerank slates
  const weights = featureNames.map((name) => named?.[name] ?? Number.NaN);
  if (weights.some(Number.isNaN))
    throw new RunError(`${join(tracesDir, "teacher.json")}: the teacher's weights do not fit this version`, {
      advice: "Rerun the stage that fits them: gr2 pipeline --from traces.",
    });
  const view = trainingView(split, "rerank");
  const end = view.times.reduce((latest, times) => Math.max(latest, times.at(-1) ?? latest), 0);
  // One more user, who is whoever asks.
  const sequences: UserSequence[] = [...dataset.sequences];
  const asker = sequences.length;
  const statistics = new TeacherStatistics({ ...dataset, sequences }, view);
  const known = (row: number): boolean => row < dataset.items.length;
  return (history, candidates, scores, time = end) => {
    const items = Int32Array.from(history.filter(known));
    sequences[asker] = { user: userId("asker"), items, times: new Float64Array(items.length).fill(time) };
    const places = candidates.flatMap((row, place) => (known(row) ? [place] : []));
    const slate = {
      id: "",
      user: asker,
      position: items.length,
      segment: "test" as const,
      candidates: places.map((place) => candidates[place] as number),
      scores: places.map((place) => scores[place] as number),
    };
    const found = choiceScores(weights, featuresOf(statistics, slate), places.length);
    const mean = found.reduce((sum, e) => sum + e, 0) / Math.max(1, found.length);
    const out = candidates.map(() => mean);
    places.forEach((place, i) => {
      out[place] = found[i] as number;
    });
    return out;
  };
}
