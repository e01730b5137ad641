/**
 * Resolves the items of a request: known ones by id or title, others by a semantic ID computed from their text, for
 * this request only.
 */
import { neutralise } from "../../sid/sanitise.ts";
import type { Codes } from "../../sid/semantic-id.ts";
import { isBlank } from "../request/blanks.ts";
import { type ItemReference, Refusal, type RerankRequest } from "../request/types.ts";
import type { NewItems } from "./new-items.ts";
import type { ServedRun } from "./served-run.ts";

/** One item of a request. */
export interface Found {
  /** Row in the data set; from numItems on: unknown items, numbered within the request. Equal texts have equal rows. */
  readonly row: number;
  readonly codes: Codes;
  /** Neutralised. */
  readonly title: string;
}

export interface FoundItems {
  readonly history: readonly Found[];
  readonly candidates: readonly Found[];
}

export class ItemResolver {
  private readonly run: Pick<ServedRun, "config" | "items" | "rowById" | "rowByTitle" | "catalogue">;
  private readonly newItems: NewItems;

  constructor(run: ItemResolver["run"], newItems: NewItems) {
    this.run = run;
    this.newItems = newItems;
  }

  /** Throws Refusal for a candidate that is neither known nor described; passes on errors of encoding unknown items. */
  async find(request: Pick<RerankRequest, "history" | "candidates">, signal: AbortSignal): Promise<FoundItems> {
    const all = request.history.map((i) => this.look(i)).filter((i) => i !== undefined);
    // Encoding unknown items that the prompt does not show would be wasted work.
    const shown = all.length - this.run.config.prompts.historyItems;
    const history = all.filter((item, i) => typeof item === "number" || i >= shown);
    const candidates = request.candidates.map((c, position) => {
      const item = this.look(c);
      if (item === undefined)
        throw new Refusal(
          "invalid",
          `candidates[${position}].item_id is not an item this model knows; send its text as well, so that it gets a semantic ID`,
        );
      return item;
    });
    const texts = [...new Set([...history, ...candidates].filter((item) => typeof item === "string"))];
    const codes = texts.length > 0 ? await this.newItems.encodeTexts(texts, signal) : [];
    const own = new Map(texts.map((text, k) => [text, { row: this.run.items.length + k, codes: codes[k] as Codes }]));
    const found = (item: number | string): Found =>
      typeof item === "string"
        ? { ...(own.get(item) as { row: number; codes: Codes }), title: item }
        : { row: item, codes: this.run.catalogue.codesAt(item), title: this.run.items[item]?.title ?? "" };
    return { history: history.map(found), candidates: candidates.map(found) };
  }

  /** A row, the text of an unknown item, or undefined: an unknown id without a text. */
  private look({ itemId, text }: ItemReference): number | string | undefined {
    const row = itemId === undefined ? undefined : this.run.rowById.get(itemId);
    if (row !== undefined) return row;
    if (text === undefined || isBlank({ text })) return undefined;
    const plain = neutralise(text, []);
    return this.run.rowByTitle.get(plain.toLowerCase()) ?? plain;
  }
}
