/** Settings of a module that the user brings, alike wherever a recipe can name one (docs/plugins.md). */
import { z } from "zod";
import { positive } from "./numbers.ts";

/** What every plug-in has besides the module itself. */
const more = {
  version: z
    .string()
    .default("")
    .describe(
      "Of what no hash covers: needed for http(s), whose code is elsewhere; else for files and services that the module reads. Another version runs its stage again.",
    ),
  options: z
    .record(z.string(), z.unknown())
    .default({})
    .describe("Handed to the module as they are; part of its stage's identity."),
  timeoutSeconds: positive.default(60).describe("Longest wait for one call of the module."),
};

const form = "a TypeScript or JavaScript file, a function of a Python file (./mine.py:name), or an http(s) address";

/** Keys of a section that can name a module in place of one of ours. */
export const pluginKeys = (what: string) => ({
  module: z.string().default("").describe(`${what}: ${form}; relative to the recipe.`),
  ...more,
});

/** A module that has a name of its own in the recipe. */
export const namedPlugin = z.strictObject({ module: z.string().min(1), ...more });
