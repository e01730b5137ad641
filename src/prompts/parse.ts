/**
 * Reads a response. A bad answer is data: every outcome is a value, nothing throws on model output.
 * Whitespace is forgiven; anything else that is not a complete permutation of the slate is unparseable, with a reason.
 */
import { markers } from "./pieces.ts";
import type { ReasoningFault } from "./reasoning.ts";
import { jsonOpening, type PromptMode, type PromptOptions } from "./rerank.ts";

export type UnparseableReason =
  | "no answer"
  | "not json"
  | "wrong keys"
  | "unknown item"
  | "not a candidate"
  | "repeated candidate"
  | "missing candidates"
  | "trailing text"
  | "not ended"
  | ReasoningFault;

export type Parsed =
  | {
      readonly kind: "ranking";
      /**
       * Indices into the slate's candidates, best first; a permutation, or the beginning of one where less was asked
       * for.
       */
      readonly order: readonly number[];
      readonly reasoning: string;
    }
  | { readonly kind: "unparseable"; readonly reason: UnparseableReason; readonly detail: string };

const unparseable = (reason: UnparseableReason, detail: string): Parsed => ({ kind: "unparseable", reason, detail });

/** Reads candidates one after the other, ignoring white space between them; `rest` is what follows the last. */
function readItems(body: string, spellings: readonly string[]): { found: number[]; rest: string } {
  const found: number[] = [];
  for (let at = pastSpace(body, 0); ; ) {
    let index = 0;
    while (index < spellings.length && !standsAt(body, spellings[index] as string, at)) index++;
    if (index === spellings.length) return { found, rest: body.slice(at) };
    found.push(index);
    at = pastSpace(body, at + (spellings[index] as string).length);
  }
}

/**
 * Whether a non-empty spelling occurs at an index. Spellings begin and end alike; comparing the last but one character,
 * a digit of the last code, rules most of them out.
 */
function standsAt(body: string, spelling: string, at: number): boolean {
  const telling = Math.max(0, spelling.length - 2);
  return body.charCodeAt(at + telling) === spelling.charCodeAt(telling) && body.startsWith(spelling, at);
}

const isPrintable = (code: number): boolean => code > 0x20 && code < 0x7f;

/** The first index from `at` on that is not white space. */
function pastSpace(text: string, at: number): number {
  let end = at;
  // Printable ASCII, nearly everything read here, is decided without creating a string.
  while (end < text.length && !isPrintable(text.charCodeAt(end)) && (text[end] as string).trim() === "") end++;
  return end;
}

function permutation(found: readonly number[], n: number, fewest: number, reasoning: string): Parsed {
  const twice = found.find((x, i) => found.indexOf(x) !== i);
  if (twice !== undefined) return unparseable("repeated candidate", `candidate ${twice} appears twice`);
  if (found.length < fewest) return unparseable("missing candidates", `${found.length} of ${n} candidates`);
  return { kind: "ranking", order: found, reasoning };
}

/**
 * @param response decoded text of the response, special tokens included; the end of a chat turn reads as <|end|>
 * @param spellings the candidates' semantic IDs as text, in slate order; distinct
 * @param fewest candidates in a complete answer; default: all
 */
export function parseResponse(
  response: string,
  spellings: readonly string[],
  mode: PromptMode,
  options: Pick<PromptOptions, "format">,
  fewest: number = spellings.length,
): Parsed {
  const parse = options.format === "compact" ? parseCompact : parseJson;
  return parse(response, spellings, mode, fewest);
}

function parseCompact(response: string, spellings: readonly string[], mode: PromptMode, fewest: number): Parsed {
  let reasoning = "";
  let body = response;
  if (mode === "think") {
    const at = response.indexOf(markers.answer);
    if (at < 0) return unparseable("no answer", `no ${markers.answer} in ${response.length} characters`);
    reasoning = response.slice(0, at).trim();
    body = response.slice(at + markers.answer.length);
  }
  const { found, rest } = readItems(body, spellings);
  const ended = rest.startsWith(markers.end);
  if (!ended && rest !== "") {
    const foreign = /^(<\|sid_begin\|>)?<s_[a-z]_\d+>/.test(rest);
    return unparseable(foreign ? "not a candidate" : "trailing text", rest.slice(0, 60));
  }
  if (ended && rest.slice(markers.end.length).trim() !== "")
    return unparseable("trailing text", rest.slice(markers.end.length, markers.end.length + 60));
  if (!ended) return unparseable("not ended", `stopped after ${found.length} of ${spellings.length} candidates`);
  return permutation(found, spellings.length, fewest, reasoning);
}

function parseJson(response: string, spellings: readonly string[], mode: PromptMode, fewest: number): Parsed {
  const written = response.trimEnd();
  if (!written.endsWith(markers.end)) return unparseable("not ended", `no ${markers.end}`);
  return parseJsonAnswer(jsonOpening[mode] + written.slice(0, -markers.end.length), spellings, fewest);
}

/**
 * A whole json answer: {"reasoning": string, "ranking": [every candidate's ID once]}, exactly these two keys, in this
 * order, nothing around them. White space is ignored, line breaks within strings included.
 */
export function parseJsonAnswer(body: string, spellings: readonly string[], fewest: number = spellings.length): Parsed {
  let value: unknown;
  try {
    value = JSON.parse(body.replace(/[\n\r\t]/g, " "));
  } catch (error) {
    return unparseable("not json", (error as Error).message.slice(0, 80));
  }
  if (typeof value !== "object" || value === null || Array.isArray(value))
    return unparseable("not json", "not an object");
  const { reasoning, ranking } = value as { reasoning?: unknown; ranking?: unknown };
  if (!Array.isArray(ranking)) return unparseable("no answer", 'no list under "ranking"');
  const keys = keysWritten(body);
  if (keys.join() !== "reasoning,ranking" || typeof reasoning !== "string")
    return unparseable("wrong keys", `not "reasoning" (a string) and "ranking" alone: ${keys.join(", ")}`.slice(0, 80));
  const found: number[] = [];
  for (const entry of ranking as unknown[]) {
    const index = typeof entry === "string" ? spellings.indexOf(entry.trim()) : -1;
    if (index < 0)
      return unparseable("not a candidate", typeof entry === "string" ? entry.slice(0, 60) : `a ${typeof entry}`);
    found.push(index);
  }
  return permutation(found, spellings.length, fewest, reasoning.trim());
}

/** Every key of a valid JSON text in order, at any depth; JSON.parse would drop all but the last of equal keys. */
const keysWritten = (json: string): string[] =>
  [...json.matchAll(/"((?:[^"\\]|\\.)*)"(\s*:)?/gs)].flatMap(([, name, colon]) => (colon ? [name as string] : []));

/** Items that reasoning cites: known ones as rows, unknown ones as spelled. */
export interface Citations {
  readonly words: readonly (string | number)[];
  /** Rows, in the order cited. */
  readonly cited: readonly number[];
  /** Spelled like a semantic ID, but not a known one. */
  readonly unknown: readonly string[];
}

const idLike = /(?:<\|sid_begin\|>)?<s_a_\d+>(?:<s_[b-z]_\d+>)*(?:<\|sid_end\|>)?/g;

/** @param findRow the item an ID stands for, among those the prompt shows */
export function readCitations(reasoning: string, findRow: (spelling: string) => number | undefined): Citations {
  const words: (string | number)[] = [];
  const unknown: string[] = [];
  let at = 0;
  for (const match of reasoning.matchAll(idLike)) {
    const row = findRow(match[0]);
    if (match.index > at) words.push(reasoning.slice(at, match.index));
    if (row === undefined) unknown.push(match[0]);
    else words.push(row);
    at = match.index + match[0].length;
  }
  if (at < reasoning.length) words.push(reasoning.slice(at));
  return { words, cited: words.filter((w) => typeof w === "number"), unknown };
}
