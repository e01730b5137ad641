/**
 * How a request ranks its candidates.
 *
 *   scores given        the best score comes first; equal scores share their positions
 *   none, "ranked"      the list is the order
 *   none, "arbitrary"   no order: all candidates share all positions
 *
 * Ties are ordered by the candidates' identity only: a shuffled request gets the same answer.
 */
import { sha256 } from "../../core/hash.ts";
import type { CandidateOrder } from "../request/types.ts";
import type { Found } from "./items.ts";

/**
 * Positions of the request's candidates, best first.
 * @param scores of the caller's ranker, aligned with the candidates; undefined = none given
 * @param isKnown whether a row is an item of the data set
 */
export function readOrder(
  candidates: readonly Found[],
  scores: readonly number[] | undefined,
  listed: CandidateOrder,
  isKnown: (row: number) => boolean,
): number[] {
  const positions = candidates.map((_, position) => position);
  if (!scores && listed === "ranked") return positions;
  const scoreAt = (position: number): number => scores?.[position] ?? 0;
  const keys = new Map<number, string>();
  const keyAt = (position: number): string => {
    const { row, title } = candidates[position] as Found;
    const key = keys.get(position) ?? sha256(isKnown(row) ? `row ${row}` : `text ${title}`);
    keys.set(position, key);
    return key;
  };
  const byKey = (a: number, b: number): number => (keyAt(a) < keyAt(b) ? -1 : keyAt(a) > keyAt(b) ? 1 : a - b);
  return positions.sort((a, b) => scoreAt(b) - scoreAt(a) || byKey(a, b));
}
