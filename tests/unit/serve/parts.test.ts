/** The service's small parts: what is remembered, what is expected of batches, thoughts as text. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { BatchTimes, expectedWait } from "../../../src/serve/engine/latency.ts";
import { LoopLag } from "../../../src/serve/engine/loop-lag.ts";
import { AnswerAlarm } from "../../../src/serve/model/answer-alarm.ts";
import { Lru } from "../../../src/serve/model/lru.ts";
import { ReasoningStream, reasoningText } from "../../../src/serve/request/reasoning.ts";

describe("Lru", () => {
  it("keeps as many as allowed and drops the least recently used", () => {
    const lru = new Lru<string, number>(2);
    lru.set("a", 1);
    lru.set("b", 2);
    lru.get("a");
    lru.set("c", 3);
    expect([lru.get("a"), lru.get("b"), lru.get("c"), lru.size]).toEqual([1, undefined, 3, 2]);
    const none = new Lru<string, number>(0);
    none.set("a", 1);
    expect([none.get("a"), none.size]).toEqual([undefined, 0]);
  });
});

describe("LoopLag", () => {
  const lagAfter = (...beatsAt: readonly number[]): number => {
    let now = 0;
    const lag = new LoopLag(() => now);
    for (const at of beatsAt) {
      now = at;
      lag.beat();
    }
    return lag.standing();
  };

  it("is the smallest of the last four beats, due 20 ms apart", () => {
    expect(lagAfter(20, 40, 60, 80)).toBe(0);
    // due 20, 170, 310, 480: late by 130, 120, 150, 140
    expect(lagAfter(150, 290, 460, 620)).toBe(120);
    expect(lagAfter(5, 150, 290, 460, 620)).toBe(120); // an early beat is not late, and is forgotten
  });

  it("is nothing after one long pause, and before there is enough to tell", () => {
    expect(lagAfter(20, 40, 5_000, 5_020)).toBe(0);
    expect(lagAfter(1_000, 2_000, 3_000)).toBe(0);
  });
});

describe("BatchTimes", () => {
  it("finds the fixed and the growing part of a batch's time", () => {
    const times = new BatchTimes();
    expect(times.expect(4)).toBeUndefined();
    times.observe(1, 12);
    expect(times.expect(8)).toBe(12); // nothing else is known yet
    for (const n of [2, 8, 32, 16]) times.observe(n, 10 + 2 * n);
    expect(times.expect(8)).toBeCloseTo(26, 6);
    expect(times.expect(32)).toBeCloseTo(74, 6);
  });

  it("is never negative, whatever it is told", () => {
    const seen = fc.array(fc.tuple(fc.integer({ min: 1, max: 64 }), fc.double({ min: 0, max: 1e5, noNaN: true })), {
      minLength: 1,
      maxLength: 50,
    });
    fc.assert(
      fc.property(seen, fc.integer({ min: 1, max: 64 }), (batches, size) => {
        const times = new BatchTimes();
        for (const [n, ms] of batches) times.observe(n, ms);
        expect(times.expect(size)).toBeGreaterThanOrEqual(0);
      }),
    );
  });

  it("adds up to a wait: 70 waiting in batches of 32, on two workers", () => {
    const times = new BatchTimes();
    for (const n of [1, 32]) times.observe(n, 10 + n);
    // 2 whole batches of 42 ms, one of 6 with 16 ms, 20 ms still running: 120 ms of work for two.
    const { wait, own } = expectedWait([{ waiting: 70, times }], times, 2, 32, 20);
    expect(wait).toBeCloseTo(60, 6);
    expect(own).toBeCloseTo(11, 6);
  });
});

describe("a thought", () => {
  const words = ["", " because:", " fé", "\uFFFD", "<s_a_1>", "<s_b_2>", "<|answer|>", " so"];
  const parts = {
    shape: { levels: 2, codes: 4, format: "bare" as const },
    decode: (ids: readonly number[]) => ids.map((i) => words[i]).join(""),
    trigger: [6],
    getTitle: (codes: readonly number[]) => (codes.join() === "1,2" ? "Heat" : undefined),
    isSound: () => true,
  };

  it("names items by title", () => {
    expect(reasoningText([1, 4, 5, 7], parts)).toBe("because: “Heat” so");
    expect(reasoningText([4, 5], { ...parts, getTitle: () => undefined })).toBe("“no such item”");
  });

  it("comes in pieces that never need to be taken back and add up to the whole", () => {
    const token = fc.constantFrom(0, 1, 2, 4, 5, 7);
    fc.assert(
      fc.property(fc.array(token, { maxLength: 30 }), (tokens) => {
        const stream = new ReasoningStream(parts);
        const pieces = [...tokens, 6].map((t, i) => stream.push(i, t));
        expect(pieces.join("").trim()).toBe(reasoningText(tokens, parts));
        expect(pieces.join("")).not.toContain("answer");
        expect(stream.push(tokens.length + 1, 7)).toBe(""); // behind the end nothing comes
      }),
    );
  });

  it("ends where it is no longer fit to be shown", () => {
    const isSound = (tokens: readonly number[]): boolean => tokens.filter((t) => t === 7).length < 3;
    const stream = new ReasoningStream({ ...parts, isSound });
    expect([1, 7, 7, 7, 1, 6].map((t, i) => stream.push(i, t))).toEqual(["because:", " so", " so", "", "", ""]);
  });

  it("passes over tokens that a broken stream sends again", () => {
    const stream = new ReasoningStream(parts);
    expect([stream.push(0, 1), stream.push(0, 1), stream.push(1, 7), stream.push(1, 7)]).toEqual([
      "because:",
      "",
      " so",
      "",
    ]);
  });
});

describe("AnswerAlarm", () => {
  it("is raised once while too many answers are invalid, with the reasons, and again after a calm", () => {
    const said: string[] = [];
    const alarm = new AnswerAlarm((message) => said.push(message));
    const note = (n: number, reason?: string): void => {
      for (let i = 0; i < n; i++) alarm.note(reason);
    };
    note(17);
    note(2, "reasoning repeats itself");
    expect(said).toEqual([]); // 2 of 19: too few to say
    note(1, "not ended"); // 3 of 20
    expect(said).toEqual([
      expect.stringContaining(
        "3 of the last 20 answers with reasoning are invalid (reasoning repeats itself: 2, not ended: 1)",
      ),
    ]);
    note(5, "not ended");
    expect(said).toHaveLength(1);
    note(100);
    note(11, "not ended");
    expect(said).toHaveLength(2);
  });
});
