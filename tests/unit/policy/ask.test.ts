/** How a slate is asked and an answer read, on a tokenizer of one token per character and one per special token. */
import { describe, expect, it } from "vitest";
import {
  type AskOptions,
  decodeResponse,
  decodingRules,
  directPrompt,
  findTokens,
  findTrigger,
  maxResponseTokens,
  permutationConstraint,
  readResponse,
  rerankPrompt,
  sumLogLikelihoods,
} from "../../../src/policy/ask.ts";
import { Encoder, markers } from "../../../src/prompts/pieces.ts";
import { renderPrompt } from "../../../src/prompts/rerank.ts";

const specials = [...Object.values(markers), "<eot>", "<s_a_0>", "<s_a_1>", "<s_b_0>", "<s_b_1>", "<s_b_2>"];
/** Special tokens are 0, 1, ...; a character is 100 + its code. */
const tokenId = (token: string): number => specials.indexOf(token);
const decode = (ids: ArrayLike<number>): string =>
  Array.from(ids, (id) => (id < 100 ? (specials[id] as string) : String.fromCharCode(id - 100))).join("");
const encode = (text: string): number[] => Array.from(text, (c) => 100 + c.charCodeAt(0));
const codes = [
  ["<s_a_0>", "<s_b_0>"],
  ["<s_a_0>", "<s_b_1>"],
  ["<s_a_1>", "<s_b_2>"],
];
const spellings = codes.map((tokens) => tokens.join(""));

interface Varied {
  readonly format?: "compact" | "json";
  readonly constrained?: boolean;
  readonly prior?: boolean;
  readonly chat?: boolean;
  readonly special?: boolean;
  readonly reasoningTokens?: number;
}

function options(o: Varied = {}) {
  const encoder = new Encoder(
    { encode, tokenId },
    { tokensAt: (row) => codes[row] as string[] },
    {
      ...(o.chat ? { chat: { question: "Q", answer: "A", end: "<eot>" } } : {}),
      ...(o.special ? { special: new Map(specials.map((token, id) => [id, token])) } : {}),
    },
  );
  return {
    encoder,
    prompts: {
      format: o.format ?? "compact",
      ...{ historyItems: 2, showCandidates: true, showTitles: false, maxTitleTokens: 8, knowledgePriming: false },
    },
    decoding: {
      constrained: o.constrained ?? true,
      choice: "item",
      prior: o.prior ?? true,
      maxReasoningTokens: o.reasoningTokens ?? 10,
    },
  } as const satisfies AskOptions;
}
const slate = (ask: AskOptions) => ({
  sequences: [0, 1, 2].map((row) => ask.encoder.item(row)),
  prior: [0.5, 0, -1],
});
const tokensAt = (text: string): number[] =>
  [...text.matchAll(/<[^>]+>|[\s\S]/g)].flatMap(([t]) => (specials.includes(t) ? [tokenId(t)] : encode(t)));

describe("prompts", () => {
  it("show what the compressor leaves, in the run's format", () => {
    const ask = options();
    const input = { history: [0, 1, 2], candidates: [1, 0, 2], getTitle: () => "" };
    const compressor = { compress: (i: typeof input) => ({ ...i, history: [2] }) };
    expect(rerankPrompt(ask, input, "think")).toEqual(ask.encoder.encode(renderPrompt(input, "think", ask.prompts)));
    expect(decode(rerankPrompt({ ...ask, compressor }, input, "answer"))).toBe(
      `<|history|>${spellings[2]}<|candidates|>${spellings[1]}${spellings[0]}${spellings[2]}<|answer|>`,
    );
  });

  it("of direct mode have only the latest items", () => {
    expect(decode(directPrompt(options(), Int32Array.of(0, 1, 2)))).toBe(`<|history|>${spellings[1]}${spellings[2]}`);
  });
});

describe("rules of decoding", () => {
  it("are the constraint with the prior and its scale; the reasoning is bounded where there is any", () => {
    const ask = options();
    const constraint = permutationConstraint(ask, [slate(ask)], { likelihood: 0.7 }, "think");
    expect(constraint).toEqual({
      groups: [slate(ask)],
      scale: 0.7,
      wholeSequences: true,
      maxFreeTokens: 10,
      trigger: [tokenId("<|answer|>")],
      separator: [],
      terminator: [tokenId("<|end|>")],
    });
    expect(permutationConstraint(ask, [slate(ask)], { likelihood: 0.7 }, "answer", 2)).toMatchObject({
      ...{ maxFreeTokens: 0, trigger: [], maxSequences: 2 },
    });
    const flat = permutationConstraint(options({ prior: false }), [slate(ask)], { likelihood: 0.7 }, "think");
    expect([flat?.groups[0]?.prior, flat?.scale]).toEqual([[0, 0, 0], 1]);
  });

  it("are the end of a turn where decoding is free", () => {
    const free = options({ constrained: false, chat: true });
    expect(decodingRules(free, [slate(free)], { likelihood: 1 }, "think")).toEqual({
      maxNewTokens: 10 + 1 + 3 * 2 + 1,
      stopTokens: [tokenId("<eot>")],
    });
    const bound = options();
    const rules = decodingRules(bound, [slate(bound)], { likelihood: 1 }, "think");
    expect([rules.constraint !== undefined, rules.stopTokens]).toEqual([true, undefined]);
  });

  it("leave room for the longest reasoning and every candidate with its separator", () => {
    const compact = options();
    expect(maxResponseTokens(compact, [slate(compact)], "answer")).toBe(3 * 2 + 1);
    expect(maxResponseTokens(compact, [{ sequences: [[1]] }, slate(compact)], "think")).toBe(10 + 1 + 3 * 2 + 1);
    const json = options({ format: "json" }); // trigger `", "ranking": ["`, separator `", "`, close `"]}` and the end
    expect(maxResponseTokens(json, [slate(json)], "think")).toBe(10 + 16 + 3 * (2 + 4) + 3 + 1);
  });
});

it("log-likelihoods are summed per response, group after group", () => {
  const groups = [{ responses: [[1, 2], [3]] }, { responses: [[], [4, 5, 6]] }];
  const sums = sumLogLikelihoods(groups, Float32Array.of(-1, -2, -4, -8, -16, -32));
  expect(sums).toEqual([
    [-3, -4],
    [0, -56],
  ]);
});

describe("reading a response", () => {
  const answer = (...rows: number[]): string => `<|answer|>${rows.map((r) => spellings[r]).join("")}<|end|>`;
  const sampled = (text: string, prompt = "") => ({
    prompt: tokensAt(prompt),
    tokens: Int32Array.from(tokensAt(text)),
    text,
  });

  it("takes less than all candidates only where the constraint let the model write no more", () => {
    const two = `why${answer(2, 0)}`;
    const read = (constrained: boolean, wanted: number, text = two) =>
      readResponse(options({ constrained }), sampled(text), spellings, "think", wanted);
    expect(read(true, 2)).toEqual({ kind: "ranking", order: [2, 0], reasoning: "why" });
    expect(read(true, 1)).toMatchObject({ kind: "ranking", order: [2, 0] });
    for (const parsed of [read(true, 0), read(true, 3), read(true, 9), read(false, 2)])
      expect(parsed).toMatchObject({ kind: "unparseable", reason: "missing candidates" });
    expect(read(false, 2, answer(2, 0, 1))).toMatchObject({ kind: "ranking", order: [2, 0, 1] });
    expect(read(true, 2, answer(2, 2))).toMatchObject({ reason: "repeated candidate" });
  });

  it("takes no answer after reasoning that is worthless, and says why; without reasoning nothing is asked of it", () => {
    const read = (reasoning: string, prompt = "", mode: "think" | "answer" = "think") => {
      const ask = options({ special: true, reasoningTokens: 60 });
      const text = mode === "think" ? `${reasoning}${answer(1, 0, 2)}` : answer(1, 0, 2).replace("<|answer|>", "");
      const parsed = readResponse(ask, sampled(text, prompt), spellings, mode);
      return parsed.kind === "unparseable" ? parsed.reason : parsed.order;
    };
    expect(read("pattern: drama because: <s_a_0><s_b_1>")).toEqual([1, 0, 2]);
    expect(read("ab ".repeat(4))).toBe("reasoning repeats itself");
    expect(read("x".repeat(60))).toBe("reasoning repeats itself");
    expect(read("the quick brown fox jumps over a lazy dog and never looks ba")).toBe("reasoning hit its limit");
    expect(read("good <|history|>")).toBe("reasoning holds special tokens");
    expect(read("good <s_a_0> item")).toBe("reasoning holds special tokens"); // half an item
    expect(read("good <s_b_0>")).toBe("reasoning holds special tokens");
    const question = "Which of these should come first, and which last?";
    expect(read(question, `Dear model. ${question} Say.`)).toBe("reasoning copies the prompt");
    expect(read(question, "Something else was asked.")).toEqual([1, 0, 2]);
    expect(read("", question, "answer")).toEqual([1, 0, 2]);
  });

  it("reads a chat's end of turn as the end", () => {
    const chat = options({ chat: true });
    const written = Int32Array.from(tokensAt(`why${answer(0, 1, 2)}`.replace("<|end|>", "<eot>")));
    expect(decodeResponse(chat.encoder, written, decode)).toBe(`why${answer(0, 1, 2)}`);
    const open = written.subarray(0, -1);
    expect(decodeResponse(chat.encoder, open, decode)).not.toContain("<|end|>");
    expect(decodeResponse(options().encoder, written, decode)).toContain("<eot>");
  });

  it("finds where the reasoning ends", () => {
    expect(findTrigger(options(), tokensAt(`ab${answer(0)}`))).toBe(2);
    expect(findTrigger(options(), tokensAt("ab"))).toBe(-1);
    expect(findTrigger(options({ format: "json" }), encode('ab", "ranking": ["'))).toBe(2);
    expect(findTokens([1, 1, 2, 1, 2], [1, 2], 2)).toBe(3);
    expect(findTokens([1, 2, 1], [1, 2], 1)).toBe(-1);
  });
});
