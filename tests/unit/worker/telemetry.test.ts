import { existsSync, mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { attach, TelemetryBus, type TelemetryMessage } from "../../../src/worker/telemetry.ts";

const folder = () => mkdtempSync(join(tmpdir(), "gr2-tel-"));
const alive = { isAlive: () => true };

/** Emits until the subscriber has joined: PUB drops what nobody has subscribed to yet. */
async function emitUntil(bus: TelemetryBus, joined: () => boolean): Promise<void> {
  for (let i = 0; i < 200 && !joined(); i++) {
    bus.emit({ kind: "log", level: "info", text: "waiting" });
    await new Promise((done) => setTimeout(done, 10));
  }
}

describe("telemetry over zeromq", () => {
  it("reaches a process that attaches in the middle, without gaps, and ends with the run", async () => {
    const dir = folder();
    const bus = new TelemetryBus("r");
    await bus.publish(dir, undefined);
    const seen: TelemetryMessage[] = [];
    const lost: number[] = [];
    const reader = (async () => {
      for await (const m of attach(dir, { ...alive, onGap: (n) => lost.push(n) })) seen.push(m);
    })();
    await emitUntil(bus, () => seen.length > 0);
    for (let i = 1; i <= 300; i++) bus.emit({ kind: "progress", stage: "s", done: i, total: 300 });
    bus.emit({ kind: "end", status: "finished" });
    await new Promise((done) => setTimeout(done, 50));
    await bus.close();
    await reader;
    expect(seen.filter((m) => m.kind === "progress").length).toBe(300);
    expect(seen.at(-1)).toMatchObject({ kind: "end", run: "r" });
    expect(lost).toEqual([]);
    expect(existsSync(join(dir, "telemetry.json"))).toBe(false);
  });

  it("notices lost messages", async () => {
    const dir = folder();
    const bus = new TelemetryBus("r");
    await bus.publish(dir, undefined);
    const seen: TelemetryMessage[] = [];
    const lost: number[] = [];
    const reader = (async () => {
      for await (const m of attach(dir, { ...alive, onGap: (n) => lost.push(n) })) seen.push(m);
    })();
    await emitUntil(bus, () => seen.length > 0);
    (bus as unknown as { seq: number }).seq += 7;
    bus.emit({ kind: "end", status: "finished" });
    await reader;
    await bus.close();
    expect(lost).toEqual([7]);
  });

  it("ends when the publisher is gone or the reader stops, and at once when nobody publishes", async () => {
    const dir = folder();
    const count = async (options: Parameters<typeof attach>[1]) => {
      let n = 0;
      for await (const _ of attach(dir, options)) n++;
      return n;
    };
    expect(await count(alive)).toBe(0);
    const bus = new TelemetryBus("r");
    await bus.publish(dir, undefined);
    let asked = 0;
    expect(await count({ isAlive: () => asked++ === 0 })).toBe(0);
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 50);
    expect(await count({ ...alive, signal: controller.signal })).toBe(0);
    await bus.close();
  });

  it("never blocks or fails the run: nobody listens, everything is closed, the folder is gone", async () => {
    const bus = new TelemetryBus("r");
    await bus.publish("/nonexistent/folder", undefined);
    const start = performance.now();
    for (let i = 0; i < 5000; i++) bus.emit({ kind: "progress", stage: "s", done: i, total: 5000 });
    expect(performance.now() - start).toBeLessThan(1000);
    await bus.close();
    bus.emit({ kind: "end", status: "finished" });
  });
});
