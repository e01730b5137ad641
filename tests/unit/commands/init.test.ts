/** `gr2 init`: the project is a valid recipe with modules that keep their contracts, and its own tests pass. */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { initProject } from "../../../src/commands/init.ts";
import { inspectModule } from "../../../src/commands/inspect-module.ts";
import { loadConfig } from "../../../src/config/load.ts";
import { repositoryRoot } from "../../../src/core/paths.ts";
import { preparePlugins } from "../../../src/plugins/prepare.ts";

const folder = mkdtempSync(join(tmpdir(), "gr2-init-"));
const project = join(folder, "My Shop");
beforeAll(() => {
  initProject(project);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("a new project", () => {
  it("names modules that keep their contracts", async () => {
    const config = loadConfig(join(project, "recipe.yaml"));
    const prepared = await preparePlugins({ config });
    expect(prepared.reward.map((p) => p.module)).toEqual(["reward.ts"]);
    expect(prepared.prerank.map((p) => p.module)).toEqual(["pre-ranker.ts"]);
  });

  it("passes its own tests", () => {
    mkdirSync(join(project, "node_modules"));
    symlinkSync(join(repositoryRoot, "node_modules/tsx"), join(project, "node_modules/tsx"));
    const args = ["--import", "tsx", "--test", "reward.test.ts", "pre-ranker.test.ts"];
    const { NODE_OPTIONS: _, ...env } = process.env;
    expect(execFileSync(process.execPath, args, { cwd: project, encoding: "utf8", env })).toMatch(/# pass 3\n# fail 0/);
  });

  it("is never written over another", () => {
    expect(() => initProject(project)).toThrow("already exists and is not empty");
  });
});

describe("gr2 data inspect with a module", () => {
  it("counts what it reads, and says what is malformed", async () => {
    const { writeFileSync } = await import("node:fs");
    const module = join(folder, "shop.mjs");
    writeFileSync(
      module,
      `export default ({ options }) => ({ read: () => ({
        interactions: [{ user: 1, item: "a", time: new Date(1000) }, { user: 1, item: "b", time: 2 }, { user: "", item: "b", time: 3 }],
        items: [{ id: "a", title: options.title }],
      }) });`,
    );
    const found = await inspectModule({ path: "", module, options: { title: "A" }, version: "1" });
    expect(found).toMatchObject({ rowsRead: 3, malformed: 1, interactions: 2, users: 1, items: 2, catalogue: 1 });
    expect(found).toMatchObject({ unknownItems: 1, time: { first: 1, last: 2 } });
    expect(found.firstMalformed).toBe(`${module}:3: no user id`);
    expect(found.firstItems).toEqual([{ id: "a", title: "A", categories: "[]" }]);
    await expect(inspectModule({ path: "", module, options: {}, version: "" })).rejects.toThrow("needs data.version");
  });
});
