/**
 * Item text against real tokenizers: whatever strangers write into a title, once neutralised it yields no special
 * token, alone or inside a prompt; and however long it is, it takes no more tokens than it may.
 */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { itemId } from "../../../src/core/ids.ts";
import { repositoryRoot } from "../../../src/core/paths.ts";
import type { Item } from "../../../src/data/types.ts";
import { Encoder, markers, type Piece } from "../../../src/prompts/pieces.ts";
import { renderPrompt } from "../../../src/prompts/rerank.ts";
import { captioningTask, personaTask } from "../../../src/prompts/tasks.ts";
import { neutralise } from "../../../src/sid/sanitise.ts";
import { sidTokens, spellCodes } from "../../../src/sid/semantic-id.ts";
import { byteTokenizerJson } from "../../../src/worker/fake-tokenizer.ts";
import { Tokenizer } from "../../../src/worker/tokenizer.ts";

const shape = { levels: 2, codes: 8, format: "wrapped" } as const;
/** What models and their chat templates use. */
const chat = [
  ...["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<think>", "</think>", "<s>", "</s>", "<unk>", "<pad>", "[INST]"],
  ...["[/INST]", "<<SYS>>", "<</SYS>>", "<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<start_of_turn>"],
  ...["<tool_call>", "[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]", "[TOOL_CALLS]", "<|fim_prefix|>"],
];
const specials = [...Object.values(markers), ...sidTokens(shape), ...chat];
const bytes = Tokenizer.fromJson(byteTokenizerJson(specials));
const isSpecial = (id: number): boolean => id >= 256;

const fragment = fc.oneof(
  { weight: 3, arbitrary: fc.constantFrom(...specials) },
  // The same, disguised: entities, full width, zero width, split in the middle.
  fc.constantFrom(...specials).map((t) => t.replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/\[/g, "&#91;")),
  fc.constantFrom(...specials).map((t) => t.replace(/[!-~]/g, (c) => String.fromCharCode(c.charCodeAt(0) + 0xfee0))),
  fc.tuple(fc.constantFrom(...specials), fc.nat(20)).map(([t, at]) => `${t.slice(0, at)}\u200b${t.slice(at)}`),
  fc.tuple(fc.constantFrom(...specials), fc.nat(20)).map(([t, at]) => `${t.slice(0, at)}${t}${t.slice(at)}`),
  fc.constantFrom("<", ">", "|", "[", "]", "&", ";", "_", " ", "amp;", "lt;", "s_a_1", "Soap", "é"),
  fc.string({ unit: "binary", maxLength: 4 }),
);
const hostile = fc.array(fragment, { maxLength: 10 }).map((parts) => parts.join(""));
const clean = (text: string): string => neutralise(text, []); // as the data stage does

describe("neutralised text", () => {
  it("is dangerous before: the tokenizer takes spelled-out tokens for real ones", () => {
    for (const token of specials) expect(bytes.encode(token).some(isSpecial), token).toBe(true);
  });

  it("yields no special token", () => {
    fc.assert(
      fc.property(hostile, (text) => {
        expect(bytes.encode(clean(text)).filter(isSpecial)).toEqual([]);
      }),
      { numRuns: 1500 },
    );
  });

  const minilm = join(repositoryRoot, "data/minilm-l6-v2/tokenizer.json");
  it.skipIf(!existsSync(minilm))("yields no special token of the embedding model's tokenizer", () => {
    const json = readFileSync(minilm, "utf8");
    const tokenizer = Tokenizer.fromJson(json);
    const special = new Set((JSON.parse(json) as { added_tokens: { id: number }[] }).added_tokens.map((t) => t.id));
    const unknown = tokenizer.tokenId("[UNK]"); // what a word it does not know becomes
    expect(tokenizer.encode("[CLS] x [SEP]").filter((id) => special.has(id)).length).toBe(2);
    fc.assert(
      fc.property(hostile, (text) => {
        const ids = tokenizer.encode(clean(text)).filter((id) => special.has(id) && id !== unknown);
        expect(ids).toEqual([]);
      }),
      { numRuns: 300 },
    );
  });
});

describe("prompts and documents around it", () => {
  const encoder = new Encoder(
    { encode: (s) => bytes.encode(s), tokenId: (t) => bytes.requireTokenId(t) },
    { tokensAt: (row) => spellCodes([row % shape.codes, row % shape.codes], shape.format) },
  );
  const itemWith = (words: string): Item => ({
    ...{ id: itemId("x"), title: words, brand: words, categories: [words], description: words },
  });
  const options = {
    historyItems: 4,
    showCandidates: true,
    showTitles: true,
    maxTitleTokens: 16,
    knowledgePriming: true,
  };
  const textsAround = (words: string): Piece[] => [
    ...(["compact", "json"] as const).flatMap((format) =>
      renderPrompt({ history: [1, 2], candidates: [3, 4], getTitle: () => words }, "think", { ...options, format }),
    ),
    ...captioningTask(1, itemWith(words), "describe"),
    ...captioningTask(1, itemWith(words), "identify"),
    ...personaTask([1, 2], () => itemWith(words), [words]),
  ];

  it("hold the special tokens that we wrote, and no other", () => {
    const own = (pieces: readonly Piece[]) => encoder.encode(pieces.filter((p) => p.kind !== "text"));
    fc.assert(
      fc.property(hostile, (text) => {
        const pieces = textsAround(clean(text));
        expect(encoder.encode(pieces).filter(isSpecial)).toEqual(own(pieces));
      }),
      { numRuns: 300 },
    );
  });

  it("truncate over-long text by tokens, and keep what follows it", () => {
    const long = "word ".repeat(2000).trim();
    const prompt = renderPrompt({ history: [1], candidates: [2, 3], getTitle: () => long }, "answer", {
      ...options,
      format: "compact",
    });
    // history, candidates, answer: 3 markers; 3 items of 2 codes with begin and end, each with 16 tokens
    // and a line break
    expect(encoder.encode(prompt).length).toBe(3 + 3 * (4 + 16 + 1));
    const whole = { ...options, format: "compact", maxTitleTokens: 0 } as const;
    expect(
      encoder.encode(renderPrompt({ history: [1], candidates: [], getTitle: () => long }, "answer", whole)).length,
    ).toBeGreaterThan(long.length);
    for (const direction of ["describe", "identify"] as const) {
      const tokens = encoder.encode(captioningTask(5, itemWith(long), direction));
      expect(tokens.length).toBeLessThan(512); // mid-training cuts documents there: neither ID nor end may be lost
      expect(tokens.at(-1)).toBe(bytes.tokenId(markers.end));
      expect(tokens).toEqual(expect.arrayContaining([...encoder.item(5)]));
    }
  });

  it("allow empty text", () => {
    const empty: Item = { ...itemWith(""), categories: [] };
    expect(bytes.decode(encoder.encode(captioningTask(1, empty, "describe")))).toContain("untitled.");
    expect(
      encoder.encode(
        renderPrompt({ history: [1], candidates: [2], getTitle: () => "" }, "answer", { ...options, format: "json" }),
      ).length,
    ).toBeGreaterThan(0);
  });
});
