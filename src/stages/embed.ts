/**
 * Stage 1a, item embeddings: text (title, brand, categories, description) through a sentence-transformers model.
 * Equal texts under an equal embedder are embedded once: the matrix is kept in data.cacheDir (embedding-cache.ts).
 */
import { join } from "node:path";
import { fetchMiniLm } from "../data/fetch.ts";
import type { Item } from "../data/types.ts";
import type { Matrix } from "../worker/types.ts";
import { openData } from "./corpus.ts";
import { cachedEmbeddings, cacheEmbeddings, embeddingKey } from "./embedding-cache.ts";
import { writeMatrix } from "./files.ts";
import type { Stage, StageContext, Summary } from "./stage.ts";

export const embed: Stage = {
  name: "embed",
  inputs: ["data"],
  settings: (c) => c.embed,
  run,
};

export const embeddingFile = (dir: string): string => join(dir, "embeddings.f32");

async function run(context: StageContext): Promise<Summary> {
  const { config } = context;
  const { items } = openData(context).dataset;
  const worker = await context.worker(); // first: without its packages nothing below can work
  const modelPath =
    config.embed.model === "minilm"
      ? await fetchMiniLm({
          dir: config.data.cacheDir,
          python: config.runtime.python,
          progress: (message) => context.log(message),
          signal: context.signal,
        })
      : config.embed.model;
  const texts = items.map((it) => itemText(it, config.embed.fields));
  const { batchSize } = config.embed;
  const key = await embeddingKey({ modelPath, texts, batchSize, worker: await worker.getInfo() });
  let matrix = key && (await cachedEmbeddings(config, key, texts.length));
  if (matrix) context.log(`the embeddings of these ${texts.length} texts are in ${config.data.cacheDir} already`);
  else {
    matrix = await embedTexts(context, modelPath, texts);
    if (key) await cacheEmbeddings(config, key, matrix);
  }
  writeMatrix(embeddingFile(context.dir), matrix);
  return { items: items.length, dims: matrix.cols, empty_texts: texts.filter((t) => t === "").length };
}

async function embedTexts(context: StageContext, modelPath: string, texts: readonly string[]): Promise<Matrix> {
  const worker = await context.worker();
  const chunk = 512;
  const parts: Float32Array[] = [];
  let cols = 0;
  for (let start = 0; start < texts.length; start += chunk) {
    const part = texts.slice(start, start + chunk);
    const m = await worker.embed(
      { modelPath, texts: part, batchSize: context.config.embed.batchSize, normalize: true },
      { signal: context.signal },
    );
    parts.push(m.data);
    cols = m.cols;
    context.progress("embedding item texts", start + part.length, texts.length);
  }
  const data = new Float32Array(texts.length * cols);
  let at = 0;
  for (const p of parts) {
    data.set(p, at);
    at += p.length;
  }
  return { rows: texts.length, cols, data };
}

/** The text an item is embedded by; empty fields are left out. */
export function itemText(item: Item, fields: readonly ("title" | "brand" | "categories" | "description")[]): string {
  const parts = fields.map((f) => (f === "categories" ? item.categories.join(", ") : item[f]));
  return parts.filter((p) => p !== "").join(". ");
}
