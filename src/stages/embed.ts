/** Stage 1a, item embeddings: text (title, brand, categories, description) through a sentence-transformers model. */
import { join } from "node:path";
import type { Embedder } from "../sid/identity.ts";
import { openData } from "./corpus.ts";
import { embedderHash, embedderPath, embedTexts, itemText } from "./embedder.ts";
import { writeJson, writeMatrix } from "./files.ts";
import type { Stage, StageContext, Summary } from "./stage.ts";

export const embed: Stage = {
  name: "embed",
  inputs: ["data"],
  settings: (c) => c.embed,
  run,
};

export const embeddingFile = (dir: string): string => join(dir, "embeddings.f32");
export const embedderFile = (dir: string): string => join(dir, "embedder.json");

async function run(context: StageContext): Promise<Summary> {
  const { config, signal } = context;
  const { model, fields, batchSize } = config.embed;
  const { items } = openData(context).dataset;
  const worker = await context.worker(); // first: without its packages nothing below can work
  const modelPath = await embedderPath(config, (message) => context.log(message), signal);
  const texts = items.map((it) => itemText(it, fields));
  const embeddings = await embedTexts(worker, modelPath, texts, batchSize, {
    signal,
    progress: (done) => context.progress("embedding item texts", done, texts.length),
  });
  writeMatrix(embeddingFile(context.dir), embeddings);
  const embedder: Embedder = { model, hash: await embedderHash(modelPath), fields, dims: embeddings.cols };
  writeJson(embedderFile(context.dir), embedder);
  return { items: items.length, dims: embeddings.cols, empty_texts: texts.filter((t) => t === "").length };
}
