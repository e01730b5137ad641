/**
 * Which items a request means: known ones by id or title, others by a semantic ID made from their text, for this request
 * alone. IDs of texts are remembered; each depends on its text and the tokenizer only, whatever else is asked.
 */
import { neutralise } from "../sid/sanitise.ts";
import type { Codes } from "../sid/semantic-id.ts";
import { Lru } from "./lru.ts";
import type { ServedRun } from "./served-run.ts";
import { type ItemReference, Refusal, type RerankRequest } from "./types.ts";

/** One item of a request. */
export interface Found {
  /** In the data set; from numItems on: not in it, numbered within the request. Equal texts have equal rows. */
  readonly row: number;
  readonly codes: Codes;
  /** Neutralised. */
  readonly title: string;
}

export interface FoundItems {
  readonly history: readonly Found[];
  readonly candidates: readonly Found[];
}

/** Semantic IDs of neutralised texts, each as if it came alone. */
export type EncodeTexts = (texts: readonly string[], signal: AbortSignal) => Promise<readonly Codes[]>;

export class ItemBook {
  private readonly run: Pick<ServedRun, "items" | "rowOf" | "rowOfTitle" | "catalogue">;
  private readonly encode: EncodeTexts;
  private readonly codesOfText: Lru<string, Codes>;

  constructor(run: ItemBook["run"], encode: EncodeTexts, capacity: number) {
    this.run = run;
    this.encode = encode;
    this.codesOfText = new Lru(capacity);
  }

  /** Throws Refusal for a candidate that is neither known nor described; and what `encode` throws. */
  async find(request: Pick<RerankRequest, "history" | "candidates">, signal: AbortSignal): Promise<FoundItems> {
    const history = request.history.map((i) => this.look(i)).filter((i) => i !== undefined);
    const candidates = request.candidates.map((c, place) => {
      const item = this.look(c);
      if (item === undefined)
        throw new Refusal(
          "invalid",
          `candidates[${place}].item_id is not an item this model knows; send its text as well, and it is placed by that`,
        );
      return item;
    });
    const own = new Map<string, Codes | undefined>(); // by text, in order of appearance
    for (const item of [...history, ...candidates])
      if (typeof item === "string") own.set(item, this.codesOfText.get(item));
    const missing = [...own.keys()].filter((text) => own.get(text) === undefined);
    if (missing.length > 0) {
      const codes = await this.encode(missing, signal);
      missing.forEach((text, i) => {
        own.set(text, codes[i] as Codes);
        this.codesOfText.set(text, codes[i] as Codes);
      });
    }
    const numbers = new Map([...own.keys()].map((text, k) => [text, this.run.items.length + k]));
    const found = (item: number | string): Found =>
      typeof item === "string"
        ? { row: numbers.get(item) as number, codes: own.get(item) as Codes, title: item }
        : { row: item, codes: this.run.catalogue.codesOf(item), title: this.run.items[item]?.title ?? "" };
    return { history: history.map(found), candidates: candidates.map(found) };
  }

  /** A row, the text of an unknown item, or undefined: an unknown id without a text. */
  private look({ itemId, text }: ItemReference): number | string | undefined {
    const row = itemId === undefined ? undefined : this.run.rowOf.get(itemId);
    if (row !== undefined) return row;
    if (text === undefined || text === "") return undefined;
    const plain = neutralise(text, []);
    return this.run.rowOfTitle.get(plain.toLowerCase()) ?? plain;
  }
}
