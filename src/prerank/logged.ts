/**
 * Slates of a log: the candidates, order and scores are the incumbent ranker's. History: the user's interactions
 * strictly before the slate was shown.
 *
 * Segments. Global-time split: the segment the slate's time falls into. Otherwise: the segment of the user's sequence
 * that its history ends in. Either way the choice comes at or after the history's end, so views through earlier
 * segments do not hold it; a slate that reaches into the next segment (with clicks on both sides) is left out.
 */
import { createHash } from "node:crypto";
import { countBefore, segmentRange } from "../data/split.ts";
import { type Segment, type SplitDataset, segments } from "../data/types.ts";
import type { SlateSegment } from "./slates.ts";
import type { Slate } from "./types.ts";

export interface LoggedSkips {
  /** Shown within the mid-training segment, of which only interactions are learned from. */
  readonly midtrain: number;
  /** The user did nothing before the slate. */
  readonly noHistory: number;
  /** Clicks on both sides of a segment's end. */
  readonly straddling: number;
  /** Candidates beyond `maxCandidates`, cut from the end of the incumbent's order. */
  readonly cutCandidates: number;
  /** Without two different labels after that cut. */
  readonly nothingToOrder: number;
}

/** @param maxCandidates longer slates keep this many, the incumbent's first */
export function loggedSlates(
  data: SplitDataset,
  maxCandidates: number,
): { slates: Record<SlateSegment, Slate[]>; skipped: LoggedSkips } {
  const slates: Record<Segment, Slate[]> = { midtrain: [], rerank: [], validation: [], test: [] };
  const skipped = { midtrain: 0, noHistory: 0, straddling: 0, cutCandidates: 0, nothingToOrder: 0 };
  const log = data.dataset.impressions;
  log?.users.forEach((user, k) => {
    const time = log.times[k] as number;
    const times = data.dataset.sequences[user]?.times ?? new Float64Array();
    const position = countBefore(times, time);
    const segment = findSegment(data, user, position, time);
    const split = data.splits[user];
    const end = split === undefined ? 0 : segmentRange(split, segment)[1];
    const [from, to] = [log.starts[k] as number, log.starts[k + 1] as number];
    const shown = Math.min(to - from, maxCandidates);
    const labels = Array.from(log.labels.subarray(from, from + shown));
    const best = Math.max(...labels);
    if (segment === "midtrain") skipped.midtrain++;
    else if (position === 0) skipped.noHistory++;
    else if ((times[end] ?? Number.POSITIVE_INFINITY) <= time) skipped.straddling++;
    else if (best === Math.min(...labels)) skipped.nothingToOrder++;
    else {
      skipped.cutCandidates += to - from - shown;
      const candidates = Array.from(log.items.subarray(from, from + shown));
      const targetIndex = labels.indexOf(best);
      slates[segment].push({
        id: createHash("sha256").update(`${data.dataset.hash}/log/${k}`).digest("hex").slice(0, 20),
        user,
        position,
        segment,
        candidates,
        scores: Array.from(log.scores.subarray(from, from + shown)),
        target: candidates[targetIndex] as number,
        targetIndex,
        labels,
        time,
      });
    }
  });
  return { slates, skipped };
}

function findSegment(data: SplitDataset, user: number, position: number, time: number): Segment {
  const split = data.splits[user];
  const ends: readonly number[] =
    data.cuts ?? (split ? [split.midtrainEnd, split.rerankEnd, split.validationEnd] : [0, 0, 0]);
  const at = data.cuts ? time : position;
  const passed = ends.filter((end) => at >= end).length;
  return segments[passed] as Segment;
}
