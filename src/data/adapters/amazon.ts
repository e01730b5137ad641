/**
 * Amazon Reviews in their published layouts. One record per line, `.gz` or plain:
 *   2014  reviews_X_5.json.gz (JSON) + meta_X.json.gz (Python dict literals: single quotes, nested categories)
 *   2018  X_5.json.gz + meta_X.json.gz (JSON; `brand`, `category`, `description` lists)
 *   2023  X.jsonl.gz or X.csv.gz (user_id, parent_asin, milliseconds) + meta_X.jsonl.gz (`store`, `categories`)
 * Example: `{kind: "amazon2014", path: "data/amazon"}` with reviews_Beauty_5.json.gz and meta_Beauty.json.gz in it.
 */
import { join } from "node:path";
import type { Duck, Quarantine } from "../duck.ts";
import { parseJson } from "../records.ts";
import { type ItemColumns, makeItem } from "./items.ts";
import { locate, locateOrFail, type Wanted } from "./locate.ts";
import { parsePythonLiteral } from "./python-literal.ts";
import {
  type AdapterReport,
  type InteractionColumns,
  itemLines,
  type RawItem,
  readInteractions,
  writeItems,
} from "./readers.ts";

type Edition = "amazon2014" | "amazon2018" | "amazon2023";

export interface AmazonOptions {
  readonly kind: Edition;
  /** Folder. */
  readonly path: string;
  /** Review file name. Default: found by its published name. */
  readonly reviews?: string;
  /** Metadata file name. Default: found by its published name; without one items have no text. */
  readonly metadata?: string;
  /** Replaces the edition's own column, for example `asin` for `parent_asin`. */
  readonly columns?: Partial<InteractionColumns>;
  readonly itemColumns?: Partial<ItemColumns>;
}

const reviewColumns: Readonly<Record<Edition, InteractionColumns>> = {
  amazon2014: { user: "reviewerID", item: "asin", rating: "overall", time: "unixReviewTime" },
  amazon2018: { user: "reviewerID", item: "asin", rating: "overall", time: "unixReviewTime" },
  amazon2023: { user: "user_id", item: "parent_asin", rating: "rating", time: "timestamp" },
};

/** Column names of each edition's metadata. */
export const amazonColumns: Readonly<Record<Edition, ItemColumns>> = {
  amazon2014: { id: "asin", title: "title", brand: "brand", categories: "categories", description: "description" },
  amazon2018: { id: "asin", title: "title", brand: "brand", categories: "category", description: "description" },
  amazon2023: {
    id: "parent_asin",
    title: "title",
    brand: "store",
    categories: "categories",
    description: "description",
  },
};

const pattern = (name: string, fits: RegExp): Wanted["patterns"][number] => ({ name, fits });

/** Published names; files that begin with meta_ are never reviews. */
const amazonFiles: Readonly<Record<Edition, { readonly reviews: Wanted; readonly metadata: Wanted }>> = {
  amazon2014: {
    reviews: reviews([
      pattern("reviews_*_5.json.gz", /^reviews_.*_5\.json(\.gz)?$/),
      pattern("reviews_*.json.gz", /^reviews_.*\.json(\.gz)?$/),
    ]),
    metadata: metadata([pattern("meta_*.json.gz", /^meta_.*\.json(\.gz)?$/)]),
  },
  amazon2018: {
    reviews: reviews([
      pattern("*_5.json.gz", /^(?!meta_).*_5\.json(\.gz)?$/),
      pattern("*.json.gz", /^(?!meta_).*\.json(\.gz)?$/),
    ]),
    metadata: metadata([pattern("meta_*.json.gz", /^meta_.*\.json(\.gz)?$/)]),
  },
  amazon2023: {
    reviews: reviews([
      pattern("*.jsonl.gz", /^(?!meta_).*\.jsonl(\.gz)?$/),
      pattern("*.csv.gz", /^(?!meta_).*\.csv(\.gz)?$/),
    ]),
    metadata: metadata([pattern("meta_*.jsonl.gz", /^meta_.*\.jsonl(\.gz)?$/)]),
  },
};

function reviews(patterns: Wanted["patterns"]): Wanted {
  return { what: "reviews", setting: "data.files.interactions", patterns };
}

function metadata(patterns: Wanted["patterns"]): Wanted {
  return { what: "metadata", setting: "data.files.items", patterns };
}

/** Category names may contain any printable character, so they are never split: they come as lists. */
export const noSeparator = "\u0000";

export async function loadAmazon(duck: Duck, options: AmazonOptions, quarantine: Quarantine): Promise<AdapterReport> {
  const { kind, path } = options;
  const names = amazonFiles[kind];
  const reviewFile = options.reviews === undefined ? locateOrFail(path, names.reviews) : join(path, options.reviews);
  const metaFile = options.metadata === undefined ? locate(path, names.metadata) : join(path, options.metadata);
  const columns = { ...reviewColumns[kind], ...options.columns };
  const read = await readInteractions(duck, reviewFile, columns, quarantine);
  if (metaFile !== undefined)
    await writeItems(duck, amazonItems(kind, metaFile, options.itemColumns ?? {}, quarantine));
  return {
    files: metaFile === undefined ? [reviewFile] : [reviewFile, metaFile],
    rowsRead: read.rows,
    hasItems: metaFile !== undefined,
    hasClock: true,
    notes: [
      ...read.notes,
      ...(metaFile === undefined ? [`no ${names.metadata.patterns[0]?.name} in ${path}: items have no text`] : []),
    ],
  };
}

/** Items of a metadata file. @param named fields whose names differ from the published ones */
function amazonItems(
  kind: Edition,
  file: string,
  named: Partial<ItemColumns>,
  quarantine: Quarantine,
): AsyncGenerator<RawItem> {
  const columns = { ...amazonColumns[kind], ...named };
  return itemLines(file, quarantine, (text) => {
    try {
      const record = kind === "amazon2014" ? parsePythonLiteral(text) : parseJson(text);
      if (typeof record !== "object" || record === null || Array.isArray(record)) return "not a record";
      return makeItem(record as Record<string, unknown>, columns, noSeparator);
    } catch (e) {
      return e instanceof Error ? e.message : "unreadable";
    }
  });
}
