/**
 * Embeddings cached in data.cacheDir by content, so another run, another split or an ablation of the semantic IDs does
 * not recompute them. The key covers everything that can change a bit of them: the embedder's files, the texts, the
 * batch size, this code, and the worker's device, threads and versions. A hub id names no files, so it is not cached.
 *
 *   CACHE/embeddings/KEY.f32   the matrix (files.ts), written first
 *   CACHE/embeddings/KEY.json  its shape and SHA-256; if missing or not matching, the matrix is computed again
 */
import { statSync } from "node:fs";
import { join } from "node:path";
import { readMatrix, writeJson, writeMatrix } from "../artifacts/files.ts";
import type { Config } from "../config/schema.ts";
import { hashJson, sha256File } from "../core/hash.ts";
import { codeHash } from "../run/code-hash.ts";
import { makeFolder, tryReadJson } from "../run/files.ts";
import type { Matrix, WorkerInfo } from "../worker/types.ts";

interface Receipt {
  readonly rows: number;
  readonly cols: number;
  readonly sha256: string;
}

export interface EmbeddingKeyParts {
  /** The embedder: a folder, or else a hub id. */
  readonly modelPath: string;
  /** Hash of the folder's files (embedder.ts). */
  readonly modelHash: string;
  readonly texts: readonly string[];
  readonly batchSize: number;
  readonly worker: WorkerInfo;
}

/** Undefined if the embedder is not a folder on this machine: its weights are then unknown. */
export function embeddingKey(parts: EmbeddingKeyParts): string | undefined {
  const { modelPath, modelHash, texts, batchSize, worker } = parts;
  if (!statSync(modelPath, { throwIfNoEntry: false })?.isDirectory()) return undefined;
  const { device, numThreads, torchVersion, transformersVersion } = worker;
  return hashJson({
    model: modelHash,
    texts,
    batchSize,
    worker: { device, numThreads, torchVersion, transformersVersion },
    code: codeHash(["src/models/embedder.ts"], ["embed"]),
  });
}

const cacheFile = (config: Config, key: string, ending: string): string =>
  join(config.data.cacheDir, "embeddings", `${key}.${ending}`);

/** The matrix kept under a key; undefined if there is none or it is damaged. */
export async function cachedEmbeddings(config: Config, key: string, rows: number): Promise<Matrix | undefined> {
  const receipt = tryReadJson(cacheFile(config, key, "json")) as Receipt | undefined;
  const path = cacheFile(config, key, "f32");
  if (receipt?.rows !== rows || !statSync(path, { throwIfNoEntry: false })?.isFile()) return undefined;
  return (await sha256File(path)) === receipt.sha256 ? readMatrix(path) : undefined;
}

export async function cacheEmbeddings(config: Config, key: string, matrix: Matrix): Promise<void> {
  makeFolder(join(config.data.cacheDir, "embeddings"));
  const path = cacheFile(config, key, "f32");
  writeMatrix(path, matrix);
  const receipt: Receipt = { rows: matrix.rows, cols: matrix.cols, sha256: await sha256File(path) };
  writeJson(cacheFile(config, key, "json"), receipt);
}
