import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { repositoryRoot } from "../../../src/core/paths.ts";
import { parseTrees, predictTrees } from "../../../src/evidence/trees.ts";

interface Golden {
  readonly model: string;
  readonly rows: readonly (readonly (number | null)[])[];
  readonly predictions: readonly number[];
}
/** Written by trees.py beside it, with LightGBM's own predict. */
const golden = JSON.parse(readFileSync(join(repositoryRoot, "tests/golden/trees.json"), "utf8")) as Golden;

const predict = (model: string, rows: readonly (readonly number[])[]): number[] => {
  const out = new Float64Array(rows.length);
  predictTrees(parseTrees(model), Float32Array.from(rows.flat()), out);
  return Array.from(out);
};

/** x0 ≤ 1 ? (x1 ≤ 0 ? 10 : 20) : 30; NaN of x0 to the right, of x1 to the left. */
const tree = (decisions = "8 10"): string =>
  [
    ...["tree", "version=v4", "max_feature_idx=1", ""],
    ...["Tree=0", "num_leaves=3", "num_cat=0", "split_feature=0 1", "threshold=1 0", `decision_type=${decisions}`],
    ...["left_child=1 -1", "right_child=-3 -2", "leaf_value=10 20 30", "is_linear=0", ""],
  ].join("\n");

describe("trees", () => {
  it("predict what LightGBM predicts, missing values included", () => {
    const rows = golden.rows.map((row) => row.map((x) => x ?? Number.NaN));
    expect(rows.flat().filter(Number.isNaN).length).toBeGreaterThan(50);
    const ours = predict(golden.model, rows);
    ours.forEach((value, i) => {
      expect(Math.abs(value - (golden.predictions[i] as number))).toBeLessThan(1e-9);
    });
    expect(new Set(ours.map((v) => v.toFixed(6))).size).toBeGreaterThan(30);
  });

  it("send a value at its threshold left, and NaN where the node says", () => {
    const rows = [
      [1, 0],
      [1, 0.1],
      [1.1, 0],
      [Number.NaN, 0],
      [0, Number.NaN],
    ];
    expect(predict(tree(), rows)).toEqual([10, 20, 30, 30, 10]);
    // Neither node has seen NaN: it counts as zero, which is ≤ 1 and ≤ 0.
    expect(
      predict(tree("0 0"), [
        [Number.NaN, 5],
        [0, Number.NaN],
      ]),
    ).toEqual([20, 10]);
  });

  it("may tell NaN from all else by a threshold of infinity", () => {
    const rows = [
      [1e30, 0],
      [Number.NaN, 0],
    ];
    expect(predict(tree().replace("threshold=1 0", "threshold=inf 0"), rows)).toEqual([10, 30]);
  });

  it("add up over trees; a tree may be a single leaf", () => {
    const stump = "Tree=1\nnum_leaves=1\nnum_cat=0\nleaf_value=0.5\nis_linear=0\n";
    expect(predict(`${tree()}\n${stump}`, [[0, 0]])).toEqual([10.5]);
  });

  it("refuse what they cannot evaluate", () => {
    expect(() => parseTrees("")).toThrow(/no trees/);
    expect(() => parseTrees(tree("9 10"))).toThrow(/decision of type 9/);
    expect(() => parseTrees(tree("4 10"))).toThrow(/decision of type 4/);
    expect(() => parseTrees(tree().replace("num_cat=0", "num_cat=1"))).toThrow(/categories/);
    expect(() => parseTrees(tree().replace("threshold=1 0", "threshold=1"))).toThrow(/not there/);
    expect(() => parseTrees(tree().replace("left_child=1 -1", "left_child=1 0"))).toThrow(/not there/);
    expect(() => parseTrees(tree().replace("leaf_value=10 20 30", ""))).toThrow(/without leaf_value/);
    expect(() => parseTrees(tree().replace("max_feature_idx=1", "max_feature_idx=0"))).toThrow(/feature/);
  });
});
