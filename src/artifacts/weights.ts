/** What a training stage leaves: the tokenizer of a model from scratch, and the folder of its weights. */
import { join } from "node:path";

export const tokenizerFile = (dir: string): string => join(dir, "tokenizer.json");

export const stateDir = (dir: string): string => join(dir, "state");

/** Weights of a stage that evaluation has refitted through the validation segment, in its own folder; not always there. */
export const refitDir = (evaluateDir: string, stage: string): string => join(evaluateDir, "refit", stage);
