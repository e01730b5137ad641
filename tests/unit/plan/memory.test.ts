import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { compileConfig } from "../../../src/config/load.ts";
import { countTokens, type Device, type MemoryPlan, type Part, planMemory } from "../../../src/plan/memory.ts";
import { knownShape, type ModelShape, readShape } from "../../../src/plan/shape.ts";

const config = (tree: Record<string, unknown>) => compileConfig(tree, "test");
const gpu = (gib: number): Device => ({ kind: "cuda", memoryBytes: gib * 2 ** 30 });
const shape = readShape(
  {
    ...{ model_type: "llama", hidden_size: 64, num_attention_heads: 4, num_hidden_layers: 2 },
    ...{ vocab_size: 1000, intermediate_size: 128, tie_word_embeddings: true },
  },
  "x",
);
const phaseBytes = (plan: MemoryPlan, phase: string): Readonly<Record<Part, number>> =>
  plan.phases.find((p) => p.name === phase)?.bytes as Readonly<Record<Part, number>>;
const pretrained = (lora: Record<string, unknown>, runtime: Record<string, unknown> = {}) =>
  config({ model: { source: "pretrained", path: "x", lora }, runtime });

/** 1,100 rows of 64; 2 (4 * 64 * 64 + 3 * 64 * 128 + 2 * 64) + 64. */
const tables = 70_400;
const blocks = 82_240;

describe("the memory planner", () => {
  it("counts masters, gradients and moments of full fine-tuning", () => {
    const plan = planMemory(pretrained({ rank: 0 }), shape, 100, gpu(80));
    expect([plan.parameters, plan.trained]).toEqual([tables + blocks, tables + blocks]);
    const n = tables + blocks;
    expect(phaseBytes(plan, "midtrain")).toMatchObject({
      weights: 4 * n,
      gradients: 4 * n,
      optimizer: 8 * n,
      cache: 0,
    });
    // SFT and RL accumulate over several calls, each of which can be undone
    expect(phaseBytes(plan, "sft").gradients).toBe(8 * n);
    // sampling lays out a second copy of a Llama's weights
    const sample = { weights: 8 * n, gradients: 0, activations: 0, optimizer: 8 * n };
    expect(phaseBytes(plan, "rl: sample")).toMatchObject(sample);
  });

  it("counts a base in the compute type and float32 masters of LoRA and rows", () => {
    // two blocks, rank 4: q 64 + 64, v 64 + 64; rows 100 * 64 once
    const trained = 2 * 4 * 256 + 6400;
    for (const [dtype, b] of [
      ["float32", 4],
      ["bfloat16", 2],
    ] as const) {
      const plan = planMemory(pretrained({ rank: 4, targets: ["q_proj", "v_proj"] }, { dtype }), shape, 100, gpu(80));
      expect(plan.trained).toBe(trained);
      expect(phaseBytes(plan, "midtrain")).toMatchObject({
        weights: b * (tables + blocks) + 4 * trained,
        optimizer: 8 * trained,
      });
    }
  });

  it("adds the reference model of a KL term only to RL", () => {
    const without = planMemory(config({}), shape, 0, gpu(80));
    const plan = planMemory(config({ rl: { klCoef: 0.1 } }), shape, 0, gpu(80));
    const more = (phase: string) => phaseBytes(plan, phase).weights - phaseBytes(without, phase).weights;
    expect([more("sft"), more("rl: sample"), more("rl: update")]).toEqual([0, 4 * 146_240, 4 * 146_240]);
  });

  it("knows how long prompts, answers and documents are", () => {
    // compact: 12 + (20 + 10) * (4 codes + 2 + 1); thought 96 + 10 * (6 + 3); documents 30 * 6 < 256
    expect(countTokens(config({}))).toEqual({ prompt: 222, response: 186, document: 256 });
    const json = config({
      prompts: { format: "json", showTitles: true, historyItems: 5 },
      sid: { levels: 2, format: "bare" },
    });
    // 240 + 15 * (2 + 24 + 4); 96 + 10 * 5
    expect(countTokens(json)).toMatchObject({ prompt: 690, response: 146 });
  });

  it("proposes settings with which the recipe fits, and only those that are needed", () => {
    const big = knownShape("Qwen/Qwen3-8B") as ModelShape;
    const tree = { model: { source: "pretrained", path: "Qwen/Qwen3-8B" }, runtime: { dtype: "bfloat16" } };
    const plan = planMemory(config(tree), big, 1000, gpu(80));
    expect(plan.fits).toBe(false);
    expect(plan.fixed).toBeGreaterThan(4 * plan.parameters * 4);
    expect(plan.change).toContain("model.lora.rank=16");
    const apply = (paths: readonly string[]) => {
      const changed: Record<string, Record<string, unknown>> = structuredClone(tree);
      for (const path of paths) {
        const [section = "", key = "", deeper] = (path.split("=")[0] as string).split(".");
        const value = JSON.parse(path.split("=")[1] as string) as unknown;
        (changed[section] as Record<string, unknown>)[key] = deeper ? { [deeper]: value } : value;
      }
      return planMemory(config(changed), big, 1000, gpu(80));
    };
    expect(apply(plan.change).fits).toBe(true);
    for (const one of plan.change) expect(apply(plan.change.filter((c) => c !== one)).fits, one).toBe(false);
    expect(planMemory(config(tree), big, 1000, gpu(4)).change).toEqual([]); // nothing helps
    expect(planMemory(config(tree), big, 1000, gpu(1000)).change).toEqual([]); // nothing is needed
  });

  it("never grows when a limit is lowered or checkpointing is switched on", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 9, max: 17 }),
        fc.integer({ min: 0, max: 4 }),
        fc.boolean(),
        (power, less, lora) => {
          const peak = (tokens: number, gradientCheckpointing: boolean): number =>
            planMemory(
              config({
                model: { source: "pretrained", path: "x", gradientCheckpointing, lora: { rank: lora ? 8 : 0 } },
                runtime: { microBatchTokens: tokens, sampleBatchTokens: tokens },
              }),
              shape,
              10,
              gpu(80),
            ).peak;
          expect(peak(2 ** (power - less), false)).toBeLessThanOrEqual(peak(2 ** power, false));
          expect(peak(2 ** power, true)).toBeLessThanOrEqual(peak(2 ** power, false) + 1);
        },
      ),
    );
  });
});
