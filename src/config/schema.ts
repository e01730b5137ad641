/**
 * Every setting of a run: its type, its default, what it means and, where it has one, its source in the paper.
 * Defaults live here (schema/*.ts) and nowhere else. `gr2 config docs` prints them as a table.
 */
import { z } from "zod";
import { data, prerank } from "./schema/data.ts";
import { evidence } from "./schema/evidence.ts";
import { embed, sid } from "./schema/items.ts";
import { decoding, model, prompts, runtime } from "./schema/model.ts";
import { serve } from "./schema/serve.ts";
import { evaluation, midtrain, rl, sft, teacher } from "./schema/training.ts";

export const configSchema = z.strictObject({
  extends: z
    .string()
    .optional()
    .describe(
      "Another config file whose settings these override: relative to this one, or the name of one that GR2 ships (configs/).",
    ),
  description: z.string().default("").describe("One line for people."),
  seed: z.int().min(0).default(0).describe("Everything random derives from this."),
  refit: z
    .boolean()
    .default(false)
    .describe(
      "Learn from all that comes before the evaluated position: test slates come from pre-rankers and evidence fitted through the validation segment, not only through the re-rank segment, and the language model of direct mode has learned what came before each slate (midtrain.refit).",
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
