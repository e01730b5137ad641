import assert from "node:assert/strict";
import test from "node:test";
import type { Answer } from "gr2/plugins";
import { judge } from "./reward.ts";

const item = (id: string, category: string): Answer["slate"]["candidates"][number] =>
  ({ id, title: id, brand: "", categories: [category], description: "" }) as never;
const slate = {
  id: "test",
  history: [],
  candidates: [item("a", "Drama"), item("b", "Drama"), item("c", "Comedy"), item("d", "Western")],
  scores: [4, 3, 2, 1],
  labels: [0, 0, 1, 0],
};

test("the true item from third to first of four, two kinds in the first three", () => {
  const { value, parts } = judge({ slate, mode: "answer", order: [2, 0, 1, 3], reasoning: "" }, 0.2);
  assert.deepEqual(parts, { promotion: 2 / 4, diversity: (0.2 * 1) / 2 });
  assert.equal(value, 0.6);
});

test("a copy of the input is paid for its kinds alone", () => {
  assert.equal(judge({ slate, mode: "answer", order: [0, 1, 2, 3], reasoning: "" }, 0.2).value, 0.1);
});
