/**
 * A setting that nothing sets is one that nobody has tried: each is in a recipe, a test or a benchmark, or is dropped.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { configRows } from "../../../src/config/docs.ts";
import { repositoryRoot } from "../../../src/core/paths.ts";

function read(folder: string, ending: RegExp): string[] {
  return readdirSync(join(repositoryRoot, folder), { recursive: true, encoding: "utf8" })
    .filter((file) => ending.test(file))
    .map((file) => readFileSync(join(repositoryRoot, folder, file), "utf8"));
}

/** The paths of a recipe: {rl: {steps: 1}} -> rl, rl.steps. */
const listPaths = (value: unknown, path = ""): string[] =>
  typeof value === "object" && value !== null && !Array.isArray(value)
    ? Object.entries(value).flatMap(([key, inner]) => {
        const own = path === "" ? key : `${path}.${key}`;
        return [own, ...listPaths(inner, own)];
      })
    : [];

/** Settings that no recipe names, and no text as rl.steps, `steps:`, `steps=` or a quoted "steps". */
function findUnset(paths: readonly string[], recipes: readonly string[], texts: readonly string[]): string[] {
  const named = new Set(recipes.flatMap((text) => listPaths(parse(text))));
  const text = texts.join("\n");
  return paths.filter((path) => {
    const key = path.slice(path.lastIndexOf(".") + 1);
    return !named.has(path) && !text.includes(path) && !new RegExp(`\\b${key}\\b\\s*[:=]`).test(text);
  });
}

describe("settings", () => {
  it("are each set by a recipe, a test or a benchmark", () => {
    const paths = configRows().map((row) => row.path);
    const texts = ["tests", "bench"].flatMap((folder) => read(folder, /\.(ts|py|yaml|json)$/));
    expect(findUnset(paths, read("configs", /\.yaml$/), texts)).toEqual([]);
  });

  it("that nothing sets are found", () => {
    expect(findUnset(["rl.steps", "rl.group", "rl.a", "rl.b", "rl.c"], ["rl: {a: 1}"], ["rl.b", "{ c: 1 }"])).toEqual([
      "rl.steps",
      "rl.group",
    ]);
  });
});
