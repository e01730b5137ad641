/**
 * The shipped recipes for pretrained models, dry: every stage runs with the recipe's own settings, but on a shrunken
 * model of the same family, a few users, and few steps. All of them on a fake worker; the 8B's, LoRA and bfloat16
 * included, on the real one, and its export through plain transformers.
 */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { exportModel } from "../../src/cli/export.ts";
import { configHash, loadConfig, resolvedYaml } from "../../src/config/load.ts";
import { repositoryRoot } from "../../src/core/paths.ts";
import { Rng } from "../../src/core/rng.ts";
import { Run } from "../../src/run/run.ts";
import { stageNames } from "../../src/run/stage.ts";
import { runStages } from "../../src/stages/pipeline.ts";
import { FakeWorker } from "../../src/worker/fake.ts";
import { startWorker } from "../../src/worker/launcher.ts";
import { TelemetryBus } from "../../src/worker/telemetry.ts";
import { gr2 } from "./mini.ts";

const folder = mkdtempSync(join(tmpdir(), "gr2-recipes-"));
const root = join(folder, "runs");
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const python = join(repositoryRoot, ".venv/bin/python");
const numUsers = 40;
const numItems = 24;
const words = ["Rose", "Mint", "Silk", "Citrus", "Clay", "Pearl"];
const shrunken = {
  model_type: "qwen3",
  hidden_size: 32,
  intermediate_size: 64,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  head_dim: 8,
  max_position_embeddings: 4096,
  tie_word_embeddings: false,
};

/** sequential_data.txt and items.jsonl in the layout of the recipes: walks along a ring of items. */
function writeSequences(path: string): string {
  mkdirSync(path);
  const rng = Rng.of(3, "recipes");
  const lines = Array.from({ length: numUsers }, (_, user) => {
    const items = new Set<number>();
    for (let at = rng.int(numItems); items.size < 10; at = (at + 1 + rng.int(2)) % numItems) items.add(at);
    return `${user} ${[...items].map((i) => i + 1).join(" ")}`;
  });
  writeFileSync(join(path, "sequential_data.txt"), `${lines.join("\n")}\n`);
  const items = Array.from({ length: numItems }, (_, i) => ({
    item_id: String(i + 1),
    title: `${words[i % 6]} ${words[(i * 5 + 1) % 6]} cream ${i}`,
    brand: "",
    categories: ["Beauty", words[Math.floor(i / 4)]],
  }));
  writeFileSync(join(path, "items.jsonl"), `${items.map((i) => JSON.stringify(i)).join("\n")}\n`);
  return path;
}

const data = writeSequences(join(folder, "data"));
const prose = join(folder, "prose.txt");
writeFileSync(
  prose,
  Array.from({ length: 4 }, () => "Plain words about nothing in particular, said at length. ".repeat(3)).join("\n\n"),
);

/** What is made smaller: data, model, steps. Everything else is the recipe's. */
const smaller = (model: string): string[] => [
  ...["data.adapter=sequences", `data.path=${data}`, "data.minInteractions=0"],
  ...[`model.path=${model}`, `midtrain.languageFile=${prose}`],
  ...["midtrain.epochs=1", "midtrain.batchTokens=2048", "prerank.candidates=5", "prerank.beamWidth=12"],
  "evidence.modelFolds=2",
  ...["decoding.maxReasoningTokens=24", "sft.epochs=1", "sft.batchSlates=8"],
  ...["rl.steps=2", "rl.prompts=4", "rl.group=2", "rl.evalSteps=1", "rl.evalSlates=8"],
  ...["eval.maxSlates=10", "eval.validationSlates=10", "eval.bootstrap=100", "eval.examples=1"],
  ...["runtime.threads=1", "sid.epochs=20", "sid.hiddenDims=[32]", "sid.latentDim=8"],
];

describe("every stage of a recipe on a fake worker", { timeout: 120_000 }, () => {
  const model = join(folder, "looks-like-a-model");
  beforeAll(() => {
    mkdirSync(model);
    writeFileSync(join(model, "config.json"), JSON.stringify({ ...shrunken, vocab_size: 256 }));
    for (const name of ["model.safetensors", "tokenizer.json"]) writeFileSync(join(model, name), "");
  });

  it.each(["smollm2-ml100k", "smollm2-beauty", "smollm2-beauty-cpu", "qwen3-8b-beauty", "qwen3-1.7b-beauty"])(
    "%s",
    async (name) => {
      const changed = [...smaller(model), "embed.model=fake", `data.cacheDir=${join(folder, "cache")}`];
      const config = loadConfig(join(repositoryRoot, "configs", `${name}.yaml`), changed);
      const { signal } = new AbortController();
      const bus = new TelemetryBus(name);
      const about = { configYaml: resolvedYaml(config), configHash: configHash(config), seed: config.seed };
      const run = await Run.open({ root, name, ...about, stages: stageNames, signal, bus });
      const metrics = await runStages(run, { config, root, name, signal, bus, worker: new FakeWorker() });
      await run.close("finished");
      const systems = new Set(metrics?.rows.map((r) => r.system));
      for (const system of ["prerank", "direct", "sft", "rl"]) expect(systems).toContain(system);
    },
  );
});

describe("an export", () => {
  it("names what is missing, and writes provenance, card and semantic IDs", async () => {
    const worker = new FakeWorker();
    const to = join(folder, "fake-export");
    const command = { name: "qwen3-8b-beauty", root, out: to, worker };
    await expect(exportModel({ ...command, stage: "sid" }, () => {})).rejects.toThrow(
      /--stage sid: expected one of rl, sft, midtrain/,
    );
    await expect(exportModel({ ...command, dtype: "int8" }, () => {})).rejects.toThrow(/--dtype int8: expected one of/);
    rmSync(join(root, "smollm2-beauty/stages/rl/done.json"));
    const unfinished = exportModel({ ...command, name: "smollm2-beauty", stage: "rl" }, () => {});
    await expect(unfinished).rejects.toMatchObject({
      message: "run smollm2-beauty has no finished stage rl to export",
      advice: "Finished: sft, midtrain.",
    });
    expect(await exportModel(command, () => {})).toMatch(/fake-export: the model of stage rl, .* of weights/);
    expect(worker.log).toEqual(["loadModel", "loadState", "exportModel"]);
    const about = JSON.parse(readFileSync(join(to, "gr2_export.json"), "utf8")) as Record<string, unknown>;
    expect(about).toMatchObject({ run: "qwen3-8b-beauty", stage: "rl", lora_rank: 64, dtype: "bfloat16", seed: 0 });
    expect(JSON.parse(readFileSync(join(to, "semantic_ids.json"), "utf8"))).toMatchObject({ hash: about.catalogue });
    const card = readFileSync(join(to, "README.md"), "utf8");
    for (const value of [about.config_hash, about.catalogue, about.tokenizer]) expect(card).toContain(String(value));
  });
});

describe("qwen3-8b-beauty on a shrunken Qwen3 and the real worker", { timeout: 600_000 }, () => {
  const model = join(folder, "qwen3-shrunken");
  const recipe = join(repositoryRoot, "configs/qwen3-8b-beauty.yaml");
  const out = join(folder, "export");

  beforeAll(async () => {
    const worker = await startWorker({
      mode: "embedded",
      python,
      threads: 1,
    });
    const texts = Array.from(
      { length: 40 },
      (_, i) => `A shopper bought ${words[i % 6]} cream and compares candidates ${i}.`,
    );
    const { tokenizerJson } = await worker.client.trainTokenizer({
      texts,
      vocabSize: 400,
      specialTokens: ["<|im_end|>"],
    });
    await worker.client.loadModel({ source: { kind: "scratch", architecture: shrunken, tokenizerJson } });
    await worker.client.saveState({ path: model });
    await worker.close();
  }, 300_000);

  it("runs to the end, and plain transformers computes from its export what the worker computes", async () => {
    const set = [...smaller(model), "runtime.device=cpu", "sid.codes=16", "sid.levels=2", "sid.batchSize=24"];
    const args = ["--config", recipe, "--root", root, "--run", "dry", ...set.flatMap((s) => ["--set", s])];
    const run = await gr2(["pipeline", ...args]);
    expect(run, `${run.stdout}\n${run.stderr}`).toMatchObject({ code: 0, stderr: "" });
    const stage = join(root, "dry/stages/rl/state");
    expect(existsSync(join(stage, "adapter.safetensors")) && !existsSync(join(stage, "model.safetensors"))).toBe(true);

    const exported = await gr2(["export", "dry", "--root", root, "--out", out, "--dtype", "float32"]);
    expect(exported, exported.stderr).toMatchObject({ code: 0, stderr: "" });
    expect(exported.stdout).toMatch(/the model of stage rl, .* of weights/);
    const about = JSON.parse(readFileSync(join(out, "gr2_export.json"), "utf8")) as Record<string, unknown>;
    expect(about).toMatchObject({ run: "dry", stage: "rl", base_model: model, lora_rank: 64 });
    expect(readFileSync(join(out, "README.md"), "utf8")).toContain(String(about.config_hash));
    expect(JSON.parse(readFileSync(join(out, "semantic_ids.json"), "utf8"))).toMatchObject({ hash: about.catalogue });
    const script = `
import json, sys, numpy as np, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from asked import forward_spec, load_spec
from gr2_worker.engine import Engine
from gr2_worker.types import GroupBatch
tokenizer, model = AutoTokenizer.from_pretrained(sys.argv[1]), AutoModelForCausalLM.from_pretrained(sys.argv[1])
ids = tokenizer("cream <s_a_3><s_b_1> then", return_tensors="pt")["input_ids"]
plain = model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
engine = Engine(torch.device("cpu"))
engine.load_model("", load_spec(path=sys.argv[1]))
n = ids.shape[1] - 1
batch = GroupBatch(ids[0].numpy().astype(np.int32), np.array([1]), np.array([1]), np.array([n]))
own = engine.forward("", forward_spec(batch)).logprobs
gap = float(np.abs(own - plain.detach().numpy()).max())
print(json.dumps({"tokens": n + 1, "gap": gap, "rows": model.get_input_embeddings().num_embeddings}))`;
    const env = {
      ...process.env,
      PYTHONPATH: ["python_worker", "tests/python"].map((d) => join(repositoryRoot, d)).join(":"),
    };
    const options = { encoding: "utf8" as const, env };
    const plain = JSON.parse(execFileSync(python, ["-c", script, out], options)) as Record<string, number>;
    expect(plain.gap).toBeLessThan(1e-4);
    expect(plain.rows).toBe(Math.ceil((plain.rows as number) / 64) * 64);
    expect(plain.tokens).toBeLessThan(12); // the codes are one token each
  });
});
