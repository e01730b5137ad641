/**
 * Stage 1a, item embeddings: text (title, brand, categories, description) through a sentence-transformers model.
 * The matrix is cached in data.cacheDir by texts and embedder (embedding-cache.ts).
 */
import { openData } from "../artifacts/dataset.ts";
import { embedderFile, embeddingFile } from "../artifacts/embeddings.ts";
import { writeJson, writeMatrix } from "../artifacts/files.ts";
import { embedderHash, embedderPath, embedTexts, itemText } from "../models/embedder.ts";
import { cachedEmbeddings, cacheEmbeddings, embeddingKey } from "../models/embedding-cache.ts";
import type { Stage, StageContext, Summary } from "../run/stage.ts";
import type { Embedder } from "../sid/identity.ts";

export const embed: Stage = {
  name: "embed",
  source: import.meta.url,
  inputs: ["data"],
  verbs: ["embed"],
  settings: (c) => c.embed,
  run,
};

async function run(context: StageContext): Promise<Summary> {
  const { config, signal } = context;
  const { model, fields, batchSize } = config.embed;
  const { items } = (await openData(context)).dataset;
  const worker = await context.worker(); // first, because everything below needs its packages
  const modelPath = await embedderPath(config, (message) => context.log(message), signal);
  const hash = await embedderHash(modelPath);
  const texts = items.map((it) => itemText(it, fields));
  const key = embeddingKey({ modelPath, modelHash: hash, texts, batchSize, worker: await worker.getInfo({ signal }) });
  let embeddings = key && (await cachedEmbeddings(config, key, texts.length));
  if (embeddings) context.log(`the embeddings of these ${texts.length} texts are cached in ${config.data.cacheDir}`);
  else {
    embeddings = await embedTexts(worker, modelPath, texts, batchSize, {
      signal,
      progress: (done) => context.progress("embedding item texts", done, texts.length),
    });
    if (key) await cacheEmbeddings(config, key, embeddings);
  }
  writeMatrix(embeddingFile(context.dir), embeddings);
  const embedder: Embedder = { model, hash, fields, dims: embeddings.cols };
  writeJson(embedderFile(context.dir), embedder);
  return { items: items.length, dims: embeddings.cols, empty_texts: texts.filter((t) => t === "").length };
}
