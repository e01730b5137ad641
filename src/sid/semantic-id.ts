/**
 * The spelling of semantic IDs: `<|sid_begin|><s_a_57><s_b_7><s_c_23><s_d_4><|sid_end|>` (GR2 v1, stage 1), one added
 * token per code. Owns text ↔ codes; does not know which codes belong to an item (catalogue.ts).
 */

/** One code per level, most general first; each in [0, codes). */
export type Codes = readonly number[];

/**
 * "wrapped" as in the paper; "bare" omits the two markers, saving two tokens per item for models with short contexts.
 */
export type SidFormat = "wrapped" | "bare";

export interface SidShape {
  /** L, 1 to 26: each level is a letter. */
  readonly levels: number;
  /** C, codes per level. */
  readonly codes: number;
  readonly format: SidFormat;
}

export interface FoundSid {
  readonly codes: Codes;
  /** Where its text begins and ends (exclusive), in UTF-16 units. */
  readonly start: number;
  readonly end: number;
}

const sidBegin = "<|sid_begin|>";
const sidEnd = "<|sid_end|>";

const letters = "abcdefghijklmnopqrstuvwxyz";

/** Throws RangeError if no ID can have this shape. */
export function checkShape({ levels, codes }: Pick<SidShape, "levels" | "codes">): void {
  if (!Number.isInteger(levels) || levels < 1 || levels > letters.length)
    throw new RangeError(`a semantic ID has 1 to ${letters.length} levels, not ${levels}`);
  if (!Number.isInteger(codes) || codes < 1) throw new RangeError(`a level has at least 1 code, not ${codes}`);
}

/** `<s_b_7>` for level 1, code 7. */
export const codeToken = (level: number, code: number): string => `<s_${letters.charAt(level)}_${code}>`;

/** All code tokens, level by level: code c of level k is at index k * codes + c. */
export function codeTokens(levels: number, codes: number): string[] {
  checkShape({ levels, codes });
  return Array.from({ length: levels * codes }, (_, i) => codeToken(Math.floor(i / codes), i % codes));
}

/** Every token the format needs added to a vocabulary: the markers (wrapped only), then the code tokens. */
export function sidTokens(shape: SidShape): string[] {
  const codes = codeTokens(shape.levels, shape.codes);
  return shape.format === "wrapped" ? [sidBegin, sidEnd, ...codes] : codes;
}

/** The tokens of one ID in order, markers included. */
export function spellCodes(codes: Codes, format: SidFormat): string[] {
  const tokens = codes.map((code, level) => codeToken(level, code));
  return format === "wrapped" ? [sidBegin, ...tokens, sidEnd] : tokens;
}

export const formatSid = (codes: Codes, format: SidFormat): string => spellCodes(codes, format).join("");

/**
 * The codes of a text that is exactly one ID; else undefined (other shape, spaces, leading zeros, code out of range).
 */
export function parseSid(text: string, shape: SidShape): Codes | undefined {
  const found = findSids(text, shape);
  const only = found[0];
  return only !== undefined && only.start === 0 && only.end === text.length ? only.codes : undefined;
}

/** All IDs of this shape in a text, left to right, not overlapping. Partial and impossible ones are skipped. */
export function findSids(text: string, shape: SidShape): FoundSid[] {
  const found: FoundSid[] = [];
  for (const match of text.matchAll(sidPattern(shape))) {
    const codes = match.slice(1).map(Number);
    if (codes.every((code) => code < shape.codes))
      found.push({ codes, start: match.index, end: match.index + match[0].length });
  }
  return found;
}

const patterns = new Map<string, RegExp>();

function sidPattern({ levels, codes, format }: SidShape): RegExp {
  const key = `${levels} ${format}`;
  let pattern = patterns.get(key);
  if (pattern === undefined) {
    checkShape({ levels, codes });
    const body = Array.from({ length: levels }, (_, level) => `<s_${letters.charAt(level)}_(0|[1-9][0-9]{0,8})>`).join(
      "",
    );
    pattern = new RegExp(format === "wrapped" ? `<\\|sid_begin\\|>${body}<\\|sid_end\\|>` : body, "g");
    patterns.set(key, pattern);
  }
  return pattern;
}
