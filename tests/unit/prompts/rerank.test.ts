import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { parseJsonAnswer, parseResponse, readCitations } from "../../../src/prompts/parse.ts";
import { Encoder, markers, type Piece } from "../../../src/prompts/pieces.ts";
import { constraintTokens, type PromptOptions, renderPrompt, renderResponse } from "../../../src/prompts/rerank.ts";

const spell = (row: number): string => `<s_a_${row % 7}><s_b_${row}>`;
const write = (pieces: readonly Piece[]): string =>
  pieces
    .map((p) => {
      if (p.kind === "item") return spell(p.row);
      if (p.kind === "turn") return p.at === "end" ? markers.end : "";
      return p.kind === "text" ? p.text : p.token;
    })
    .join("");
const options = (format: "compact" | "json"): PromptOptions => ({
  format,
  historyItems: 3,
  showCandidates: true,
  showTitles: false,
  maxTitleTokens: 64,
  knowledgePriming: true,
});
const slate = [11, 4, 25, 8];
const spellings = slate.map(spell);
const reasoning = { pattern: ["Drama", "Comedy"], support: [3, 9], recap: [9], choice: 25 };
const getTitle = (row: number): string => `item ${row}`;

describe.each(["compact", "json"] as const)("%s format", (format) => {
  const o = options(format);
  const answered = (order: readonly number[], withThought: boolean): string =>
    write(
      renderResponse(
        withThought ? reasoning : null,
        order.map((i) => slate[i] as number),
        o,
      ).map((p) => p.piece),
    );

  it("parses back what it renders, in both modes", () => {
    fc.assert(
      fc.property(fc.shuffledSubarray([0, 1, 2, 3], { minLength: 4 }), fc.boolean(), (order, think) => {
        const parsed = parseResponse(answered(order, think), spellings, think ? "think" : "answer", o);
        expect(parsed).toMatchObject({ kind: "ranking", order });
      }),
    );
  });

  it("gives every bad answer a reason", () => {
    const good = answered([2, 0, 1, 3], true);
    const parseReason = (text: string) => {
      const p = parseResponse(text, spellings, "think", o);
      return p.kind === "unparseable" ? p.reason : p.kind;
    };
    expect(parseReason(good)).toBe("ranking");
    expect(parseReason(good.replace(markers.end, ""))).toBe("not ended");
    expect(parseReason(answered([2, 2, 1, 3], true))).toBe("repeated candidate");
    expect(parseReason(answered([2, 0, 1], true))).toBe("missing candidates");
    expect(parseReason(good.replace(spell(8), spell(9)))).toBe("not a candidate");
  });

  it("never throws on hostile text", () => {
    const shards = [...spellings, ...Object.values(markers), '", "', '"]}', '{"ranking": [', "\u0000", "<s_a_1>", " "];
    const text = fc.array(fc.oneof(fc.constantFrom(...shards), fc.string()), { maxLength: 20 }).map((x) => x.join(""));
    fc.assert(
      fc.property(text, fc.constantFrom("think" as const, "answer" as const), (response, mode) => {
        const parsed = parseResponse(response, spellings, mode, o);
        if (parsed.kind === "ranking") expect([...parsed.order].sort()).toEqual([0, 1, 2, 3]);
      }),
      { numRuns: 500 },
    );
  });

  it("shows the latest history and all candidates in their order", () => {
    const prompt = write(renderPrompt({ history: [1, 2, 3, 5, 6], candidates: slate, getTitle }, "think", o));
    expect(prompt).toContain(spellings.join(""));
    expect(prompt).toContain([3, 5, 6].map(spell).join(""));
    expect(prompt).not.toContain(spell(2));
  });
});

describe("json format", () => {
  const o = options("json");
  const answer = (ranking: string, thought = "because") =>
    parseResponse(`${thought}", "ranking": ${ranking}}${markers.end}`, spellings, "think", o);
  const all = JSON.stringify(spellings);

  it("is a whole JSON object with the prompt's last words in front", () => {
    const thought = { words: ['a "quoted"\n \\ word ', 3, " done ", 25] };
    for (const mode of ["think", "answer"] as const) {
      const prompt = write(renderPrompt({ history: [3], candidates: slate, getTitle }, mode, o));
      const response = write(renderResponse(mode === "think" ? thought : null, slate, o).map((p) => p.piece));
      const opening = prompt.slice(prompt.lastIndexOf('{"reasoning"'));
      const whole = JSON.parse(opening + response.slice(0, -markers.end.length)) as Record<string, unknown>;
      expect(whole.ranking).toEqual(spellings);
      expect(whole.reasoning).toBe(mode === "think" ? `a "quoted"\n \\ word ${spell(3)} done ${spell(25)}` : "");
      expect(parseResponse(response, spellings, mode, o)).toMatchObject({ kind: "ranking", order: [0, 1, 2, 3] });
    }
  });

  it("forgives white space only", () => {
    const spaced = `[ ${spellings.map((s) => `" ${s}\n"`).join(" ,\n\t")} ] `;
    expect(answer(spaced, "two\nlines")).toMatchObject({ kind: "ranking", reasoning: "two lines" });
    expect(answer(all)).toMatchObject({ kind: "ranking" });
    expect(answer(`${all}, "confidence": 1`)).toMatchObject({ reason: "wrong keys" });
    expect(answer(`${all}, "ranking": ${all}`)).toMatchObject({ reason: "wrong keys" });
    expect(answer(all.replace("]", ",]"))).toMatchObject({ reason: "not json" });
    expect(answer(`{"a": ${all}}`)).toMatchObject({ reason: "no answer" });
    for (const entry of ["1", "null", "[]", '{"toString": 1}'])
      expect(answer(`[${entry}, ${all.slice(1)}`).kind, entry).toBe("unparseable");
    expect(answer(`[1, ${all.slice(1)}`)).toMatchObject({ reason: "not a candidate" });
    expect(parseJsonAnswer(`{"ranking": ${all}, "reasoning": "x"}`, spellings)).toMatchObject({ reason: "wrong keys" });
    expect(parseJsonAnswer(`{"reasoning": 3, "ranking": ${all}}`, spellings)).toMatchObject({ reason: "wrong keys" });
    expect(parseJsonAnswer(all, spellings)).toMatchObject({ reason: "not json" });
    expect(parseJsonAnswer(`sure: {"reasoning": "", "ranking": ${all}}`, spellings)).toMatchObject({
      reason: "not json",
    });
    const keyLike = `{"reasoning": "\\"ranking\\": [", "ranking": ${all}}`; // a key within a string is none
    expect(parseJsonAnswer(keyLike, spellings)).toMatchObject({ kind: "ranking", reasoning: '"ranking": [' });
  });

  it("primes with knowledge, or not", () => {
    const prompt = (knowledgePriming: boolean) =>
      write(renderPrompt({ history: [1], candidates: slate, getTitle }, "think", { ...o, knowledgePriming }));
    expect(prompt(true)).toContain("Shoppers move along chains");
    expect(prompt(false)).not.toContain("Shoppers");
    for (const word of ["Pattern", "Complement", "Choice", "Cite items by their ID"])
      expect(prompt(false)).toContain(word);
  });
});

describe("citations", () => {
  const findRow = (s: string) => [3, 9].find((row) => spell(row) === s);
  it("split a thought into words and the items it shows, and name what it does not", () => {
    const read = readCitations(`goes with ${spell(3)}${spell(9)}, not ${spell(8)}.`, findRow);
    expect(read.words).toEqual(["goes with ", 3, 9, ", not ", "."]);
    expect(read).toMatchObject({ cited: [3, 9], unknown: [spell(8)] });
  });

  it("lose nothing of a thought without unknown IDs", () => {
    const part = fc.constantFrom(spell(3), spell(9), "<s_b_1>", "<s_a_", " and ", "é");
    fc.assert(
      fc.property(fc.array(part), (parts) => {
        const { words, unknown } = readCitations(parts.join(""), findRow);
        if (unknown.length > 0) return;
        expect(words.map((w) => (typeof w === "number" ? spell(w) : w)).join("")).toBe(parts.join(""));
      }),
    );
  });
});

describe("compact format", () => {
  const o = options("compact");
  it("forgives white space only", () => {
    const text = ` ${spellings.join(" \n")} ${markers.end} `;
    expect(parseResponse(text, spellings, "answer", o)).toMatchObject({ kind: "ranking", order: [0, 1, 2, 3] });
    expect(parseResponse(`x${text}`, spellings, "answer", o)).toMatchObject({ reason: "trailing text" });
    expect(parseResponse(`${text}x`, spellings, "answer", o)).toMatchObject({ reason: "trailing text" });
  });

  it("reads candidates of any spelling, with any white space between them", () => {
    // Of one letter to several codes, alike at both ends; none begins another one.
    const spelled = ["x", "<s_a_1>", "<s_a_21>", "<s_a_11><s_b_1>", "<s_a_11><s_b_21>", "y>", "<>"];
    const space = fc.constantFrom("", " ", "\n\t", "\u00a0", "\u2003 ");
    fc.assert(
      fc.property(fc.shuffledSubarray([...spelled.keys()]), fc.array(space, { minLength: 8 }), (order, spaces) => {
        const text = `${order.map((i, k) => `${spaces[k] ?? ""}${spelled[i]}`).join("")}${markers.end}`;
        const parsed = parseResponse(text, spelled, "answer", options("compact"));
        if (order.length === spelled.length) expect(parsed).toMatchObject({ kind: "ranking", order });
        else expect(parsed).toMatchObject({ detail: `${order.length} of ${spelled.length} candidates` });
      }),
    );
  });

  it("marks reasoning and ranking, and the rank of every item", () => {
    const pieces = renderResponse(reasoning, [25, 4], o);
    expect(pieces.filter((p) => p.part === "ranking").map((p) => p.rank)).toEqual([0, 1, 2]);
    expect(pieces.filter((p) => p.part === "reasoning").at(-1)?.piece).toEqual({
      kind: "marker",
      token: markers.answer,
    });
  });

  it("starts the constraint at the answer marker after reasoning, at once without it", () => {
    const ids = new Map<string, number>();
    const tokenId = (t: string): number => {
      const id = ids.get(t) ?? ids.size;
      ids.set(t, id);
      return id;
    };
    const encoder = new Encoder(
      { encode: (t) => [...t].map(tokenId), tokenId },
      { tokensAt: (row) => [`a${row}`, `b${row}`] },
    );
    expect(constraintTokens("answer", o, encoder).trigger).toEqual([]);
    expect(constraintTokens("think", o, encoder).trigger).toEqual([encoder.marker("answer")]);
    expect(constraintTokens("think", o, encoder).terminator).toEqual([encoder.marker("end")]);
    expect(encoder.item(5)).toEqual([tokenId("a5"), tokenId("b5")]);
  });
});
