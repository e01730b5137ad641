/** Scores computed elsewhere: a table of user, item and score (CSV, TSV, JSONL or Parquet), by user row. */
import { DataError } from "../core/errors.ts";
import { readInteractions } from "./adapters/readers.ts";
import { openDuck, Quarantine } from "./duck.ts";
import type { Dataset } from "./types.ts";

/** A user's scored items, best first; equal scores by item id. */
export interface ScoredItems {
  readonly items: readonly number[];
  readonly scores: readonly number[];
}

export interface OwnScores {
  /** By user row. */
  readonly byUser: ReadonlyMap<number, ScoredItems>;
  /** Rows with users or items that are not in the data set. */
  readonly unknown: number;
}

/** @throws DataError on malformed rows, a pair with two scores, or if no row matches the data set */
export async function readScores(file: string, dataset: Dataset): Promise<OwnScores> {
  const duck = await openDuck();
  try {
    const quarantine = new Quarantine();
    await readInteractions(duck, file, { user: "user", item: "item", rating: "score" }, quarantine);
    quarantine.settle(0, undefined);
    const twice = await duck.rows("SELECT u, i FROM raw_interactions GROUP BY u, i HAVING count(*) > 1 LIMIT 1");
    if (twice[0])
      throw new DataError(`${file}: user ${String(twice[0].u)} and item ${String(twice[0].i)} have two scores.`, {
        advice: "Keep one row per user and item.",
      });
    const userRow = new Map(dataset.sequences.map(({ user }, row) => [String(user), row]));
    const itemRow = new Map(dataset.items.map(({ id }, row) => [String(id), row]));
    const byUser = new Map<number, { items: number[]; scores: number[] }>();
    let unknown = 0;
    await duck.each("SELECT u, i, r FROM raw_interactions ORDER BY u, r DESC, i", (chunk) => {
      const [users, items, scores] = [0, 1, 2].map((c) => chunk.getColumnVector(c));
      for (let k = 0; k < chunk.rowCount; k++) {
        const user = userRow.get(String(users?.getItem(k)));
        const item = itemRow.get(String(items?.getItem(k)));
        if (user === undefined || item === undefined) {
          unknown++;
          continue;
        }
        const own = byUser.get(user) ?? { items: [], scores: [] };
        byUser.set(user, own);
        own.items.push(item);
        own.scores.push(scores?.getItem(k) as number);
      }
    });
    if (byUser.size === 0)
      throw new DataError(`${file}: no row has a user and an item of the data set.`, {
        advice: "Use the ids of the source, in columns named user, item and score.",
      });
    return { byUser, unknown };
  } finally {
    duck.close();
  }
}
