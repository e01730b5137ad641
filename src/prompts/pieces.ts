/**
 * The alphabet of everything the model reads and writes. Text is tokenized piece by piece, so the role of every token
 * is known without offsets, and words can never become markers or semantic IDs.
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

export interface ItemPiece {
  readonly kind: "item";
  readonly row: number;
  /** Shown as a candidate of the slate. */
  readonly candidate?: true;
}

export type Piece =
  | { readonly kind: "marker"; readonly token: Marker }
  /** Plain words, at most `maxTokens` of their tokens; already neutralised where they come from data. */
  | { readonly kind: "text"; readonly text: string; readonly maxTokens?: number }
  /** An item, written as its semantic ID. */
  | ItemPiece
  /** Where question and answer begin and the answer ends, in the words of the model's chat template if one is used. */
  | { readonly kind: "turn"; readonly at: "question" | "answer" | "end" };

export const marker = (name: keyof typeof markers): Piece => ({ kind: "marker", token: markers[name] });
/** @param maxTokens longer text is cut there; undefined or 0: never */
export const text = (value: string, maxTokens?: number): Piece =>
  maxTokens ? { kind: "text", text: value, maxTokens } : { kind: "text", text: value };
export const item = (row: number): ItemPiece => ({ kind: "item", row });
export const candidate = (row: number): ItemPiece => ({ kind: "item", row, candidate: true });
export const turn = (at: "question" | "answer" | "end"): Piece => ({ kind: "turn", at });

/** What the prompts room needs of a tokenizer; worker/tokenizer implements it. */
export interface TextTokenizer {
  /** Token ids of plain text; adds nothing. */
  encode(text: string): number[];
  /** Id of a token of the vocabulary; throws if there is no such token. */
  tokenId(token: string): number;
}

/** What the prompts room needs of the catalogue of semantic IDs; sid/catalogue implements it. */
export interface ItemSpelling {
  /** The tokens that spell an item, with begin and end tokens in the wrapped format. */
  tokensAt(row: number): readonly string[];
}

/** What a chat template writes around question and answer (chat.ts); special tokens are spelled out. */
export interface ChatFrame {
  readonly question: string;
  readonly answer: string;
  /** The one token that ends an answer. */
  readonly end: string;
}

/** A code of a semantic ID; its letter is the level. */
const codeLike = /^<s_([a-z])_\d+>$/;
const aroundCodes: ReadonlySet<string> = new Set(["<|sid_begin|>", "<|sid_end|>"]);

/** Level of every token that is a code of a semantic ID, by its id. */
const readLevels = (special: ReadonlyMap<number, string>): ReadonlyMap<number, number> =>
  new Map(
    [...special].flatMap(([id, token]) => {
      const [, letter = ""] = codeLike.exec(token) ?? [];
      return letter === "" ? [] : [[id, letter.charCodeAt(0) - "a".charCodeAt(0)] as const];
    }),
  );

/** Turns pieces into token ids; remembers the ids of items and texts. */
export class Encoder {
  /** Undefined = without a chat template. */
  readonly chat: ChatFrame | undefined;
  private readonly tokenizer: TextTokenizer;
  private readonly spelling: ItemSpelling;
  private readonly items = new Map<number, readonly number[]>();
  private readonly texts = new Map<string, readonly number[]>();
  private readonly special: ReadonlyMap<number, string>;
  private readonly levels: ReadonlyMap<number, number>;
  /** Levels of a semantic ID in this vocabulary; 0: it has no semantic IDs. */
  readonly numLevels: number;

  /** @param special tokens that text must never become, id to spelling: those GR2 added and the model's own */
  constructor(
    tokenizer: TextTokenizer,
    spelling: ItemSpelling,
    options: { chat?: ChatFrame | undefined; special?: ReadonlyMap<number, string> } = {},
  ) {
    this.tokenizer = tokenizer;
    this.spelling = spelling;
    this.chat = options.chat;
    this.special = options.special ?? new Map();
    this.levels = readLevels(this.special);
    this.numLevels = 1 + Math.max(-1, ...new Set(this.levels.values()));
  }

  /**
   * What a token means: plain text, an item's code (its level, from 0), a token that may surround codes, or markup,
   * which belongs around texts and never inside them.
   */
  classify(token: number): "text" | "around" | "markup" | number {
    const spelling = this.special.get(token);
    if (spelling === undefined) return "text";
    return this.levels.get(token) ?? (aroundCodes.has(spelling) ? "around" : "markup");
  }

  item(row: number): readonly number[] {
    let ids = this.items.get(row);
    if (!ids) {
      ids = this.spelling.tokensAt(row).map((t) => this.tokenizer.tokenId(t));
      this.items.set(row, ids);
    }
    return ids;
  }

  marker(name: keyof typeof markers): number {
    return this.tokenizer.tokenId(markers[name]);
  }

  piece(piece: Piece): readonly number[] {
    switch (piece.kind) {
      case "item":
        return this.item(piece.row);
      case "marker":
        return [this.tokenizer.tokenId(piece.token)];
      case "turn":
        return this.turn(piece.at);
      case "text": {
        let ids = this.texts.get(piece.text);
        if (!ids) {
          ids = this.plain(piece.text);
          if (this.texts.size < 50_000) this.texts.set(piece.text, ids);
        }
        return piece.maxTokens === undefined ? ids : ids.slice(0, piece.maxTokens);
      }
    }
  }

  private turn(at: "question" | "answer" | "end"): readonly number[] {
    if (at === "end") return [this.tokenizer.tokenId(this.chat?.end ?? markers.end)];
    return this.chat ? this.tokenizer.encode(this.chat[at]) : [];
  }

  /** Ids of plain words: any spelling of a special token of this vocabulary becomes a space. */
  private plain(value: string): number[] {
    let words = value;
    for (;;) {
      const ids = this.tokenizer.encode(words);
      const spelled = new Set(ids.flatMap((id) => this.special.get(id) ?? []));
      const defused = [...spelled].reduce((rest, token) => rest.replaceAll(token, " "), words);
      if (defused === words) return ids;
      words = defused; // shorter, or as long with one special token fewer
    }
  }

  encode(pieces: readonly Piece[]): number[] {
    return pieces.flatMap((p) => this.piece(p));
  }
}
