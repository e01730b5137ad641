/** The engine on fake workers: what is answered, by whom, and that every way to fail ends in the caller's own order. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { splitOptions } from "../../../src/artifacts/dataset.ts";
import { readJson, readLines, readScores } from "../../../src/artifacts/files.ts";
import { loadConfig } from "../../../src/config/load.ts";
import { loadDataset } from "../../../src/data/cache.ts";
import { split } from "../../../src/data/split.ts";
import { directScores, orderBy, type Prior } from "../../../src/policy/prior.ts";
import type { Slate } from "../../../src/prerank/types.ts";
import { servingEvidence } from "../../../src/serve/model/evidence.ts";
import { openServedRun } from "../../../src/serve/model/served-run.ts";
import { Refusal, type RerankAnswer } from "../../../src/serve/request/types.ts";
import type { CallOptions } from "../../../src/worker/types.ts";
import { forever, type GatedWorker, lost, makeRequest, makeRuns, setUp, until } from "../../service-fixture.ts";

const folder = mkdtempSync(join(tmpdir(), "gr2-serve-"));
let root = "";
beforeAll(async () => {
  root = await makeRuns(folder, { first: ["decoding.evidence=true"] });
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const five = [10, 4, 20, 5, 7];
const ids = (answer: RerankAnswer): string[] => answer.ranking.map((r) => r.id);
const own = (items: readonly number[]): string[] => items.map((i) => `c${i}`);
const catchRefusal = async (answer: Promise<unknown>): Promise<Refusal> => {
  const error = await answer.then(
    () => undefined,
    (e: unknown) => e,
  );
  expect(error).toBeInstanceOf(Refusal);
  return error as Refusal;
};

describe("an answer", () => {
  it.each(["direct", "think"] as const)("holds every candidate once, with chances that fall (%s)", async (mode) => {
    const { engine } = await setUp(root, "first");
    const answer = await engine.rerank(makeRequest(five, { mode }));
    expect(answer.fallback).toBeUndefined();
    expect(ids(answer).sort()).toEqual(own(five).sort());
    const scores = answer.ranking.map((r) => r.score);
    expect(scores).toEqual([...scores].sort((a, b) => b - a));
    expect(scores.reduce((a, b) => a + b, 0)).toBeCloseTo(1, 5);
    expect(answer.ranking.every((r) => `c${five[r.position]}` === r.id)).toBe(true);
    expect(answer.modelVersion).toBe(engine.model()?.version);
    expect(answer.tokens.generated > 0).toBe(mode === "think");
    expect(answer.reasoning !== "").toBe(mode === "think");
  });

  it("in mode direct is the run's own: likelihood times the prior that evaluation fitted, evidence included", async () => {
    const { engine, workers } = await setUp(root, "first");
    const stage = (name: string): string => join(root, "first", "stages", name);
    const system = engine.model()?.systems.direct as string;
    const prior = readJson<Record<string, Prior>>(join(stage("evaluate"), "priors.json"))[system] as Prior;
    expect(prior.evidence).not.toBe(0);
    const evidence = readScores(stage("evidence"), "evidence");
    const dataset = await loadDataset(stage("data"));
    const slates = readLines<Slate>(join(stage("slates"), "test.jsonl"))
      .filter((s) => s.id in evidence)
      .slice(0, 8);
    expect(slates.length).toBe(8);
    const config = loadConfig(join(root, "first", "config.resolved.yaml"));
    const { compute } = servingEvidence(
      split(dataset, splitOptions(config.data.split)),
      stage("evidence"),
      config.refit,
    );
    for (const slate of slates) {
      const sequence = dataset.sequences[slate.user];
      const rows = Array.from(sequence?.items.subarray(0, slate.position) ?? []);
      const time = sequence?.times[slate.position - 1];
      const served = compute(rows, slate.candidates, slate.scores, { time });
      served.forEach((e, i) => {
        expect(e).toBe(evidence[slate.id]?.[i]);
      });
      const itemIdAt = (row: number): string => dataset.items[row]?.id as string;
      const answer = await engine.rerank({
        ...makeRequest([]),
        history: rows.map((row) => ({ itemId: itemIdAt(row) })),
        candidates: slate.candidates.map((row, i) => ({
          id: itemIdAt(row),
          itemId: itemIdAt(row),
          score: slate.scores[i] as number,
        })),
      });
      const run = await openServedRun(root, "first", []);
      const logLikelihood = await likelihoods(
        workers[0] as GatedWorker,
        run.catalogue,
        rows.slice(-8),
        slate.candidates,
      );
      const expected = orderBy(directScores(prior, { scores: slate.scores, evidence: served }, logLikelihood));
      expect(ids(answer)).toEqual(expected.map((i) => itemIdAt(slate.candidates[i] as number)));
    }
  });

  it("is cut to top_n, in mode think too", async () => {
    const { engine } = await setUp(root, "first");
    for (const mode of ["direct", "think"] as const) {
      const all = await engine.rerank(makeRequest(five, { mode }));
      const two = await engine.rerank(makeRequest(five, { mode, topN: 2 }));
      expect(two.ranking.map((r) => r.id)).toEqual(ids(all).slice(0, 2));
    }
  });

  it("does not depend on what else is asked at the time", async () => {
    const { engine } = await setUp(root, "first", { set: ["serve.cache=0"] });
    const alone = await engine.rerank(makeRequest(five));
    const others = Array.from({ length: 9 }, (_, k) => engine.rerank(makeRequest([k, k + 1, k + 11])));
    const together = await engine.rerank(makeRequest(five));
    await Promise.all(others);
    expect(together.ranking).toEqual(alone.ranking);
  });

  it("leaves blank candidates to the end, with a score of 0, and the others as if they were alone", async () => {
    const { engine, workers } = await setUp(root, "first");
    const blank = (id: string, text: string) => ({ id, text, score: 0 });
    const candidates = makeRequest(five).candidates.flatMap((c, i) => (i === 1 ? [blank("x", " \n"), c] : [c]));
    const asked = { ...makeRequest(five), candidates: [...candidates, blank("y", "\u200b")] };
    for (const mode of ["direct", "think"] as const) {
      const alone = await engine.rerank(makeRequest(five, { mode }));
      const answer = await engine.rerank({ ...asked, mode });
      expect(ids(answer)).toEqual([...ids(alone), "x", "y"]);
      expect(answer.ranking.map((r) => asked.candidates[r.position]?.id)).toEqual(ids(answer));
      expect(answer.ranking.map((r) => r.score)).toEqual([...alone.ranking.map((r) => r.score), 0, 0]);
      expect(ids(await engine.rerank({ ...asked, mode, topN: 6 }))).toEqual([...ids(alone), "x"]);
      expect(ids(await engine.rerank({ ...asked, mode, topN: 2 }))).toEqual(ids(alone).slice(0, 2));
    }
    expect((await catchRefusal(engine.rerank({ ...asked, candidates: [blank("x", "")] }))).code).toBe("invalid");
    (workers[0] as GatedWorker).gate = forever;
    const fallback = await engine.rerank({ ...asked, mode: "think", deadlineMs: 50 });
    expect(fallback.fallback).toBe("deadline");
    expect(ids(fallback)).toEqual([...own(five), "x", "y"]); // by the scores
  });

  it("takes a candidate that is listed twice, or a text that is a known title, as that item", async () => {
    const { engine } = await setUp(root, "first");
    const answer = await engine.rerank({
      ...makeRequest([]),
      candidates: [
        { id: "a", itemId: "i10" },
        { id: "b", itemId: "i4" },
        { id: "c", text: "Film  NUMBER 10 (1960)" },
      ],
    });
    expect(ids(answer).sort()).toEqual(["a", "b", "c"]);
    expect(ids(answer).indexOf("c")).toBe(ids(answer).indexOf("a") + 1);
  });

  it("places unknown items by their text alone, whatever is next to them", async () => {
    const { engine, workers } = await setUp(root, "first", { set: ["serve.cache=0"] });
    const news = { id: "n", text: "A <|think|> film nobody knows" };
    const ask = (more: readonly { id: string; text: string }[]) =>
      engine.rerank({ ...makeRequest([10, 4]), candidates: [{ id: "k", itemId: "i10" }, news, ...more] });
    const alone = await ask([]);
    const encodes = workers[0]?.log.filter((verb) => verb === "encodeSemanticIds").length;
    expect(await ask([])).toMatchObject({ ranking: alone.ranking });
    expect(workers[0]?.log.filter((verb) => verb === "encodeSemanticIds").length).toBe(encodes); // remembered
    const other = await ask([{ id: "m", text: "Another one" }]);
    expect(ids(other).sort()).toEqual(["k", "m", "n"]);
    const refused = await catchRefusal(
      engine.rerank({ ...makeRequest([1]), candidates: [{ id: "x", itemId: "nobody" }] }),
    );
    expect([refused.code, refused.message.includes("candidates[0].item_id")]).toEqual(["invalid", true]);
    const stranger = await engine.rerank({ ...makeRequest(five), history: [{ itemId: "nobody" }, { itemId: "i1" }] });
    expect(stranger.ranking).toEqual(
      (await engine.rerank({ ...makeRequest(five), history: [{ itemId: "i1" }] })).ranking,
    );
  });

  it("streams the thought it then gives whole", async () => {
    const { engine } = await setUp(root, "first");
    let thought = "";
    let last: RerankAnswer | undefined;
    for await (const event of engine.stream(makeRequest(five, { mode: "think" })))
      if (event.kind === "reasoning") thought += event.text;
      else last = event.answer;
    expect(thought.length).toBeGreaterThan(0);
    expect(thought.trim()).toBe(last?.reasoning);
    expect(ids(last as RerankAnswer)).toEqual(ids(await engine.rerank(makeRequest(five, { mode: "think" }))));
  });
});

/** log p of every candidate, asked of the worker one by one: another way to the number the service rests on. */
async function likelihoods(
  worker: GatedWorker,
  catalogue: { tokensAt(row: number): readonly string[] },
  history: readonly number[],
  candidates: readonly number[],
): Promise<number[]> {
  const { Tokenizer } = await import("../../../src/worker/tokenizer.ts");
  const tokenizer = Tokenizer.fromJson(readFileSync(join(root, "first", "stages", "midtrain", "tokenizer.json")));
  const spelled = (row: number): number[] => catalogue.tokensAt(row).map((t) => tokenizer.requireTokenId(t));
  const prompt = [tokenizer.requireTokenId("<|history|>"), ...history.flatMap(spelled)];
  const modelId = (await worker.getInfo()).modelIds.at(-1) as string;
  const out: number[] = [];
  for (const row of candidates) {
    const { logprobs } = await worker.forward({ modelId, batch: { groups: [{ prompt, responses: [spelled(row)] }] } });
    out.push(logprobs.reduce((a, b) => a + b, 0));
  }
  return out;
}

describe("batching", () => {
  it("computes what waits together in one call, up to maxBatch, each mode apart", async () => {
    const { engine, workers } = await setUp(root, "first", { set: ["serve.maxBatch=8", "serve.cache=0"] });
    const worker = workers[0] as GatedWorker;
    let open: () => void = () => {};
    worker.gate = () => new Promise((resolve) => (open = resolve));
    const first = engine.rerank(makeRequest(five));
    await until(() => worker.batches.length === 1);
    worker.gate = async () => {};
    const rest = Array.from({ length: 20 }, (_, k) => engine.rerank(makeRequest([k, k + 1, k + 5])));
    const thoughts = Array.from({ length: 3 }, () => engine.rerank(makeRequest(five, { mode: "think" })));
    await until(() => engine.load().queued === 23);
    open();
    const answers = await Promise.all([first, ...rest, ...thoughts]);
    expect(answers.every((a) => a.fallback === undefined)).toBe(true);
    expect([...worker.batches].sort((a, b) => a - b)).toEqual([1, 3, 4, 8, 8]);
    expect(engine.load()).toMatchObject({ queued: 0, running: 0 });
  });

  it("answers an input it has seen before from memory, exactly", async () => {
    const { engine, workers } = await setUp(root, "first");
    const once = await engine.rerank(makeRequest(five));
    const again = await engine.rerank(makeRequest(five));
    expect(again.ranking).toEqual(once.ranking);
    expect(workers[0]?.batches).toEqual([1]);
    await engine.rerank(makeRequest([...five].reverse()));
    expect(workers[0]?.batches).toEqual([1, 1]);
  });

  it("does not let one bad request cost the others their answers", async () => {
    const { engine, workers } = await setUp(root, "first", { set: ["serve.batchWaitMs=20"] });
    const worker = workers[0] as GatedWorker;
    worker.poison = (prompt) => prompt.length === 1; // an empty history
    const [bad, ...good] = await Promise.all([
      engine.rerank({ ...makeRequest(five), history: [] }),
      engine.rerank(makeRequest(five)),
      engine.rerank(makeRequest([1, 2, 3])),
    ]);
    expect(worker.batches).toEqual([3, 1, 1, 1]);
    expect(bad?.fallback).toBe("invalid_answer");
    expect(good.map((a) => a.fallback)).toEqual([undefined, undefined]);
  });
});

describe("the caller's own order comes back", () => {
  it("when the deadline passes; the worker is told to stop", async () => {
    const { engine, workers } = await setUp(root, "first");
    let cancelled = false;
    (workers[0] as GatedWorker).gate = (call: CallOptions | undefined) => {
      call?.signal?.addEventListener("abort", () => {
        cancelled = true;
      });
      return forever(call);
    };
    const answer = await engine.rerank(makeRequest(five, { deadlineMs: 40, topN: 3 }));
    expect([answer.fallback, ids(answer)]).toEqual(["deadline", own(five).slice(0, 3)]);
    expect(answer.ranking.map((r) => r.score)).toEqual([1, 0.8, 0.6]);
    expect(cancelled).toBe(true);
    (workers[0] as GatedWorker).gate = async () => {};
    expect((await engine.rerank(makeRequest(five))).fallback).toBeUndefined(); // and is free again
  });

  it("when the worker is lost, unless another one can take over", async () => {
    const alone = await setUp(root, "first");
    (alone.workers[0] as GatedWorker).gate = () => Promise.reject(lost());
    expect((await alone.engine.rerank(makeRequest(five))).fallback).toBe("worker_lost");
    await until(() => alone.engine.ready()); // started again
    expect(alone.workers.length).toBe(2);
    expect((await alone.engine.rerank(makeRequest(five))).fallback).toBeUndefined();

    const pair = await setUp(root, "first", { set: ["serve.workers=2"] });
    await until(() => pair.engine.load().workersReady === 2);
    for (const worker of pair.workers.slice(0, 1)) worker.gate = () => Promise.reject(lost());
    const answers = await Promise.all(five.map((i) => pair.engine.rerank(makeRequest([i, i + 1, i + 2]))));
    expect(answers.map((a) => a.fallback)).toEqual(five.map(() => undefined));
    await until(() => pair.workers.length === 3);
  });

  it("or a refusal with the reason, where the request or else the service says so", async () => {
    for (const [own, service, refused] of [
      [undefined, "own-order", false],
      [undefined, "error", true],
      ["error", "own-order", true],
      ["own-order", "error", false],
    ] as const) {
      const { engine, workers } = await setUp(root, "first", { engine: { onFallback: service } });
      (workers[0] as GatedWorker).gate = forever;
      const answer = engine.rerank({ ...makeRequest(five, { deadlineMs: 40 }), ...(own ? { onFallback: own } : {}) });
      if (!refused) expect((await answer).fallback).toBe("deadline");
      else expect(await catchRefusal(answer)).toMatchObject({ code: "unavailable", fallback: "deadline" });
    }
    const busy = await setUp(root, "first", { engine: { maxQueue: 0, overload: "own-order" } });
    const refusal = await catchRefusal(busy.engine.rerank({ ...makeRequest(five), onFallback: "error" }));
    expect([refusal.code, refusal.fallback]).toEqual(["overloaded", "overload"]);
    const answered = await setUp(root, "first", { engine: { onFallback: "error" } });
    expect((await answered.engine.rerank(makeRequest(five))).ranking.length).toBe(5);
  });

  it("when the model's answer is none", async () => {
    const { engine, workers } = await setUp(root, "first");
    const nonsense = { prompt: 0, sample: 0, tokens: Int32Array.of(1, 2), logprobs: new Float32Array(2) };
    (workers[0] as GatedWorker).answer = { ...nonsense, finishReason: "stop" };
    const answer = await engine.rerank(makeRequest(five, { mode: "think" }));
    expect([answer.fallback, ids(answer), answer.reasoning]).toEqual(["invalid_answer", own(five), ""]);
  });

  it("when there is too much to do and the service is set to answer that; else it is refused with a time", async () => {
    for (const overload of ["own-order", "refuse"] as const) {
      const { engine, workers } = await setUp(root, "first", { engine: { maxQueue: 2, overload } });
      (workers[0] as GatedWorker).gate = forever;
      const accepted = Array.from({ length: 3 }, (_, k) => engine.rerank(makeRequest([k, k + 1], { deadlineMs: 300 })));
      const one = engine.rerank(makeRequest(five));
      if (overload === "own-order") expect((await one).fallback).toBe("overload");
      else {
        const refused = await catchRefusal(one);
        expect([refused.code, (refused.retryAfterMs as number) > 0]).toEqual(["overloaded", true]);
      }
      const rest = await Promise.allSettled(accepted);
      expect(rest.filter((r) => r.status === "fulfilled").length).toBeGreaterThanOrEqual(2);
    }
  });

  it("when the process is too late to read what comes and the service is set to answer that; else it is refused", async () => {
    let late = 100;
    const lag = { standing: () => late };
    const refusing = await setUp(root, "first", { lag });
    refusing.engine.shed(); // as late as it may be
    late = 101;
    const refused = await catchRefusal(Promise.resolve().then(() => refusing.engine.shed()));
    expect([refused.code, refused.retryAfterMs]).toEqual(["overloaded", 202]);
    const answering = await setUp(root, "first", { lag, engine: { overload: "own-order" } });
    answering.engine.shed();
    expect((await answering.engine.rerank(makeRequest(five))).fallback).toBe("overload");
  });

  it("and what the process is late counts against the deadline", async () => {
    const { engine, workers } = await setUp(root, "first", {
      lag: { standing: () => 30_000 },
      engine: { maxLagMs: 1e9 },
    });
    (workers[0] as GatedWorker).gate = forever;
    const answer = await engine.rerank(makeRequest(five, { deadlineMs: 30_001 }));
    expect(answer.fallback).toBe("deadline");
    expect(answer.timings.total).toBeGreaterThanOrEqual(30_000);
  });

  it("and a request that cannot be answered in time is refused at once, from what batches took", async () => {
    const { engine, workers } = await setUp(root, "first", { set: ["serve.maxBatch=1", "serve.cache=0"] });
    const worker = workers[0] as GatedWorker;
    worker.gate = () => new Promise((resolve) => setTimeout(resolve, 30));
    await engine.rerank(makeRequest(five)); // about 30 ms
    const queue = Array.from({ length: 10 }, (_, k) => engine.rerank(makeRequest([k, k + 1]))); // about 300 ms
    await until(() => engine.load().queued >= 9);
    const refused = await catchRefusal(engine.rerank(makeRequest(five, { deadlineMs: 100 })));
    expect(refused.code).toBe("overloaded");
    expect(refused.retryAfterMs).toBeGreaterThan(10);
    expect((await Promise.all(queue)).every((a) => a.fallback === undefined)).toBe(true);
  });
});

describe("cancelling, swapping, draining", () => {
  it("a caller that goes away is forgotten: in the queue and in the worker", async () => {
    const { engine, workers } = await setUp(root, "first");
    let aborted = 0;
    (workers[0] as GatedWorker).gate = (call) => {
      call?.signal?.addEventListener("abort", () => aborted++);
      return forever(call);
    };
    const caller = new AbortController();
    const running = engine.rerank(makeRequest(five), { signal: caller.signal });
    await until(() => engine.load().running === 1);
    const waiting = engine.rerank(makeRequest([1, 2]), { signal: caller.signal });
    await until(() => engine.load().queued === 1);
    caller.abort();
    await Promise.all([catchRefusal(running), catchRefusal(waiting)]);
    await until(() => engine.load().running === 0);
    expect([aborted, engine.load().queued]).toEqual([1, 0]);
  });

  it("a new run takes over without a request lost; each answer names the run it is from", async () => {
    const { engine, workers, deployment } = await setUp(root, "first");
    const before = engine.model()?.version;
    let open: () => void = () => {};
    (workers[0] as GatedWorker).gate = () => new Promise((resolve) => (open = resolve));
    const old = engine.rerank(makeRequest(five));
    await until(() => engine.load().running === 1);
    engine.deploy(await deployment("first", ["serve.system=sft"]));
    const fresh = await engine.rerank(makeRequest(five));
    open();
    expect((await old).modelVersion).toBe(before);
    expect((await old).fallback).toBeUndefined();
    expect(fresh.modelVersion).toBe(engine.model()?.version);
    expect(fresh.modelVersion).not.toBe(before);
    expect(engine.model()?.systems).toEqual({ think: "sft", direct: "sft_direct" });
  });

  it("a drain finishes what is accepted and refuses the rest; what takes too long gets its own order", async () => {
    const { engine, workers } = await setUp(root, "first");
    let open: () => void = () => {};
    (workers[0] as GatedWorker).gate = () => new Promise((resolve) => (open = resolve));
    const accepted = engine.rerank(makeRequest(five));
    await until(() => engine.load().running === 1);
    const drained = engine.drain(5_000);
    const refused = await catchRefusal(engine.rerank(makeRequest(five)));
    expect([refused.code, engine.ready()]).toEqual(["unavailable", false]);
    open();
    expect((await accepted).fallback).toBeUndefined();
    await drained;
    expect(engine.model()).toBeUndefined();

    const slow = await setUp(root, "first");
    (slow.workers[0] as GatedWorker).gate = forever;
    const late = slow.engine.rerank(makeRequest(five));
    await until(() => slow.engine.load().running === 1);
    await slow.engine.drain(20);
    expect((await late).fallback).toBe("shutting_down");
  });

  it("a worker that does not answer for its health, or does not load, is started again", async () => {
    const { engine, workers, log } = await setUp(root, "first", {
      set: ["serve.healthMs=10"],
      prepare: (worker, nth) => {
        if (nth === 1)
          worker.loadModel = async () => {
            throw lost();
          };
      },
    });
    (workers[0] as GatedWorker).health = () => {
      throw lost();
    };
    await until(() => workers.length === 3 && engine.ready());
    expect(log.some((line) => line.includes("is lost"))).toBe(true);
    expect(log.some((line) => line.includes("trying again"))).toBe(true);
    expect((await engine.rerank(makeRequest(five))).fallback).toBeUndefined();
  });
});
