/**
 * More requests than can be answered: what is answered is fast, clients are served in turn,
 * nobody stands in its own way.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Engine } from "../../../src/serve/engine/engine.ts";
import { FairQueue } from "../../../src/serve/model/fair-queue.ts";
import { Refusal } from "../../../src/serve/request/types.ts";
import { type GatedWorker, makeRequest, makeRuns, setUp, until } from "../../service-fixture.ts";

const folder = mkdtempSync(join(tmpdir(), "gr2-overload-"));
let root = "";
beforeAll(async () => {
  root = await makeRuns(folder, { first: [] });
}, 60_000);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
const caller = (name: string) => ({ name, charge: () => {} });
const batchMs = 50;
const batchesOfFour = ["serve.maxBatch=4", "serve.cache=0", "serve.batchWaitMs=0"]; // 80 a second at most

async function slowEngine(): Promise<{ engine: Engine; worker: GatedWorker }> {
  const { engine, workers } = await setUp(root, "first", { set: batchesOfFour, engine: { maxQueue: 1_000 } });
  const worker = workers[0] as GatedWorker;
  worker.gate = () => pause(batchMs);
  for (let i = 0; i < 5; i++) await Promise.all([1, 2, 3, 4].map((k) => engine.rerank(makeRequest([k, k + 1]))));
  return { engine, worker };
}

/** Milliseconds to the answer, or undefined where it was refused. */
async function timed(engine: Engine, name: string, deadlineMs = 2_000): Promise<number | undefined> {
  const sent = performance.now();
  try {
    const answer = await engine.rerank(makeRequest([1, 2, 3], { deadlineMs }), { caller: caller(name) });
    return answer.fallback === undefined ? performance.now() - sent : undefined;
  } catch (e) {
    if (e instanceof Refusal && e.code === "overloaded") return undefined;
    throw e;
  }
}

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1] as number;

describe("at more than twice the capacity", () => {
  it("what is answered comes within a few batches, and the worker stays busy", async () => {
    const { engine, worker } = await slowEngine();
    const asked: Promise<number | undefined>[] = [];
    for (let tick = 0; tick < 125; tick++) {
      for (let k = 0; k < 4; k++) asked.push(timed(engine, "a"));
      await pause(20); // 200 a second or fewer
    }
    const late = (await Promise.all(asked.slice(250))).filter((ms) => ms !== undefined);
    expect(late.length).toBeGreaterThan(30);
    // Refusing by deadlines alone, the queue holds all that 2,000 ms allow: a median of about 1,900.
    expect(median(late)).toBeLessThan(600);
    expect(median(worker.batches.slice(-20))).toBe(4);
  }, 20_000);

  it("a client with few requests is not held up by one with many", async () => {
    const { engine } = await slowEngine();
    const greedy = Array.from({ length: 60 }, () => timed(engine, "greedy")); // 15 batches
    await until(() => engine.load().queued > 40);
    const modest = (await timed(engine, "modest")) as number;
    expect(engine.load().queued).toBeGreaterThan(20); // it overtook them
    expect(modest).toBeLessThan(6 * batchMs);
    await Promise.all(greedy);
  }, 20_000);
});

describe("a sequential caller with a tight deadline", () => {
  it("is never refused because of its own abandoned call", async () => {
    const { engine } = await slowEngine();
    for (let i = 0; i < 8; i++) {
      const answer = await engine.rerank(makeRequest([1, 2, 3], { deadlineMs: 20 }), { caller: caller("a") });
      expect(answer.fallback).toBe("deadline");
    }
  });
});

describe("a fair queue", () => {
  it("serves clients in turn, each in its own order", () => {
    const queue = new FairQueue<string>();
    for (const item of ["a1", "a2", "a3", "b1", "c1", "c2"]) queue.push(item[0] as string, item);
    expect([queue.ahead("a"), queue.ahead("b"), queue.ahead("d"), queue.size]).toEqual([6, 5, 3, 6]);
    expect(queue.take(4)).toEqual(["a1", "b1", "c1", "a2"]);
    queue.unshift("a", "a2");
    queue.remove("c", "c2");
    queue.remove("c", "c2");
    expect(queue.heads()).toEqual(["a2"]);
    expect([queue.take(9), queue.size, queue.take(1)]).toEqual([["a2", "a3"], 0, []]);
  });

  it("says how many come before the next one of a client", () => {
    fc.assert(
      fc.property(fc.array(fc.constantFrom("a", "b", "c")), fc.constantFrom("a", "b", "c", "d"), (clients, who) => {
        const queue = new FairQueue<string>();
        for (const client of clients) queue.push(client, client);
        const ahead = queue.ahead(who);
        queue.push(who, "mine");
        const at = queue.take(clients.length + 1).indexOf("mine");
        expect(at).toBeLessThanOrEqual(ahead); // whose turn is next may save the last of each other client
        expect(at).toBeGreaterThanOrEqual(ahead - 2);
      }),
    );
  });
});
