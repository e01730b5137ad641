/**
 * RecBole atomic files: tab-separated `NAME.inter` and `NAME.item` whose header cells are `name:type`.
 * Layout: https://recbole.io/docs/user_guide/data/atomic_files.html. Example: `{kind: "recbole", path:
 * "data/ml-100k"}`. Columns are RecBole's usual ones unless `columns` names others (`session_id`, `artist_id`, ...).
 */
import { basename, join } from "node:path";
import { DataError } from "../../core/errors.ts";
import type { TimeUnit } from "../clock.ts";
import type { Duck, Quarantine } from "../duck.ts";
import { type Encoding, requireFile } from "../text-file.ts";
import { readId } from "../values.ts";
import { headerCells } from "./header.ts";
import type { ItemColumns } from "./items.ts";
import { given, locate, locateOrFail, type Wanted } from "./locate.ts";
import {
  type AdapterReport,
  type InteractionColumns,
  itemLines,
  type Keep,
  type RawItem,
  readInteractions,
  writeItems,
} from "./readers.ts";

export interface RecboleOptions {
  readonly kind: "recbole";
  /** Folder. */
  readonly path: string;
  /** File names within the folder. Default: the only .inter and, if there is one, the only .item file. */
  readonly interactions?: string;
  readonly items?: string;
  /** Names without their types. Default: user_id, item_id, rating and timestamp, if there are such columns. */
  readonly columns?: Partial<InteractionColumns>;
  /** Default: the item column of the interactions; title, year, brand, class and so on by name. */
  readonly itemColumns?: Partial<ItemColumns>;
  readonly timeUnit?: TimeUnit;
  readonly keep?: Keep;
  readonly encoding?: Encoding;
}

/** The name in a header cell `name:type`. */
export const recboleName = (cell: string): string => cell.trim().split(":")[0] ?? cell;
const columnType = (cell: string): string => cell.trim().split(":")[1] ?? "token";
const quoted = (names: readonly string[]): string => names.map((n) => `"${n}"`).join(", ");

const wanted = (what: string, setting: string, extension: string): Wanted => ({
  what,
  setting,
  patterns: [{ name: `*.${extension}`, fits: new RegExp(`\\.${extension}(\\.(gz|zst))?$`, "i") }],
});

/** Fills the raw tables from RecBole files. A year column joins the title: "Toy Story (1995)". */
export async function loadRecbole(duck: Duck, options: RecboleOptions, quarantine: Quarantine): Promise<AdapterReport> {
  const { path, timeUnit, keep, encoding } = options;
  const inter =
    options.interactions === undefined
      ? locateOrFail(path, wanted("interactions", "data.files.interactions", "inter"))
      : join(path, options.interactions);
  requireFile(inter, "Interactions");
  const names = headerCells(inter, "\t", encoding).map(recboleName);
  const usual = { user: "user_id", item: "item_id", rating: "rating", time: "timestamp" };
  const column = (role: keyof typeof usual, needed: boolean): string | undefined => {
    const name = options.columns?.[role] ?? usual[role];
    if (names.includes(name)) return name;
    if (!needed && options.columns?.[role] === undefined) return undefined;
    throw new DataError(`${inter}:1 has no column "${name}"; it has ${quoted(names)}.`, {
      advice: `Name the column in data.columns.${role}.`,
    });
  };
  const [user, item] = [column("user", true) as string, column("item", true) as string];
  const [rating, time] = [column("rating", false), column("time", false)];
  const columns = { user, item, ...(rating ? { rating } : {}), ...(time ? { time } : {}) };
  const read = await readInteractions(duck, inter, columns, quarantine, {
    ...{ delimiter: "\t", quoted: false, rename: recboleName },
    ...given({ timeUnit, keep, encoding }),
  });
  const items =
    options.items === undefined ? locate(path, wanted("items", "data.files.items", "item")) : join(path, options.items);
  if (items !== undefined)
    await writeItems(duck, recboleItems(items, item, options.itemColumns ?? {}, quarantine, encoding));
  return {
    files: items === undefined ? [inter] : [inter, items],
    rowsRead: read.rows,
    hasItems: items !== undefined,
    hasClock: time !== undefined,
    notes: [
      ...read.notes,
      ...(time === undefined ? [`${basename(inter)} has no timestamp: file order is time order`] : []),
    ],
  };
}

/** @param named columns named by the user; others are found by their names in RecBole's data sets */
export async function* recboleItems(
  file: string,
  itemColumn: string,
  named: Partial<ItemColumns>,
  quarantine: Quarantine,
  encoding?: Encoding,
): AsyncGenerator<RawItem> {
  requireFile(file, "Items");
  const header = headerCells(file, "\t", encoding);
  const names = header.map(recboleName);
  const at = (role: keyof ItemColumns, usual: RegExp): number[] => {
    if (named[role] === undefined) return names.flatMap((n, k) => (usual.test(n) ? [k] : [])).slice(0, 1);
    return [named[role]].flat().map((name) => {
      if (names.includes(name)) return names.indexOf(name);
      throw new DataError(`${file}:1 has no column "${name}" (data.columns.${role}); it has ${quoted(names)}.`);
    });
  };
  const own = names.indexOf(itemColumn);
  const [id] = named.id === undefined && own >= 0 ? [own] : at("id", /^item_id$/);
  if (id === undefined)
    throw new DataError(`${file}:1 has no column "${itemColumn}"; it has ${quoted(names)}.`, {
      advice: "Name the column of the item's id in data.columns.id.",
    });
  const title = at("title", /title|^(item_|product_|artist_|track_|game_|app_|business_|venue_)?name$/i);
  const [brand, description] = [at("brand", /brand|author|publisher|developer/i), at("description", /descri/i)];
  const year = names.flatMap((n, k) => (/year/i.test(n) ? [k] : [])).slice(0, 1);
  const categories = at("categories", /^class$|genre|categor/i);
  yield* itemLines(
    file,
    quarantine,
    (text) => {
      const cells = text.split("\t");
      if (cells.length !== header.length) return `${cells.length} columns, expected ${header.length}`;
      const cell = (at: readonly number[]): string =>
        at
          .map((k) => (cells[k] ?? "").trim())
          .join(" ")
          .trim();
      const own = readId(cell([id]));
      if (own === undefined) return "no item id";
      const withYear = cell(year) === "" || cell(title) === "" ? cell(title) : `${cell(title)} (${cell(year)})`;
      const classes = categories.flatMap((k) =>
        columnType(header[k] ?? "") === "token_seq" ? cell([k]).split(" ") : cell([k]),
      );
      return {
        id: own,
        title: withYear,
        brand: cell(brand),
        categories: classes.filter((c) => c !== ""),
        description: cell(description),
      };
    },
    { skipHeader: true, ...given({ encoding }) },
  );
}
