/** A teacher that writes words: what it is asked, how strictly its answers are read, and which thoughts are kept. */
import { describe, expect, it } from "vitest";
import { RunError } from "../../../src/core/errors.ts";
import type { Slate } from "../../../src/prerank/types.ts";
import { readCitations } from "../../../src/prompts/parse.ts";
import { answerSchema, renderTeacherPrompt } from "../../../src/prompts/teacher-prompt.ts";
import { findFault } from "../../../src/teacher/quality.ts";
import { sampleTraces } from "../../../src/teacher/sampling.ts";
import { type TextRequest, writingTeacher } from "../../../src/teacher/words.ts";

const spell = (row: number): string => `<|sid_begin|><s_a_${row % 7}><s_b_${row}><|sid_end|>`;
const titles = ["brush", "soap", "towel", "comb", "cream", "oil", "mask"];
const describeItem = (row: number): string => titles[row % titles.length] as string;
const quality = { minWords: 5, maxWords: 40, minCitations: 1, language: "en" } as const;
const rows = new Map([1, 2, 10, 11, 12].map((row) => [spell(row), row]));
const read = (thought: string) => readCitations(thought, (s) => rows.get(s));
const good = `pattern: the user buys soap such as ${spell(1)}; complement: a towel is next to that; choice: ${spell(11)}`;

describe("quality filters", () => {
  const rejectionReason = (thought: string, first = 11, o: Partial<typeof quality> | object = {}) =>
    findFault(read(thought), first, { ...quality, ...o })?.reason;

  it.each<[string, string | undefined, string]>([
    ["a good thought", undefined, good],
    ["an invented ID", "cites an unknown item", good.replace(spell(1), spell(3))],
    ["another conclusion", "ranks another item first", good.replace(spell(11), spell(12))],
    ["a conclusion behind others", undefined, `${good}, not ${spell(12)}`],
    ["no choice, but a last citation", undefined, `the user likes this and that and so ${spell(11)}`],
    ["too few words", "too short", `choice: ${spell(11)}`],
    ["too many", "too long", good + " and so on".repeat(20)],
    ["no citation", "cites too few items", "the user buys soap and so the towel is next to that"],
    ["German", "not in English", `Der Kunde kauft gerne Seife ${spell(1)} und braucht nun ein Handtuch ${spell(11)}`],
    ["French", "not in English", `Le client achète souvent du savon ${spell(1)}, donc une serviette ${spell(11)}`],
    ["Chinese", "not in English", `用户 喜欢 肥皂 ${spell(1)} 所以 下一个 选择 毛巾 ${spell(11)}`],
    ["Russian", "not in English", `пользователь любит мыло ${spell(1)} поэтому выбор полотенце ${spell(11)}`],
    ["garbage", "not in English", `xq zzkl wrrp brrt qqqq mmn ${spell(1)} lkj poiu ${spell(11)}`],
  ])("%s: %s", (_what, reason, thought) => {
    expect(rejectionReason(thought)).toBe(reason);
  });

  it("check no language if any will do, and nothing that is switched off", () => {
    const german = `Der Kunde kauft gerne Seife ${spell(1)} und braucht ein Handtuch ${spell(11)}`;
    expect(rejectionReason(german, 11, { language: "any" })).toBeUndefined();
    expect(rejectionReason("", 11, { minWords: 0, minCitations: 0 })).toBeUndefined();
  });
});

const makeSlate = (i: number, targetIndex = 1): Slate => ({
  id: `s${i}`,
  user: i,
  position: 3,
  segment: "rerank",
  candidates: [10, 11, 12],
  scores: [3, 2, 1],
  target: [10, 11, 12][targetIndex] as number,
  targetIndex,
});
const answer = (order: readonly number[], thought = good): string =>
  JSON.stringify({ reasoning: thought, ranking: order.map((i) => spell([10, 11, 12][i] as number)) });

/** A teacher whose model writes `write(request, n)`. */
function teacher(write: (wanted: TextRequest, n: number) => string, cut = false) {
  const asked: TextRequest[] = [];
  const made = writingTeacher({
    kind: "openai",
    model: "test",
    complete: async (wanted) =>
      wanted.map((w) => {
        asked.push(w);
        return { kind: "text", text: write(w, asked.length - 1), cut, time: "2026-01-01T00:00:00Z" };
      }),
    getHistory: () => [1, 2],
    spell,
    describe: describeItem,
    question: { knowledgePriming: true, maxWords: 40 },
    quality,
    seed: 5,
  });
  return { made, asked };
}

describe("a teacher in words", () => {
  it("is shown history and candidates with titles and IDs, in their order, and no answer", async () => {
    const { made, asked } = teacher(() => answer([1, 0, 2]));
    await sampleTraces(made, [makeSlate(0)], { mode: "rejection", maxTries: 1 });
    const prompt = asked[0]?.prompt ?? "";
    const places = [1, 2, 10, 11, 12].map((row) => prompt.indexOf(`${spell(row)} ${describeItem(row)}`));
    expect(places.every((p) => p > 0)).toBe(true);
    expect([...places].sort((a, b) => a - b)).toEqual(places);
    expect(prompt).not.toContain("chose");
    for (const word of ["Pattern", "Complement", "Choice", "JSON alone", "Shoppers move along chains", "40 words"])
      expect(prompt).toContain(word);
    expect(asked[0]?.spellings).toEqual([10, 11, 12].map(spell));
    expect(answerSchema([spell(10)]).properties.ranking.items.enum).toEqual([spell(10)]);
  });

  it("is told the choice in targeted sampling, and can do without knowledge priming", async () => {
    const { made, asked } = teacher(() => answer([1, 0, 2]));
    await sampleTraces(made, [makeSlate(0)], { mode: "targeted", maxTries: 1 });
    expect(asked[0]?.prompt).toContain(`The user chose ${spell(11)} next.`);
    const input = { history: [1], candidates: [10], chosen: null, spell, describe: describeItem };
    expect(renderTeacherPrompt(input, { knowledgePriming: false, maxWords: 9 })).not.toContain("Shoppers");
  });

  it("is asked again until its first choice is right, each time with another seed; every reason is counted", async () => {
    const answers = [
      "Sure! Here it is.",
      answer([1, 0]),
      answer([0, 1, 2], good.replace(spell(11), spell(10))),
      answer([1, 0, 2], "ja"),
      `<think>hm, {"ranking"}</think>\n\`\`\`json\n${answer([1, 2, 0])}\n\`\`\`\n`,
    ];
    const { made, asked } = teacher((_, n) => answers[n] as string);
    const { traces, stats, rejections } = await sampleTraces(made, [makeSlate(0)], { mode: "rejection", maxTries: 9 });
    expect(new Set(asked.map((w) => w.seed)).size).toBe(5);
    expect(traces).toEqual([
      {
        slateId: "s0",
        ranking: [1, 2, 0],
        reasoning: { words: readCitations(good, (s) => rows.get(s)).words },
        tries: 5,
        mode: "rejection",
        seed: asked[4]?.seed,
        time: "2026-01-01T00:00:00Z",
        prompt: expect.stringMatching(/^[0-9a-f]{64}$/),
      },
    ]);
    expect(stats.rejected).toEqual({ "not json": 1, "missing candidates": 1, "wrong first choice": 1, "too short": 1 });
    expect(rejections.map((r) => [r.attempt, r.reason])).toEqual([
      [1, "not json"],
      [2, "missing candidates"],
      [4, "too short"],
    ]);
  });

  it("is distinguished from one that was cut off, however complete its answer looks", async () => {
    const { made } = teacher(() => answer([1, 0, 2]), true);
    const { stats } = await sampleTraces(made, [makeSlate(0)], { mode: "rejection", maxTries: 2 });
    expect(stats.rejected).toEqual({ "cut off": 2 });
  });

  it("is given up after maxTries, and acceptance is told by difficulty", async () => {
    const { made, asked } = teacher(() => answer([1, 0, 2]));
    const slates = [makeSlate(0, 1), makeSlate(1, 1), makeSlate(2, 2), makeSlate(3, -1)];
    const { stats } = await sampleTraces(made, slates, { mode: "rejection", maxTries: 3 });
    expect(asked.length).toBe(3 + 1 + 1); // the slate that misses its item is not offered
    expect(stats).toMatchObject({
      offered: 3,
      accepted: 2,
      acceptanceByPosition: [0, 1, 0],
      offeredByPosition: [0, 2, 1],
    });
    expect(stats.rejected).toEqual({ "wrong first choice": 3 });
  });

  it("is stopped at once if its first twenty answers are all of no use", async () => {
    const { made, asked } = teacher((_, n) => (n % 4 ? "¿qué?" : answer([1, 0, 2], `${good} und und und`.repeat(9))));
    const slates = Array.from({ length: 500 }, (_, i) => makeSlate(i));
    const fault = await sampleTraces(made, slates, { mode: "rejection", maxTries: 3 }).catch((e: unknown) => e);
    expect(fault).toBeInstanceOf(RunError);
    expect((fault as RunError).message).toContain("15 x not json, 5 x too long");
    expect(asked.length).toBe(20);
  });
});
