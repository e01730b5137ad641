/**
 * Resolves the items of a request: known ones by id or title, registered ones by id, others by a semantic ID made from
 * their text, for this request only.
 */
import { neutralise } from "../../sid/sanitise.ts";
import type { Codes } from "../../sid/semantic-id.ts";
import { isBlank } from "../request/blanks.ts";
import {
  type Caller,
  type ItemReference,
  Refusal,
  type RegisteredCount,
  type RerankRequest,
} from "../request/types.ts";
import type { NewItems } from "./new-items.ts";
import type { RegisteredItems } from "./registered-items.ts";
import type { ServedRun } from "./served-run.ts";

/** One item of a request. */
export interface Found {
  /** Row in the data set; rows from numItems on are unknown items of this request. Equal texts have equal rows. */
  readonly row: number;
  readonly codes: Codes;
  /** The neutralised text. */
  readonly title: string;
}

export interface FoundItems {
  readonly history: readonly Found[];
  readonly candidates: readonly Found[];
}

/** Registered texts encoded per write to the file. */
const registeredAtOnce = 256;

export class ItemResolver {
  private readonly run: Pick<ServedRun, "config" | "items" | "rowById" | "rowByTitle" | "catalogue">;
  private readonly newItems: NewItems;
  private readonly registered: RegisteredItems;

  constructor(run: ItemResolver["run"], newItems: NewItems, registered: RegisteredItems) {
    this.run = run;
    this.newItems = newItems;
    this.registered = registered;
  }

  /** Version of the registered items. */
  get version(): number {
    return this.registered.version;
  }

  /**
   * Registers items and encodes their texts. Ids that the run knows keep their meaning; a text without an id is encoded
   * and stored too, but not encoded again for another item tokenizer.
   * @throws Refusal, or what the encoder throws
   */
  async register(items: readonly ItemReference[], caller: Caller, signal: AbortSignal): Promise<RegisteredCount> {
    const fresh: { readonly id: string; readonly text: string }[] = [];
    const texts = new Set<string>();
    let known = 0;
    for (const { itemId, text = "" } of items) {
      const plain = neutralise(text, []);
      if (this.run.rowByTitle.has(plain.toLowerCase()) || (itemId !== undefined && this.run.rowById.has(itemId)))
        known++;
      else texts.add(plain);
      if (itemId !== undefined && !this.run.rowById.has(itemId)) fresh.push({ id: itemId, text: plain });
    }
    const { maxItems } = this.run.config.serve;
    if (this.registered.size + fresh.length > maxItems)
      throw new Refusal("too_large", `at most ${maxItems} items may be registered (serve.maxItems)`);
    const registered = this.registered.add(fresh);
    await this.encodeForGood([...texts], caller, signal);
    return { version: this.registered.version, registered, unchanged: items.length - registered - known, known };
  }

  /** Reads what other processes have registered since. @throws EnvironmentError */
  refresh(): void {
    this.registered.refresh();
  }

  /** Encodes registered texts that this item tokenizer has not encoded yet. */
  async encodeRegistered(caller: Caller, signal: AbortSignal): Promise<void> {
    const texts = this.registered.allTexts().filter((text) => !this.run.rowByTitle.has(text.toLowerCase()));
    for (let at = 0; at < texts.length; at += registeredAtOnce)
      await this.encodeForGood(texts.slice(at, at + registeredAtOnce), caller, signal);
  }

  private async encodeForGood(texts: readonly string[], caller: Caller, signal: AbortSignal): Promise<void> {
    const cold = texts.filter((text) => !this.newItems.isPinned(text));
    if (cold.length === 0) return;
    const codes = await this.newItems.encodeTexts(cold, caller, signal);
    this.registered.addCodes(cold.map((text, i) => ({ text, codes: codes[i] as Codes })));
  }

  /** Throws Refusal for a candidate that is neither known nor described, and what encoding unknown items throws. */
  async find(
    request: Pick<RerankRequest, "history" | "candidates">,
    caller: Caller,
    signal: AbortSignal,
  ): Promise<FoundItems> {
    let asked = request.history.map((i) => this.look(i));
    let wanted = request.candidates.map((c) => this.look(c));
    const isNew = (item: number | string | undefined, { itemId }: ItemReference): boolean =>
      typeof item !== "number" && itemId !== undefined && this.registered.find(itemId) === undefined;
    if (
      asked.some((item, i) => isNew(item, request.history[i] as ItemReference)) ||
      wanted.some((item, i) => isNew(item, request.candidates[i] as ItemReference))
    ) {
      // Another process of the service may have registered it a moment ago.
      this.registered.refresh();
      asked = request.history.map((i) => this.look(i));
      wanted = request.candidates.map((c) => this.look(c));
    }
    const all = asked.filter((i) => i !== undefined);
    // Encoding unknown items that the prompt does not show would be wasted work.
    const shown = all.length - this.run.config.prompts.historyItems;
    const history = all.filter((item, i) => typeof item === "number" || i >= shown);
    const candidates = wanted.map((item, position) => {
      if (item === undefined)
        throw new Refusal(
          "invalid",
          `candidates[${position}].item_id is not an item this model knows; ` +
            `send its text as well: a semantic ID is made from it`,
        );
      return item;
    });
    const texts = [...new Set([...history, ...candidates].filter((item) => typeof item === "string"))];
    const codes = texts.length > 0 ? await this.newItems.encodeTexts(texts, caller, signal) : [];
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
    const registered = itemId === undefined ? undefined : this.registered.find(itemId);
    if (registered === undefined && (text === undefined || isBlank({ text }))) return undefined;
    const plain = registered ?? neutralise(text as string, []);
    return this.run.rowByTitle.get(plain.toLowerCase()) ?? plain;
  }
}
