import { describe, expect, it } from "vitest";
import { ablationMarkdown, measureSpread, summariseAblation } from "../../../src/eval/ablation.ts";

const cell = (row: string, seed: number, recall: number, changes: Record<string, unknown> = {}) => ({
  row,
  seed,
  changes,
  metrics: { uniqueness: 0.99, usage_0: 0.5, usage_1: 1, recall_at_10: recall },
  seconds: { sid: 2, midtrain: 5, search: 1 },
});

describe("ablation table", () => {
  it("gives mean and sample standard deviation", () => {
    // (.1, .3): mean .2, variance ((-.1)² + (.1)²) / (2 - 1) = .02.
    const spread = measureSpread([0.1, 0.3]);
    expect(spread).toMatchObject({ min: 0.1, max: 0.3, n: 2 });
    expect(spread.mean).toBeCloseTo(0.2, 12);
    expect(spread.sd).toBeCloseTo(Math.sqrt(0.02), 12);
    expect(measureSpread([5]).sd).toBe(0);
  });

  it("has one line per row in the given order, whatever the order of the cells", () => {
    const cells = [cell("none", 1, 0.02, { "sid.emaDecay": 0 }), cell("configured", 0, 0.05), cell("none", 0, 0.04)];
    const rows = summariseAblation(cells, ["configured", "missing", "none"]);
    expect(rows.map((r) => [r.row, r.seeds])).toEqual([
      ["configured", [0]],
      ["none", [0, 1]],
    ]);
    expect(rows[1]?.metrics.usage?.mean).toBe(0.75);
    expect(rows[1]?.metrics.seconds?.mean).toBe(8);
    const lines = ablationMarkdown(rows).trimEnd().split("\n");
    expect(lines).toHaveLength(4);
    expect(lines[2]).toContain("| configured | – | 1 | 99.00 | – |");
    expect(lines[3]).toMatch(/0\.0300 ± 0\.0141/);
  });
});
