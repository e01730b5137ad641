import assert from "node:assert/strict";
import test from "node:test";
import type { Training } from "gr2/plugins";
import preRanker from "./pre-ranker.ts";

const training: Training = {
  numItems: 4,
  through: "midtrain",
  sequences: [Int32Array.of(0, 1, 3), Int32Array.of(0, 1), Int32Array.of(2, 3)],
  times: [Float64Array.of(1, 2, 3), Float64Array.of(1, 2), Float64Array.of(1, 2)],
  items: [],
  seed: 0,
};

test("what followed the latest item comes first, nothing of the history comes again", async () => {
  const fitted = await preRanker.fit(training, { name: "test", asks: () => true });
  const [list] = await fitted.rankTop([Int32Array.of(0)], 2, "unseen");
  // 1 followed 0 twice; of the others 3 was met twice and 2 once.
  assert.deepEqual([...(list?.items ?? [])], [1, 3]);
});
