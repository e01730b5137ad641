/** What editors, shells and scripts are given: the schema of recipes, completion, --version, --json, exit codes. */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Command } from "commander";
import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { z } from "zod";
import { bashCompletion } from "../../../src/cli/completion.ts";
import { explainReward } from "../../../src/cli/explain.ts";
import { plan } from "../../../src/cli/plan.ts";
import { program } from "../../../src/cli/program.ts";
import { showRollouts, showRuns } from "../../../src/cli/show.ts";
import { configRows } from "../../../src/config/docs.ts";
import { configJsonSchema } from "../../../src/config/json-schema.ts";
import { exitCodes } from "../../../src/core/errors.ts";
import { repositoryRoot } from "../../../src/core/paths.ts";

const recipes = ["configs", "configs/ablations"].flatMap((folder) =>
  readdirSync(join(repositoryRoot, folder))
    .filter((name) => name.endsWith(".yaml"))
    .map((name) => `${folder}/${name}`),
);

describe("the JSON Schema of recipes", () => {
  const schema = z.fromJSONSchema(configJsonSchema() as Parameters<typeof z.fromJSONSchema>[0]);
  const accepts = (recipe: unknown): boolean => schema.safeParse(recipe).success;

  it.each(recipes)("accepts %s, which names it", (recipe) => {
    const text = readFileSync(join(repositoryRoot, recipe), "utf8");
    const up = recipe.startsWith("configs/ablations/") ? "../" : "";
    expect(text.split("\n")[0]).toBe(`# yaml-language-server: $schema=${up}gr2.schema.json`);
    expect(accepts(parse(text))).toBe(true);
  });

  it("refuses unknown settings, wrong types and values out of range", () => {
    expect(accepts({})).toBe(true);
    expect(accepts({ rl: { stepz: 3 } })).toBe(false);
    expect(accepts({ rl: { steps: "many" } })).toBe(false);
    expect(accepts({ seed: -1 })).toBe(false);
    expect(accepts({ sid: { method: "rqvaee" } })).toBe(false);
  });

  it("has every setting with its meaning, and requires none", () => {
    type Node = { properties?: Record<string, Node>; description?: string; required?: unknown };
    const root = configJsonSchema() as Node;
    expect(JSON.stringify(root)).not.toContain('"required":["rl"');
    for (const { path, description } of configRows()) {
      const node = path.split(".").reduce<Node | undefined>((n, key) => n?.properties?.[key], root);
      expect([path, node?.description ?? ""]).toEqual([path, description.replaceAll("\\|", "|")]);
    }
  });
});

describe("completion in bash", () => {
  const folder = mkdtempSync(join(tmpdir(), "gr2-completion-"));
  mkdirSync(join(folder, "runs", "first-run"), { recursive: true });
  writeFileSync(join(folder, "gr2.bash"), bashCompletion(program()));
  const complete = (...words: string[]): string[] => {
    const script = `source ./gr2.bash; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _gr2; printf '%s\\n' "\${COMPREPLY[@]}"`;
    const out = execFileSync("bash", ["-c", script, "bash", "gr2", ...words], { cwd: folder, encoding: "utf8" });
    return out.split("\n").filter(Boolean);
  };

  it("knows commands, subcommands, options, stages and runs", () => {
    expect(complete("pi")).toEqual(["pipeline"]);
    expect(complete("sid", "")).toEqual(expect.arrayContaining(["report", "encode", "ablate"]));
    expect(complete("pipeline", "--se")).toEqual(["--set", "--seeds"]);
    expect(complete("pipeline", "--until", "mid")).toEqual(["midtrain"]);
    expect(complete("run", "show", "fir")).toEqual(["first-run"]);
    expect(complete("compare", "first-run", "first")).toEqual(["first-run"]);
    expect(complete("serve", "token", "--")).not.toContain("--http-port");
    expect(complete("nonsense", "zzz")).toEqual([]);
  });
});

describe("what scripts rely on", () => {
  it("gives --json to every command that prints a table", () => {
    const find = (path: string) =>
      path.split(" ").reduce<Command | undefined>((c, name) => c?.commands.find((x) => x.name() === name), program());
    const tables = [
      ...["compare", "doctor", "plan", "run show", "rollout show", "reward explain", "sid report", "data inspect"],
      ...["data show", "config docs", "rerank"],
    ];
    for (const path of tables)
      expect([path, find(path)?.options.some((o) => o.long === "--json")]).toEqual([path, true]);
  });

  it("prints JSON that can be read", async () => {
    const root = mkdtempSync(join(tmpdir(), "gr2-"));
    mkdirSync(join(root, "r", "stages"), { recursive: true });
    expect(JSON.parse(showRuns({ root, json: true }))).toEqual([{ run: "r", state: "?", updated: "" }]);
    expect(JSON.parse(showRollouts("r", { root, n: 3, json: true }))).toEqual([]);
    const config = "configs/nano-ml100k.yaml";
    expect(JSON.parse(plan({ config, set: [], memory: 8, json: true }))).toMatchObject({ fits: true });
    const explained = await explainReward({
      config,
      set: [],
      root,
      candidates: 3,
      target: 2,
      response: "c2 c1 c3<|end|>",
      json: true,
    });
    expect(JSON.parse(explained)).toMatchObject({ mode: "answer", before: 1, after: 0 });
  });

  it("documents every exit code, in docs/runs.md and in --help", () => {
    const docs = readFileSync(join(repositoryRoot, "docs/runs.md"), "utf8");
    let help = "";
    const gr2 = program({ write: () => true } as unknown as NodeJS.WriteStream);
    gr2.configureOutput({ writeOut: (text) => (help += text) }).outputHelp();
    for (const [name, code] of Object.entries(exitCodes)) {
      expect(docs).toMatch(new RegExp(`^\\| ${code} \\|.*\\b${name}\\b`, "m"));
      expect(help.replace(/\s+/g, " ")).toContain(`${code} ${name.toLowerCase()}`);
    }
  });

  it("has a version: the package's", () => {
    const { version } = JSON.parse(readFileSync(join(repositoryRoot, "package.json"), "utf8")) as { version: string };
    expect(program().version()).toBe(version);
  });
});
