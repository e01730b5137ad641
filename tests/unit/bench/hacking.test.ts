import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { observe, table } from "../../../bench/hacking.ts";

/** A run of 20 steps whose identity rate goes from 0 by .05 a step, with one evaluation at either end. */
function run(ndcg: readonly [number, number]): string {
  const folder = mkdtempSync(join(tmpdir(), "gr2-hacking-"));
  const records = [
    { stage: "sft", step: 3, values: { identity_rate: 9 } },
    { stage: "rl", step: 0, values: { validation_ndcg5: ndcg[0] } },
    ...Array.from({ length: 20 }, (_, step) => ({ stage: "rl", step, values: { identity_rate: step / 20 } })),
    { stage: "rl", step: 20, values: { validation_ndcg5: ndcg[1] } },
  ];
  const lines = records.map((r, i) => `${JSON.stringify({ seq: i + 1, time: 0, ...r })}\n`);
  writeFileSync(join(folder, "metrics.jsonl"), lines.join(""));
  return folder;
}

it("the table holds the first and the last tenth of every run, evaluations one by one, and no other stage's numbers", () => {
  const observed = [
    ...observe(run([0.3, 0.4]), "conditional", "0"),
    ...observe(run([0.3, 0.2]), "unconditional", "0"),
    ...observe(run([0.5, 0.6]), "unconditional", "7"),
  ];
  const rows = table(observed, ["unconditional", "conditional"], ["0", "7"]).split("\n");
  expect(rows[0]).toBe("| | reward | seed 0 | seed 7 |");
  // Of 20 values two are a tenth: (0 + .05) / 2 and (.9 + .95) / 2.
  expect(rows[2]).toBe("| valid answers that copy the input | unconditional | 0.025 → 0.925 | 0.025 → 0.925 |");
  expect(rows.filter((r) => r.includes("N@5"))).toEqual([
    "| validation N@5, greedy | unconditional | 0.300 → 0.200 | 0.500 → 0.600 |",
    "| validation N@5, greedy | conditional | 0.300 → 0.400 |  |",
  ]);
});
