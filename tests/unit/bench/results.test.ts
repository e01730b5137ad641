import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { type Claim, type Measurement, toClaim } from "../../../bench/claim.ts";
import { compareResults, type KeptResults, readKept, writeKept } from "../../../bench/results.ts";

const keep = (...claims: Claim[]): KeptResults => ({
  bench: "x",
  args: [],
  revision: "abc",
  uncommitted_changes: false,
  date: "2026-11-28",
  conditions: "",
  claims,
});
const ratio = (value: number, bar: Measurement["bar"] = ["ratio", "<=", 10]): Claim =>
  toClaim({ claim: "x/a", value, unit: "s", n: 1, peer: "p", peerValue: 1, ...(bar && { bar }) });
const seconds = (value: number): Claim => toClaim({ claim: "x/s", value, unit: "s", n: 1, bar: ["value", "<=", 100] });

describe("compareResults", () => {
  it("names a ratio that is more than 10 % worse, in the direction of its bar", () => {
    expect(compareResults(keep(ratio(2)), [ratio(2.19)], []).regressed).toEqual([]);
    expect(compareResults(keep(ratio(2)), [ratio(2.22)], []).regressed).toEqual([
      "x/a (bar ratio <= 10): ratio 2 -> 2.22, 11 % worse",
    ]);
    expect(compareResults(keep(ratio(2)), [ratio(1)], []).regressed).toEqual([]);
    const more: Measurement["bar"] = ["ratio", ">=", 0.5];
    expect(compareResults(keep(ratio(2, more)), [ratio(1.7, more)], []).regressed).toHaveLength(1);
    expect(compareResults(keep(ratio(2, more)), [ratio(3, more)], []).regressed).toEqual([]);
  });

  it("names a bar that was cleared and is missed, however small the change", () => {
    expect(compareResults(keep(ratio(9.9)), [ratio(10.1)], []).regressed).toEqual([
      "x/a (bar ratio <= 10): ratio 9.9 -> 10.1, misses its bar",
    ]);
  });

  it("a claim with bars on both sides is as good as it is near 1", () => {
    const pair = (r: number): Claim[] => [ratio(r, ["ratio", ">=", 0.5]), ratio(r, ["ratio", "<=", 2])];
    expect(compareResults(keep(...pair(0.8)), pair(1.1), []).regressed).toEqual([]); // 1/0.8 = 1.25 > 1.1
    expect(compareResults(keep(...pair(0.95)), pair(1.3), []).regressed).toHaveLength(2); // 1/0.95 = 1.05 < 1.3
  });

  it("compares bare values on the same hardware only", () => {
    expect(compareResults(keep(seconds(10)), [seconds(12)], []).regressed).toHaveLength(1);
    const elsewhere = { ...seconds(10), hardware: "another" };
    const other = compareResults(keep(elsewhere), [seconds(12)], []);
    expect(other).toMatchObject({ regressed: [], compared: 0 });
    expect(other.notCompared[0]).toContain("other hardware (kept: another)");
  });

  it("a count that was zero and a value that is no number are regressions", () => {
    expect(compareResults(keep(seconds(0)), [seconds(1)], []).regressed[0]).toContain("0 -> 1, worse");
    expect(compareResults(keep(seconds(1)), [seconds(Number.NaN)], []).regressed[0]).toContain("1 -> NaN, worse");
  });

  it("says what it did not compare: no bar, new, missing, other arguments", () => {
    const info = toClaim({ claim: "x/i", value: 1, unit: "s", n: 1 });
    const { notCompared, compared } = compareResults(keep(seconds(1), info), [info, ratio(1)], ["--quick"]);
    expect(compared).toBe(0);
    expect(notCompared).toEqual([
      'arguments differ: kept with "", now "--quick"',
      "x/i: for information: no bar says which direction is better",
      "x/a (bar ratio <= 10): not among the kept results",
      "x/s: kept, but not measured now",
    ]);
  });
});

describe("kept results", () => {
  it("are read as written; a missing or damaged file is named, with what to do", () => {
    const folder = mkdtempSync(join(tmpdir(), "gr2-results-"));
    try {
      expect(() => readKept(folder, "x")).toThrow(/no kept results of x: .*x\.json does not exist/);
      const results = keep(ratio(2), seconds(Number.NaN));
      writeKept(folder, results);
      expect(readKept(folder, "x").claims.map((c) => c.value)).toEqual([2, null]); // JSON has no NaN
      writeFileSync(join(folder, "x.json"), "{");
      expect(() => readKept(folder, "x")).toThrow(/x\.json is not JSON/);
      writeFileSync(join(folder, "x.json"), JSON.stringify({ ...results, claims: [{ claim: 1 }] }));
      expect(() => readKept(folder, "x")).toThrow(/x\.json: claims\.0\.claim: /);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
