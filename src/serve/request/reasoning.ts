/** Decodes reasoning tokens to text piece by piece: items by title, only complete characters and items. */
import { type Codes, findSids, type SidShape } from "../../sid/semantic-id.ts";

export interface ReasoningParts {
  readonly shape: SidShape;
  readonly decode: (ids: readonly number[]) => string;
  /** The text that ends the reasoning; never shown, not even partly. */
  readonly trigger: readonly number[];
  readonly getTitle: (codes: Codes) => string | undefined;
  /** Whether this beginning of reasoning may be shown; unsound reasoning makes the answer invalid. */
  readonly isSound: (tokens: readonly number[]) => boolean;
}

/** The whole reasoning so far. */
export function reasoningText(tokens: readonly number[], parts: ReasoningParts): string {
  return named(parts.decode(tokens), parts).trim();
}

export class ReasoningStream {
  private readonly parts: ReasoningParts;
  private readonly tokens: number[] = [];
  private sent = 0;
  private closed = false;

  constructor(parts: ReasoningParts) {
    this.parts = parts;
  }

  /**
   * @param index position of the token in the response; a repeated position is ignored
   * @returns the next piece, often ""
   */
  push(index: number, token: number): string {
    if (this.closed || index !== this.tokens.length) return "";
    this.tokens.push(token);
    const { trigger, decode, isSound } = this.parts;
    const opens = this.tokens.length - trigger.length;
    if (trigger.length > 0 && opens >= 0 && trigger.every((t, k) => this.tokens[opens + k] === t)) {
      this.closed = true;
      return this.upTo(decode(this.tokens.slice(0, opens)));
    }
    const shown = this.tokens.slice(0, this.tokens.length - trigger.length + 1);
    this.closed = !isSound(shown);
    return this.closed ? "" : this.upTo(decode(shown).replace(unfinished, ""));
  }

  private upTo(text: string): string {
    const said = named(text, this.parts).trimStart();
    const piece = said.slice(this.sent);
    this.sent = Math.max(this.sent, said.length);
    return piece;
  }
}

/** An incomplete end: bytes of an unfinished character, or tokens of an unfinished ID. */
const unfinished = /(\uFFFD+|(<\|sid_begin\|>)?(<s_[a-z]_\d+>)+)$/u;

function named(text: string, { shape, getTitle }: ReasoningParts): string {
  let out = "";
  let at = 0;
  for (const { start, end, codes } of findSids(text, shape)) {
    out += `${text.slice(at, start)} “${getTitle(codes) ?? "no such item"}”`;
    at = end;
  }
  return out + text.slice(at);
}
