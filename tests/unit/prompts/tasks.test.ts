/**
 * The exact documents of mid-training, traces and the teacher's question:
 * a word that changes here changes what a model learns.
 */
import { describe as block, expect, it } from "vitest";
import { type ItemId, itemId } from "../../../src/core/ids.ts";
import type { Item } from "../../../src/data/types.ts";
import { parseJsonAnswer, parseResponse } from "../../../src/prompts/parse.ts";
import { item, marker, type Piece, text } from "../../../src/prompts/pieces.ts";
import {
  instructions,
  itemsShown,
  jsonOpening,
  knowledge,
  renderPrompt,
  renderReasoning,
} from "../../../src/prompts/rerank.ts";
import { captioningTask, describe, languageTask, personaTask, sequentialTask } from "../../../src/prompts/tasks.ts";
import { answerSchema, renderTeacherPrompt } from "../../../src/prompts/teacher-prompt.ts";

const id: ItemId = itemId("i");
const soap: Item = { id, title: "Soap", brand: "Acme", categories: ["Bath", "Bars"], description: "Smells of pine." };
const bare: Item = { id, title: "", brand: "", categories: [], description: "" };

/** Pieces as one readable line. */
const line = (pieces: readonly Piece[]): string =>
  pieces
    .map((p) => (p.kind === "text" ? p.text : p.kind === "item" ? `#${p.row}` : p.kind === "marker" ? p.token : p.at))
    .join("");

block("mid-training documents", () => {
  it("describe an item by title, brand, categories and description, leaving out what is missing", () => {
    expect(describe(soap)).toBe("Soap by Acme in Bath, Bars. Smells of pine.");
    expect(describe(bare)).toBe("untitled.");
  });
  it("caption in both directions", () => {
    expect(line(captioningTask(3, soap, "describe"))).toBe(`<|item|>#3<|text|>${describe(soap)}<|end|>`);
    expect(line(captioningTask(3, soap, "identify"))).toBe(`<|text|>${describe(soap)}<|item|>#3<|end|>`);
  });
  it("list histories, personas and plain language", () => {
    expect(line(sequentialTask([4, 2]))).toBe("<|history|>#4#2");
    const itemAt = (row: number): Item => (row === 0 ? soap : bare);
    expect(line(personaTask([0, 1], itemAt, ["Bath", "Hair"]))).toBe(
      "<|persona|>likes Bath, Hair; chose Soap#0 untitled#1<|end|>",
    );
    expect(line(personaTask([0], itemAt, []))).toBe("<|persona|>chose Soap#0<|end|>");
    expect(languageTask("Hello.")).toEqual([marker("text"), text("Hello."), marker("end")]);
  });
});

block("prompts", () => {
  const input = { history: [1, 2], candidates: [3, 4], getTitle: (row: number) => `t${row}` };
  const options = {
    historyItems: 5,
    showCandidates: true,
    showTitles: false,
    maxTitleTokens: 0,
    knowledgePriming: true,
  };
  it("are, in the compact format, markers and IDs; the last one says whether to think", () => {
    const compact = { ...options, format: "compact" } as const;
    expect(line(renderPrompt(input, "think", compact))).toBe(
      "question<|history|>#1#2<|candidates|>#3#4answer<|think|>",
    );
    expect(line(renderPrompt(input, "answer", { ...compact, showCandidates: false }))).toBe(
      "question<|history|>#1#2answer<|answer|>",
    );
  });
  it("are, in the json format, instructions between lists; titles end their lines themselves", () => {
    const json = { ...options, format: "json" } as const;
    const head = `question${instructions.task} ${knowledge}\n${instructions.history}\n`;
    const tail = `${instructions.steps}\n${instructions.answer}\nanswer{"reasoning": "`;
    expect(line(renderPrompt(input, "think", json))).toBe(`${head}#1#2\n${instructions.candidates}\n#3#4\n${tail}`);
    const titled = { ...json, showTitles: true, knowledgePriming: false };
    expect(line(renderPrompt(input, "think", titled))).toBe(
      `question${instructions.task}\n${instructions.history}\n#1 t1\n#2 t2\n${instructions.candidates}\n#3 t3\n#4 t4\n${tail}`,
    );
  });
  it("can be asked which items they show", () => {
    const pieces = renderPrompt(input, "think", { ...options, format: "compact" });
    expect(itemsShown(pieces)).toEqual({ history: [1, 2], candidates: [3, 4] });
  });
});

block("structured reasoning", () => {
  const full = { pattern: ["Bath", 'so-called "Bars"'], support: [5, 6], choice: 7, recap: [8] };
  it("states pattern, support, choice and recap; inside JSON it is escaped", () => {
    expect(line(renderReasoning(full, "compact"))).toBe(
      'pattern: Bath, so-called "Bars" because:#5#6 choice:#7 after:#8',
    );
    expect(line(renderReasoning(full, "json"))).toBe(
      'pattern: Bath, so-called \\"Bars\\" complement:#5#6 choice:#7 after:#8',
    );
  });
  it("leaves out what it does not have", () => {
    expect(renderReasoning({ pattern: [], support: [], choice: null, recap: [] }, "compact")).toEqual([]);
    expect(renderReasoning({ pattern: [], support: [], choice: 0, recap: [] }, "compact")).toEqual([
      text(" choice:"),
      item(0),
    ]);
  });
});

block("the question to a teacher", () => {
  const input = {
    history: [0, 1],
    candidates: [2, 3],
    chosen: 3,
    spell: (row: number) => `<${row}>`,
    describe: (row: number) => (row === 1 ? "" : `item ${row}`),
  };
  const steps = `${instructions.steps} Write the reasoning in English, in at most 60 words, as one line.`;
  it("lists history and candidates, gives the choice away if told to, and ends with the answer's form", () => {
    expect(renderTeacherPrompt(input, { knowledgePriming: true, maxWords: 60 }).split("\n")).toEqual(
      [
        `${instructions.task} ${knowledge}`,
        instructions.history,
        ...["<0> item 0", "<1>"],
        instructions.candidates,
        ...["<2> item 2", "<3> item 3"],
        "The user chose <3> next. Explain from the history why, and rank it first.",
        ...[steps, instructions.answer],
      ].flatMap((part) => part.split("\n")),
    );
    const blind = renderTeacherPrompt({ ...input, chosen: null }, { knowledgePriming: false, maxWords: 60 });
    expect(blind).not.toContain("The user chose");
    expect(blind.startsWith(`${instructions.task}\n`)).toBe(true);
  });
  it("has a schema that admits permutations' lengths and spellings alone", () => {
    expect(answerSchema(["a", "b"])).toEqual({
      type: "object",
      properties: {
        reasoning: { type: "string" },
        ranking: { type: "array", items: { type: "string", enum: ["a", "b"] }, minItems: 2, maxItems: 2 },
      },
      required: ["reasoning", "ranking"],
      additionalProperties: false,
    });
  });
});

block("answers that are JSON but no ranking", () => {
  // The prompt ends with what opens the answer; the response is what follows it.
  const read = (answer: string) =>
    parseResponse(`${answer.slice(jsonOpening.think.length)}<|end|>`, ["<a>", "<b>"], "think", { format: "json" });
  it.each([
    ['{"reasoning": "x"}', "no answer", "ranking"],
    ['{"reasoning": "x", "ranking": "<a>"}', "no answer", "ranking"],
    ['{"reasoning": "x", "ranking": ["<a>", "<b>"], "more": 1}', "wrong keys", "more"],
    ['{"reasoning": "x", "ranking": ["<a>", "<c>"]}', "not a candidate", "<c>"],
    ['{"reasoning": "x", "ranking": ["<a>", 7]}', "not a candidate", "number"],
  ])("%s: %s", (answer, reason, detail) => {
    expect(read(answer)).toEqual({ kind: "unparseable", reason, detail: expect.stringContaining(detail) });
  });
  it.each([
    ["[1, 2]", "not json", "not an object"],
    ["null", "not json", "not an object"],
    ["3", "not json", "not an object"],
    ["{", "not json", "JSON"],
    ['{"reasoning": 1, "ranking": ["<a>", "<b>"]}', "wrong keys", "(a string)"],
  ])("%s as a whole answer: %s", (body, reason, detail) => {
    expect(parseJsonAnswer(body, ["<a>", "<b>"])).toEqual({
      kind: "unparseable",
      reason,
      detail: expect.stringContaining(detail),
    });
  });
  it("trim the reasoning of a good answer", () => {
    expect(read('{"reasoning": " why ", "ranking": ["<b>", "<a>"]}')).toEqual({
      kind: "ranking",
      order: [1, 0],
      reasoning: "why",
    });
  });
});
