/**
 * What stage sid left: the catalogue, the fitted quantizer and its identity, the codes' vectors; and IDs of later
 * items.
 */
import { join } from "node:path";
import type { Codes } from "../sid/semantic-id.ts";

export const catalogueFile = (dir: string): string => join(dir, "catalogue.json");

export const artifactFile = (dir: string): string => join(dir, "quantizer.safetensors");

/** The artifact's identity: sid/identity.ts. */
export const identityFile = (dir: string): string => join(dir, "quantizer.json");

/** Each code as a point in embedding space: [levels * codes, dims]. */
export const codeVectorsFile = (dir: string): string => join(dir, "code-vectors.f32");

/** A line of OUT. */
export interface EncodedItem {
  readonly item_id: string;
  readonly codes: Codes;
  /** The ID as spelled in the run's prompts. */
  readonly sid: string;
  /** True if the run knew the item: this is the ID it has there. */
  readonly known: boolean;
  /** The run's items with the nearest texts, nearest first. */
  readonly nearest: readonly { item_id: string; title: string; sid: string; similarity: number }[];
  /** Hash of the tokenizer that assigned the ID (stages/sid/quantizer.json). */
  readonly tokenizer: string;
}
