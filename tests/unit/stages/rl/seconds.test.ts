/** Where the seconds of a step went: the worker's parts, the wire and TypeScript add up to the step. */
import { describe, expect, it } from "vitest";
import { attributeSeconds } from "../../../../src/stages/rl/seconds.ts";

const costs = (wallSeconds: number, computeSeconds: number) => ({ wallSeconds, computeSeconds });

describe("the seconds of a step", () => {
  it("are what the costs grew by: worker, wire, the rest", () => {
    const before = { sample: costs(10, 9), optimStep: costs(1, 1), saveState: costs(5, 5) };
    const after = {
      sample: costs(13, 11.8), // 3 s called, 2.8 s of them computing
      forwardBackward: costs(2, 1.9), // called for the first time
      optimStep: costs(1.5, 1.5),
      saveState: costs(50, 50), // no part of a step
    };
    const values = attributeSeconds(before, after, 6);
    const expected = { sample: 2.8, score: 0, gradient: 1.9, optimizer: 0.5, wire: 0.3, typescript: 0.5 };
    expect(values.seconds).toBe(6);
    for (const [part, seconds] of Object.entries(expected)) expect(values[`seconds_${part}`]).toBeCloseTo(seconds, 10);
    const { seconds, ...parts } = values;
    expect(Object.values(parts).reduce((a, b) => a + b, 0)).toBeCloseTo(seconds as number, 10);
  });

  it("are never negative, whatever two clocks say", () => {
    const values = attributeSeconds({}, { sample: costs(1, 1.001) }, 1);
    expect(values).toMatchObject({ seconds_wire: 0, seconds_typescript: 0 });
  });
});
