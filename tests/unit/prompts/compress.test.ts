/** Context compression: within its budget, always in order, candidates untouched; and what it prefers to keep. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type BudgetOptions, budgetCompressor } from "../../../src/prompts/compress.ts";
import type { PromptInput } from "../../../src/prompts/rerank.ts";

const titles = ["red soap", "blue soap", "green towel", "hair brush", "shampoo", "soap dish", "large comb of horn"];
const getTitle = (row: number): string => titles[row] ?? "";
/** An item costs one token and one a word of its title. */
const countTokens = (_row: number, title: string): number => 1 + title.split(" ").length;
const input = (history: number[], candidates: number[] = [5]): PromptInput => ({ history, candidates, getTitle });
const compress = (history: number[], o: Partial<BudgetOptions>, candidates?: number[]) =>
  budgetCompressor({ historyTokens: 0, titleWords: 0, historyItems: 20, ...o }, countTokens).compress(
    input(history, candidates),
  );

describe("the budgeted compressor", () => {
  it("keeps the latest for half of the budget, then what shares words with the candidates", () => {
    // Costs: red soap 3, green towel 3, hair brush 3, shampoo 2. Budget 8: shampoo (8 - 2 >= 4) and no other in the
    // first half (6 - 3 < 4); then soap, the candidate's word (6 - 3 = 3), and the later of brush
    // and towel (3 - 3 = 0).
    expect(compress([0, 2, 3, 4], { historyTokens: 8 }).history).toEqual([0, 3, 4]);
    expect(compress([0, 2, 3, 4], { historyTokens: 8 }, [2]).history).toEqual([2, 3, 4]);
  });

  it("counts an item seen twice once, where it was seen last", () => {
    expect(compress([0, 4, 0], { historyTokens: 100 }).history).toEqual([4, 0]);
  });

  it("cuts titles, of candidates too, and looks at the latest items alone", () => {
    const cut = compress([1, 6, 3], { titleWords: 2, historyItems: 2 });
    expect(cut.history).toEqual([6, 3]);
    expect(cut.getTitle(6)).toBe("large comb");
    expect(cut.getTitle(4)).toBe("shampoo");
  });

  it("stays within every budget, in order, and leaves the candidates alone", () => {
    const rows = fc.array(fc.nat(6), { maxLength: 15 });
    fc.assert(
      fc.property(rows, rows, fc.integer({ min: 1, max: 30 }), fc.nat(3), (history, candidates, budget, titleWords) => {
        const out = compress(history, { historyTokens: budget, titleWords }, candidates);
        const shown = Array.from(out.history);
        expect(shown.reduce((n, row) => n + countTokens(row, out.getTitle(row)), 0)).toBeLessThanOrEqual(budget);
        expect(out.candidates).toEqual(candidates);
        let at = 0;
        for (const row of history) if (row === shown[at]) at++;
        expect(at).toBe(shown.length); // a subsequence
        expect(new Set(shown).size).toBe(shown.length);
      }),
    );
  });
});
