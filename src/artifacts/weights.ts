/**
 * What a training stage leaves: the tokenizer of a model from scratch, and the folder of its weights. Only this file
 * reads the note in such a folder, or in one that `gr2 export` wrote.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { CheckpointError } from "../core/errors.ts";
import { type StateNote, stateFile, stateFormatVersion } from "../worker/saved-state.ts";
import { readJson } from "./files.ts";

export const tokenizerFile = (dir: string): string => join(dir, "tokenizer.json");

export const stateDir = (dir: string): string => join(dir, "state");

/**
 * A stage's weights, refitted by evaluation through the validation segment and stored in evaluation's folder; may be
 * absent.
 */
export const refitDir = (evaluateDir: string, stage: string): string => join(evaluateDir, "refit", stage);

/** Written by `gr2 export`. */
export const exportFile = "gr2_export.json";
export const exportSchema = "gr2.export/1";

export interface SavedWeights {
  readonly path: string;
  /** lora: holds only the trained weights, to be applied to the base model in the run's recipe. */
  readonly kind: "state" | "lora" | "export";
  /** What the weights belong to, as far as recorded. */
  readonly metadata: Readonly<Record<string, string>>;
  /** Of the weights file; "" for an export. */
  readonly sha256: string;
}

/** The file that describes a folder's weights; undefined: it holds neither saved weights nor an export. */
export const findWeightsFile = (folder: string): string | undefined =>
  [exportFile, stateFile].map((name) => join(folder, name)).find((file) => existsSync(file));

/**
 * The description of a folder's weights; undefined: it holds neither saved weights nor an export.
 * @throws CheckpointError if it cannot be read or another version of GR2 wrote it
 */
export function readSavedWeights(folder: string): SavedWeights | undefined {
  const file = findWeightsFile(folder);
  if (file === undefined) return undefined;
  if (file.endsWith(exportFile)) {
    const metadata = readJson<SavedWeights["metadata"]>(file);
    if (metadata.schema !== exportSchema) throw wrongVersion(file, "schema", metadata.schema, exportSchema);
    return { path: folder, kind: "export", metadata, sha256: "" };
  }
  const { format_version: version, base, metadata, sha256 } = readJson<StateNote>(file);
  if (version !== stateFormatVersion) throw wrongVersion(file, "format_version", version, stateFormatVersion);
  return { path: folder, kind: base === "" ? "state" : "lora", metadata, sha256 };
}

const wrongVersion = (file: string, key: string, found: unknown, expected: unknown): CheckpointError =>
  new CheckpointError(`${file}: ${key} is ${JSON.stringify(found)}, this release reads ${JSON.stringify(expected)}`, {
    advice: "Use the release of GR2 that wrote it, or train and export again.",
  });
