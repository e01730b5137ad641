/**
 * What makes visible reasoning worthless, whatever order follows it. Such an answer is invalid everywhere: in training,
 * in evaluation and in the service, which never shows it. Pure and on tokens, so it works in any language. The
 * thresholds are ours.
 */
import type { Encoder } from "./pieces.ts";

/** Used as reasons of an unparseable answer (parse.ts). */
export const reasoningFaults = {
  repeats: "reasoning repeats itself",
  limit: "reasoning hit its limit",
  special: "reasoning holds special tokens",
  copies: "reasoning copies the prompt",
} as const;

export type FaultName = keyof typeof reasoningFaults;
export const faultNames = Object.keys(reasoningFaults) as FaultName[];
export type ReasoningFault = (typeof reasoningFaults)[FaultName];

/** A larger share of one fault raises an alarm. */
const alarmShare = 0.05;

const advice: Readonly<Record<FaultName, string>> = {
  repeats: "Train SFT longer, or on traces that vary more; a lower rl.learningRate keeps RL from it.",
  limit: "Raise decoding.maxReasoningTokens, or have the teacher write less (teacher.quality.maxWords).",
  special: "Train SFT longer: the model has not learned what reasoning is made of.",
  copies: "Use a teacher that says more than the prompt does, or train SFT longer.",
};

/** Shares of each fault. @param reasons of answers in mode think; undefined: a valid answer */
export function measureFaults(reasons: readonly (string | undefined)[]): Readonly<Record<FaultName, number>> {
  const share = (name: FaultName): number =>
    reasons.filter((r) => r === reasoningFaults[name]).length / Math.max(1, reasons.length);
  return { repeats: share("repeats"), limit: share("limit"), special: share("special"), copies: share("copies") };
}

/** A sentence for each fault that is too frequent. */
export const describeFaults = (shares: Readonly<Record<FaultName, number>>): string[] =>
  faultNames
    .filter((name) => shares[name] > alarmShare)
    .map(
      (name) =>
        `in ${(100 * shares[name]).toFixed(0)} % of answers with reasoning the ${reasoningFaults[name]}; they count as invalid. ${advice[name]}`,
    );

/** Tokens of a response in mode think, up to what closes the reasoning. */
export interface WrittenReasoning {
  readonly prompt: ArrayLike<number>;
  readonly tokens: ArrayLike<number>;
}

/**
 * @param limit most tokens of reasoning; reaching it means that it was cut off
 * @param isWhole false while more may follow, so an item may be incomplete
 */
export function findFault(
  { prompt, tokens }: WrittenReasoning,
  encoder: Pick<Encoder, "classify" | "numLevels">,
  limit: number,
  isWhole = true,
): FaultName | undefined {
  if (tokens.length === 0) return undefined;
  if (repeatsItself(tokens)) return "repeats";
  if (tokens.length >= limit) return "limit"; // an item may be cut in two
  if (holdsSpecial(tokens, encoder, isWhole)) return "special";
  return copies(tokens, prompt) ? "copies" : undefined;
}

/** Special tokens other than those of whole items: every level once, in order. */
function holdsSpecial(
  tokens: ArrayLike<number>,
  encoder: Pick<Encoder, "classify" | "numLevels">,
  isWhole: boolean,
): boolean {
  let expected = 0;
  for (let t = 0; t < tokens.length; t++) {
    const kind = encoder.classify(tokens[t] as number);
    if (kind === "around") continue;
    if (kind === "markup" || (kind === "text" ? expected !== 0 : kind !== expected)) return true;
    if (kind !== "text") expected = (kind + 1) % encoder.numLevels;
  }
  return isWhole && expected !== 0;
}

/** Longest block of tokens checked for immediate repetition. */
const longestBlock = 32;
/** This many repetitions in a row are a loop; a single token needs more, as numbers and horizontal rules repeat it. */
const loopTimes = 4;
const singleTimes = 8;
/** From this many trigrams on, too small a share of distinct ones counts as repetition. */
const fewestTrigrams = 30;
const leastDistinct = 0.5;

function repeatsItself(tokens: ArrayLike<number>): boolean {
  for (let block = 1; block <= Math.min(longestBlock, tokens.length / loopTimes); block++) {
    const needed = block * ((block === 1 ? singleTimes : loopTimes) - 1);
    let equal = 0;
    for (let t = block; t < tokens.length; t++) {
      equal = tokens[t] === tokens[t - block] ? equal + 1 : 0;
      if (equal >= needed) return true;
    }
  }
  const grams = listGrams(tokens, 3);
  return grams.length >= fewestTrigrams && new Set(grams).size < leastDistinct * grams.length;
}

/** A run of prompt tokens of this length is not a citation. */
const copiedRun = 12;
/** Reasoning with this many tokens from such runs, and this share of all, copies the prompt. */
const fewestCopied = 24;
const mostCopied = 0.8;

function copies(tokens: ArrayLike<number>, prompt: ArrayLike<number>): boolean {
  if (tokens.length < fewestCopied) return false;
  const known = new Set(listGrams(prompt, copiedRun));
  let copied = 0;
  let counted = 0; // tokens before here are counted
  listGrams(tokens, copiedRun).forEach((gram, start) => {
    if (!known.has(gram)) return;
    copied += start + copiedRun - Math.max(counted, start);
    counted = start + copiedRun;
  });
  return copied >= Math.max(fewestCopied, mostCopied * tokens.length);
}

const listGrams = (tokens: ArrayLike<number>, size: number): string[] =>
  Array.from({ length: Math.max(0, tokens.length - size + 1) }, (_, start) =>
    Array.prototype.slice.call(tokens, start, start + size).join(),
  );
