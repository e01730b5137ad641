import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  codeTokens,
  findSids,
  formatSid,
  parseSid,
  type SidShape,
  sidTokens,
  spellCodes,
} from "../../../src/sid/semantic-id.ts";

const wrapped: SidShape = { levels: 4, codes: 256, format: "wrapped" };
const bare: SidShape = { ...wrapped, format: "bare" };
const paper = "<|sid_begin|><s_a_57><s_b_7><s_c_23><s_d_4><|sid_end|>";

const shapes = fc.record({
  levels: fc.integer({ min: 1, max: 6 }),
  codes: fc.integer({ min: 1, max: 300 }),
  format: fc.constantFrom("wrapped" as const, "bare" as const),
});
const shapeAndSids = shapes.chain((shape) =>
  fc.record({
    shape: fc.constant(shape),
    sids: fc.array(
      fc.array(fc.integer({ min: 0, max: shape.codes - 1 }), { minLength: shape.levels, maxLength: shape.levels }),
      { minLength: 1, maxLength: 4 },
    ),
  }),
);

describe("spelling", () => {
  it("is the paper's", () => {
    expect(formatSid([57, 7, 23, 4], "wrapped")).toBe(paper);
    expect(formatSid([57, 7, 23, 4], "bare")).toBe("<s_a_57><s_b_7><s_c_23><s_d_4>");
    expect(spellCodes([1, 2], "wrapped")).toEqual(["<|sid_begin|>", "<s_a_1>", "<s_b_2>", "<|sid_end|>"]);
  });

  it("lists code tokens level by level", () => {
    expect(codeTokens(2, 3)).toEqual(["<s_a_0>", "<s_a_1>", "<s_a_2>", "<s_b_0>", "<s_b_1>", "<s_b_2>"]);
    expect(sidTokens(wrapped)).toHaveLength(2 + 4 * 256);
    expect(sidTokens(bare)).toEqual(codeTokens(4, 256));
    expect(new Set(sidTokens(wrapped)).size).toBe(2 + 4 * 256);
  });

  it("refuses shapes that have no letters or no codes", () => {
    expect(() => codeTokens(0, 4)).toThrow("levels");
    expect(() => codeTokens(27, 4)).toThrow("levels");
    expect(() => codeTokens(2, 0)).toThrow("code");
  });
});

describe("parsing", () => {
  it.each([
    ["a space inside", paper.replace("><", "> <")],
    ["text before", ` ${paper}`],
    ["text behind", `${paper}.`],
    ["a line break behind", `${paper}\n`],
    ["two IDs", paper + paper],
    ["no end", paper.replace("<|sid_end|>", "")],
    ["no begin", paper.replace("<|sid_begin|>", "")],
    ["a leading zero", paper.replace("_57>", "_057>")],
    ["a code out of range", paper.replace("_57>", "_256>")],
    ["a huge code", paper.replace("_57>", `_${"9".repeat(30)}>`)],
    ["a negative code", paper.replace("_57>", "_-5>")],
    ["a missing level", paper.replace("<s_b_7>", "")],
    ["levels out of order", "<|sid_begin|><s_b_7><s_a_57><s_c_23><s_d_4><|sid_end|>"],
    ["a level too many", paper.replace("<|sid_end|>", "<s_e_1><|sid_end|>")],
    ["full-width digits", paper.replace("57", "５７")],
    ["nothing", ""],
  ])("refuses %s", (_what, text) => {
    expect(parseSid(text, wrapped)).toBeUndefined();
  });

  it("keeps the formats apart", () => {
    expect(parseSid(paper, bare)).toBeUndefined();
    expect(parseSid(formatSid([1, 2, 3, 4], "bare"), wrapped)).toBeUndefined();
  });

  it("finds IDs in text and passes over broken ones", () => {
    const text = `1. ${paper} then <|sid_begin|><s_a_1> and ${paper.replace("_4>", "_999>")}, ${paper}`;
    const found = findSids(text, wrapped);
    expect(found.map((f) => f.codes)).toEqual([
      [57, 7, 23, 4],
      [57, 7, 23, 4],
    ]);
    expect(found.map((f) => text.slice(f.start, f.end))).toEqual([paper, paper]);
  });

  it("finds a bare ID after a broken start", () => {
    expect(findSids("<s_a_9><s_a_1><s_b_2>", { levels: 2, codes: 10, format: "bare" })).toEqual([
      { codes: [1, 2], start: 7, end: 21 },
    ]);
  });

  it("inverts formatting, for any shape and any text around", () => {
    fc.assert(
      fc.property(shapeAndSids, fc.string(), ({ shape, sids }, between) => {
        const first = formatSid(sids[0] ?? [], shape.format);
        expect(parseSid(first, shape)).toEqual(sids[0]);
        fc.pre(!between.includes("<"));
        const text = sids.map((codes) => formatSid(codes, shape.format)).join(between);
        expect(findSids(text, shape).map((f) => f.codes)).toEqual(sids);
      }),
    );
  });
});
