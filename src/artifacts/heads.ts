/** Slates and their evidence as the language model sees them: whole, or only their heads (prompts.candidates). */
import type { Segment } from "../data/types.ts";
import { cutToHead, type Parted, partCandidates, pick } from "../prerank/heads.ts";
import type { Slate } from "../prerank/types.ts";
import type { StageContext } from "../run/stage.ts";
import { readEvidence } from "./evidence.ts";
import { readSlates } from "./slates.ts";

export type EvidenceBySlate = Readonly<Record<string, readonly number[]>>;

export interface Heads {
  /** In the order of the whole slates; a true item outside the head counts as missed. */
  readonly slates: readonly Slate[];
  readonly evidence: EvidenceBySlate;
  /** The candidates of the whole slate they contain. */
  readonly parts: readonly Parted[];
}

/** @param most prompts.candidates; 0 = all */
export function cutHeads(slates: readonly Slate[], evidence: EvidenceBySlate, most: number): Heads {
  const parts = slates.map((s) => partCandidates(s.candidates.length, most, evidence[s.id]));
  return {
    slates: slates.map((s, i) => cutToHead(s, parts[i] as Parted)),
    evidence: Object.fromEntries(
      slates.map((s, i) => [s.id, pick(evidence[s.id] as readonly number[], (parts[i] as Parted).head)]),
    ),
    parts,
  };
}

export const readHeads = (context: StageContext, segment: Segment): Heads =>
  cutHeads(readSlates(context, segment), readEvidence(context), context.config.prompts.candidates);
