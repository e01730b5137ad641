/**
 * Candidates with a blank text and no item id: real catalogues have some, and one must not fail a whole request. The
 * model does not see them; they come last, in the caller's order, with a score of 0.
 */
import type { ItemReference, RerankRequest } from "./types.ts";

type Ranking = readonly { readonly position: number; readonly score: number }[];

export const isBlank = ({ itemId, text }: ItemReference): boolean =>
  itemId === undefined && !/[^\p{White_Space}\p{Default_Ignorable_Code_Point}\p{Cc}]/u.test(text ?? "");

/** The request without its blank candidates, and a function that adds them back to an order. */
export function withoutBlanks(request: RerankRequest): {
  readonly asked: RerankRequest;
  readonly restore: (ranking: Ranking) => Ranking;
} {
  const kept = request.candidates.flatMap((c, position) => (isBlank(c) ? [] : [position]));
  if (kept.length === request.candidates.length) return { asked: request, restore: (ranking) => ranking };
  const candidates = request.candidates.filter((c) => !isBlank(c));
  const blanks = request.candidates.flatMap((c, position) => (isBlank(c) ? [{ position, score: 0 }] : []));
  return {
    asked: { ...request, candidates, topN: Math.min(request.topN, candidates.length) },
    restore: (ranking) => [
      ...ranking.map(({ position, score }) => ({ position: kept[position] as number, score })),
      ...blanks,
    ],
  };
}
