/**
 * Retailrocket's e-commerce data set: events.csv (a table: timestamp in milliseconds, visitorid, event, itemid,
 * transactionid), item_properties_part1.csv and _part2.csv (one row per property of an item at a time) and
 * category_tree.csv. The publisher hashed all words: an item's categories are its path in the tree, its description is
 * the latest values of its properties, whose words can be compared but not understood.
 */
import { existsSync } from "node:fs";
import { basename, join } from "node:path";
import { DataError } from "../../core/errors.ts";
import { type Duck, type Quarantine, sqlText } from "../duck.ts";
import { filesIn } from "./locate.ts";
import { type AdapterReport, type Keep, type RawItem, readInteractions, writeItems } from "./readers.ts";

export interface RetailrocketOptions {
  readonly kind: "retailrocket";
  /** Folder with the original files. */
  readonly path: string;
  /** Default events.csv. */
  readonly interactions?: string;
  /** For example `{event: ["addtocart", "transaction"]}`. */
  readonly keep?: Keep;
}

/** Maximum number of hashed words in an item's description. */
const maxWords = 40;

export async function loadRetailrocket(
  duck: Duck,
  options: RetailrocketOptions,
  quarantine: Quarantine,
): Promise<AdapterReport> {
  const { path } = options;
  const events = join(path, options.interactions ?? "events.csv");
  const columns = { user: "visitorid", item: "itemid", time: "timestamp" };
  const { keep } = options;
  const read = await readInteractions(duck, events, columns, quarantine, {
    timeUnit: "milliseconds",
    ...(keep === undefined ? {} : { keep }),
  });
  const properties = filesIn(path)
    .filter((n) => /^item_properties.*\.csv(\.gz)?$/.test(n))
    .map((n) => join(path, n));
  const tree = treeFiles(path);
  if (properties.length > 0) await writeItems(duck, await retailrocketItems(duck, properties, path));
  return {
    files: [events, ...properties, ...tree],
    rowsRead: read.rows,
    hasItems: false, // about nine of ten items have properties; the others are items too
    hasClock: true,
    notes: [
      ...read.notes,
      properties.length > 0
        ? `items from ${properties.map((p) => basename(p)).join(", ")}: words are hashed, titles are unreadable`
        : "no item_properties*.csv: items have no text",
    ],
  };
}

const treeFiles = (path: string): string[] =>
  existsSync(path) ? filesIn(path).flatMap((n) => (/^category_tree\.csv(\.gz)?$/.test(n) ? [join(path, n)] : [])) : [];

/** Items from property files, with the category tree if it is in the folder `path`. */
export async function retailrocketItems(duck: Duck, files: readonly string[], path: string): Promise<RawItem[]> {
  const [treeFile] = treeFiles(path);
  const csv = (paths: readonly string[]): string =>
    `read_csv([${paths.map(sqlText).join(", ")}], header=true, all_varchar=true)`;
  try {
    const parents = new Map<string, string>();
    if (treeFile !== undefined)
      for (const { categoryid, parentid } of await duck.rows(`SELECT categoryid, parentid FROM ${csv([treeFile])}`))
        if (parentid !== null) parents.set(String(categoryid), String(parentid));
    const rows = await duck.rows(`SELECT itemid, max(value) FILTER (property = 'categoryid') AS category,
        string_agg(value, ' ' ORDER BY property) FILTER (property NOT IN ('categoryid', 'available', '790')) AS words
      FROM (SELECT itemid, property, arg_max(value, TRY_CAST(timestamp AS BIGINT)) AS value FROM ${csv(files)} GROUP BY ALL)
      GROUP BY itemid ORDER BY itemid`);
    return rows.map((r) => ({
      id: String(r.itemid),
      title: "",
      brand: "",
      categories: r.category === null ? [] : pathTo(String(r.category), parents),
      description: String(r.words ?? "")
        .split(" ")
        .filter((w) => !/^n-?\d/.test(w)) // numbers; words are hashes
        .slice(0, maxWords)
        .join(" "),
    }));
  } catch (cause) {
    if (cause instanceof DataError) throw cause;
    throw new DataError(`${files.join(", ")} cannot be read as item properties.`, {
      cause,
      advice: "They need the columns timestamp, itemid, property and value.",
    });
  }
}

/** Categories from the root down. */
function pathTo(category: string, parents: ReadonlyMap<string, string>): string[] {
  const path = [category];
  for (let at = parents.get(category); at !== undefined && !path.includes(at); at = parents.get(at)) path.unshift(at);
  return path.map((c) => `category ${c}`);
}
