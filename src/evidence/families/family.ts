/** What a family of features is: named columns, written for one slate at a time. */
import type { familyNames } from "../../config/schema/evidence.ts";

/** A slate as features see it: without its answer. */
export interface FeatureInput {
  /** Item rows, oldest first; everything before the answer. */
  readonly history: Int32Array;
  /** Time of the last history item, seconds: the slate's clock. The answer's own time is not used. */
  readonly now: number;
  /** Item rows, in pre-rank order; distinct. */
  readonly candidates: readonly number[];
  readonly scores: readonly number[];
  /** Each candidate's position, from 0; equal scores share one. Default: its index. */
  readonly positions?: readonly number[];
  /** See prerank's Slate. */
  readonly experts?: Readonly<Record<string, readonly (number | null)[]>>;
}

export type FamilyName = (typeof familyNames)[number];

export interface Family {
  readonly name: FamilyName;
  readonly columns: readonly string[];
  /**
   * Writes its columns for every candidate: column f of candidate i goes to out[at + i * stride + f]. NaN: unknown.
   * Changes nothing else in `out`.
   */
  write(input: FeatureInput, out: Float32Array, at: number, stride: number): void;
}

/** Latest items of the history that are compared with every candidate. */
export const compared = 20;
/** The latest of those, whose texts are compared too. */
export const comparedTexts = 10;
