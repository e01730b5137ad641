/** A slate as whoever must not know its answer gets it. */
import type { Slate } from "../prerank/types.ts";

/** A slate without its answer. */
export type UnlabelledSlate = Pick<Slate, "id" | "user" | "position" | "segment" | "candidates" | "scores">;

/** Drops the answer; what is handed to a teacher that must not know it. */
export const hideAnswer = ({ id, user, position, segment, candidates, scores }: Slate): UnlabelledSlate => ({
  id,
  user,
  position,
  segment,
  candidates,
  scores,
});
