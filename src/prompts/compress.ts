/**
 * Context compression (TR): fewer prompt tokens for the same answer. A compressor maps what a prompt would show to what
 * it shows instead; candidates are never dropped. The deterministic one keeps the history within a token budget and
 * cuts titles; a learned one would implement the same interface.
 */
import { type Encoder, item } from "./pieces.ts";
import { listing, type PromptInput, type PromptOptions } from "./rerank.ts";

export interface Compressor {
  /** Deterministic; the history of the result is a subsequence of the input's. */
  compress(input: PromptInput): PromptInput;
}

export interface BudgetOptions {
  /** Tokens that the listed history may take; 0 = any number. */
  readonly historyTokens: number;
  /** Words to keep of a title; 0 = all. */
  readonly titleWords: number;
  /** Number of latest items considered. */
  readonly historyItems: number;
}

/**
 * Of repeated items only the last occurrence counts. Half of the budget goes to the latest items; the rest to older
 * ones that share most title words with the candidates, rare words weighing more, later items first among equals.
 * @param countTokens what listing an item costs, title included
 */
export function budgetCompressor(o: BudgetOptions, countTokens: (row: number, title: string) => number): Compressor {
  return {
    compress(input) {
      const getTitle = (row: number): string => firstWords(input.getTitle(row), o.titleWords);
      const latest = Array.from(input.history).slice(-o.historyItems);
      if (o.historyTokens === 0) return { ...input, history: latest, getTitle };
      const positions = latest.map((_, i) => i).filter((i) => latest.lastIndexOf(latest[i] as number) === i);
      const estimateCost = (position: number): number => {
        const row = latest[position] as number;
        return countTokens(row, getTitle(row));
      };
      const kept = new Set<number>();
      let left = o.historyTokens;
      const keep = (position: number, least: number): void => {
        const cost = estimateCost(position);
        if (left - cost < least) return;
        left -= cost;
        kept.add(position);
      };
      for (const position of [...positions].reverse()) keep(position, o.historyTokens / 2);
      const relevance = relevanceTo(input.candidates.map(input.getTitle));
      const byRelevance = positions
        .filter((position) => !kept.has(position))
        .map((position) => ({ position, score: relevance(input.getTitle(latest[position] as number)) }))
        .sort((a, b) => b.score - a.score || b.position - a.position);
      for (const { position } of byRelevance) keep(position, 0);
      return { ...input, history: latest.filter((_, position) => kept.has(position)), getTitle };
    },
  };
}

/** The configured compressor, which counts tokens as the model does; undefined = none. */
export function buildCompressor(
  prompts: PromptOptions & { readonly compress: Pick<BudgetOptions, "historyTokens" | "titleWords"> },
  encoder: Encoder,
): Compressor | undefined {
  const { historyTokens, titleWords } = prompts.compress;
  if (historyTokens + titleWords === 0) return undefined;
  return budgetCompressor(
    { historyTokens, titleWords, historyItems: prompts.historyItems },
    (row, title) => encoder.encode(listing(item(row), title, prompts)).length,
  );
}

const splitWords = (title: string): string[] => title.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [];

function firstWords(title: string, n: number): string {
  if (n === 0) return title;
  const words = title.split(/\s+/);
  return words.length <= n ? title : words.slice(0, n).join(" ");
}

/** A title's overlap with the candidates': sum of 1 / (number of candidates with the word) over its distinct words. */
function relevanceTo(titles: readonly string[]): (title: string) => number {
  const counts = new Map<string, number>();
  for (const title of titles)
    for (const word of new Set(splitWords(title))) counts.set(word, (counts.get(word) ?? 0) + 1);
  return (title) => [...new Set(splitWords(title))].reduce((sum, word) => sum + 1 / (counts.get(word) ?? Infinity), 0);
}
