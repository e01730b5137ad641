/**
 * Teachers of distillation in the real worker: whole weights, LoRA weights in their run's folder and an exported model
 * score alike; and a student that follows one by forward KL comes nearer to it.
 */

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { compileConfig, resolvedYaml } from "../../src/config/load.ts";
import { adamW } from "../../src/config/schema/training.ts";
import { sha256 } from "../../src/core/hash.ts";
import { addedTokens, type Lineage, modelRequest } from "../../src/models/language-model.ts";
import type { StageContext } from "../../src/run/stage.ts";
import { openTeacher } from "../../src/stages/rl/opd-teacher.ts";
import { checkTeachers } from "../../src/stages/teachers/preflight.ts";
import { type RunningWorker, startWorker } from "../../src/worker/launcher.ts";
import type { ForwardRequest, LoadedModel } from "../../src/worker/types.ts";

const root = mkdtempSync(join(tmpdir(), "gr2-distill-real-"));
const { signal } = new AbortController();
const architecture = {
  ...{ model_type: "qwen3", hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1, num_attention_heads: 2 },
  ...{ num_key_value_heads: 2, head_dim: 8, max_position_embeddings: 64, initializer_range: 0.3 },
};
const sid = { levels: 2, codes: 4, format: "bare" };
const base = join(root, "base");
const recipe = compileConfig(
  { sid, model: { source: "pretrained", path: base, lora: { rank: 2, targets: ["q_proj", "down_proj"] } } },
  "test",
);
const state = (run: string): string => join(root, run, "stages", "rl", "state");
const exported = join(root, "exported");

let running: RunningWorker;
let lineage: Lineage;
let theirs: Float32Array;
let tokenizerJson: Uint8Array;

/** Two prompts with free answers, and two answers that order the same three IDs of two codes. */
function request(model: LoadedModel): ForwardRequest {
  const codes = model.addedTokenIds.slice(-8);
  const sequences = [0, 1, 2].map((j) => [codes[j], codes[4 + j]] as number[]);
  const answer = (order: readonly number[]) => order.flatMap((j) => sequences[j] as number[]);
  return {
    batch: {
      groups: [
        { prompt: [1, 2, 3], responses: [[4, 5, 6], [7]] },
        { prompt: [8], responses: [answer([2, 0, 1]), answer([0, 1, 2])] },
      ],
    },
    constraint: { groups: [{ sequences: [] }, { sequences }], wholeSequences: true, scale: 0.5 },
  };
}

beforeAll(async () => {
  running = await startWorker({ mode: "embedded", threads: 1 });
  const { client } = running;
  ({ tokenizerJson } = await client.trainTokenizer({ texts: ["a b c"], vocabSize: 256, specialTokens: ["<|eos|>"] }));
  await client.loadModel({ source: { kind: "scratch", architecture, tokenizerJson }, seed: 1 });
  await client.saveState({ path: base });

  const model = await client.loadModel(await modelRequest(recipe, undefined, () => {}, signal));
  lineage = { catalogue: "c0ffee", tokenizer: sha256(model.tokenizerJson) };
  const asked = request(model);
  const weights = new Float32Array(4 + 12).fill(1);
  for (let step = 0; step < 3; step++) {
    await client.forwardBackward({ ...asked, weights, loss: { kind: "cross_entropy" } });
    await client.optimStep({ ...adamW, learningRate: 0.05 });
  }
  theirs = (await client.forward(asked)).logprobs;
  await client.saveState({ path: state("adapted"), metadata: lineage });
  writeFileSync(join(root, "adapted", "config.resolved.yaml"), resolvedYaml(recipe));
  mkdirSync(join(root, "lost", "stages", "rl"), { recursive: true });
  await client.saveState({ path: state("lost"), metadata: lineage });
  const files = { "gr2_export.json": JSON.stringify({ schema: "gr2.export/1", ...lineage }) };
  await client.exportModel({ path: exported, dtype: "float32", files });
  // Whole weights: the exported model, saved as a run of its own would save it.
  await client.loadModel({ source: { kind: "pretrained", path: exported } });
  await client.saveState({ path: state("whole"), metadata: lineage });
}, 120_000);
afterAll(async () => {
  await running.close();
  rmSync(root, { recursive: true, force: true });
});

const makeConfig = (teacher: string, more: object = {}) =>
  compileConfig({ sid, rl: { kind: "opd", opd: { teacher } }, runtime: { threads: 1 }, ...more }, "test");

const open = (teacher: string, expected = lineage) => {
  const context = { config: makeConfig(teacher), signal, log: () => {} } as Partial<StageContext> as StageContext;
  return openTeacher(context, running.client, expected);
};

describe("a teacher of distillation in the real worker", { timeout: 120_000 }, () => {
  it("is a state, a LoRA state of a run, or an exported model; all of them score alike", async () => {
    const student = await running.client.loadModel({
      source: { kind: "scratch", architecture, tokenizerJson },
      addedTokens: addedTokens(recipe),
    });
    expect(theirs.some((l) => l < -0.1)).toBe(true);
    for (const path of [state("whole"), state("adapted"), exported]) {
      // What the look before the first stage reads of these folders is what the worker really writes.
      const planned = { reaches: () => true, finished: async () => false, folder: () => "", otherIds: () => [] };
      await checkTeachers(makeConfig(path), planned, () => {}, signal);
      const teacher = await open(path);
      expect((await running.client.getInfo()).modelIds).toEqual(["policy", "teacher"]);
      const { logprobs, top } = await teacher.score({ ...request(student), topK: 3 });
      expect([...logprobs], path).toEqual([...theirs].map((l) => expect.closeTo(l, 4)));
      expect([top?.ids.rows, top?.ids.cols]).toEqual([theirs.length, 3]);
      expect([...(top?.ids.data.slice(12, 15) ?? [])].sort()).toEqual([0, 1, 2]); // the first choice is among all three
      await teacher.close();
      expect((await running.client.getInfo()).modelIds).toEqual(["policy"]);
    }
  });

  it("is refused if it belongs to other semantic IDs or another tokenizer, or if nobody knows its base model", async () => {
    for (const path of [state("whole"), state("adapted"), exported]) {
      await expect(open(path, { ...lineage, catalogue: "another" })).rejects.toThrow(/trained with catalogue c0ffee/);
      await expect(open(path, { ...lineage, tokenizer: "another" })).rejects.toThrow(/its tokenizer is another one/);
    }
    await expect(open(state("lost"))).rejects.toMatchObject({
      advice: expect.stringContaining("gr2 export RUN --out"),
    });
    expect((await running.client.getInfo()).modelIds).toEqual(["policy"]);
  });

  it("brings a student nearer by forward KL, at tokens and at choices", async () => {
    const { client } = running;
    const student = await client.loadModel({
      source: { kind: "scratch", architecture, tokenizerJson },
      addedTokens: addedTokens(recipe),
      seed: 5,
    });
    const teacher = await open(state("adapted"));
    const asked = request(student);
    const { top } = await teacher.score({ ...asked, topK: 5 });
    const weights = new Float32Array(theirs.length).fill(1 / theirs.length);
    const kl: number[] = [];
    for (let step = 0; step < 12; step++) {
      const loss = { kind: "distill", teacher: top as NonNullable<typeof top> } as const;
      const result = await client.forwardBackward({ ...asked, weights, loss });
      expect(result.metrics.forward_kl).toBeCloseTo(result.loss, 4);
      kl.push(result.loss);
      await client.optimStep({ ...adamW, learningRate: 0.02 });
    }
    await teacher.close();
    expect(kl[0]).toBeGreaterThan(0.05);
    expect(kl.at(-1)).toBeLessThan(0.5 * (kl[0] as number));
  });
});
