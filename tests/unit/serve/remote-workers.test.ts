/**
 * serve.addresses: workers that run elsewhere are connected to, one per address, and keep running without our model.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { makeRequest, makeRuns, setUp } from "../../service-fixture.ts";

const folder = mkdtempSync(join(tmpdir(), "gr2-remote-"));
let root = "";
beforeAll(async () => {
  root = await makeRuns(folder, { first: [] });
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

it("connects to each address, whatever serve.workers says, and unloads the model when it leaves", async () => {
  const set = ['serve.addresses=["a:1", "b:2"]', "serve.workers=1"];
  const { engine, workers } = await setUp(root, "first", { set });
  await engine.rerank(makeRequest([1, 2, 3]));
  expect(workers.map((w) => w.stats().loadModel?.calls)).toEqual([1, 1]);
  await engine.drain(0);
  expect(workers.map((w) => w.stats().unloadModel?.calls)).toEqual([1, 1]);
});
