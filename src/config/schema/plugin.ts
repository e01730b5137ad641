/** Settings of a user's module, the same wherever a recipe can name one (docs/plugins.md). */
import { z } from "zod";
import { positive } from "./numbers.ts";

/** Keys of every plug-in besides the module itself. */
const more = {
  version: z
    .string()
    .default("")
    .describe(
      "Version of everything that cannot be hashed: required for http(s), whose code runs elsewhere; " +
        "otherwise for files and services that the module reads. A new version reruns the module's stage.",
    ),
  options: z
    .record(z.string(), z.unknown())
    .default({})
    .describe("Passed to the module unchanged; part of its stage's identity."),
  timeoutSeconds: positive.default(60).describe("Time limit per call of the module."),
};

const form = "a TypeScript or JavaScript file, a function of a Python file (./mine.py:name), or an http(s) address";

/** Keys of a section that can name a module in place of a built-in one. */
export const pluginKeys = (what: string) => ({
  module: z.string().default("").describe(`${what}: ${form}; relative to the recipe.`),
  ...more,
});

/** A module with its own name in the recipe. */
export const namedPlugin = z.strictObject({ module: z.string().min(1), ...more });
