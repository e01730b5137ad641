/**
 * Reads a response. A bad answer is data: every outcome is a value, nothing throws on model output.
 * Whitespace is forgiven; anything else that is not a complete permutation of the slate is unparseable, with a reason.
 */
import { markers } from "./pieces.ts";
import type { Mode, PromptOptions } from "./rerank.ts";

export type UnparseableReason =
  | "no answer"
  | "not json"
  | "unknown item"
  | "not a candidate"
  | "repeated candidate"
  | "missing candidates"
  | "trailing text"
  | "not ended";

export type Parsed =
  | {
      readonly kind: "ranking";
      /** Indices into the slate's candidates, best first; a permutation. */
      readonly order: readonly number[];
      readonly reasoning: string;
    }
  | { readonly kind: "unparseable"; readonly reason: UnparseableReason; readonly detail: string };

const unparseable = (reason: UnparseableReason, detail: string): Parsed => ({ kind: "unparseable", reason, detail });

/** Reads candidates one behind the other, white space between them forgiven; `rest` is what follows the last one. */
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
 * Whether a spelling (not empty) stands at a place. Spellings begin and end alike; their last but one character, a digit of the
 * last code, tells most of them apart at the price of one comparison.
 */
function standsAt(body: string, spelling: string, at: number): boolean {
  const telling = Math.max(0, spelling.length - 2);
  return body.charCodeAt(at + telling) === spelling.charCodeAt(telling) && body.startsWith(spelling, at);
}

const isPrintable = (code: number): boolean => code > 0x20 && code < 0x7f;

/** The first place from `at` on that is not white space. */
function pastSpace(text: string, at: number): number {
  let end = at;
  // What is printable ASCII is decided without making a string of it: nearly everything that is read here.
  while (end < text.length && !isPrintable(text.charCodeAt(end)) && (text[end] as string).trim() === "") end++;
  return end;
}

function permutation(found: readonly number[], n: number, reasoning: string): Parsed {
  const twice = found.find((x, i) => found.indexOf(x) !== i);
  if (twice !== undefined) return unparseable("repeated candidate", `candidate ${twice} appears twice`);
  if (found.length < n) return unparseable("missing candidates", `${found.length} of ${n} candidates`);
  return { kind: "ranking", order: found, reasoning };
}

/**
 * @param response decoded text of the response, special tokens included
 * @param spellings the candidates' semantic IDs as text, in slate order; distinct
 */
export function parseResponse(
  response: string,
  spellings: readonly string[],
  mode: Mode,
  options: Pick<PromptOptions, "format">,
): Parsed {
  return options.format === "compact" ? parseCompact(response, spellings, mode) : parseJson(response, spellings, mode);
}

function parseCompact(response: string, spellings: readonly string[], mode: Mode): Parsed {
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
  if (!ended) return unparseable("not ended", `stopped behind ${found.length} of ${spellings.length} candidates`);
  return permutation(found, spellings.length, reasoning);
}

function parseJson(response: string, spellings: readonly string[], mode: Mode): Parsed {
  const opening = mode === "think" ? '{"reasoning": "' : '{"reasoning": "", "ranking": ["';
  const ended = response.endsWith(markers.end);
  if (!ended) return unparseable("not ended", `no ${markers.end}`);
  const body = opening + response.slice(0, -markers.end.length);
  let value: unknown;
  try {
    value = JSON.parse(body.replace(/[\n\r\t]/g, " "));
  } catch (error) {
    return unparseable("not json", (error as Error).message.slice(0, 80));
  }
  const record = value as { reasoning?: unknown; ranking?: unknown };
  if (!Array.isArray(record.ranking)) return unparseable("no answer", 'no list under "ranking"');
  const found: number[] = [];
  for (const entry of record.ranking as unknown[]) {
    const index = typeof entry === "string" ? spellings.indexOf(entry.trim()) : -1;
    if (index < 0) return unparseable("not a candidate", String(entry).slice(0, 60));
    found.push(index);
  }
  return permutation(found, spellings.length, typeof record.reasoning === "string" ? record.reasoning : "");
}
