/** Popularity: the baseline every pre-ranker should beat. Score = interactions of the item in the training view. */
import type { TrainingView } from "../data/split.ts";
import { selectTop, tieKeys } from "./top.ts";
import { oneByOne, type PreRanker } from "./types.ts";

export function fitPopularity(training: TrainingView): PreRanker {
  const counts = new Float64Array(training.numItems);
  for (const s of training.sequences) for (const i of s) counts[i] = (counts[i] ?? 0) + 1;
  const ties = tieKeys(training.numItems);
  return oneByOne({ name: "popularity", parameters: counts.length, scale: "log" }, (_history, n, exclude) =>
    selectTop(counts, n, exclude, ties),
  );
}
