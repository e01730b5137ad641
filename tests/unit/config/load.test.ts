import { mkdtempSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { configRows, renderConfigDocs } from "../../../src/config/docs.ts";
import { configHash, loadConfig } from "../../../src/config/load.ts";
import { ConfigError } from "../../../src/core/errors.ts";
import { repositoryRoot } from "../../../src/core/paths.ts";

const dir = mkdtempSync(join(tmpdir(), "gr2-config-"));
const file = (name: string, body: string): string => {
  const path = join(dir, name);
  writeFileSync(path, body);
  return path;
};
const catchMessage = (body: string, overrides: string[] = []): string => {
  try {
    loadConfig(file("bad.yaml", body), overrides);
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigError);
    return (error as ConfigError).message;
  }
  throw new Error("nothing was refused");
};

describe("loadConfig", () => {
  it("fills every default from an empty file and freezes the result", () => {
    const config = loadConfig(file("empty.yaml", ""));
    expect(config.rl.clipHigh).toBe(0.28);
    expect(Object.isFrozen(config.rl.reward)).toBe(true);
  });

  it("names path, value and nearest key of what is wrong", () => {
    expect(catchMessage("sid: {level: 3}")).toContain("unknown setting sid.level; did you mean sid.levels?");
    expect(catchMessage("learningRate: 3")).toContain("unknown setting learningRate");
    expect(catchMessage("rl: {steps: many}")).toContain('rl.steps = "many"');
    expect(catchMessage("rl: {group: 1}")).toContain("rl.group = 1");
    expect(catchMessage("seed: [1")).toContain("not valid YAML");
    expect(catchMessage("- a\n- b")).toContain("expected a mapping");
  });

  it("refuses impossible combinations", () => {
    expect(catchMessage("data: {split: {test: .5}}")).toContain("must add up to 1");
    expect(catchMessage("data: {split: {kind: global-time, test: .5}}")).toContain("must add up to 1");
    expect(catchMessage("model: {source: pretrained}")).toContain("needs model.path");
    expect(catchMessage("sft: {lambdaReasoning: 2}")).toContain("must be below sft.lambdaRanking");
    expect(catchMessage("evidence: {midtrainFolds: 1}")).toContain("2 or more");
    expect(catchMessage("{evidence: {midtrainFolds: 3}, prerank: {kind: sasrec}}")).toContain("not sasrec");
    expect(catchMessage("runtime: {mode: remote}")).toContain("needs runtime.address");
    expect(catchMessage("rl: {reward: {dehacked: true}}")).toContain("needs rl.reward.kind = ndcg or auc");
  });

  it("refuses settings of the data that the adapter does not read", () => {
    const refused = (settings: string): string => catchMessage(`data: {adapter: amazon2023, path: x, ${settings}}`);
    expect(refused("timeUnit: seconds")).toContain(
      "data.timeUnit needs data.adapter = table or recbole or impressions",
    );
    expect(refused("encoding: latin1")).toContain("data.encoding needs data.adapter");
    expect(refused("categorySeparator: '>'")).toContain("data.categorySeparator needs data.adapter");
    expect(refused("clock: false")).toContain("data.clock needs data.adapter = table");
    expect(refused("files: {itemIds: map.csv}")).toContain("data.files.itemIds needs data.adapter = table");
    expect(refused("columns: {slate: request}")).toContain("data.columns.slate");
  });

  it("case 23: paths in a recipe are relative to the recipe, defaults to the installation, --set to the directory", () => {
    const recipe = file("elsewhere.yaml", "data: {adapter: table, path: shop}");
    expect(loadConfig(recipe).data.path).toBe(join(dir, "shop"));
    expect(loadConfig(recipe).runtime.python).toBe(join(repositoryRoot, ".venv/bin/python"));
    expect(loadConfig(recipe, ["data.path=shop"]).data.path).toBe(join(process.cwd(), "shop"));
  });

  it("applies overrides in order, as YAML values", () => {
    const path = file("o.yaml", "rl: {steps: 5}");
    const config = loadConfig(path, ["rl.steps=7", "rl.reward.format=none", "data.split.kind=leave-one-out"]);
    expect([config.rl.steps, config.rl.reward.format, config.data.split.kind]).toEqual([7, "none", "leave-one-out"]);
    expect(catchMessage("", ["rl.steps"])).toContain("expected path=value");
    expect(catchMessage("", ["rl.stepz=3"])).toContain("did you mean rl.steps?");
    expect(catchMessage("seed: 1", ["seed.x=3"])).toContain("seed is not a section");
  });

  it("extends another file, and says so when it cannot", () => {
    file("parent.yaml", "rl: {steps: 5, group: 4}");
    expect(loadConfig(file("child.yaml", "extends: parent.yaml\nrl: {steps: 6}")).rl).toMatchObject({
      steps: 6,
      group: 4,
    });
    // By name alone: one that GR2 ships, unless there is one next to the file.
    expect(loadConfig(file("shipped.yaml", "extends: base-sparse.yaml")).sid.levels).toBe(3);
    file("base-large.yaml", "sid: {levels: 7}");
    expect(loadConfig(file("own.yaml", "extends: base-large.yaml")).sid.levels).toBe(7);
    expect(catchMessage("extends: nowhere.yaml")).toContain("no such config file");
    expect(() => loadConfig(file("self.yaml", "extends: self.yaml"))).toThrow(/extends itself/);
    expect(() => loadConfig(join(dir, "missing.yaml"))).toThrow(/no such config file/);
  });

  it("gives equal hashes to equal settings only", () => {
    const a = loadConfig(file("a.yaml", "rl: {steps: 5}\nseed: 1"));
    const b = loadConfig(file("b.yaml", "seed: 1\nrl:\n  steps: 5"));
    expect(configHash(a)).toBe(configHash(b));
    expect(configHash(loadConfig(file("a.yaml", "seed: 2")))).not.toBe(configHash(a));
  });
});

describe("documentation", () => {
  it("describes every setting", () => {
    expect(
      configRows()
        .filter((r) => r.description === "")
        .map((r) => r.path),
    ).toEqual([]);
    expect(renderConfigDocs()).toContain("`rl.clipHigh`");
  });

  it("every shipped config loads", () => {
    const found = (folder: string): string[] =>
      readdirSync(folder).flatMap((f) => {
        const path = join(folder, f);
        return statSync(path).isDirectory() ? found(path) : path.endsWith(".yaml") ? [path] : [];
      });
    const configs = found("configs");
    expect(configs.length).toBeGreaterThan(0);
    for (const path of configs) expect(() => loadConfig(path), path).not.toThrow();
  });
});
