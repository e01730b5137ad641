/**
 * Reads items that are new since a run, in the way the run's own were read: by its adapter if the file has that layout,
 * else as a table with the run's columns, separator and encoding. Owns the choice of the reader and of a table's
 * columns.
 */
import { basename } from "node:path";
import { DataError } from "../../core/errors.ts";
import type { Duck, Quarantine } from "../duck.ts";
import { requireFile } from "../text-file.ts";
import { amazonColumns, noSeparator } from "./amazon.ts";
import { detectFormat } from "./fields.ts";
import { isNumbered } from "./header.ts";
import type { AdapterOptions } from "./index.ts";
import { type ItemColumns, listColumns, namesIn, readItemTable } from "./items.ts";
import { given } from "./locate.ts";
import { mindItems } from "./mind.ts";
import { movielensItems } from "./movielens.ts";
import type { RawItem } from "./readers.ts";
import { recboleItems } from "./recbole.ts";
import { retailrocketItems } from "./retailrocket.ts";
import { keyedItems, parseSequenceItems } from "./sequences.ts";

const usual = { id: "item_id", title: "title", brand: "brand", categories: "categories", description: "description" };

export interface LaterItems {
  readonly items: AsyncIterable<RawItem> | Iterable<RawItem>;
  /** Notes for the user. */
  readonly notes: readonly string[];
}

/** @param named columns that must exist. Throws DataError for a file that cannot be read. */
export async function readLaterItems(
  duck: Duck,
  file: string,
  source: AdapterOptions,
  named: Partial<ItemColumns>,
  quarantine: Quarantine,
): Promise<LaterItems> {
  requireFile(file, "Items");
  const encoding = "encoding" in source ? source.encoding : undefined;
  const name = basename(file).toLowerCase();
  const whole = (items: LaterItems["items"]): LaterItems => ({ items, notes: [] });
  const movies = source.kind === "movielens" ? movielensItems(file, quarantine) : undefined;
  if (movies !== undefined) return whole(movies);
  if (/\.item(\.(gz|zst))?$/.test(name)) {
    const { item, ...own } = source.kind === "recbole" ? { item: source.columns?.item, ...source.itemColumns } : {};
    return whole(recboleItems(file, item ?? usual.id, { ...own, ...named }, quarantine, encoding));
  }
  if (source.kind === "sequences" && /\.(txt|json)$/.test(name))
    return whole(parseSequenceItems(duck, file, { ...usual, ...source.itemColumns, ...named }, quarantine));
  if (source.kind === "next-item" && name.endsWith(".item.json"))
    return whole(keyedItems(file, { ...usual, ...named }, quarantine));
  const there = await listColumns(duck, file, encoding);
  if (source.kind === "mind" && /\.tsv(\.(gz|zst))?$/.test(name) && !there.includes(named.id ?? usual.id))
    return whole(mindItems(file, quarantine));
  if (source.kind === "retailrocket" && there.includes("property"))
    return whole(await retailrocketItems(duck, [file], source.path));
  const columns = chooseColumns(there, file, source, named);
  const separator = separatorIn(source);
  const lacking = Object.entries(columnsIn(source)).filter(
    ([role]) => !namesThere(columns[role as keyof ItemColumns], there),
  );
  return {
    items: readItemTable(duck, file, columns, quarantine, given({ separator, encoding })),
    notes: lacking.map(
      ([role, names]) => `${file} has no column ${[names].flat().join(", ")} (${role} of the run's items)`,
    ),
  };
}

const namesThere = (names: string | readonly string[] | undefined, there: readonly string[]): boolean =>
  [names ?? []].flat().some((n) => isNumbered(n) || there.includes(n) || there.includes(n.split(".")[0] ?? n));

/** Columns of the run's item file. */
function columnsIn(source: AdapterOptions): Partial<ItemColumns> {
  switch (source.kind) {
    case "table":
    case "impressions":
      return { id: source.columns.item ?? usual.id, ...source.itemColumns };
    case "amazon2014":
    case "amazon2018":
    case "amazon2023":
      return { ...amazonColumns[source.kind], ...source.itemColumns };
    case "recbole":
      return { id: source.columns?.item ?? usual.id, ...source.itemColumns };
    case "sequences":
      return source.itemColumns ?? {};
    default:
      return {};
  }
}

function separatorIn(source: AdapterOptions): string | undefined {
  if ("categorySeparator" in source) return source.categorySeparator;
  return source.kind.startsWith("amazon") ? noSeparator : undefined;
}

/** The column of each role: the named one; else that of the run's items or the usual one, whichever the file has. */
function chooseColumns(
  there: readonly string[],
  file: string,
  source: AdapterOptions,
  named: Partial<ItemColumns>,
): ItemColumns {
  const isOpen = detectFormat(file) === "jsonl"; // later records may have keys that the first ones lack
  for (const name of namesIn(named))
    if (!isOpen && !namesThere(name, there))
      throw new DataError(
        `${file} has no column "${name}"; it has ${there.map((n) => `"${n}"`).join(", ") || "none"}.`,
        { advice: "Name the columns: --column FIELD=COLUMN." },
      );
  const run = columnsIn(source);
  if (namesIn(run).some((name) => isNumbered(name))) return { id: "#0", ...run, ...named };
  const own = Object.entries(run).filter(([, names]) => namesThere(names, there));
  return { ...usual, ...Object.fromEntries(own), ...named };
}
