import { describe, expect, it } from "vitest";
import { toClaim } from "../../../bench/claim.ts";
import { shares } from "../../../bench/pipeline.ts";

describe("benchmarks", () => {
  it("print every field of a claim and judge it by its bar", () => {
    const claim = toClaim({
      claim: "x/y",
      value: 3,
      unit: "s",
      n: 5,
      peer: "z",
      peerValue: 2,
      bar: ["ratio", "<=", 2],
    });
    expect(Object.keys(claim)).toEqual([
      "claim",
      "value",
      "unit",
      "peer",
      "peer_value",
      "ratio",
      "bar",
      "ok",
      "n",
      "hardware",
    ]);
    expect(claim).toMatchObject({ ratio: 1.5, bar: "ratio <= 2", ok: true, n: 5 });
    expect(toClaim({ claim: "x", value: 3, unit: "s", n: 1, bar: ["value", "<=", 2] })).toMatchObject({ ok: false });
    expect(toClaim({ claim: "x", value: 0, unit: "s", n: 1, bar: ["value", ">", 0] })).toMatchObject({ ok: false });
    expect(toClaim({ claim: "x", value: Number.NaN, unit: "s", n: 1, bar: ["value", "<=", 2] }).ok).toBe(false);
    expect(toClaim({ claim: "x", value: 1, unit: "s", n: 1 })).toMatchObject({ bar: "", ok: true, ratio: null });
  });

  it("split a run's time into worker, wire and TypeScript", () => {
    const verb = { calls: 10, retries: 0, bytesSent: 2 ** 20, bytesReceived: 0, computeSeconds: 0 };
    const costs = {
      stages: { sft: 60, rl: 40 },
      busySeconds: 70,
      verbs: {
        sample: { ...verb, wallSeconds: 50, packSeconds: 1 },
        forward: { ...verb, wallSeconds: 30, packSeconds: 1 },
      },
    };
    const of = (part: string) => shares(costs).find((m) => m.claim.includes(part))?.value;
    expect(of("in the worker")).toBeCloseTo(0.7);
    expect(of("on the wire")).toBeCloseTo((80 - 70 - 2) / 100);
    expect(of("time in TypeScript")).toBeCloseTo(1 - 0.7 - 0.08);
    expect(of("bytes sent")).toBe(2);
    expect(shares({ ...costs, busySeconds: undefined })).toEqual([]);
  });
});
