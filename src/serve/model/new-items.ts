/**
 * Semantic IDs of texts for concurrent requests: equal texts are encoded once, several texts share one worker call, and
 * a text that no request waits for any more is skipped. Results are cached.
 */
import type { Codes } from "../../sid/semantic-id.ts";
import { Lru } from "./lru.ts";

/** Semantic IDs of neutralised texts, each as if it came alone. */
export type EncodeTexts = (texts: readonly string[], signal: AbortSignal) => Promise<readonly Codes[]>;

interface Waiting {
  /** Requests still waiting for it. */
  wanted: number;
  readonly found: Promise<Codes>;
  readonly resolve: (codes: Codes) => void;
  readonly reject: (error: unknown) => void;
}

/** Texts per call: a longer call would delay requests that need none. */
const textsAtOnce = 16;

export class NewItems {
  private readonly encode: EncodeTexts;
  private readonly known: Lru<string, Codes>;
  private readonly waiting = new Map<string, Waiting>();
  private readonly open = new AbortController().signal;
  private running = false;

  /** @param capacity size of the cache, in texts */
  constructor(encode: EncodeTexts, capacity: number) {
    this.encode = encode;
    this.known = new Lru(capacity);
  }

  /** In the order of the texts. Rejects with what `encode` throws; after an abort it stops waiting for the texts. */
  async encodeTexts(texts: readonly string[], signal: AbortSignal): Promise<Codes[]> {
    const entries: Waiting[] = [];
    const found = texts.map((text) => {
      const known = this.known.get(text);
      if (known) return known;
      const entry = this.waitFor(text);
      entry.wanted++;
      entries.push(entry);
      return entry.found;
    });
    const leave = (): void => {
      for (const entry of entries) entry.wanted--;
    };
    signal.addEventListener("abort", leave);
    void this.work();
    try {
      return await Promise.all(found);
    } finally {
      signal.removeEventListener("abort", leave);
    }
  }

  private waitFor(text: string): Waiting {
    const before = this.waiting.get(text);
    if (before) return before;
    let resolve: Waiting["resolve"] = () => {};
    let reject: Waiting["reject"] = () => {};
    const found = new Promise<Codes>((yes, no) => {
      resolve = yes;
      reject = no;
    });
    found.catch(() => {}); // waiting requests get the error; there may be none left
    const entry = { wanted: 0, found, resolve, reject };
    this.waiting.set(text, entry);
    return entry;
  }

  /** Makes one call after another while any text is waited for. */
  private async work(): Promise<void> {
    if (this.running) return;
    this.running = true;
    while (this.waiting.size > 0) {
      const batch: [string, Waiting][] = [];
      for (const [text, entry] of this.waiting) {
        if (batch.length === textsAtOnce) break;
        if (entry.wanted > 0) batch.push([text, entry]);
        else {
          this.waiting.delete(text);
          entry.reject(new Error("no request waits for it"));
        }
      }
      if (batch.length > 0) await this.call(batch);
    }
    this.running = false;
  }

  private async call(batch: readonly [string, Waiting][]): Promise<void> {
    try {
      const codes = await this.encode(
        batch.map(([text]) => text),
        this.open,
      );
      batch.forEach(([text, entry], i) => {
        this.known.set(text, codes[i] as Codes);
        entry.resolve(codes[i] as Codes);
      });
    } catch (e) {
      for (const [, entry] of batch) entry.reject(e);
    }
    for (const [text] of batch) this.waiting.delete(text);
  }
}
