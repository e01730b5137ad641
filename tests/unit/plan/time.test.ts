/** Minutes of a recipe: what they must depend on, and by how much. */
import { describe, expect, it } from "vitest";
import { compileConfig, inherit } from "../../../src/config/load.ts";
import { readShape } from "../../../src/plan/shape.ts";
import { type DataSize, estimateTime, midtrainTokens } from "../../../src/plan/time.ts";

const config = (over: object) =>
  compileConfig(
    inherit({ extends: "base-sparse.yaml", data: { split: { kind: "leave-one-out" } }, ...over }, "."),
    "test",
  );
const size: DataSize = { users: 1000, items: 500, interactions: 10_000, textLength: 100 };
const shape = readShape({ ...config({}).model.architecture, vocab_size: 1000 }, "test");
const seconds = (over: object, stage: string, cores = 1, speed = 1, own = size): number =>
  estimateTime(config(over), shape, 800, own, cores, speed).find((s) => s.stage === stage)?.seconds ?? Number.NaN;

describe("minutes of a recipe", () => {
  it("mid-training reads interactions before the last three, three codes each, in overlapping windows", () => {
    // 8 epochs x (10,000 - 3 x 1,000) items x 3 codes x 50/45 windows, four fifths of all tokens
    expect(midtrainTokens(config({}), size)).toBeCloseTo((8 * 7000 * 3 * (50 / 45)) / 0.8, 6);
  });
  it("twice the epochs, twice the time to learn; nothing else changes", () => {
    const [once, twice] = [{ midtrain: { epochs: 4 } }, { midtrain: { epochs: 8 } }];
    const start = seconds({ midtrain: { epochs: 4 } }, "midtrain", 1, 1, { ...size, interactions: 3000 });
    expect(seconds(twice, "midtrain") - start).toBeCloseTo(2 * (seconds(once, "midtrain") - start), 6);
    expect(seconds(twice, "sft")).toBe(seconds(once, "sft"));
  });
  it("without RL only its start is counted; with RL its steps are", () => {
    expect(seconds({}, "rl")).toBeLessThan(15);
    expect(seconds({ rl: { steps: 40 } }, "rl")).toBeGreaterThan(60);
  });
  it("a refit passes over the windows with new items: two stages, and half of them again for test", () => {
    // 2 stages x 1.5 x 10,000 interactions x 3 codes, learned once
    const once = seconds({ refit: true, midtrain: { refit: { epochs: 1 } } }, "evaluate");
    const never = seconds({ refit: false }, "evaluate");
    const learned = seconds({ midtrain: { epochs: 8 } }, "midtrain") - 6; // 6 s of start
    expect((once - never) / learned).toBeCloseTo((2 * 1.5 * 30_000) / midtrainTokens(config({}), size), 3);
  });
  it("more or faster cores take less, and never less than a share", () => {
    expect(seconds({}, "midtrain", 2)).toBeLessThan(seconds({}, "midtrain", 1));
    expect(seconds({}, "midtrain", 2)).toBeGreaterThan(seconds({}, "midtrain", 1) / 2);
    expect(seconds({}, "midtrain", 1, 2)).toBeLessThan(seconds({}, "midtrain", 1, 1));
  });
});
