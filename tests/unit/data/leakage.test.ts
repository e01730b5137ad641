/**
 * Identity and order: what a model could learn from how things are numbered or named, rather than from what they are.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { Rng } from "../../../src/core/rng.ts";
import { buildDataset } from "../../../src/data/dataset.ts";
import { checkPrompts, checkRowOrder, checkSlates, rowOrderShare } from "../../../src/data/leakage.ts";
import { splitByPosition } from "../../../src/data/split.ts";
import type { Dataset } from "../../../src/data/types.ts";
import { fitPopularity } from "../../../src/prerank/popularity.ts";
import { itemsShown, renderPrompt } from "../../../src/prompts/rerank.ts";
import { captioningTask, personaTask, sequentialTask } from "../../../src/prompts/tasks.ts";
import { buildAllSlates } from "../../build-all-slates.ts";
import { makeDataset } from "../synthetic.ts";

const path = mkdtempSync(join(tmpdir(), "gr2-order-"));
afterAll(() => rmSync(path, { recursive: true, force: true }));

/** Items are numbered as they first appear, as published files often do: the next item is often the next number. */
async function numberedByAppearance(): Promise<Dataset> {
  const rng = Rng.of(3, "appearance");
  const lines = ["u,i,t"];
  let next = 0;
  for (let u = 0; u < 150; u++)
    for (let k = 0; k < 12; k++)
      lines.push(`u${u},id-${rng.uniform() < 0.4 || next === 0 ? next++ : rng.int(next)},${k}`);
  writeFileSync(join(path, "a.csv"), `${lines.join("\n")}\n`);
  return buildDataset({
    name: "t",
    source: { kind: "table", path, interactions: "a.csv", columns: { user: "u", item: "i", time: "t" } },
    prepare: { minUserInteractions: 0, minItemInteractions: 0, repeats: "first" },
    neutralise: (s) => s,
    neutraliseId: "none",
  });
}

describe("ids that encode order", () => {
  it("do so in the file, and are caught if rows follow them; rows do not", async () => {
    const d = await numberedByAppearance();
    const number = d.items.map((i) => Number(String(i.id).slice(3)));
    const asInTheFile: Dataset = {
      ...d,
      sequences: d.sequences.map((s) => ({ ...s, items: s.items.map((row) => number[row] ?? 0) })),
    };
    expect(rowOrderShare(asInTheFile).share).toBeGreaterThan(0.1);
    expect(() => checkRowOrder(asInTheFile)).toThrow(/item rows encode order/);
    const rows = rowOrderShare(d);
    expect(Math.abs(rows.share - rows.chance)).toBeLessThan(0.005);
    expect(() => checkRowOrder(d)).not.toThrow();
    // Nor are early items found at one end: the rank correlation of row and number of n items is about ± 1/sqrt(n).
    const n = number.length;
    const mean = (n - 1) / 2;
    const spread = number.reduce((s, x) => s + (x - mean) ** 2, 0);
    const correlation = number.reduce((s, x, row) => s + (x - mean) * (row - mean), 0) / spread;
    expect(Math.abs(correlation)).toBeLessThan(4 / Math.sqrt(n));
  });

  it("never reach a text that a model reads, not even of items without text", async () => {
    const { items } = await numberedByAppearance();
    const itemAt = (row: number) => items[row] as (typeof items)[number];
    const [first] = items;
    if (!first) throw new Error("no items");
    const options = {
      format: "json",
      historyItems: 9,
      showCandidates: true,
      showTitles: true,
      maxTitleTokens: 64,
      knowledgePriming: true,
    } as const;
    const pieces = [
      ...captioningTask(0, first, "describe"),
      ...captioningTask(0, first, "identify"),
      ...personaTask([0, 1, 2], itemAt, ["a"]),
      ...sequentialTask([0, 1, 2]),
      ...renderPrompt({ history: [0, 1], candidates: [2, 3], getTitle: (r) => itemAt(r).title }, "think", options),
    ];
    const words = pieces.map((p) => (p.kind === "text" ? p.text : "")).join(" ");
    expect(words).toContain("untitled");
    expect(words).not.toMatch(/id-\d|u\d/);
  });
});

describe("rows keyed by text", () => {
  it("two users with the same history keep slates of their own", async () => {
    const same = [0, 1, 2, 3, 4, 5, 6, 7];
    const data = splitByPosition(makeDataset([same, same, [8, 9, 10, 11, 0, 1, 2, 3]], 20));
    const { slates } = await buildAllSlates(data, fitPopularity, { size: 5, repeats: "unseen", minHistory: 1 });
    const all = [...slates.rerank, ...slates.validation, ...slates.test];
    const [a, b] = [0, 1].map((user) => all.filter((s) => s.user === user));
    expect(a?.map((s) => [s.position, s.target, s.candidates])).toEqual(
      b?.map((s) => [s.position, s.target, s.candidates]),
    );
    expect(new Set(all.map((s) => s.id)).size).toBe(all.length);
    // A table of rewards or evidence keyed by what the prompt says would hold one row for two slates;
    // ids are refused for that.
    const keyed = all.map((s) => ({
      ...s,
      id: data.dataset.sequences[s.user]?.items.slice(0, s.position).join(" ") ?? "",
    }));
    expect(() => checkSlates(data, keyed, { repeats: "unseen" })).toThrow(/id is not an opaque hash|id used twice/);
  });
});

describe("checkPrompts", () => {
  const options = {
    historyItems: 3,
    showCandidates: true,
    showTitles: false,
    maxTitleTokens: 64,
    knowledgePriming: false,
  };
  const shown = (history: number[], candidates: number[], format: "compact" | "json", showCandidates = true) =>
    itemsShown(
      renderPrompt({ history, candidates, getTitle: () => "" }, "think", { ...options, format, showCandidates }),
    );
  it.each(["compact", "json"] as const)("reads what a %s prompt shows", (format) => {
    expect(shown([9, 1, 2, 3], [4, 5], format)).toEqual({ history: [1, 2, 3], candidates: [4, 5] });
  });
  it("stops at an answer in the history, and at other candidates than the slate's", () => {
    const prompt = (history: number[], candidates: number[]) => ({
      ...{ id: "s1", target: 5, expected: [4, 5] },
      ...shown(history, candidates, "compact", candidates.length > 0),
    });
    expect(() => checkPrompts([prompt([1, 2], [4, 5]), prompt([5, 1, 2, 3], [])], "SFT")).not.toThrow(); // 5 is too long ago
    expect(() => checkPrompts([prompt([1, 5], [4, 5])], "SFT")).toThrow(
      /prompts of SFT give their answer away \(1\): s1: the answer is visible in the history/,
    );
    expect(() => checkPrompts([prompt([1, 2], [5, 4])], "SFT")).toThrow(/s1: candidates differ from the slate's/);
  });
});
