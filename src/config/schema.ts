/**
 * Every setting of a run: its type, default, meaning and, if any, its source in the paper.
 * Defaults live here (schema/*.ts) and nowhere else. `gr2 config docs` prints them as a table.
 */
import { z } from "zod";
import { data, prerank } from "./schema/data.ts";
import { evaluation } from "./schema/evaluation.ts";
import { evidence } from "./schema/evidence.ts";
import { embed, sid } from "./schema/items.ts";
import { decoding, model, prompts, runtime } from "./schema/model.ts";
import { serve } from "./schema/serve.ts";
import { midtrain, rl, sft, teacher } from "./schema/training.ts";

export const configSchema = z.strictObject({
  extends: z
    .string()
    .optional()
    .describe(
      "Another config file whose settings this one overrides: a path relative to this file, " +
        "or the name of a shipped config (configs/).",
    ),
  description: z.string().default("").describe("One-line description for readers."),
  seed: z.int().min(0).default(0).describe("Seed of every random draw."),
  refit: z
    .boolean()
    .default(false)
    .describe(
      "Learn from everything before the evaluated position: " +
        "the pre-rankers that make the test slates and the evidence " +
        "are fitted up to the end of the validation segment instead of the re-rank segment, " +
        "and the language model of direct mode is trained on what came before each slate (midtrain.refit).",
    ),
  runtime,
  data,
  embed,
  sid,
  model,
  midtrain,
  prerank,
  prompts,
  decoding,
  evidence,
  teacher,
  sft,
  rl,
  eval: evaluation,
  serve,
});

type DeepReadonly<T> = T extends (infer U)[]
  ? readonly DeepReadonly<U>[]
  : T extends object
    ? { readonly [K in keyof T]: DeepReadonly<T[K]> }
    : T;

/** The compiled configuration: complete, checked, frozen. Nothing downstream reads anything else. */
export type Config = DeepReadonly<z.output<typeof configSchema>>;
