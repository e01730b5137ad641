/**
 * A worker that answers but no longer has the model the service stands for: it is lost, and nothing it says gets out.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { FakeWorker } from "../../../src/worker/fake.ts";
import { type GatedWorker, makeRequest, makeRuns, setUp, until } from "../../service-fixture.ts";

const folder = mkdtempSync(join(tmpdir(), "gr2-lost-"));
let root = "";
beforeAll(async () => {
  root = await makeRuns(folder, { first: [] });
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const five = [10, 4, 20, 5, 7];
const modelIds = async (worker: GatedWorker): Promise<readonly string[]> => (await worker.getInfo()).modelIds;
const uncached = ["serve.cache=0"];

describe.each(["direct", "think"] as const)("a worker whose model is gone (%s)", (mode) => {
  it("is lost, reported and loaded again; it is not mistaken for a bad question", async () => {
    const { engine, workers, log } = await setUp(root, "first", { set: uncached });
    const before = await engine.rerank(makeRequest(five, { mode }));
    const worker = workers[0] as GatedWorker;
    for (const id of await modelIds(worker)) await worker.unloadModel(id);
    expect((await engine.rerank(makeRequest(five, { mode }))).fallback).toBe("worker_lost");
    expect(log).toContainEqual(expect.stringMatching(/worker 0 is lost: the worker has lost its model/));
    await until(() => engine.ready());
    expect(await engine.rerank(makeRequest(five, { mode }))).toMatchObject({ ranking: before.ranking });
  });

  it("or was exchanged for another under its name gives no answer", async () => {
    const { engine, workers, log } = await setUp(root, "first", { set: uncached });
    const before = await engine.rerank(makeRequest(five, { mode }));
    const worker = workers[0] as GatedWorker;
    const noise = join(folder, `noise-${mode}`);
    const stranger = new FakeWorker();
    await stranger.loadModel({ source: { kind: "pretrained", path: "/none" }, seed: 99 });
    await stranger.saveState({ path: noise });
    for (const modelId of await modelIds(worker)) await worker.loadState({ modelId, path: noise });
    const poisoned = await engine.rerank(makeRequest(five, { mode }));
    expect([poisoned.fallback, poisoned.reasoning]).toEqual(["worker_lost", ""]);
    expect(log).toContainEqual(expect.stringMatching(/is not the one the service loaded/));
    await until(() => engine.ready());
    const after = await engine.rerank(makeRequest(five, { mode }));
    expect([after.ranking, after.modelVersion]).toEqual([before.ranking, before.modelVersion]);
  });
});

it("a worker whose model is gone is found out without a request, and the service is not ready meanwhile", async () => {
  let reloads = () => {};
  const gate = new Promise<void>((resolve) => {
    reloads = resolve;
  });
  const { engine, workers } = await setUp(root, "first", {
    set: ["serve.healthMs=10"],
    prepare: (worker, nth) => {
      if (nth === 1)
        worker.loadModel = async (request) => {
          await gate;
          return FakeWorker.prototype.loadModel.call(worker, request);
        };
    },
  });
  const worker = workers[0] as GatedWorker;
  expect(engine.ready()).toBe(true);
  await worker.unloadModel((await modelIds(worker))[0] as string);
  await until(() => !engine.ready()); // what /readyz and gRPC health say
  expect((await engine.rerank(makeRequest(five))).fallback).toBe("worker_lost");
  reloads();
  await until(() => engine.ready());
  expect((await engine.rerank(makeRequest(five))).fallback).toBeUndefined();
});
