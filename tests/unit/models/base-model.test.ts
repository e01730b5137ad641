import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { plan } from "../../../src/cli/plan.ts";
import { compileConfig } from "../../../src/config/load.ts";
import { Gr2Error } from "../../../src/core/errors.ts";
import { checkBaseModel, checkMemory, checkStartingCodes, modelShape } from "../../../src/models/base-model.ts";
import type { WorkerInfo } from "../../../src/worker/types.ts";

const root = mkdtempSync(join(tmpdir(), "gr2-base-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

const qwen = {
  ...{ model_type: "qwen3", hidden_size: 64, intermediate_size: 128, num_hidden_layers: 2, num_attention_heads: 4 },
  ...{ num_key_value_heads: 2, head_dim: 16, vocab_size: 512, tie_word_embeddings: true },
};

/** A folder that looks like a model, without what is named. */
function model(name: string, options: { without?: string[]; config?: unknown; more?: string[] } = {}): string {
  const folder = join(root, name);
  mkdirSync(folder);
  for (const file of ["config.json", "model.safetensors", "tokenizer.json", ...(options.more ?? [])])
    if (!options.without?.includes(file))
      writeFileSync(join(folder, file), file === "config.json" ? JSON.stringify(options.config ?? qwen) : "");
  return folder;
}

const recipe = (path: string, more: Record<string, unknown> = {}) =>
  compileConfig({ model: { source: "pretrained", path, ...more } }, "test");

function catchFault(work: () => unknown): string {
  try {
    work();
  } catch (e) {
    expect(e).toBeInstanceOf(Gr2Error);
    return `${(e as Gr2Error).code} ${(e as Gr2Error).message} | ${(e as Gr2Error).advice ?? ""}`;
  }
  throw new Error("nothing was refused");
}

describe("a base model that cannot be loaded", () => {
  const refused = (path: string, more?: Record<string, unknown>) =>
    catchFault(() => checkBaseModel(recipe(path, more)));

  it("is refused with what is wrong and what to do, before any stage runs", () => {
    expect(refused("/nowhere/model")).toBe("CONFIG model.path = /nowhere/model: there is no such folder | ");
    const mute = model("mute", { without: ["tokenizer.json"] });
    expect(refused(mute)).toMatch(
      /mute: the folder contains no tokenizer \(no tokenizer\.json.*\| Copy the base model's tokenizer files/,
    );
    expect(refused(model("light", { without: ["model.safetensors"], more: ["pytorch_model.bin"] }))).toMatch(
      /light: the folder contains no \.safetensors weights \| Pickled weights/,
    );
    expect(refused(model("bare", { without: ["config.json"] }))).toMatch(
      /bare: the folder contains no config\.json \|/,
    );
    expect(refused(model("mamba", { config: { model_type: "mamba" } }))).toMatch(
      /architecture "mamba" is not supported \| Supported are qwen3, qwen2, llama/,
    );
    expect(refused(model("sees", { config: { model_type: "gemma3" } }))).toMatch(/use a text-only checkpoint/);
    expect(refused(model("shapeless", { config: { model_type: "qwen3" } }), { lora: { rank: 4 } })).toMatch(
      /shapeless\/config\.json: hidden_size = undefined/,
    );
    const file = join(root, "weights.gguf");
    writeFileSync(file, "");
    expect(refused(file)).toMatch(/a file, expected a folder \| For GGUF/);
  });

  it("may be a GGUF file that is not there, or one that the recipe does not name", () => {
    const folder = model("quantised", { without: ["config.json"], more: ["a.Q4_1.gguf"] });
    expect(refused(folder, { ggufFile: "b.gguf" })).toMatch(
      /no such file in .*quantised \| It contains a\.Q4_1\.gguf\./,
    );
    expect(refused(folder)).toMatch(/no config\.json \| For GGUF weights set model\.ggufFile=a\.Q4_1\.gguf\./);
    expect(() => checkBaseModel(recipe(folder, { ggufFile: "a.Q4_1.gguf" }))).not.toThrow();
    expect(refused(model("none"), { ggufFile: "b.gguf" })).toMatch(/\| The folder contains no GGUF file at all/);
  });

  it("may lack the layers LoRA is told to adapt", () => {
    const lora = { rank: 4, targets: ["q_proj", "query", "c_attn"] };
    expect(refused(model("adapted"), { lora })).toMatch(
      /model\.lora\.targets: .*adapted has no layer named query, c_attn \| Its linear layers are q_proj, k_proj/,
    );
    expect(refused("Qwen/Qwen3-8B", { lora })).toMatch(/Qwen\/Qwen3-8B has no layer named query/);
    expect(catchFault(() => compileConfig({ model: { lora: { rank: 4 } } }, "x"))).toMatch(/no weights to freeze/);
  });

  it("is left to the worker where only it can see it", () => {
    for (const path of ["some/hub-id", "smollm2-135m-instruct"])
      expect(() => checkBaseModel(recipe(path))).not.toThrow();
    const remote = {
      runtime: { mode: "remote", address: "there:1" },
      model: { source: "pretrained", path: "/there/model" },
    };
    expect(() => checkBaseModel(compileConfig(remote, "x"))).not.toThrow();
  });
});

describe("weights of another catalogue", () => {
  it("are refused by an export's or a state's own note, and pass with the right one", () => {
    const folder = model("exported");
    const config = recipe(folder);
    expect(() => checkStartingCodes(config, "aaa")).not.toThrow();
    writeFileSync(join(folder, "gr2_export.json"), JSON.stringify({ schema: "gr2.export/1", catalogue: "aaa" }));
    expect(() => checkStartingCodes(config, "aaa")).not.toThrow();
    expect(catchFault(() => checkStartingCodes(config, "bbb"))).toMatch(
      /^CHECKPOINT .*exported: these weights were trained with the semantic IDs of catalogue aaa, this run has bbb \| Start from the base/,
    );
    rmSync(join(folder, "gr2_export.json"));
    writeFileSync(
      join(folder, "gr2_state.json"),
      JSON.stringify({ format_version: 1, base: "", metadata: { catalogue: "ccc" } }),
    );
    expect(catchFault(() => checkStartingCodes(config, "bbb"))).toContain("catalogue ccc");
  });
});

describe("memory", () => {
  const info = (device: string, gib: number): WorkerInfo =>
    ({ device, memoryTotalBytes: gib * 2 ** 30 }) as Partial<WorkerInfo> as WorkerInfo;
  const check = (path: string, device: string, gib: number): string[] => {
    const said: string[] = [];
    checkMemory(recipe(path), 1000, info(device, gib), (m) => said.push(m));
    return said;
  };

  it("is checked before training: impossible stops, doubtful is said, enough is silent", () => {
    expect(check("Qwen/Qwen3-0.6B", "cuda:0 X", 140)).toEqual([]);
    expect(check("Qwen/Qwen3-1.7B", "cuda:0 X", 60)).toEqual([
      expect.stringMatching(/^! memory: about \d.* X has 60\.0 GiB/),
    ]);
    expect(catchFault(() => check("Qwen/Qwen3-8B", "cuda:0 X", 80))).toMatch(
      /^ENVIRONMENT training Qwen\/Qwen3-8B needs \d+\.\d GiB for weights and optimizer alone, cuda:0 X has 80\.0 GiB \| It would fit with --set /,
    );
    expect(check("some/unknown", "cuda:0 X", 1)).toEqual([]);
  });

  it("is planned for from a folder, a hub id or a recipe from scratch", () => {
    expect(modelShape(recipe(model("shaped")))?.hiddenSize).toBe(64);
    expect(modelShape(recipe("x", { ggufFile: "Qwen3-0.6B-Q4_K_M.gguf" }))?.hiddenSize).toBe(1024);
    expect(modelShape(compileConfig({}, "x"))?.layers).toBe(4);
    const text = plan({ config: "configs/qwen3-8b-beauty.yaml", set: [], memory: 80 });
    expect(text).toMatch(/^Qwen\/Qwen3-8B: 8\d\d\dM parameters, \d+M trained \(LoRA rank 64, bfloat16\)/);
    expect(text).toMatch(/\nGiB +weights +gradients .*\nmidtrain .*\nsft .*\nrl: sample .*\nrl: update .*\n\nfits: /);
    expect(plan({ config: "configs/qwen3-8b-beauty.yaml", set: ["model.lora.rank=0"], memory: 80 })).toMatch(
      /does not fit: .*\n(to make it fit: --set |no setting makes it fit)/,
    );
    const unknown = () => plan({ config: "configs/qwen3-8b-beauty.yaml", set: ["model.path=some/model"], memory: 80 });
    expect(catchFault(unknown)).toMatch(/some\/model: its dimensions are unknown \| Use a folder with a config\.json/);
  });
});
