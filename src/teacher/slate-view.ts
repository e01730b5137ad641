/** A slate as whoever must not know its answer gets it. */
import type { Slate } from "../prerank/types.ts";

/** A slate without its answer. */
export type SlateView = Pick<Slate, "id" | "user" | "position" | "segment" | "candidates" | "scores">;

/** Drops the answer; what is handed to a teacher that must not know it. */
export const viewOf = ({ id, user, position, segment, candidates, scores }: Slate): SlateView => ({
  id,
  user,
  position,
  segment,
  candidates,
  scores,
});
