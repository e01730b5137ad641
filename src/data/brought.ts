/** Data that a user's module reads: interactions and items as records, or written directly into the raw tables. */
import type { AdapterReport } from "./adapters/readers.ts";
import type { Duck, Quarantine } from "./duck.ts";

/** One interaction. A record without a usable user, item or time is malformed and quarantined (data.maxBadShare). */
export interface BroughtInteraction {
  readonly user: string | number | bigint;
  readonly item: string | number | bigint;
  /** Seconds since 1970, or a date. If no record has one, records are taken to be in time order. */
  readonly time?: number | Date | null;
  readonly rating?: number | null;
}

/** Text may be missing. */
export interface BroughtItem {
  readonly id: string | number | bigint;
  readonly title?: string | null;
  readonly brand?: string | null;
  readonly categories?: readonly string[] | null;
  readonly description?: string | null;
}

export interface BroughtSource {
  readonly interactions: Iterable<BroughtInteraction> | AsyncIterable<BroughtInteraction>;
  /** Read after the interactions. Without it, items have no text. */
  readonly items?: Iterable<BroughtItem> | AsyncIterable<BroughtItem>;
  /** Choices that the user should know about. */
  readonly notes?: readonly string[];
}

/** The location of the data: data.path. */
export interface SourcePlace {
  /** "" if the recipe names none. */
  readonly path: string;
}

export type Adapter =
  | { read(source: SourcePlace): BroughtSource | Promise<BroughtSource> }
  /** Like the built-in adapters: fills raw_interactions and raw_items by SQL, and reports the files it read. */
  | { load(duck: Duck, source: SourcePlace, quarantine: Quarantine): Promise<AdapterReport> };
