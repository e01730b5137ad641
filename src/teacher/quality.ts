/**
 * Which thoughts are fit to be learned from: they cite what they were shown and nothing else, conclude with the item that
 * the ranking puts first, keep to a length, and are in the language asked for. Pure; sampling.ts compares with the answer.
 */
import type { Citations } from "../prompts/parse.ts";

export interface QualityOptions {
  /** Bounds on the words of a thought, citations not counted. */
  readonly minWords: number;
  readonly maxWords: number;
  /** Items a thought must cite at least. */
  readonly minCitations: number;
  readonly language: "en" | "any";
}

export interface Fault {
  readonly reason: string;
  readonly detail: string;
}

/** @param first the row that the ranking puts first */
export function findFault(thought: Citations, first: number, o: QualityOptions): Fault | undefined {
  const words = listWords(thought);
  const unknown = thought.unknown[0];
  if (unknown !== undefined)
    return { reason: "cites an unknown item", detail: `${unknown} is neither in the history nor in the slate` };
  if (words.length < o.minWords) return { reason: "too short", detail: `${words.length} words` };
  if (words.length > o.maxWords) return { reason: "too long", detail: `${words.length} words` };
  if (o.language === "en" && !looksEnglish(words))
    return { reason: "not in English", detail: words.slice(0, 12).join(" ") };
  if (new Set(thought.cited).size < o.minCitations)
    return { reason: "cites too few items", detail: `${new Set(thought.cited).size} of ${o.minCitations}` };
  const conclusion = findConclusion(thought);
  if (conclusion !== undefined && conclusion !== first)
    return { reason: "ranks another item first", detail: "than the one its thought concludes with" };
  return undefined;
}

const listWords = (thought: Citations): string[] =>
  thought.words.flatMap((part) => (typeof part === "string" ? (part.match(/[\p{L}\p{N}'’]+/gu) ?? []) : []));

/** The first item cited behind the last "choice", or else the last item cited. */
function findConclusion(thought: Citations): number | undefined {
  const at = thought.words.findLastIndex((part) => typeof part === "string" && /\bchoice\b/i.test(part));
  const behind = at < 0 ? undefined : thought.words.slice(at).find((part) => typeof part === "number");
  return behind ?? thought.cited.at(-1);
}

/** Words that carry English sentences and few others; about two in five words of English prose. */
const functionWords = new Set(
  (
    "a about after all also an and another are as at be because been but by can chosen choice complement do does each " +
    "first for from had has have he her his history i if in into is it item items its last likely more most next no " +
    "not of on one or other pattern same she so some such than that the their them then there these they this those " +
    "to user was we were what when which who will with would you your"
  ).split(" "),
);

/** At least one word in eight is a function word, and nine letters in ten are Latin. Names of items pull the share down. */
function looksEnglish(words: readonly string[]): boolean {
  if (words.length === 0) return true; // the length bounds judge that
  const letters = words.join("").match(/\p{L}/gu) ?? [];
  const latin = letters.filter((c) => /\p{Script=Latin}/u.test(c)).length;
  const known = words.filter((w) => functionWords.has(w.toLowerCase())).length;
  return latin >= 0.9 * letters.length && known >= words.length / 8;
}
