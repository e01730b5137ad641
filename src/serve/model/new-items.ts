/**
 * Semantic IDs of texts for many concurrent requests: equal texts are encoded once, others in batches, clients in turn.
 * A text whose callers have left is still encoded, after those that somebody waits for: its caller will retry. Results
 * are cached; those of registered items permanently.
 */
import type { Codes } from "../../sid/semantic-id.ts";
import { type Caller, Refusal } from "../request/types.ts";
import { FairQueue } from "./fair-queue.ts";
import { Lru } from "./lru.ts";

/** Semantic IDs of neutralised texts. Rejects with WorkerError. */
export type EncodeTexts = (texts: readonly string[], signal: AbortSignal) => Promise<readonly Codes[]>;

interface Waiting {
  readonly text: string;
  /** The client that asked first. */
  readonly client: string;
  /** Requests that still want it. */
  wanted: number;
  readonly found: Promise<Codes>;
  readonly resolve: (codes: Codes) => void;
  readonly reject: (error: unknown) => void;
}

export interface NewItemsSettings {
  /** Texts cached. */
  readonly capacity: number;
  /** Texts that may wait to be encoded. */
  readonly maxWaiting: number;
  /** How many requests a text to encode counts as against its client's rate. */
  readonly cost: number;
}

/** Texts per call: batching makes a text four times as cheap, but a longer call delays the next client. */
const textsAtOnce = 32;

export class NewItems {
  private readonly encode: EncodeTexts;
  private readonly settings: NewItemsSettings;
  private readonly known: Lru<string, Codes>;
  private readonly registered = new Map<string, Codes>();
  private readonly entries = new Map<string, Waiting>();
  private readonly wanted = new FairQueue<Waiting>();
  private readonly left = new FairQueue<Waiting>();
  private readonly ending = new AbortController();
  private running = false;

  constructor(encode: EncodeTexts, settings: NewItemsSettings) {
    this.encode = encode;
    this.settings = settings;
    this.known = new Lru(settings.capacity);
  }

  /** Texts that wait to be encoded. */
  get waiting(): number {
    return this.wanted.size + this.left.size;
  }

  /** Keeps the codes of a text in memory for good: they are never evicted. */
  pin(text: string, codes: Codes): void {
    this.registered.set(text, codes);
  }

  isPinned(text: string): boolean {
    return this.registered.has(text);
  }

  /**
   * In the order of the texts, which are distinct. Rejects with what `encode` throws, or with Refusal if too many texts
   * wait; after the signal is aborted, its texts are encoded when there is time.
   */
  async encodeTexts(texts: readonly string[], caller: Caller, signal: AbortSignal): Promise<Codes[]> {
    const cold = texts.filter((text) => !this.find(text) && !this.entries.has(text));
    this.makeRoom(cold.length);
    if (cold.length > 0) caller.charge(cold.length * this.settings.cost);
    const entries: Waiting[] = [];
    const found = texts.map((text) => {
      const known = this.find(text);
      if (known) return known;
      const entry = this.want(text, caller.name);
      entries.push(entry);
      return entry.found;
    });
    const leave = (): void => {
      for (const entry of entries.splice(0)) this.leave(entry);
    };
    if (signal.aborted) leave();
    signal.addEventListener("abort", leave);
    void this.work();
    try {
      return await Promise.all(found);
    } finally {
      signal.removeEventListener("abort", leave);
    }
  }

  /** Rejects whoever waits with the end of the service; nothing more is encoded. */
  close(): void {
    this.ending.abort();
  }

  private find(text: string): Codes | undefined {
    return this.registered.get(text) ?? this.known.get(text);
  }

  /** Drops texts that nobody waits for. Throws Refusal if those that somebody waits for are too many. */
  private makeRoom(numTexts: number): void {
    const { maxWaiting } = this.settings;
    if (numTexts > 0 && this.wanted.size + numTexts > maxWaiting)
      throw new Refusal("overloaded", `${this.wanted.size} unknown texts are waiting to be encoded`, {
        retryAfterMs: 1_000,
      });
    const tooMany = this.waiting + numTexts - maxWaiting;
    for (const entry of tooMany > 0 ? this.left.take(tooMany) : []) {
      this.entries.delete(entry.text);
      entry.reject(new Error("nobody waits for it"));
    }
  }

  private want(text: string, client: string): Waiting {
    const before = this.entries.get(text);
    if (before) {
      if (before.wanted++ === 0 && this.left.remove(before.client, before)) this.wanted.push(before.client, before);
      return before;
    }
    let resolve: Waiting["resolve"] = () => {};
    let reject: Waiting["reject"] = () => {};
    const found = new Promise<Codes>((yes, no) => {
      resolve = yes;
      reject = no;
    });
    found.catch(() => {}); // whoever waits handles it; there may be nobody left
    const entry = { text, client, wanted: 1, found, resolve, reject };
    this.entries.set(text, entry);
    this.wanted.push(client, entry);
    return entry;
  }

  private leave(entry: Waiting): void {
    if (--entry.wanted === 0 && this.wanted.remove(entry.client, entry)) this.left.push(entry.client, entry);
  }

  /** One call at a time while anything waits. */
  private async work(): Promise<void> {
    if (this.running) return;
    this.running = true;
    while (this.waiting > 0 && !this.ending.signal.aborted) {
      const queue = this.wanted.size > 0 ? this.wanted : this.left;
      await this.call(queue.take(textsAtOnce));
    }
    this.running = false;
  }

  private async call(batch: readonly Waiting[]): Promise<void> {
    try {
      const codes = await this.encode(
        batch.map(({ text }) => text),
        this.ending.signal,
      );
      batch.forEach((entry, i) => {
        this.known.set(entry.text, codes[i] as Codes);
        entry.resolve(codes[i] as Codes);
      });
    } catch (e) {
      for (const entry of batch) entry.reject(e);
    }
    for (const { text } of batch) this.entries.delete(text);
  }
}
