/**
 * Which reasoning is good enough to learn from: it cites only what it was shown, concludes with the item ranked first,
 * has a reasonable length, and is in English if that is asked for. Pure; sampling.ts compares with the answer.
 */
import type { Citations } from "../prompts/parse.ts";

export interface QualityOptions {
  /** Bounds on the words of the reasoning, citations not counted. */
  readonly minWords: number;
  readonly maxWords: number;
  /** Fewest items it must cite. */
  readonly minCitations: number;
  readonly language: "en" | "any";
}

export interface Fault {
  readonly reason: string;
  readonly detail: string;
}

/** @param first the row that the ranking puts first */
export function findFault(reasoning: Citations, first: number, o: QualityOptions): Fault | undefined {
  const words = listWords(reasoning);
  const unknown = reasoning.unknown[0];
  if (unknown !== undefined)
    return { reason: "cites an unknown item", detail: `${unknown} is neither in the history nor in the slate` };
  if (words.length < o.minWords) return { reason: "too short", detail: `${words.length} words` };
  if (words.length > o.maxWords) return { reason: "too long", detail: `${words.length} words` };
  if (o.language === "en" && !looksEnglish(words))
    return { reason: "not in English", detail: words.slice(0, 12).join(" ") };
  if (new Set(reasoning.cited).size < o.minCitations)
    return { reason: "cites too few items", detail: `${new Set(reasoning.cited).size} of ${o.minCitations}` };
  const conclusion = findConclusion(reasoning);
  if (conclusion !== undefined && conclusion !== first)
    return { reason: "ranks another item first", detail: "than the one its reasoning concludes with" };
  return undefined;
}

const listWords = (reasoning: Citations): string[] =>
  reasoning.words.flatMap((part) => (typeof part === "string" ? (part.match(/[\p{L}\p{N}'’]+/gu) ?? []) : []));

/** The first item cited after the last "choice", or else the last item cited. */
function findConclusion(reasoning: Citations): number | undefined {
  const at = reasoning.words.findLastIndex((part) => typeof part === "string" && /\bchoice\b/i.test(part));
  const stated = at < 0 ? undefined : reasoning.words.slice(at).find((part) => typeof part === "number");
  return stated ?? reasoning.cited.at(-1);
}

/** Common English function words that are rare in other languages; about two in five words of English prose. */
const functionWords = new Set(
  (
    "a about after all also an and another are as at be because been but by can chosen choice complement do does each " +
    "first for from had has have he her his history i if in into is it item items its last likely more most next no " +
    "not of on one or other pattern same she so some such than that the their them then there these they this those " +
    "to user was we were what when which who will with would you your"
  ).split(" "),
);

/** At least one word in eight is a function word, and nine letters in ten are Latin. Item names lower the share. */
function looksEnglish(words: readonly string[]): boolean {
  if (words.length === 0) return true; // left to the length bounds
  const letters = words.join("").match(/\p{L}/gu) ?? [];
  const latin = letters.filter((c) => /\p{Script=Latin}/u.test(c)).length;
  const known = words.filter((w) => functionWords.has(w.toLowerCase())).length;
  return latin >= 0.9 * letters.length && known >= words.length / 8;
}
