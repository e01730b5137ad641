import { describe, expect, it } from "vitest";
import { RunError } from "../../../src/core/errors.ts";
import { Catalogue } from "../../../src/sid/catalogue.ts";
import { checkUniqueness, explainCollisions, type GateSettings } from "../../../src/sid/gate.ts";
import { sidReport } from "../../../src/sid/report.ts";

const settings: GateSettings = {
  minUniqueness: 0.99,
  randomLastLevel: false,
  method: "rqvae",
  kmeansInit: true,
  emaDecay: 0.95,
  deadCodeResetEpochs: 0,
};

const makeReport = (ids: number[][], codes: number) =>
  sidReport({
    catalogue: Catalogue.of(ids, { levels: 2, codes, format: "bare" }),
    titles: ids.map((_, row) => `item ${row}`),
  });

/** Both levels in full use, two items collide: 0 0 twice. */
const even = makeReport([[0, 0], [0, 0], [0, 1], [1, 0], [1, 1]], 2); // biome-ignore format: codes

describe("the uniqueness gate", () => {
  it("says how many collide and names a few of them", () => {
    const report = makeReport([[0, 0], [0, 0], [0, 0], [0, 0], [1, 1], [1, 1], [2, 0]], 4); // biome-ignore format: codes
    expect(() => checkUniqueness(report, settings)).toThrow(RunError);
    expect(() => checkUniqueness(report, settings)).toThrow(
      /only 14\.29 % .* requires 99 %; 6 items share 2 IDs, .*"item 0" and "item 1" and "item 2" and 1 more; "item 4" and "item 5"$/,
    );
    expect(() => checkUniqueness(report, { ...settings, minUniqueness: 1 / 7 })).not.toThrow();
  });

  it("gives the advice that fits the cause", () => {
    // 5 items, 2 x 2 IDs.
    expect(explainCollisions(even, settings)).toMatch(/^2 codes on 2 levels give 4 IDs for 5 items: raise sid.codes/);
    // Level 1 uses 1 code of 4.
    const idle = makeReport([[0, 0], [0, 0], [0, 1], [0, 2]], 4); // biome-ignore format: codes
    expect(explainCollisions(idle, settings)).toMatch(
      /level 1 uses 1 of 4 codes.*deadCodeResetEpochs to 5, switch on sid.random/,
    );
    expect(explainCollisions(idle, { ...settings, emaDecay: 0, kmeansInit: false, deadCodeResetEpochs: 5 })).toMatch(
      /: switch on sid.kmeansInit, set sid.emaDecay to 0.95, switch on sid.randomLastLevel/,
    );
    // 3 items share code 0 and only 2 last codes exist; k-means has no dead codes to reset.
    const full = makeReport([[0, 0], [0, 0], [0, 1]], 2); // biome-ignore format: codes
    expect(explainCollisions(full, { ...settings, method: "rqkmeans" })).toMatch(
      /^3 items share all codes but the last, which has 2/,
    );
    const alike = makeReport([[0, 0], [0, 0], [1, 1]], 2); // biome-ignore format: codes
    expect(explainCollisions(alike, settings)).toMatch(/^The last code is the nearest one/);
    expect(explainCollisions(alike, { ...settings, randomLastLevel: true })).toMatch(/yet some collide/);
  });
});
