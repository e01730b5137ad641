/**
 * Amazon Reviews in their published layouts. A line a record, `.gz` or plain:
 *   2014  reviews_X_5.json.gz (JSON) + meta_X.json.gz (Python dict literals: single quotes, nested categories)
 *   2018  X_5.json.gz + meta_X.json.gz (JSON; `brand`, `category`, `description` lists)
 *   2023  X.jsonl.gz (user_id, parent_asin, milliseconds) + meta_X.jsonl.gz (`store`, `categories`)
 * Example: `{kind: "amazon2014", path: "data/amazon", reviews: "reviews_Beauty_5.json.gz", metadata: "meta_Beauty.json.gz"}`.
 */
import { join } from "node:path";
import type { Duck, Quarantine } from "../duck.ts";
import { type ItemColumns, itemOf } from "./items.ts";
import { parsePythonLiteral } from "./python-literal.ts";
import { type AdapterReport, type InteractionColumns, itemLines, readJsonl, writeItems } from "./readers.ts";

export interface AmazonOptions {
  readonly kind: "amazon2014" | "amazon2018" | "amazon2023";
  /** Folder. */
  readonly path: string;
  /** Review file name. */
  readonly reviews: string;
  /** Metadata file name; without it items have no text. */
  readonly metadata?: string;
}

const reviewColumns: Readonly<Record<AmazonOptions["kind"], InteractionColumns>> = {
  amazon2014: { user: "reviewerID", item: "asin", rating: "overall", time: "unixReviewTime" },
  amazon2018: { user: "reviewerID", item: "asin", rating: "overall", time: "unixReviewTime" },
  amazon2023: { user: "user_id", item: "parent_asin", rating: "rating", time: "timestamp" },
};

const itemColumns: Readonly<Record<AmazonOptions["kind"], ItemColumns>> = {
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

/** Category names may hold any printable character, so nothing splits them: they come as lists. */
const noSeparator = "\u0000";

export async function loadAmazon(duck: Duck, options: AmazonOptions, quarantine: Quarantine): Promise<AdapterReport> {
  const reviews = join(options.path, options.reviews);
  const unit = options.kind === "amazon2023" ? "milliseconds" : "seconds";
  const rowsRead = await readJsonl(duck, reviews, reviewColumns[options.kind], quarantine, unit);
  const files = [reviews];
  if (options.metadata !== undefined) {
    const metadata = join(options.path, options.metadata);
    const parse = options.kind === "amazon2014" ? parsePythonLiteral : (text: string): unknown => JSON.parse(text);
    const lines = itemLines(metadata, quarantine, (text) => {
      try {
        const record = parse(text);
        if (typeof record !== "object" || record === null || Array.isArray(record)) return "not a record";
        return itemOf(record as Record<string, unknown>, itemColumns[options.kind], noSeparator);
      } catch (e) {
        return e instanceof Error ? e.message : "unreadable";
      }
    });
    await writeItems(duck, lines);
    files.push(metadata);
  }
  return { files, rowsRead, hasItems: options.metadata !== undefined, hasClock: true, notes: [] };
}
