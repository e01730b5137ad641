/**
 * Generic interactions and items with a column mapping; each file CSV, TSV, JSONL (all may be .gz) or Parquet. Named
 * columns must exist; other item fields are read from columns with the field's own name, if they exist.
 * Example: `{kind: "table", path: "data/shop", interactions: "interactions.csv", items: "items.jsonl",
 * columns: {user: "user_id", item: "item_id", time: "timestamp"}, itemColumns: {id: "item_id", title: "title"}}`.
 */
import { join } from "node:path";
import { DataError } from "../../core/errors.ts";
import type { TimeUnit } from "../clock.ts";
import type { Duck, Quarantine } from "../duck.ts";
import type { Encoding } from "../text-file.ts";
import { idSql } from "../values.ts";
import { cellSql, detectFormat, withFields } from "./fields.ts";
import { isNumbered } from "./header.ts";
import { type ItemColumns, listColumns, namesIn, readItemTable } from "./items.ts";
import { type FileNames, filesNamed, given, locate, locateOrFail, type Wanted } from "./locate.ts";
import {
  type AdapterReport,
  type InteractionColumns,
  type Keep,
  mendFloats,
  readInteractions,
  writeItems,
} from "./readers.ts";

export interface TableOptions {
  readonly kind: "table";
  /** Folder. */
  readonly path: string;
  /** File names within the folder. Default: interactions.* and, if there is one, items.* */
  readonly interactions?: FileNames;
  readonly items?: FileNames;
  /** A table of two columns with a header: an item's id in the interactions, then in the item file. */
  readonly itemIds?: string;
  readonly columns: InteractionColumns;
  readonly itemColumns?: Partial<ItemColumns>;
  /** Splits categories given as one string. Default "|". */
  readonly categorySeparator?: string;
  readonly timeUnit?: TimeUnit;
  /** Keeps only rows whose column has one of these values. */
  readonly keep?: Keep;
  readonly encoding?: Encoding;
  /** False when the time column is only a position in the user's sequence. Default: true if there is a time column. */
  readonly clock?: boolean;
}

const wanted = (what: string, stem: string, setting: string): Wanted => ({
  what,
  setting,
  patterns: [{ name: `${stem}.csv, .tsv, .json, .jsonl (or .gz, .zst), .parquet`, fits: tableName(stem) }],
});
const tableName = (stem: string): RegExp =>
  new RegExp(`^${stem}\\.((csv|tsv|json|jsonl|ndjson)(\\.(gz|zst))?|parquet|pq)$`, "i");

const defaultItemColumns: ItemColumns = {
  id: "item_id",
  title: "title",
  brand: "brand",
  categories: "categories",
  description: "description",
};

/** Without a time column, file order is time order. */
export async function loadTable(duck: Duck, options: TableOptions, quarantine: Quarantine): Promise<AdapterReport> {
  const { path, columns: named } = options;
  const files =
    options.interactions === undefined
      ? [locateOrFail(path, wanted("interactions", "interactions", "data.files.interactions"))]
      : filesNamed(path, options.interactions);
  const found = options.items === undefined ? locate(path, wanted("items", "items", "data.files.items")) : undefined;
  const itemFiles =
    options.items === undefined ? (found === undefined ? [] : [found]) : filesNamed(path, options.items);
  const { timeUnit, keep, encoding, categorySeparator: separator } = options;
  let rowsRead = 0;
  const notes: string[] = [];
  for (const file of files) {
    const read = await readInteractions(duck, file, named, quarantine, given({ timeUnit, keep, encoding }));
    rowsRead += read.rows;
    notes.push(...read.notes);
  }
  const idFile = options.itemIds === undefined ? undefined : join(path, options.itemIds);
  if (idFile !== undefined) await translateItems(duck, idFile, quarantine);
  for (const file of itemFiles) {
    const columns = itemColumnsIn(await listColumns(duck, file, encoding), file, options);
    await writeItems(duck, readItemTable(duck, file, columns, quarantine, given({ separator, encoding })));
  }
  return {
    files: [...files, ...(idFile === undefined ? [] : [idFile]), ...itemFiles],
    rowsRead,
    hasItems: itemFiles.length > 0,
    hasClock: (options.clock ?? true) && named.time !== undefined,
    notes: [
      ...notes,
      ...(named.time === undefined ? ["no time column: file order is time order"] : []),
      ...(itemFiles.length === 0 ? ["no item file: items have no text"] : []),
    ],
  };
}

/**
 * Translates item ids of interactions to those of the item file. An id without a translation becomes an unknown item.
 */
async function translateItems(duck: Duck, file: string, quarantine: Quarantine): Promise<void> {
  const [own, theirs] = await listColumns(duck, file);
  if (own === undefined || theirs === undefined)
    throw new DataError(`${file} is not a table of two columns with a header line (data.files.itemIds).`);
  await withFields(duck, file, { own, theirs }, quarantine, {}, async (source) => {
    const text = (f: string): string => idSql(cellSql(f, source.types.get(f) ?? "VARCHAR"));
    await duck.run(`DROP TABLE IF EXISTS staged; CREATE TEMP TABLE staged AS
      SELECT ${text("own")} AS own, ${text("theirs")} AS theirs FROM ${source.relation}`);
    if ((await source.settle()) === undefined) return undefined;
    await mendFloats(duck, "staged", ["own", "theirs"]);
    await duck.run(`UPDATE raw_interactions SET i = theirs FROM
      (SELECT own, any_value(theirs) AS theirs FROM staged WHERE theirs <> '' GROUP BY own) WHERE own = i;
      DROP TABLE staged`);
    return true;
  });
}

/** Columns to read from an item file with the columns `there`. Throws DataError if a named one is missing. */
export function itemColumnsIn(
  there: readonly string[],
  file: string,
  options: Pick<TableOptions, "itemColumns"> & { readonly columns: Pick<InteractionColumns, "item"> },
): ItemColumns {
  const named = { ...options.itemColumns };
  if (namesIn(named).some(isNumbered)) return { id: "#0", ...named };
  const id = there.includes(options.columns.item) ? options.columns.item : defaultItemColumns.id;
  const columns = { ...defaultItemColumns, id, ...named };
  const needed = Object.entries({ id: columns.id, ...named });
  const nests = ["jsonl", "parquet"].includes(detectFormat(file));
  for (const [role, name] of needed.flatMap(([r, names]) => [names].flat().map((n) => [r, n] as const)))
    if (!there.includes(name) && !(nests && there.includes(name.split(".")[0] ?? name)))
      throw new DataError(
        `${file} has no column "${name}" (data.columns.${role}); it has ${there.map((n) => `"${n}"`).join(", ")}.`,
      );
  return columns;
}
