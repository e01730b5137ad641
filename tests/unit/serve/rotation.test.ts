/** Who is let in, and which run answers, each apart from the engine. */
import { describe, expect, it } from "vitest";
import { Admission } from "../../../src/serve/engine/admission.ts";
import type { Deployment } from "../../../src/serve/engine/deployment.ts";
import { Rotation } from "../../../src/serve/engine/rotation.ts";
import { Refusal } from "../../../src/serve/request/types.ts";

const nextTurn = () => new Promise((resolve) => setImmediate(resolve));

describe("admission", () => {
  const queue = (
    accepted: number,
    expected: { wait: number; own: number },
    running = 0,
    { standing = 0, ahead = 0, own = 1 } = {},
  ) => ({
    accepted,
    ownAccepted: () => own,
    batcher: {
      expected: () => expected,
      load: () => ({ queued: accepted - running, running }),
      standing: () => standing,
      waiting: () => ({ ahead, atOnce: 8 }),
    },
  });
  let now = 0;
  const admission = (overload: "refuse" | "own-order", lag = 0, maxQueue = 2) =>
    new Admission(
      { maxQueue, maxLagMs: 100, overload, standingMs: 500, standingWait: 0.1 },
      { standing: () => lag },
      () => now,
    );
  const refusal = (ask: () => unknown): Refusal => {
    try {
      ask();
    } catch (e) {
      if (e instanceof Refusal) return e;
    }
    throw new Error("not refused");
  };

  it("counts what waits, not what is computed", () => {
    expect(admission("refuse").admits(queue(3, { wait: 0, own: 10 }, 2), "direct", "a", 100)).toBe(true);
    const full = refusal(() => admission("refuse").admits(queue(3, { wait: 40, own: 10 }, 1), "direct", "a", 100));
    expect([full.message, full.retryAfterMs]).toEqual(["2 requests are waiting", 40]);
    expect(admission("own-order").admits(queue(3, { wait: 40, own: 10 }, 1), "direct", "a", 100)).toBe(false);
  });

  it("turns away what cannot be answered in time, with the time that is missing; never the first in line", () => {
    const late = refusal(() => admission("refuse").admits(queue(1, { wait: 90, own: 30 }), "direct", "a", 100));
    expect([late.message, late.retryAfterMs]).toEqual([
      "an answer would take about 120 ms, the deadline is 100 ms",
      20, // 90 + 30 - 100
    ]);
    expect(admission("refuse").admits(queue(1, { wait: 0, own: 300 }), "direct", "a", 100)).toBe(true);
  });

  it("finds room in a full queue for a client that has nothing in it, up to twice the limit", () => {
    const times = { wait: 10, own: 10 };
    const stranger = { own: 0 };
    expect(admission("refuse").admits(queue(3, times, 0, stranger), "direct", "b", 100)).toBe(true);
    expect(refusal(() => admission("refuse").admits(queue(3, times), "direct", "a", 100)).code).toBe("overloaded");
    const most = () => admission("refuse").admits(queue(4, times, 0, stranger), "direct", "b", 100);
    expect(refusal(most).message).toBe("2 requests are waiting");
  });

  it("lets a burst wait up to its deadline, but a queue that stands a tenth of it, until nothing is refused any more", () => {
    const one = admission("refuse", 0, 100);
    const asked = (wait: number, standing: number, ahead = 20, deadlineMs = 2_000): boolean =>
      one.admits(queue(30, { wait, own: 20 }, 0, { standing, ahead }), "direct", "a", deadlineMs);
    expect(asked(1_500, 499)).toBe(true);
    expect(asked(200, 501)).toBe(true); // a tenth of 2,000
    expect(asked(1_500, 501, 7)).toBe(true); // fits the next batches
    expect(asked(1_500, 501, 20, 50_000)).toBe(true); // patient
    expect(refusal(() => asked(201, 501)).retryAfterMs).toBe(201);
    now = 400; // the queue stands no more, because others were refused
    expect(refusal(() => asked(201, 0)).code).toBe("overloaded");
    now = 901;
    expect(asked(201, 0)).toBe(true);
  });

  it("turns everything away while the process is late", () => {
    expect(refusal(() => admission("refuse", 101).shed()).retryAfterMs).toBe(202);
    admission("refuse", 100).shed();
    admission("own-order", 101).shed();
    expect(admission("own-order", 101).admits(queue(0, { wait: 0, own: 0 }), "direct", "a", 100)).toBe(false);
  });
});

describe("rotation", () => {
  const run = (name: string, closed: string[]) =>
    ({
      batcher: { load: () => ({ queued: 1, running: 2 }) },
      close: async () => void closed.push(name),
    }) as unknown as Deployment;

  it("closes a run that was replaced once it owes nothing more", async () => {
    const closed: string[] = [];
    const [first, second] = [run("first", closed), run("second", closed)];
    const rotation = new Rotation();
    rotation.deploy(first);
    const leave = rotation.enter(first, "a", () => {});
    rotation.deploy(second);
    await nextTurn();
    expect([rotation.current, rotation.accepted(first), closed]).toEqual([second, 1, []]);
    expect(rotation.load()).toEqual({ queued: 2, running: 4 });
    leave();
    await nextTurn();
    expect([rotation.accepted(first), closed, rotation.load()]).toEqual([0, ["first"], { queued: 1, running: 2 }]);
  });

  it("drains runs old and new, and ends what is late", async () => {
    const closed: string[] = [];
    const [first, second] = [run("first", closed), run("second", closed)];
    const rotation = new Rotation();
    rotation.deploy(first);
    const ended: string[] = [];
    const leave = rotation.enter(first, "a", (reason) => {
      ended.push(reason);
      leave();
    });
    rotation.deploy(second);
    const drained = rotation.drain(5);
    expect(rotation.draining).toBe(true);
    await drained;
    expect([ended, closed, rotation.current]).toEqual([["shutting_down"], ["first", "second"], undefined]);
  });
});
