/**
 * Items that the model does not know: texts encoded together, kept, charged for, in turn; and items registered
 * beforehand.
 */
import { appendFileSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { NewItems, type NewItemsSettings } from "../../../src/serve/model/new-items.ts";
import { RegisteredItems } from "../../../src/serve/model/registered-items.ts";
import { type Caller, Refusal } from "../../../src/serve/request/types.ts";
import { forever, GatedWorker, makeRequest, makeRuns, setUp, until } from "../../service-fixture.ts";

const folder = mkdtempSync(join(tmpdir(), "gr2-new-items-"));
let root = "";
beforeAll(async () => {
  root = await makeRuns(folder, { first: [], second: ["seed=7"] });
}, 60_000);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const never = new AbortController().signal;
const caller = (name: string): Caller & { charged: number } => ({
  name,
  charged: 0,
  charge(requests) {
    this.charged += requests;
  },
});
const words = (start: string, n: number): string[] => Array.from({ length: n }, (_, i) => `${start}${i}`);

/** An encoder whose calls wait for `go`. A text's code is its length. */
function makeItems(settings: Partial<NewItemsSettings> = {}) {
  const calls: string[][] = [];
  const pending: (() => void)[] = [];
  const items = new NewItems(
    async (texts) => {
      calls.push([...texts]);
      await new Promise<void>((resolve) => pending.push(resolve));
      return texts.map((t) => [t.length]);
    },
    { capacity: 1_000, maxWaiting: 100, cost: 1, ...settings },
  );
  const finish = async (): Promise<void> => {
    while (pending.length > 0 || items.waiting > 0) {
      pending.shift()?.();
      await new Promise(setImmediate);
    }
  };
  return { items, calls, pending, finish };
}

describe("unknown texts", () => {
  it("are encoded in batches, each once, however many ask, and remembered", async () => {
    const { items, calls, finish } = makeItems();
    const first = items.encodeTexts(["a", "bb"], caller("x"), never);
    const same = items.encodeTexts(["bb"], caller("y"), never);
    const many = items.encodeTexts(words("word", 40), caller("x"), never);
    await finish();
    expect(await Promise.all([first, same])).toEqual([[[1], [2]], [[2]]]);
    expect((await many).length).toBe(40);
    expect(calls.map((texts) => texts.length)).toEqual([2, 32, 8]);
    await items.encodeTexts(["bb", "word3"], caller("y"), never);
    expect(calls.length).toBe(3);
  });

  it("are encoded although their caller has left, after what others wait for; it finds them when it comes again", async () => {
    const { items, calls, finish } = makeItems();
    const busy = items.encodeTexts(["now"], caller("x"), never);
    const left = new AbortController();
    const gone = items.encodeTexts(["left"], caller("x"), left.signal);
    left.abort();
    const waiting = items.encodeTexts(words("word", 32), caller("x"), never);
    await finish();
    await Promise.all([busy, gone, waiting]);
    expect(calls.map((texts) => texts.includes("left"))).toEqual([false, false, true]);
    const again = caller("x");
    expect(await items.encodeTexts(["left"], again, never)).toEqual([[4]]);
    expect([calls.length, again.charged]).toEqual([3, 0]);
  });

  it("come in turn: a client with few does not wait for one with many", async () => {
    const { items, calls, finish } = makeItems();
    const greedy = items.encodeTexts(words("greedy", 90), caller("greedy"), never);
    const modest = items.encodeTexts(["modest"], caller("modest"), never);
    await finish();
    await Promise.all([greedy, modest]);
    expect(calls.findIndex((texts) => texts.includes("modest"))).toBe(1); // the first call had begun
  });

  it("are charged to whoever asks first, by their number", async () => {
    const { items, finish } = makeItems({ cost: 0.5 });
    const [one, other] = [caller("one"), caller("other")];
    const both = [items.encodeTexts(["a", "b", "c"], one, never), items.encodeTexts(["b", "d"], other, never)];
    await finish();
    await Promise.all(both);
    expect([one.charged, other.charged]).toEqual([1.5, 0.5]);
  });

  it("are refused beyond the number that may wait; those that nobody waits for give way first", async () => {
    const { items, finish } = makeItems({ maxWaiting: 4 });
    const busy = items.encodeTexts(["now"], caller("x"), never);
    const left = new AbortController();
    const gone = items.encodeTexts(["a", "b", "c"], caller("x"), left.signal).catch((e: Error) => e.message);
    left.abort();
    const kept = items.encodeTexts(["d", "e"], caller("x"), never);
    const refused = await items.encodeTexts(["f", "g", "h"], caller("x"), never).catch((e: unknown) => e);
    expect(refused).toBeInstanceOf(Refusal);
    expect((refused as Refusal).code).toBe("overloaded");
    await finish();
    await Promise.all([busy, kept]);
    expect(await gone).toBe("nobody waits for it");
  });

  it("fail with a call that fails, and the next is another call", async () => {
    let broken = true;
    const items = new NewItems(
      async (texts) => {
        if (broken) throw new Error("lost");
        return texts.map(() => [0]);
      },
      { capacity: 10, maxWaiting: 10, cost: 1 },
    );
    await expect(items.encodeTexts(["a"], caller("x"), never)).rejects.toThrow("lost");
    broken = false;
    expect(await items.encodeTexts(["a"], caller("x"), never)).toEqual([[0]]);
  });
});

describe("a service with its own encoder", () => {
  const unknown = (n: number) => ({
    ...makeRequest([]),
    candidates: words("A film nobody knows ", n).map((text) => ({ id: text, text })),
  });

  it("answers others while it encodes, and the same texts at once when their caller comes again", async () => {
    const encoder = new GatedWorker();
    const { engine, workers } = await setUp(root, "first", {
      startEncoder: async () => ({ client: encoder, close: async () => {} }),
    });
    const embed = encoder.embed.bind(encoder);
    let open: () => void = () => {};
    encoder.embed = async (request, call) => {
      await new Promise<void>((resolve) => (open = resolve));
      return embed(request, call);
    };
    const tooSoon = engine.rerank({ ...unknown(30), deadlineMs: 30 });
    expect((await engine.rerank(makeRequest([1, 2, 3]))).fallback).toBeUndefined();
    expect((await tooSoon).fallback).toBe("deadline");
    open();
    await until(() => encoder.log.includes("encodeSemanticIds"));
    const numCalls = encoder.log.filter((verb) => verb === "embed").length;
    expect((await engine.rerank(unknown(30))).fallback).toBeUndefined();
    expect(encoder.log.filter((verb) => verb === "embed").length).toBe(numCalls);
    expect(workers[0]?.log).not.toContain("embed");
  });

  it("encodes with the workers that answer while that one is lost", async () => {
    const { engine, workers } = await setUp(root, "first", {
      startEncoder: async () => {
        throw new Error("no such program");
      },
    });
    expect((await engine.rerank(unknown(3))).fallback).toBeUndefined();
    expect(workers[0]?.log).toContain("embed");
  });
});

describe("registered items", () => {
  it("are known by their id from then on, to a service started later too, and are encoded once", async () => {
    const itemsFile = join(folder, "kept.jsonl");
    const { engine } = await setUp(root, "first", { itemsFile });
    const asked = {
      ...makeRequest([]),
      candidates: [
        { id: "a", itemId: "i1" },
        { id: "b", itemId: "later" },
      ],
    };
    await expect(engine.rerank(asked)).rejects.toThrow("candidates[1].item_id is not an item this model knows");
    const items = [
      { itemId: "later", text: "A film from next year" },
      { itemId: "i3", text: "Ours" },
      { text: "No id" },
    ];
    const first = caller("x");
    expect(await engine.register(items, { caller: first })).toEqual({
      version: 1,
      registered: 1,
      unchanged: 1,
      known: 1,
    });
    expect(first.charged).toBe(2);
    const again = caller("x");
    expect(await engine.register(items.slice(0, 1), { caller: again })).toMatchObject({ version: 1, registered: 0 });
    expect([again.charged, engine.itemsVersion()]).toEqual([0, 1]);
    const answer = await engine.rerank(asked);
    const byText = await engine.rerank({
      ...asked,
      candidates: asked.candidates.map((c) => (c.id === "b" ? { id: "b", text: "A film from next year" } : c)),
    });
    expect(answer.ranking).toEqual(byText.ranking);

    const later = await setUp(root, "first", { itemsFile });
    const embeds = () => later.workers[0]?.log.filter((verb) => verb === "embed").length;
    const before = embeds();
    expect((await later.engine.rerank(asked)).ranking).toEqual(answer.ranking);
    expect([embeds(), later.engine.itemsVersion()]).toEqual([before, 1]);
  });

  it("change their text with the next registration, and are refused without one or beyond the limit", async () => {
    const { engine } = await setUp(root, "first", {
      itemsFile: join(folder, "few.jsonl"),
      set: ["serve.maxItems=2", "serve.limits.maxItems=3"],
    });
    const register = (...items: { itemId?: string; text?: string }[]) => engine.register(items);
    expect(await register({ itemId: "x", text: "One" })).toMatchObject({ version: 1, registered: 1 });
    expect(await register({ itemId: "x", text: "Other" })).toMatchObject({ version: 2, registered: 1 });
    await expect(register({ itemId: "y" })).rejects.toThrow("items[0].text is missing or blank");
    await expect(register()).rejects.toThrow("items is empty");
    const many = ["a", "b", "c", "d"].map((id) => ({ itemId: id, text: id }));
    await expect(register(...many)).rejects.toThrow("items has 4 entries; at most 3");
    await expect(register(...many.slice(0, 2))).rejects.toThrow("at most 2 items may be registered");
  });

  it("are encoded again for a run with other semantic IDs, and what one process writes another reads", async () => {
    const itemsFile = join(folder, "shared.jsonl");
    const one = await setUp(root, "first", { itemsFile });
    const other = await setUp(root, "second", { itemsFile });
    await one.engine.register([{ itemId: "later", text: "A film from next year" }]);
    const asked = { ...makeRequest([1, 2]), history: [{ itemId: "later" }] };
    expect((await other.engine.rerank(asked)).fallback).toBeUndefined();
    expect(other.engine.itemsVersion()).toBe(1);
    const third = await setUp(root, "second", { itemsFile });
    await until(() => readFileSync(itemsFile, "utf8").split("\n").length >= 4);
    expect(third.engine.itemsVersion()).toBe(1);
  });

  it("are read line by line: half a line waits for its end, a wrong one is named", () => {
    const path = join(folder, "lines.jsonl");
    const found: string[] = [];
    const items = new RegisteredItems(path, "mine", (text) => found.push(text));
    appendFileSync(path, '{"item":{"id":"a","text":"A"}}\n{"text":"A","lineage":"mine","codes":[1]}\n{"text":"B","lin');
    items.refresh();
    expect([items.find("a"), found, items.version]).toEqual(["A", ["A"], 1]);
    appendFileSync(path, 'eage":"other","codes":[1]}\n');
    items.refresh();
    expect(found).toEqual(["A"]);
    appendFileSync(path, "nonsense\n");
    expect(() => items.refresh()).toThrow("lines.jsonl contains a line that is not a registered item: nonsense");
  });
});

it("a request whose texts are being encoded when the service ends gets its own order", async () => {
  const { engine, workers } = await setUp(root, "first");
  const worker = workers[0] as GatedWorker;
  worker.embed = async (_, call) => {
    await forever(call);
    throw new Error("unreachable");
  };
  const answer = engine.rerank({ ...makeRequest([1]), candidates: [{ id: "n", text: "Unknown" }] });
  await engine.drain(20);
  expect((await answer).fallback).toBe("shutting_down");
});
