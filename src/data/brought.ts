/**
 * A source that a user's module reads: interactions and items as records, or straight into the tables that ours fill.
 */
import type { AdapterReport } from "./adapters/readers.ts";
import type { Duck, Quarantine } from "./duck.ts";

/**
 * Who met what, and when. A record without a usable user, item or time is malformed and set aside (data.maxBadShare).
 */
export interface BroughtInteraction {
  readonly user: string | number | bigint;
  readonly item: string | number | bigint;
  /** Seconds since 1970, or a date. If no record has one, their order is that of time. */
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
  /** Read after the interactions. Without items, those of the interactions have no text. */
  readonly items?: Iterable<BroughtItem> | AsyncIterable<BroughtItem>;
  /** Choices that the user should know of. */
  readonly notes?: readonly string[];
}

/** Where it reads: data.path. */
export interface SourcePlace {
  /** "" where the recipe names none. */
  readonly path: string;
}

export type Adapter =
  | { read(source: SourcePlace): BroughtSource | Promise<BroughtSource> }
  /** As ours do: fills raw_interactions and raw_items by SQL, and reports the files it read. */
  | { load(duck: Duck, source: SourcePlace, quarantine: Quarantine): Promise<AdapterReport> };
