import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { repositoryRoot } from "../../../src/core/paths.ts";
import {
  countParameters,
  families,
  knownModels,
  knownShape,
  loraParameters,
  readShape,
} from "../../../src/plan/shape.ts";

/** Parameters as the makers publish them (safetensors metadata; tied tables once). */
const published: Readonly<Record<string, number>> = {
  "Qwen/Qwen3-0.6B": 596_049_920,
  "Qwen/Qwen3-1.7B": 1_720_574_976,
  "Qwen/Qwen3-4B": 4_022_468_096,
  "Qwen/Qwen3-8B": 8_190_735_360,
  "Qwen/Qwen3-14B": 14_768_307_200,
  "Qwen/Qwen3-32B": 32_762_123_264,
  "Qwen/Qwen2.5-0.5B": 494_032_768,
  "Qwen/Qwen2.5-1.5B": 1_543_714_304,
  "Qwen/Qwen2.5-3B": 3_085_938_688,
  "Qwen/Qwen2.5-7B": 7_615_616_512,
  "meta-llama/Llama-3.2-1B": 1_235_814_400,
  "meta-llama/Llama-3.2-3B": 3_212_749_824,
  "meta-llama/Llama-3.1-8B": 8_030_261_248,
  "HuggingFaceTB/SmolLM2-135M": 134_515_008,
  "HuggingFaceTB/SmolLM2-360M": 361_821_120,
  "HuggingFaceTB/SmolLM2-1.7B": 1_711_376_384,
  "google/gemma-2-2b": 2_614_341_888,
  "google/gemma-2-9b": 9_241_705_984,
  "google/gemma-3-270m": 268_098_176,
  "google/gemma-3-1b": 999_885_952,
};

describe("the shape of a model", () => {
  it("gives the published number of parameters for every known model", () => {
    const counted = knownModels.map((id) => {
      const { tables, blocks } = countParameters(knownShape(id) as NonNullable<ReturnType<typeof knownShape>>);
      return [id, tables + blocks];
    });
    expect(Object.fromEntries(counted)).toEqual(published);
  });

  it("is found by hub id, ending or folder name, and for nothing else", () => {
    const shape = knownShape("Qwen/Qwen3-8B");
    expect(shape?.layers).toBe(36);
    for (const path of ["Qwen/Qwen3-8B-Base", "/models/qwen3-8b", "/models/Qwen3-8B-instruct"])
      expect(knownShape(path), path).toEqual(shape);
    expect(knownShape("/models/smollm2-135m-instruct")?.hiddenSize).toBe(576);
    for (const path of ["", "mine", "/models/MyQwen3-8B", "Qwen/Qwen3-80B"])
      expect(knownShape(path), path).toBe(undefined);
  });

  it("is read from a transformers config, and says what is missing", () => {
    const json = {
      model_type: "llama",
      hidden_size: 64,
      num_attention_heads: 4,
      num_hidden_layers: 2,
      vocab_size: 100,
    };
    const shape = readShape({ ...json, intermediate_size: 128 }, "x");
    expect(shape).toMatchObject({ kvHeads: 4, headDim: 16, tied: false });
    // 2 (4 * 64 * 64 + 3 * 64 * 128 + 2 * 64) + 64; tables 2 * 110 * 64
    expect(countParameters(shape, 110)).toEqual({ tables: 14_080, blocks: 82_240 });
    expect(() => readShape(json, "a/config.json")).toThrow(/a\/config\.json: intermediate_size = undefined/);
    // 2 layers, rank 4: q 64 + 64, down 128 + 64; rows 10 * 64, twice
    expect(loraParameters(shape, 4, ["q_proj", "down_proj"], 10)).toBe(2 * 4 * (128 + 192) + 2 * 640);
  });

  it("knows the families the worker supports", () => {
    const source = readFileSync(join(repositoryRoot, "python_worker/gr2_worker/model/lm.py"), "utf8");
    const list = /^FAMILIES = \(([^)]*)\)/m.exec(source)?.[1] ?? "";
    expect([...list.matchAll(/"(\w+)"/g)].map((m) => m[1])).toEqual([...families]);
  });
});
