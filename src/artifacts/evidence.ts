/**
 * What stage evidence left: a score for every candidate of every slate, the model for serving, the importance of
 * features.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import type { Config } from "../config/schema.ts";
import { RunError } from "../core/errors.ts";
import type { Item } from "../data/types.ts";
import { Features } from "../evidence/features.ts";
import { itemTable } from "../evidence/items.ts";
import { type EvidenceModel, openModel, type SavedModel } from "../evidence/model.ts";
import type { Statistics } from "../evidence/statistics.ts";
import type { StageContext } from "../run/stage.ts";
import { readJson, readMatrix, readScores } from "./files.ts";

/** Names the pair of files that hold the scores (files.ts). */
export const scoresName = "evidence";

/**
 * Models whose scores on validation and test slates are stored beside the evidence, unless they are the evidence
 * itself.
 */
const partNames = ["lambdamart", "listwise"] as const;
export type PartName = (typeof partNames)[number];

export const modelFile = (dir: string): string => join(dir, "model.json");

/** The embeddings as features compare them: centred, cut to their leading components, of unit norm. */
export const itemVectorsFile = (dir: string): string => join(dir, "item-vectors.f32");

export const importanceFile = (dir: string): string => join(dir, "importance.json");

/** model.json */
export interface SavedEvidence {
  /** Pre-rankers whose scores the slates carry. */
  readonly experts: readonly string[];
  readonly families: Config["evidence"]["families"];
  readonly model: SavedModel;
}

/** One entry of importance.json, sorted by importance. */
export interface Importance {
  readonly feature: string;
  readonly family: string;
  /** Share of the total loss reduction (trees), or of the absolute weights (listwise). */
  readonly share: number;
}

/** The scores of every candidate by slate id: out of sample for each slate. */
export const readEvidence = (context: StageContext): Readonly<Record<string, readonly number[]>> =>
  readScores(context.inputDir("evidence"), scoresName);

/** Scores by slate id of each model stored beside the evidence. */
export function readParts(context: StageContext): [PartName, Readonly<Record<string, readonly number[]>>][] {
  const dir = context.inputDir("evidence");
  return partNames.filter((name) => existsSync(join(dir, `${name}.json`))).map((name) => [name, readScores(dir, name)]);
}

export interface OpenedEvidence {
  readonly model: EvidenceModel;
  readonly features: Features;
  /** Pre-rankers whose scores of every candidate it needs. */
  readonly experts: readonly string[];
}

/** The model that scored the test slates, with its features computed from the given statistics. */
export function openEvidence(dir: string, items: readonly Item[], statistics: Statistics): OpenedEvidence {
  const saved = readJson<SavedEvidence>(modelFile(dir));
  const vectors = itemVectorsFile(dir);
  const table = itemTable(items);
  const { cols: dims, data: vectors_ID } = existsSync(vectors) ? readMatrix(vectors) : { cols: 0, data: undefined };
  const known = vectors_ID === undefined ? table : { ...table, embeddings: { dims, vectors_ID } };
  const features = new Features(known, statistics, saved.families, saved.experts);
  const model = openModel(saved.model);
  if (model.features.join() !== features.names.join())
    throw new RunError(`${modelFile(dir)}: its features are those of another version`, {
      advice: "Rerun the stage that fits it: gr2 pipeline --from evidence.",
    });
  return { model, features, experts: saved.experts };
}
