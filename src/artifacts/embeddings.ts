/** What stage embed left: the items' text embeddings and the identity of the model. */
import { join } from "node:path";

export const embeddingFile = (dir: string): string => join(dir, "embeddings.f32");

export const embedderFile = (dir: string): string => join(dir, "embedder.json");
