/** A slate for consumers that must not know its answer. */
import type { Slate } from "../prerank/types.ts";

/** A slate without its answer. */
export type UnlabelledSlate = Pick<Slate, "id" | "user" | "position" | "segment" | "candidates" | "scores">;

/** Removes the answer, for a teacher that must not know it. */
export const hideAnswer = ({ id, user, position, segment, candidates, scores }: Slate): UnlabelledSlate => ({
  id,
  user,
  position,
  segment,
  candidates,
  scores,
});
