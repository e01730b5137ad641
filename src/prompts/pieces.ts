/**
 * The alphabet of everything the model reads and writes. Text is tokenized piece by piece, so that the role of every
 * token is known (no offsets needed) and words can never become markers or semantic IDs.
 */

/** Marker tokens of the compact format. Added to the vocabulary; never produced from text. */
export const markers = {
  history: "<|history|>",
  candidates: "<|candidates|>",
  think: "<|think|>",
  answer: "<|answer|>",
  end: "<|end|>",
  item: "<|item|>",
  text: "<|text|>",
  persona: "<|persona|>",
} as const;

export type Marker = (typeof markers)[keyof typeof markers];

export type Piece =
  | { readonly kind: "marker"; readonly token: Marker }
  /** Plain words, at most `maxTokens` of their tokens; already neutralised where they come from data. */
  | { readonly kind: "text"; readonly text: string; readonly maxTokens?: number }
  /** An item, written as its semantic ID. */
  | { readonly kind: "item"; readonly row: number };

export const marker = (name: keyof typeof markers): Piece => ({ kind: "marker", token: markers[name] });
/** @param maxTokens over-long text is cut there; undefined or 0: never */
export const text = (value: string, maxTokens?: number): Piece =>
  maxTokens ? { kind: "text", text: value, maxTokens } : { kind: "text", text: value };
export const item = (row: number): Piece => ({ kind: "item", row });

/** What the prompts room needs of a tokenizer; worker/tokenizer implements it. */
export interface TextTokenizer {
  /** Token ids of plain text; adds nothing. */
  encode(text: string): number[];
  /** Id of a token that stands in the vocabulary; throws if it does not. */
  tokenId(token: string): number;
}

/** What the prompts room needs of the catalogue of semantic IDs; sid/catalogue implements it. */
export interface ItemSpelling {
  /** The tokens that write an item, with begin and end tokens in the wrapped format. */
  tokensOf(row: number): readonly string[];
}

/** Turns pieces into token ids; remembers the ids of items. */
export class Encoder {
  private readonly tokenizer: TextTokenizer;
  private readonly spelling: ItemSpelling;
  private readonly items = new Map<number, readonly number[]>();
  private readonly texts = new Map<string, readonly number[]>();

  constructor(tokenizer: TextTokenizer, spelling: ItemSpelling) {
    this.tokenizer = tokenizer;
    this.spelling = spelling;
  }

  item(row: number): readonly number[] {
    let ids = this.items.get(row);
    if (!ids) {
      ids = this.spelling.tokensOf(row).map((t) => this.tokenizer.tokenId(t));
      this.items.set(row, ids);
    }
    return ids;
  }

  marker(name: keyof typeof markers): number {
    return this.tokenizer.tokenId(markers[name]);
  }

  piece(piece: Piece): readonly number[] {
    if (piece.kind === "item") return this.item(piece.row);
    if (piece.kind === "marker") return [this.tokenizer.tokenId(piece.token)];
    let ids = this.texts.get(piece.text);
    if (!ids) {
      ids = this.tokenizer.encode(piece.text);
      if (this.texts.size < 50_000) this.texts.set(piece.text, ids);
    }
    return piece.maxTokens === undefined ? ids : ids.slice(0, piece.maxTokens);
  }

  encode(pieces: readonly Piece[]): number[] {
    return pieces.flatMap((p) => this.piece(p));
  }
}
