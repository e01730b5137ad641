/** Whatever a policy writes: nothing throws, and nothing but a complete permutation is paid. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { parseResponse } from "../../../src/prompts/parse.ts";
import { markers } from "../../../src/prompts/pieces.ts";
import type { PromptMode } from "../../../src/prompts/rerank.ts";
import { type RewardOptions, type Verdict, verify } from "../../../src/reward/verify.ts";

/** One is a prefix of another in bare spelling: what is longer must not be read as the shorter. */
const spellings = ["<s_a_1><s_b_1>", "<s_a_1><s_b_10>", "<s_a_2><s_b_1>", "<s_a_10><s_b_3>"];
const foreign = ["<s_a_3><s_b_1>", "<s_a_1>", "<s_b_1>", "<s_a_1><s_b_100>", "<|sid_begin|><s_a_1><s_b_1><|sid_end|>"];
const labels = [0, 2, 0, 1];
const invalid = -1;

const options = fc.record({
  kind: fc.constantFrom("rank-promotion" as const, "ndcg" as const, "auc" as const),
  ndcgK: fc.integer({ min: 1, max: 6 }),
  format: fc.constantFrom("conditional" as const, "unconditional" as const, "none" as const),
  formatBonus: fc.constant(0.2),
  dehacked: fc.boolean(),
  invalid: fc.constant(invalid),
}) satisfies fc.Arbitrary<RewardOptions>;

const modes = fc.constantFrom<PromptMode>("think", "answer");
const formats = fc.constantFrom("compact" as const, "json" as const);

const read = (text: string, mode: PromptMode, format: "compact" | "json", o: RewardOptions): Verdict =>
  verify(parseResponse(text, spellings, mode, { format }), labels, o);

/** What holds of any verdict: finite, the sum of its parts, and the price of an invalid answer unless it is valid. */
function sound(v: Verdict): void {
  expect(Number.isFinite(v.reward)).toBe(true);
  expect(v.parts.ranking + v.parts.format + v.parts.invalid).toBe(v.reward);
  expect(v.because.length).toBeLessThan(400);
  if (!v.valid) expect(v).toMatchObject({ reward: invalid, identity: false, after: -1 });
}

/** Pieces that answers are made of, and pieces that try to look like them. */
const fragment = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom(...spellings) },
  { weight: 2, arbitrary: fc.constantFrom(...foreign) },
  { weight: 2, arbitrary: fc.constantFrom(...Object.values(markers)) },
  {
    weight: 2,
    arbitrary: fc.constantFrom(
      '", "ranking": ["',
      '", "',
      '"]}',
      '{"ranking":',
      "[",
      "]",
      "{",
      "}",
      '"',
      "\\",
      "null",
      "1e999",
    ),
  },
  { weight: 2, arbitrary: fc.constantFrom(" ", "\n", "\t", "\u00a0", "\u200b", "\u202e", "\ud800", "\u0000") },
  { weight: 1, arbitrary: fc.string({ unit: "binary", maxLength: 8 }) },
);
const soup = fc.array(fragment, { maxLength: 14 }).map((parts) => parts.join(""));

/**
 * The only way to be valid in the compact format, told from the text alone:
 * what is left without the candidates is white space.
 */
function isPermutation(text: string, mode: PromptMode): boolean {
  const start = mode === "think" ? text.indexOf(markers.answer) + markers.answer.length : 0;
  if (mode === "think" && !text.includes(markers.answer)) return false;
  const [body = "", ...behind] = text.slice(start).split(markers.end);
  const once = spellings.every((s) => body.split(s).length === 2);
  const rest = spellings.reduce((left, s) => left.replace(s, ""), body);
  return behind.length === 1 && behind.join("").trim() === "" && once && rest.trim() === "";
}

describe("hostile answers", () => {
  it("made of candidates, forged markers, foreign IDs and noise are paid only if they are permutations", () => {
    fc.assert(
      fc.property(soup, modes, formats, options, (text, mode, format, o) => {
        const v = read(text, mode, format, o);
        sound(v);
        if (format === "compact") expect(v.valid).toBe(isPermutation(text, mode));
      }),
      { numRuns: 3000 },
    );
  });

  it("are not paid for a permutation with one thing wrong, and are paid for the same without it", () => {
    const order = fc.shuffledSubarray([0, 1, 2, 3], { minLength: 4 });
    const wrongs = fc.constantFrom<(parts: string[], at: number) => string[]>(
      (parts, at) => parts.toSpliced(at, 1),
      (parts, at) => parts.toSpliced(at, 0, parts[at] as string),
      (parts, at) => parts.with(at, parts[(at + 1) % 4] as string),
      (parts, at) => parts.toSpliced(at, 0, foreign[at] as string),
      (parts, at) => parts.toSpliced(at, 0, Object.values(markers)[at] as string),
      (parts, at) => parts.toSpliced(at + 1, 0, "and"),
    );
    fc.assert(
      fc.property(order, wrongs, fc.nat(3), modes, formats, options, (order, wrong, at, mode, format, o) => {
        const write = (parts: readonly string[]): string => {
          if (format === "compact")
            return `${mode === "think" ? `so${markers.answer}` : ""}${parts.join("")}${markers.end}`;
          return `${mode === "think" ? 'so", "ranking": ["' : ""}${parts.join('", "')}"]}${markers.end}`;
        };
        const parts = order.map((i) => spellings[i] as string);
        expect(read(write(parts), mode, format, o).valid).toBe(true);
        const v = read(write(wrong(parts, at)), mode, format, o);
        sound(v);
        expect(v.valid).toBe(false);
      }),
    );
  });

  it("in JSON of any shape never throw", () => {
    const shaped = fc.oneof(
      fc.json(),
      fc.jsonValue().map((value) => JSON.stringify({ ranking: value })),
      fc.array(fc.jsonValue(), { maxLength: 5 }).map((ranking) => JSON.stringify({ ranking, reasoning: [] })),
    );
    fc.assert(
      fc.property(shaped, modes, options, (json, mode, o) => {
        // Behind the prompt's opening quote: the thought ends, and the rest of an object follows.
        for (const text of [json, `", ${json.slice(1)}`, `"], ${json.slice(1)}`])
          sound(read(`${text}${markers.end}`, mode, "json", o));
      }),
    );
  });

  const base = { kind: "ndcg", ndcgK: 5, format: "unconditional", formatBonus: 0.2, dehacked: false, invalid } as const;
  const listed = spellings.map((s) => JSON.stringify(s)).join(", ");
  it.each([
    ["an entry that cannot become text", `", "ranking": [{"toString": 1}]}`],
    ["lists in lists, a hundred thousand deep", `", "ranking": [${"[".repeat(1e5)}${"]".repeat(1e5)}]}`],
    ["objects in objects", `", "x": ${'{"x":'.repeat(1e5)}1${"}".repeat(1e5)}}`],
    ["a list under another name", `", "Ranking": [${listed}]}`],
    ["a list inside another object", `", "answer": {"ranking": [${listed}]}}`],
    ["a text instead of a list", `", "ranking": ${JSON.stringify(spellings.join(" "))}}`],
    ["an object that looks like a list", `", "ranking": {"length": 4, "0": ${JSON.stringify(spellings[0])}}}`],
    ["a list on a prototype", `", "__proto__": {"ranking": [${listed}]}}`],
    ["a second object", `", "ranking": [${listed}]}{"ranking": [${listed}]}`],
    ["candidates as lists of one", `", "ranking": [${spellings.map((s) => `[${JSON.stringify(s)}]`).join(", ")}]}`],
  ])("%s", (_name, text) => {
    const v = read(`${text}${markers.end}`, "think", "json", base);
    sound(v);
    expect(v.valid).toBe(false);
  });

  it("of a million characters are read, and one valid answer at their end is not paid", () => {
    const answer = `${spellings.join("")}${markers.end}`;
    const candidates = (spellings[0] as string).repeat(70_000);
    for (const noise of [
      "x".repeat(1e6),
      " ".repeat(1e6),
      candidates,
      markers.answer.repeat(1e5),
      "\ud83d".repeat(5e5),
    ]) {
      const blank = noise.trim() === "";
      for (const mode of ["think", "answer"] as const) {
        const v = read(`${mode === "think" ? markers.answer : ""}${noise}${answer}`, mode, "compact", base);
        sound(v);
        expect(v.valid, noise.slice(0, 10)).toBe(blank); // white space is forgiven, however much
        sound(read(`${noise}"]}${markers.end}`, mode, "json", base));
      }
    }
  });
});
