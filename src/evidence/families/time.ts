/**
 * When others chose a candidate, relative to the slate's clock (the last history item's time): how often recently,
 * whether that is rising, its age, the time since it was last chosen. Only if times are comparable between users.
 */
import type { Statistics } from "../statistics.ts";
import type { Family } from "./family.ts";

const columns = ["recent popularity", "popularity trend", "age", "time since last chosen"] as const;

export function time(statistics: Statistics): Family | undefined {
  const { recentSpan, totalSpan } = statistics;
  if (recentSpan === 0) return undefined;
  return {
    name: "time",
    columns,
    write({ candidates, now }, out, at, stride) {
      for (let i = 0; i < candidates.length; i++) {
        const times = statistics.getTimes(candidates[i] as number);
        const before = countBelow(times, now);
        const recent = before - countBelow(times, now - recentSpan);
        const o = at + i * stride;
        out[o] = Math.log1p(recent);
        const age = before > 0 ? now - (times[0] as number) : Number.NaN;
        // Recent rate over the rate since the item's first time, both smoothed by one interaction.
        out[o + 1] = Math.log((recent + 1) / ((before * recentSpan) / Math.max(recentSpan, age) + 1));
        out[o + 2] = Math.log1p((100 * age) / totalSpan);
        out[o + 3] = before > 0 ? Math.log1p((100 * (now - (times[before - 1] as number))) / totalSpan) : Number.NaN;
      }
    },
  };
}

function countBelow(sorted: Float64Array, limit: number): number {
  let [low, high] = [0, sorted.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((sorted[middle] as number) < limit) low = middle + 1;
    else high = middle;
  }
  return low;
}
