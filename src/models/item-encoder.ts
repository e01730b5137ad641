/** A run's semantic-ID tokenizer outside the pipeline: opens it, checks its embedder, assigns codes to texts. */
import { existsSync, readFileSync } from "node:fs";
import { readJson } from "../artifacts/files.ts";
import { artifactFile, catalogueFile, identityFile } from "../artifacts/semantic-ids.ts";
import type { Config } from "../config/schema.ts";
import { CheckpointError, RunError } from "../core/errors.ts";
import type { RunFolder } from "../run/run-folder.ts";
import { Catalogue } from "../sid/catalogue.ts";
import { checkIdentity, type TokenizerIdentity } from "../sid/identity.ts";
import type { Codes } from "../sid/semantic-id.ts";
import type { IntMatrix, Matrix, WorkerClient } from "../worker/types.ts";
import { embedderHash, embedderPath, embedTexts } from "./embedder.ts";

/** What assigns IDs to a run's items. */
export interface ItemEncoder {
  readonly catalogue: Catalogue;
  readonly artifact: Uint8Array;
  readonly identity: TokenizerIdentity;
}

/**
 * Codes of texts, each as if it came alone: they depend on the text and the tokenizer; the rest of the batch changes
 * only the last bits of a float32 (1.6e-7 measured), which can flip a code on the edge of another. Two texts may get
 * one ID, and a text equal to a fitted item's gets that item's. For serving; permanent IDs come from encodeItems.
 * @param modelPath the embedding model the tokenizer was fitted with (checkEmbedder)
 */
export async function encodeTexts(
  worker: WorkerClient,
  { artifact }: Pick<ItemEncoder, "artifact">,
  modelPath: string,
  texts: readonly string[],
  options: { readonly collaborativeDims: number; readonly signal: AbortSignal },
): Promise<Codes[]> {
  const text = await embedTexts(worker, modelPath, texts, texts.length, { signal: options.signal });
  const embeddings = withoutEvidence(text, options.collaborativeDims);
  const taken = { rows: 0, cols: 0, data: new Int32Array() };
  return toCodes(
    await worker.encodeSemanticIds({ artifact, embeddings, taken, apart: true }, { signal: options.signal }),
  );
}

/** The embedding model of a run. Throws CheckpointError if its tokenizer was fitted with another. */
export async function checkEmbedder(
  config: Config,
  identity: TokenizerIdentity,
  log: (message: string) => void,
  signal: AbortSignal,
): Promise<string> {
  const modelPath = await embedderPath(config, log, signal);
  const hash = await embedderHash(modelPath);
  if (hash !== identity.embedder.hash)
    throw new CheckpointError(
      `the embedding model ${config.embed.model} is ${hash}, the tokenizer was fitted with ${identity.embedder.hash}`,
      {
        advice: "Restore the model the run used: another one places texts elsewhere, so its IDs would be meaningless.",
      },
    );
  return modelPath;
}

/** A run's catalogue with the artifact it came from. Throws CheckpointError if they do not belong together. */
export function openItemEncoder(run: RunFolder): ItemEncoder {
  const dir = run.file("stages", "sid");
  if (!existsSync(identityFile(dir)))
    throw new RunError(`run ${run.name} has no semantic IDs yet`, { advice: "The sid stage makes them." });
  const catalogue = Catalogue.fromJSON(readJson(catalogueFile(dir)));
  const artifact = readFileSync(artifactFile(dir));
  return { catalogue, artifact, identity: checkIdentity(readJson(identityFile(dir)), artifact, catalogue) };
}

export const toCodes = ({ rows, cols, data }: IntMatrix): Codes[] =>
  Array.from({ length: rows }, (_, row) => Array.from(data.subarray(row * cols, (row + 1) * cols)));

/** The quantizer's input: text embeddings, with zeros for the co-occurrence part. */
export function withoutEvidence(text: Matrix, dims: number): Matrix {
  const cols = text.cols + dims;
  const data = new Float32Array(text.rows * cols);
  for (let row = 0; row < text.rows; row++)
    data.set(text.data.subarray(row * text.cols, (row + 1) * text.cols), row * cols);
  return { rows: text.rows, cols, data };
}
