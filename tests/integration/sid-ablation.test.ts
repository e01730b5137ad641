/** The ablation command on a fake worker: what it leaves, what it does not do twice, and the embeddings' cache. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, unlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ablateSid } from "../../src/cli/sid-ablate.ts";
import { cellConfig, changesFor, rowNames } from "../../src/commands/sid-ablation.ts";
import { loadConfig } from "../../src/config/load.ts";
import { ConfigError } from "../../src/core/errors.ts";
import type { AblationRow } from "../../src/eval/ablation.ts";
import { makeFolder } from "../../src/run/files.ts";
import { FakeWorker } from "../../src/worker/fake.ts";
import { writePipelineFixture } from "../pipeline-fixture.ts";

const folder = mkdtempSync(join(tmpdir(), "gr2-ablation-"));
const out = join(folder, "out");
const embedder = join(folder, "embedder");
let recipe = "";

beforeAll(() => {
  recipe = writePipelineFixture(folder);
  makeFolder(embedder);
  writeFileSync(join(embedder, "weights"), "1");
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function ablate(set: string[] = [], rows = "configured,none", seeds = "0,1", worker = new FakeWorker()) {
  let text = "";
  const print = {
    write: (part: string) => {
      text += part;
    },
  };
  await ablateSid(
    { config: recipe, set: ["midtrain.epochs=1", ...set], seeds, rows, out, positions: 40 },
    print,
    worker,
  );
  return { worker, text, calls: (verb: string) => worker.log.filter((v) => v === verb).length };
}

const cellFiles = () => readdirSync(join(out, "cells")).sort();

describe("gr2 sid ablate", () => {
  it("measures every row with every seed once, and resumes where it was", async () => {
    const first = await ablate();
    expect(first.calls("fitSemanticIds")).toBe(4);
    expect(cellFiles().map((f) => f.replace(/-[0-9a-f]{12}\.json$/, ""))).toEqual([
      "configured-0",
      "configured-1",
      "none-0",
      "none-1",
    ]);
    const table = JSON.parse(readFileSync(join(out, "ablation.json"), "utf8")) as {
      rows: AblationRow[];
      cells: Record<string, unknown>[];
    };
    expect(table.rows.map((r) => r.row)).toEqual(["configured", "none"]);
    expect(table.rows[0]?.metrics.recall_at_10).toMatchObject({ n: 2 });
    expect(table.rows[0]?.metrics.positions?.mean).toBe(40);
    for (const key of ["settings", "code", "hardware", "worker", "date", "config_hash"])
      expect(table.cells[0]).toHaveProperty(key);
    expect(readFileSync(join(out, "ablation.md"), "utf8")).toContain("| none | `emaDecay=0`");

    unlinkSync(join(out, "cells", cellFiles()[1] as string)); // configured, seed 1
    const second = await ablate();
    expect(second.calls("fitSemanticIds")).toBe(1);
    const again = JSON.parse(readFileSync(join(out, "ablation.json"), "utf8")) as { rows: AblationRow[] };
    expect(again.rows[0]?.metrics.recall_at_10).toEqual(table.rows[0]?.metrics.recall_at_10);

    const third = await ablate();
    expect(third.worker.log).toEqual([]);
    expect(third.text).toContain("4 cells, 4 already finished");
    expect(readdirSync(out).filter((f) => f.startsWith("work-"))).toEqual([]);
  });

  it("measures again what another setting would change", async () => {
    const { calls } = await ablate(["midtrain.learningRate=.001"], "none", "0");
    expect(calls("fitSemanticIds")).toBe(1);
  });

  it("names a row or a seed it does not know", async () => {
    await expect(ablate([], "emma")).rejects.toThrow(/no such row; expected one of configured, ema/);
    await expect(ablate([], "none", "0,x")).rejects.toThrow(/whole numbers/);
    const kmeans = loadConfig(recipe, ["sid.method=rqkmeans"]);
    expect(() => cellConfig(kmeans, "ema", 0)).toThrow(ConfigError);
  });
});

/** Gives items 0 and 1 one ID, and notes how many IDs are searched. */
class CollidingWorker extends FakeWorker {
  readonly searched: number[] = [];
  override async fitSemanticIds(...args: Parameters<FakeWorker["fitSemanticIds"]>) {
    const fitted = await super.fitSemanticIds(...args);
    fitted.codes.data.copyWithin(fitted.codes.cols, 0, fitted.codes.cols);
    return fitted;
  }
  override async beamSearch(...args: Parameters<FakeWorker["beamSearch"]>) {
    this.searched.push(args[0].trie.rows.length);
    return super.beamSearch(...args);
  }
}

describe("IDs that collide", () => {
  it("are trained on, searched once and counted", async () => {
    const worker = new CollidingWorker();
    await ablate(["sid.codes=20"], "none", "0", worker);
    expect(new Set(worker.searched)).toEqual(new Set([29])); // of 30 items
    const { cells } = JSON.parse(readFileSync(join(out, "ablation.json"), "utf8")) as {
      cells: { metrics: Record<string, number> }[];
    };
    expect(cells[0]?.metrics).toMatchObject({ colliding_items: 2, shared_ids: 1 });
  });
});

describe("rows", () => {
  it("flip one technique each, in both directions", () => {
    const off = loadConfig(recipe);
    expect(changesFor("contrastive", off)).toEqual({ "sid.contrastiveWeight": 0.1 });
    expect(changesFor("ema", off)).toEqual({ "sid.emaDecay": 0 });
    const on = loadConfig(recipe, ["sid.contrastiveWeight=.3", "sid.emaDecay=0"]);
    expect(changesFor("contrastive", on)).toEqual({ "sid.contrastiveWeight": 0 });
    expect(changesFor("ema", on)).toEqual({ "sid.emaDecay": 0.95 });
    for (const row of rowNames) expect(cellConfig(off, row, 5).seed).toBe(5);
    expect(cellConfig(off, "rqkmeans", 0).sid).toMatchObject({ method: "rqkmeans", minUniqueness: 0 });
  });
});

describe("embeddings", () => {
  it("are computed once for equal texts and embedder, and again when the kept file is damaged", async () => {
    const set = [`embed.model=${embedder}`];
    expect((await ablate(set, "none", "0")).calls("embed")).toBe(1);
    expect((await ablate(set, "none", "1")).calls("embed")).toBe(0);
    const cache = join(folder, "cache", "embeddings");
    const matrix = readdirSync(cache).find((f) => f.endsWith(".f32")) as string;
    writeFileSync(join(cache, matrix), "damaged");
    expect((await ablate(set, "none", "2")).calls("embed")).toBe(1);
    writeFileSync(join(embedder, "weights"), "2");
    expect((await ablate(set, "none", "3")).calls("embed")).toBe(1);
    expect((await ablate([...set, "embed.fields=[title]"], "none", "4")).calls("embed")).toBe(1);
  });
});
