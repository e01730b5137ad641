import { expect, it } from "vitest";
import { Rng } from "../../../src/core/rng.ts";

it("draws of fresh streams are uniform across streams, the first one too", () => {
  const numStreams = 4000;
  for (let draw = 0; draw < 4; draw++) {
    const bins = new Array<number>(10).fill(0);
    for (let s = 0; s < numStreams; s++) {
      const rng = Rng.of(s, "stream");
      for (let k = 0; k < draw; k++) rng.uniform();
      const b = Math.floor(rng.uniform() * 10);
      bins[b] = (bins[b] ?? 0) + 1;
    }
    const expected = numStreams / 10;
    const chiSquare = bins.reduce((sum, n) => sum + (n - expected) ** 2 / expected, 0);
    expect(chiSquare).toBeLessThan(33); // 9 degrees of freedom: p = .0001
  }
});
