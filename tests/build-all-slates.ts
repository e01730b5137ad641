/**
 * Slates of all segments by one pre-ranker, for tests that need some: what stages `candidates` and `slates` do in full.
 */
import type { SplitDataset } from "../src/data/types.ts";
import { planFits } from "../src/prerank/fits.ts";
import {
  buildSlates,
  defaultSlates,
  type SlateOptions,
  type SlateSegment,
  type SlateStats,
  slateStats,
} from "../src/prerank/slates.ts";
import type { FitPreRanker, Slate } from "../src/prerank/types.ts";

/**
 * The slates of the three segments by one pre-ranker, fitted by segment (prerank/fits). Each fit is used before the
 * next one is made.
 */
export async function buildAllSlates(
  data: SplitDataset,
  fitted: FitPreRanker,
  options: SlateOptions = defaultSlates,
  onProgress: (segment: SlateSegment, done: number, total: number) => void = () => {},
): Promise<{ slates: Record<SlateSegment, Slate[]>; stats: Record<SlateSegment, SlateStats> }> {
  const slates: Record<SlateSegment, Slate[]> = { rerank: [], validation: [], test: [] };
  const stats: Partial<Record<SlateSegment, SlateStats>> = {};
  for (const plan of planFits(data, { folds: 0, refit: false, seed: 0, midtrain: false })) {
    const preRanker = await fitted(plan.view, plan);
    for (const segment of plan.segments) {
      if (segment === "midtrain") continue;
      const built = await buildSlates(data, segment, preRanker, options, plan.asks, (done, total) =>
        onProgress(segment, done, total),
      );
      slates[segment] = built.slates;
      stats[segment] = built.stats;
    }
  }
  const { rerank = slateStats([], 0), validation = rerank, test = rerank } = stats;
  return { slates, stats: { rerank, validation, test } };
}
