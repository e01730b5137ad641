import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { CheckpointError, DataError } from "../../../src/core/errors.ts";
import { Catalogue } from "../../../src/sid/catalogue.ts";
import type { SidShape } from "../../../src/sid/semantic-id.ts";

const shape: SidShape = { levels: 2, codes: 3, format: "wrapped" };
const ids = [
  [0, 1],
  [2, 2],
  [0, 1],
  [1, 0],
];
const catalogue = Catalogue.of(ids, shape);

const anyIds = fc.array(fc.tuple(fc.nat(2), fc.nat(2)), { maxLength: 30 });

describe("Catalogue", () => {
  it("answers both ways, and collisions with a list", () => {
    expect(catalogue.numItems).toBe(4);
    expect(catalogue.codesAt(1)).toEqual([2, 2]);
    expect(catalogue.textAt(3)).toBe("<|sid_begin|><s_a_1><s_b_0><|sid_end|>");
    expect(catalogue.tokensAt(3)).toEqual(["<|sid_begin|>", "<s_a_1>", "<s_b_0>", "<|sid_end|>"]);
    expect(catalogue.findRow([2, 2])).toBe(1);
    expect(catalogue.findRows([0, 1])).toEqual([0, 2]);
    expect(catalogue.findRow([0, 1])).toBeUndefined();
    expect(catalogue.findRows([1, 1])).toEqual([]);
    expect(catalogue.findRow([1, 1])).toBeUndefined();
    expect(catalogue.findRows([0])).toEqual([]);
    expect(catalogue.rowOfText("<|sid_begin|><s_a_1><s_b_0><|sid_end|>")).toBe(3);
    expect(catalogue.rowOfText("<s_a_1><s_b_0>")).toBeUndefined();
    expect(() => catalogue.codesAt(4)).toThrow("row 4");
  });

  it("measures uniqueness: 2 of 4 items have an ID of their own", () => {
    expect(catalogue.uniqueness()).toBe(0.5);
    expect(catalogue.collisions()).toEqual([[0, 2]]);
    expect(Catalogue.of([], shape).uniqueness()).toBe(1);
  });

  it("reads the worker's matrix", () => {
    const data = Int32Array.from(ids.flat());
    expect(Catalogue.fromMatrix({ rows: 4, cols: 2, data }, 3, "wrapped").hash()).toBe(catalogue.hash());
    expect(() => Catalogue.fromMatrix({ rows: 3, cols: 2, data }, 3, "wrapped")).toThrow(DataError);
  });

  it.each([
    ["too few codes", [[1]]],
    ["a code out of range", [[1, 3]]],
    ["a negative code", [[-1, 0]]],
    ["a fraction", [[0.5, 0]]],
  ])("refuses %s and names the row", (_what, bad) => {
    expect(() => Catalogue.of([[0, 0], ...bad], shape)).toThrow("item row 1");
  });

  it("does not change when the caller's arrays do", () => {
    const mine = [[0, 1]];
    const copy = Catalogue.of(mine, shape);
    (mine[0] as number[])[0] = 2;
    expect(copy.codesAt(0)).toEqual([0, 1]);
  });

  it("survives JSON, and its hash sees every change", () => {
    fc.assert(
      fc.property(anyIds, anyIds, (a, b) => {
        const one = Catalogue.of(a, shape);
        const back = Catalogue.fromJSON(JSON.parse(JSON.stringify(one)));
        expect(back.allCodes()).toEqual(a);
        expect(back.hash()).toBe(one.hash());
        expect(Catalogue.of(b, shape).hash() === one.hash()).toBe(JSON.stringify(a) === JSON.stringify(b));
      }),
    );
    expect(Catalogue.of(ids, { ...shape, format: "bare" }).hash()).not.toBe(catalogue.hash());
    expect(Catalogue.of(ids, { ...shape, codes: 4 }).hash()).not.toBe(catalogue.hash());
  });

  it.each([
    ["null", null],
    ["another version", { ...catalogue.toJSON(), version: 2 }],
    ["another format", { ...catalogue.toJSON(), format: "x" }],
    ["no IDs", { ...catalogue.toJSON(), ids: undefined }],
    ["an ID changed", { ...catalogue.toJSON(), ids: [[0, 0], ...ids.slice(1)] }],
    ["an impossible ID", { ...catalogue.toJSON(), ids: [["0", 0]] }],
    ["an impossible shape", { ...catalogue.toJSON(), levels: "two" }],
    ["no hash", { ...catalogue.toJSON(), hash: undefined }],
  ])("refuses stored JSON with %s", (_what, json) => {
    expect(() => Catalogue.fromJSON(json)).toThrow(CheckpointError);
  });

  it("finds every row by its own codes", () => {
    fc.assert(
      fc.property(anyIds, (list) => {
        const any = Catalogue.of(list, shape);
        list.forEach((codes, row) => {
          expect(any.findRows(codes)).toContain(row);
        });
        const alone = list.filter((codes) => any.findRow(codes) !== undefined).length;
        expect(any.uniqueness()).toBe(list.length === 0 ? 1 : alone / list.length);
      }),
    );
  });
});
