/** What is written about the configuration is true: every setting is described, every example is a valid recipe. */
import { existsSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { describe, expect, it } from "vitest";
import { program } from "../../../src/cli/program.ts";
import { configRows, renderConfigDocs } from "../../../src/config/docs.ts";
import { loadConfig } from "../../../src/config/load.ts";
import { repositoryRoot } from "../../../src/core/paths.ts";

const guides = readdirSync(join(repositoryRoot, "docs"), { recursive: true, encoding: "utf8" })
  .filter((file) => file.endsWith(".md"))
  .map((file) => `docs/${file}`);
const documents = ["README.md", "CONTRIBUTING.md", "bench/README.md", ...guides.sort()];
const read = (path: string): string => readFileSync(join(repositoryRoot, path), "utf8");

describe("the documentation of settings", () => {
  it("describes every setting and gives every default", () => {
    const rows = configRows();
    expect(rows.length).toBeGreaterThan(100);
    expect(rows.filter((r) => r.description === "").map((r) => r.path)).toEqual([]);
    expect(rows.filter((r) => r.fallback === "" && !isOptional(r.path)).map((r) => r.path)).toEqual([]);
    const text = renderConfigDocs();
    for (const r of rows) expect(text).toContain(`| \`${r.path}\` |`);
  });

  it("is about settings that exist: the recipes in README.md and the guides are valid", () => {
    const blocks = ["README.md", "docs/data.md", "docs/models.md", "docs/teachers.md"].flatMap((d) =>
      [...read(d).matchAll(/```yaml\n([\s\S]*?)```/g)].map((m) => m[1] as string),
    );
    expect(blocks.length).toBeGreaterThanOrEqual(10);
    const folder = mkdtempSync(join(tmpdir(), "gr2-readme-"));
    blocks.forEach((block, i) => {
      const file = join(folder, `${i}.yaml`);
      writeFileSync(file, block.replace("../configs", join(repositoryRoot, "configs")));
      expect(() => loadConfig(file)).not.toThrow();
    });
  });

  it("is about settings that exist: every --set outside tables is valid, on the recipe its line names", () => {
    const lines = documents
      .flatMap((d) => read(d).replaceAll("\\\n", "").split("\n"))
      .filter((line) => !line.includes(" my.yaml") && !line.startsWith("|"));
    const commands = lines.flatMap((line) => {
      const assignments = [...line.matchAll(/--set ((?!path=value|serve\.NAME)[a-z][\w.]*=[^\s`)]*)/g)].map((m) =>
        (m[1] ?? "").replaceAll("'", "").replace(/"$/, ""),
      );
      const recipe = line.match(/configs\/[\w/-]+\.yaml/)?.[0] ?? "configs/nano-ml100k.yaml";
      return assignments.length > 0 ? [{ recipe, assignments }] : [];
    });
    expect(commands.length).toBeGreaterThan(20);
    for (const { recipe, assignments } of commands)
      expect(() => loadConfig(join(repositoryRoot, recipe), assignments), `${recipe} ${assignments}`).not.toThrow();
  });

  it("is about settings that exist: the recipe in docs/impressions.md is valid", () => {
    const [block = ""] = [...read("docs/impressions.md").matchAll(/```yaml\n([\s\S]*?)```/g)].map(
      (m) => m[1] as string,
    );
    const file = join(mkdtempSync(join(tmpdir(), "gr2-impressions-")), "log.yaml");
    writeFileSync(file, block);
    expect(loadConfig(file).prerank.kind).toBe("logged");
    expect(() => loadConfig(file, ["data.adapter=table"])).toThrow(/needs data.adapter = impressions/);
  });

  it("is shipped with recipes that are valid", () => {
    const recipes = readdirSync(join(repositoryRoot, "configs"), { recursive: true }).map(String);
    for (const file of recipes.filter((f) => f.endsWith(".yaml")))
      expect(() => loadConfig(join(repositoryRoot, "configs", file)), file).not.toThrow();
  });
});

describe("the documents", () => {
  it("name commands that exist", () => {
    const known = new Set(
      program().commands.flatMap((c) => [c.name(), ...c.commands.map((s) => `${c.name()} ${s.name()}`)]),
    );
    const groups = new Set(
      program()
        .commands.filter((c) => c.commands.length > 0 && c.name() !== "serve") // `gr2 serve NAME` stands for itself
        .map((c) => c.name()),
    );
    const named = documents.flatMap((d) => [...read(d).matchAll(/(?:^|`)gr2 ([a-z]+)(?: ([a-z]+))?/gm)]);
    expect(named.length).toBeGreaterThan(8);
    for (const [, command = "", sub = ""] of named)
      expect(known).toContain(groups.has(command) ? `${command} ${sub}`.trim() : command);
  });

  it("link and point to files that exist", () => {
    for (const d of documents) {
      const targets = [...read(d).matchAll(/\]\(([^)#:]+)\)/g)].map((m) =>
        join(repositoryRoot, dirname(d), m[1] as string),
      );
      const mentioned = [
        ...read(d).matchAll(/`((?:src|tests|bench|proto|python_worker|configs|docs)\/[\w./-]*)`/g),
      ].map((m) => join(repositoryRoot, m[1] as string));
      for (const path of [...targets, ...mentioned].filter((p) => !/NAME|VERSION/.test(p)))
        expect(existsSync(path), `${d}: ${path}`).toBe(true);
    }
  });
});

const isOptional = (path: string): boolean => /^(extends|data\.files\.\w+|data\.columns\.\w+)$/.test(path);
