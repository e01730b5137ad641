/**
 * Semantic IDs as permanent identities, on a fake worker: what the stage leaves, IDs for later items, and refusal of
 * what does not belong together. Files are swapped by hand, which the stage cache would notice.
 */
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openCorpus } from "../../src/artifacts/corpus.ts";
import type { EncodedItem } from "../../src/artifacts/semantic-ids.ts";
import { stateDir, tokenizerFile } from "../../src/artifacts/weights.ts";
import { sidEncode } from "../../src/cli/sid-encode.ts";
import { showSidReport } from "../../src/cli/sid-report.ts";
import { configHash, loadConfig, resolvedYaml } from "../../src/config/load.ts";
import { loadDataset } from "../../src/data/cache.ts";
import { openLanguageModel } from "../../src/models/language-model.ts";
import { Run } from "../../src/run/run.ts";
import type { StageContext } from "../../src/run/stage.ts";
import { stageNames } from "../../src/run/stage.ts";
import { Catalogue } from "../../src/sid/catalogue.ts";
import { checkIdentity } from "../../src/sid/identity.ts";
import { runStages } from "../../src/stages/pipeline.ts";
import { FakeWorker } from "../../src/worker/fake.ts";
import { TelemetryBus } from "../../src/worker/telemetry.ts";
import { writePipelineFixture } from "../pipeline-fixture.ts";

const folder = mkdtempSync(join(tmpdir(), "gr2-tokenizer-"));
const root = join(folder, "runs");
let recipe = "";

async function runUntil(name: string, until: string, set: string[] = []): Promise<void> {
  const config = loadConfig(recipe, set);
  const { signal } = new AbortController();
  const bus = new TelemetryBus(name);
  const yaml = { configYaml: resolvedYaml(config), configHash: configHash(config), seed: config.seed };
  const run = await Run.open({ root, name, ...yaml, stages: stageNames, until, signal, bus });
  await runStages(run, { config, root, name, signal, bus, worker: new FakeWorker() });
  await run.close("finished");
}

const sidFile = (run: string, file: string): string => join(root, run, "stages", "sid", file);
const json = (path: string): unknown => JSON.parse(readFileSync(path, "utf8"));

beforeAll(async () => {
  recipe = writePipelineFixture(folder);
  await runUntil("first", "midtrain");
  await runUntil("second", "midtrain", ["seed=4", "sid.collaborativeDims=4"]);
}, 120_000);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("the stage sid", () => {
  it("leaves artifact, identity, and a report with neighbours and error", () => {
    const catalogue = Catalogue.fromJSON(json(sidFile("first", "catalogue.json")));
    const artifact = readFileSync(sidFile("first", "quantizer.safetensors"));
    const identity = checkIdentity(json(sidFile("first", "quantizer.json")), artifact, catalogue);
    expect(identity).toMatchObject({
      seed: 3,
      catalogue: { items: 30, uniqueness: 1 },
      embedder: { model: "fake", dims: 32, fields: ["title", "brand", "categories", "description"] },
      data: { name: "small", hash: expect.stringMatching(/^[0-9a-f]{64}$/) },
      config: { levels: 2, codes: 16 },
      versions: { worker: "fake" },
    });
    const text = showSidReport("first", { root });
    expect(text).toContain("reconstruction error: 17.00 %");
    expect(text).toContain("items with similar embeddings: do they share their first codes?");
    expect(text).toMatch(/ {6}[012] {2}0\.\d\d {2}\[\d+, \d+\] {2}Film number \d+/);
  });
});

describe("gr2 sid encode", () => {
  const items = join(folder, "new.jsonl");
  const lines = [
    { sku: "n1", name: "Film number 3, the sequel", class: "Drama" },
    { sku: "i7", name: "Film number 7 with a new title" }, // known to the run as i7
    { sku: "n2", name: "Something <s_a_1><s_b_2> else" },
    { sku: "n1", name: "the same id again" },
  ];
  const write = (list: readonly object[]): void =>
    writeFileSync(items, list.map((l) => `${JSON.stringify(l)}\n`).join(""));
  const encode = (out: string, name = "first", column = ["id=sku", "title=name", "categories=class"]) =>
    sidEncode({ name, root, items, out, column, worker: new FakeWorker() }, () => {});
  const read = (out: string): EncodedItem[] =>
    readFileSync(out, "utf8").trimEnd().split("\n").map((l) => JSON.parse(l) as EncodedItem); // biome-ignore format: chain

  it("gives new items IDs nobody has, known ones theirs, and adds without changing", async () => {
    const out = join(folder, "out.jsonl");
    write(lines);
    expect(await encode(out)).toContain("2 new items got a semantic ID; 1 keep their ID from the run");
    const catalogue = Catalogue.fromJSON(json(sidFile("first", "catalogue.json")));
    const dataset = await loadDataset(join(root, "first/stages/data"));
    const first = read(out);
    expect(first.map((e) => [e.item_id, e.known])).toEqual([["n1", false], ["i7", true], ["n2", false]]); // biome-ignore format: rows
    expect(first[1]?.codes).toEqual(catalogue.codesAt(dataset.items.findIndex((i) => i.id === "i7")));
    for (const e of [first[0], first[2]]) expect(catalogue.findRows(e?.codes ?? [])).toEqual([]);
    expect(first[0]?.sid).toBe(`<s_a_${first[0]?.codes[0]}><s_b_${first[0]?.codes[1]}>`);
    expect(first[0]?.nearest).toHaveLength(3);
    expect(first[0]?.nearest[0]).toMatchObject({ item_id: "i3", title: "Film number 3 (1953)" });
    expect(first[1]?.nearest.map((n) => n.item_id)).not.toContain("i7");

    const bytes = readFileSync(out, "utf8");
    expect(await encode(out)).toContain("0 new items got a semantic ID; 3 were already in");
    expect(readFileSync(out, "utf8")).toBe(bytes);
    const other = join(folder, "other.jsonl");
    await encode(other);
    expect(readFileSync(other, "utf8")).toBe(bytes);

    write([{ sku: "n3", name: "Later still" }]);
    await encode(out);
    expect(readFileSync(out, "utf8").startsWith(bytes)).toBe(true);
    expect(new Set(read(out).map((e) => e.sid)).size).toBe(4);
  });

  it("encodes by text alone where the run also used co-occurrence", async () => {
    write(lines);
    const out = join(folder, "collaborative.jsonl");
    await encode(out, "second");
    expect(read(out)).toHaveLength(3);
  });

  it("refuses another tokenizer's file, artifact, catalogue or embedder, and columns it does not know", async () => {
    write(lines);
    const out = join(folder, "mixed.jsonl");
    await encode(out);
    await expect(encode(out, "second")).rejects.toMatchObject({
      code: "CHECKPOINT",
      message: expect.stringMatching(/mixed\.jsonl:1: assigned by tokenizer [0-9a-f]{64}, this run's is [0-9a-f]{64}/),
    });
    const forged = read(out).map((e) => ({ ...e, codes: [0, 0], sid: "<s_a_0><s_b_0>" }));
    writeFileSync(out, forged.map((e) => JSON.stringify(e)).join("\n"));
    await expect(encode(out)).rejects.toThrow("has an ID that is not its own");

    const swapped = (name: string, file: string): void => {
      cpSync(join(root, "first"), join(root, name), { recursive: true });
      cpSync(sidFile("second", file), sidFile(name, file));
    };
    swapped("other-artifact", "quantizer.safetensors");
    writeFileSync(sidFile("other-artifact", "quantizer.safetensors"), "another one");
    await expect(encode(join(folder, "a.jsonl"), "other-artifact")).rejects.toThrow(
      /the quantizer artifact is .*, the/,
    );
    swapped("other-catalogue", "catalogue.json");
    await expect(encode(join(folder, "b.jsonl"), "other-catalogue")).rejects.toThrow(
      /belongs to catalogue .*, this one/,
    );

    cpSync(join(root, "first"), join(root, "other-embedder"), { recursive: true });
    const config = join(root, "other-embedder", "config.resolved.yaml");
    writeFileSync(config, readFileSync(config, "utf8").replace("model: fake", "model: fake2"));
    await expect(encode(join(folder, "c.jsonl"), "other-embedder")).rejects.toThrow(
      /embedding model fake2 is .*fitted with/,
    );

    await expect(encode(join(folder, "d.jsonl"), "first", ["name"])).rejects.toThrow(
      "--column name: expected FIELD=COLUMN",
    );
    await expect(encode(join(folder, "d.jsonl"), "first", [])).rejects.toThrow(/new\.jsonl:1: no "item_id"/);
  });
});

describe("weights", () => {
  const makeContext = (worker: FakeWorker): StageContext => ({
    config: loadConfig(recipe),
    dir: folder,
    work: (name) => join(folder, name),
    inputDir: (stage) => join(root, "swapped", "stages", stage),
    worker: async () => worker,
    signal: new AbortController().signal,
    log: () => {},
    progress: () => {},
    metrics: () => {},
    rollout: () => {},
    cursor: { read: () => undefined, write: () => {} },
  });

  it("are refused with semantic IDs they were not trained on, naming both", async () => {
    cpSync(join(root, "first"), join(root, "swapped"), { recursive: true });
    const context = makeContext(new FakeWorker());
    const corpus = await openCorpus(context);
    const midtrain = context.inputDir("midtrain");
    const open = () => openLanguageModel(context, corpus, stateDir(midtrain), tokenizerFile(midtrain));
    await open();
    const strangers = Catalogue.fromJSON(json(sidFile("second", "catalogue.json")));
    const other = stateDir(join(root, "second", "stages", "midtrain"));
    await expect(openLanguageModel(context, corpus, other, tokenizerFile(midtrain))).rejects.toMatchObject({
      code: "CHECKPOINT",
      message: `${other}: these weights were trained with catalogue ${strangers.hash()}, this run has ${corpus.catalogue.hash()}`,
    });
    await open(); // the right ones are loaded again, not taken for loaded
    expect(((await context.worker()) as FakeWorker).log.filter((verb) => verb === "loadState")).toHaveLength(3);
  });
});
