/**
 * Finds the user of the data that a history belongs to: the user's sequence begins with the history, or the reverse.
 * Returns the facts that the evaluation used: which fits have not seen the user, and when the last item was chosen. If
 * two users have the same history, the first in the data set counts; a history with its beginning cut off matches
 * nobody.
 */
import type { Dataset } from "../../data/types.ts";

export interface KnownUser {
  /** Row. */
  readonly user: number;
  /** Time of the last history item, seconds; undefined if it is not in the data. */
  readonly time: number | undefined;
}

/** @param history item rows, oldest first */
export type FindUser = (history: readonly number[]) => KnownUser | undefined;

export function indexUsers({ sequences }: Pick<Dataset, "sequences">): FindUser {
  const usersByFirst = new Map<number, number[]>();
  sequences.forEach(({ items }, user) => {
    const first = items[0];
    if (first === undefined) return;
    const same = usersByFirst.get(first);
    if (same) same.push(user);
    else usersByFirst.set(first, [user]);
  });
  return (history) => {
    let best: KnownUser | undefined;
    let most = 0;
    for (const user of usersByFirst.get(history[0] ?? -1) ?? []) {
      const { items, times } = sequences[user] as Dataset["sequences"][number];
      const shared = Math.min(items.length, history.length);
      if (shared <= most) continue;
      let k = 1;
      while (k < shared && items[k] === history[k]) k++;
      if (k < shared) continue;
      most = shared;
      best = { user, time: items.length >= history.length ? times[history.length - 1] : undefined };
    }
    return best;
  };
}
