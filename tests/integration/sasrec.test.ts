/**
 * SASRec as a pre-ranker: what it learns from, that a cut-off changes nothing, and, with a real worker, that it learns.
 */
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { type Config, configSchema } from "../../src/config/schema.ts";
import { InterruptedError } from "../../src/core/errors.ts";
import { leaveOneOut, trainingView } from "../../src/data/split.ts";
import type { SplitDataset } from "../../src/data/types.ts";
import { beamPreRanker } from "../../src/models/beam-ranker.ts";
import { defaultSlates } from "../../src/prerank/slates.ts";
import type { StageContext } from "../../src/run/stage.ts";
import { Trie } from "../../src/sid/trie.ts";
import { sasrecFitter } from "../../src/stages/prerankers/sasrec.ts";
import { FakeWorker } from "../../src/worker/fake.ts";
import { startWorker } from "../../src/worker/launcher.ts";
import type { BeamSearchRequest, ForwardBackwardRequest, WorkerClient } from "../../src/worker/types.ts";
import { buildAllSlates } from "../build-all-slates.ts";
import { makeDataset, walkers } from "../unit/synthetic.ts";

const folder = mkdtempSync(join(tmpdir(), "gr2-sasrec-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const makeConfig = (sasrec: object): Config =>
  configSchema.parse({ runtime: { threads: 1, device: "cpu" }, prerank: { kind: "sasrec", sasrec } });

/**
 * A stage that begins in an empty folder. Its cursor outlives an attempt,
 * and only the next attempt reads it (run/run.ts).
 */
function stageIn(name: string, config: Config) {
  const dir = join(folder, name);
  mkdirSync(join(dir, "work"), { recursive: true });
  let cursor: string | undefined;
  const attempt = (worker: WorkerClient, before = cursor): StageContext => ({
    config,
    dir,
    signal: new AbortController().signal,
    work: (part) => join(dir, "work", part),
    inputDir: () => dir,
    worker: () => Promise.resolve(worker),
    log: () => {},
    progress: () => {},
    metrics: () => {},
    rollout: () => {},
    cursor: {
      read: <T>() => (before === undefined ? undefined : (JSON.parse(before) as T)),
      write: (value) => {
        cursor = JSON.stringify(value);
      },
    },
  });
  const weights = (through: string) => readFileSync(join(dir, `sasrec-${through}`, "gr2_state.json"), "utf8");
  /** Epochs of the finished fits. */
  const finished = () => JSON.parse(cursor ?? "").value.finished as Record<string, number>;
  return { attempt, weights, finished };
}

/** Keeps what it is trained on. */
class Recorder extends FakeWorker {
  readonly trained: number[][] = [];
  override forwardBackward(request: ForwardBackwardRequest) {
    for (const g of request.batch.groups) this.trained.push([...g.prompt, ...(g.responses[0] ?? [])]);
    return super.forwardBackward(request);
  }
}

const slates = (worker: WorkerClient, stage: ReturnType<typeof stageIn>, data: SplitDataset) =>
  buildAllSlates(data, sasrecFitter(stage.attempt(worker), data), { ...defaultSlates, size: 5 });

describe("ranking by beam search", () => {
  // Items 0 and 2 share catalogue row 0; items 1 and 3 have rows 1 and 2. The worker prefers rows 0, 2, 1.
  const rowFor = [0, 1, 0, 2];
  const asked: BeamSearchRequest[] = [];
  const found = { rows: Int32Array.of(0, 2, 1), logprobs: Float32Array.of(-1, -2, -3) };
  const worker = {
    beamSearch: (request: BeamSearchRequest) => {
      asked.push(request);
      const shape = { rows: 1, cols: 3 };
      return Promise.resolve({ rows: { ...shape, data: found.rows }, logprobs: { ...shape, data: found.logprobs } });
    },
  } as unknown as WorkerClient;
  const preRanker = beamPreRanker(worker, new AbortController().signal, {
    name: "beam",
    parameters: 1,
    trie: new Trie([[0], [1], [2]]),
    itemsAt: (row) => rowFor.flatMap((r, item) => (r === row ? [item] : [])),
    rowFor: (item) => rowFor[item] as number,
    beamWidth: 3,
    renderHistory: (history) => history,
  });

  it("returns every unseen item of a shared ID, and closes the ID only when all of them were seen", async () => {
    expect(await preRanker.rankTop([Int32Array.of(2)], 3, "unseen")).toEqual([
      { items: [0, 3, 1], scores: [-1, -2, -3] },
    ]);
    expect(asked.at(-1)?.excluded).toEqual([[]]);
    await preRanker.rankTop([Int32Array.of(2, 3, 0)], 3, "unseen");
    expect(asked.at(-1)?.excluded).toEqual([[0, 2]]);
    expect(await preRanker.rankTop([Int32Array.of(2)], 3, "allow")).toEqual([
      { items: [0, 2, 3], scores: [-1, -1, -2] },
    ]);
  });
});

describe("on a fake worker", () => {
  const config = makeConfig({ maxEpochs: 6, evalEpochs: 2, patience: 1, historyItems: 6, batchSequences: 16 });
  const dataset = walkers(40, 30, 12);
  const data = leaveOneOut(dataset);

  it("learns every item of its view after that item's history, and none beyond it", async () => {
    const worker = new Recorder();
    const stage = stageIn("view", makeConfig({ maxEpochs: 1, historyItems: 6 }));
    await slates(worker, stage, data);
    // 12 items a user: 10 through rerank, 9 through midtrain; of each, all but the first are learned.
    // Windows may overlap.
    const learned = worker.trained.map((d) => d.length - 1);
    expect(learned.reduce((a, b) => a + b, 0)).toBeGreaterThanOrEqual(40 * (9 + 8));
    expect(Math.max(...learned)).toBeLessThanOrEqual(6);
    const prefixes = trainingView(data, "rerank").sequences.map((s) => `,${s.join(",")},`);
    for (const d of worker.trained) expect(prefixes.some((p) => p.includes(`,${d.join(",")},`))).toBe(true);
  });

  it("is the same model whatever the test items are, and takes as many epochs for the rerank slates", async () => {
    const worker = new FakeWorker();
    const stage = stageIn("now", config);
    const built = await slates(worker, stage, data);
    const other = leaveOneOut(
      makeDataset(
        dataset.sequences.map((s) => [...s.items.subarray(0, 11), (Number(s.items[11]) + 1) % 30]),
        30,
      ),
    );
    const changed = stageIn("other-future", config);
    const again = await slates(new FakeWorker(), changed, other);
    for (const through of ["rerank", "midtrain"]) expect(changed.weights(through)).toBe(stage.weights(through));
    expect(again.slates.validation).toEqual(built.slates.validation);
    const { rerank, midtrain } = stage.finished();
    expect(rerank).toBeGreaterThan(0);
    expect(midtrain).toBe(rerank);
    expect(changed.finished()).toEqual({ rerank, midtrain });
  });

  it("interrupted at any call, it resumes to the same weights and slates", async () => {
    const reference = stageIn("whole", config);
    const worker = new FakeWorker();
    const expected = await slates(worker, reference, data);
    for (let call = 1; call <= worker.log.length; call += 5) {
      const stage = stageIn(`cut-${call}`, config);
      const killed = new FakeWorker((_verb, calls) => {
        if (calls === call) throw new InterruptedError();
      });
      await expect(slates(killed, stage, data)).rejects.toThrow(InterruptedError);
      expect(await slates(new FakeWorker(), stage, data)).toEqual(expected);
      for (const through of ["rerank", "midtrain"]) expect(stage.weights(through)).toBe(reference.weights(through));
    }
  });
});

describe("on a real worker", { timeout: 240_000 }, () => {
  it("learns that last + 7 follows, and ranks it first", async () => {
    const numItems = 30;
    const sequences = Array.from({ length: 60 }, (_, user) =>
      Array.from({ length: 8 }, (_, k) => (user + 7 * k) % numItems),
    );
    const data = leaveOneOut(makeDataset(sequences, numItems));
    const sasrec = {
      hiddenSize: 32,
      dropout: 0.1,
      learningRate: 1e-2,
      maxEpochs: 40,
      evalEpochs: 20,
      batchSequences: 30,
    };
    const running = await startWorker({ mode: "embedded", threads: 1, device: "cpu" });
    try {
      const { stats } = await slates(running.client, stageIn("real", makeConfig(sasrec)), data);
      expect(stats.test.slates).toBeGreaterThan(20);
      expect(stats.test.targetPositions[0]).toBeGreaterThan(0.9 * stats.test.slates);
    } finally {
      await running.close();
    }
  });
});
