/**
 * RecBole atomic files: tab-separated `NAME.inter` and `NAME.item` whose header cells are `name:type`; any file name may end
 * in .gz. Layout: https://recbole.io/docs/user_guide/data/atomic_files.html. Example: `{kind: "recbole", path: "data/ml-100k"}`.
 * Users are `user_id` or, in session data sets, `session_id`; items `item_id` or what the files name instead (`artist_id`).
 */
import { existsSync, readdirSync } from "node:fs";
import { basename, join } from "node:path";
import { DataError } from "../../core/errors.ts";
import type { TimeUnit } from "../clock.ts";
import type { Duck, Quarantine } from "../duck.ts";
import type { Encoding } from "../text-file.ts";
import { idOf } from "../values.ts";
import { headerCells } from "./fields.ts";
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
  /** Folder with one .inter and, if there is one, one .item file. */
  readonly path: string;
  /** File names within the folder. Default: the only ones. */
  readonly interactions?: string;
  readonly items?: string;
  /** Names without their types. Default: the usual ones that the files have. */
  readonly columns?: Partial<InteractionColumns>;
  readonly itemColumns?: RecboleItemColumns;
  readonly timeUnit?: TimeUnit;
  readonly keep?: Keep;
  readonly encoding?: Encoding;
}

type ItemRole = "id" | "title" | "brand" | "categories" | "description";
export type RecboleItemColumns = Readonly<Partial<Record<ItemRole, string>>>;

const nameOf = (cell: string): string => cell.trim().split(":")[0] ?? cell;
const typeOf = (cell: string): string => cell.trim().split(":")[1] ?? "token";

function onlyFile(folder: string, extension: string): string | undefined {
  if (!existsSync(folder)) throw new DataError(`Data folder ${folder} does not exist.`, { advice: "Set data.path." });
  const found = readdirSync(folder).filter((f) => f.replace(/\.(gz|zst)$/i, "").endsWith(extension));
  if (found.length > 1)
    throw new DataError(`${folder} has ${found.length} ${extension} files; keep one data set a folder.`, {
      advice: "Or say which one with data.files.",
    });
  return found[0] === undefined ? undefined : join(folder, found[0]);
}

const usualUsers = ["user_id", "session_id", "userid", "sessionid", "visitor_id"];
const usualItems = ["item_id", "artist_id", "movie_id", "product_id", "business_id", "news_id", "book_id", "track_id"];
const usualTimes = ["timestamp", "time", "event_time", "date"];

/** Columns of interactions: named ones, else the usual ones. */
export function recboleColumns(names: readonly string[], given: Partial<InteractionColumns> = {}): InteractionColumns {
  const usual = (role: "user" | "item" | "time", all: readonly string[]): string | undefined =>
    given[role] ?? all.find((n) => names.includes(n));
  const rating = given.rating ?? (names.includes("rating") ? "rating" : undefined);
  const time = usual("time", usualTimes);
  return {
    user: usual("user", usualUsers) ?? "user_id",
    item: usual("item", usualItems) ?? "item_id",
    ...(rating === undefined ? {} : { rating }),
    ...(time === undefined ? {} : { time }),
  };
}

/** Fills the raw tables from RecBole files. A year column joins the title: "Toy Story (1995)". */
export async function loadRecbole(duck: Duck, options: RecboleOptions, quarantine: Quarantine): Promise<AdapterReport> {
  const { path, interactions, items, timeUnit, keep, encoding } = options;
  const inter = interactions === undefined ? onlyFile(path, ".inter") : join(path, interactions);
  if (inter === undefined) throw new DataError(`${path} has no .inter file.`);
  const names = headerCells(inter, "\t", encoding).map(nameOf);
  const columns = recboleColumns(names, options.columns);
  const read = await readInteractions(duck, inter, columns, quarantine, {
    delimiter: "\t",
    quoted: false,
    rename: nameOf,
    ...(timeUnit === undefined ? {} : { timeUnit }),
    ...(keep === undefined ? {} : { keep }),
    ...(encoding === undefined ? {} : { encoding }),
  });
  const item = items === undefined ? onlyFile(path, ".item") : join(path, items);
  if (item !== undefined) {
    const own = { ...options.itemColumns, id: options.itemColumns?.id ?? columns.item };
    await writeItems(duck, recboleItems(item, quarantine, own, encoding));
  }
  const hasClock = columns.time !== undefined;
  return {
    files: item === undefined ? [inter] : [inter, item],
    rowsRead: read.rows,
    hasItems: item !== undefined,
    hasClock,
    notes: [...read.notes, ...(hasClock ? [] : [`${basename(inter)} has no timestamp: file order is time order`])],
  };
}

/** Items of a .item file. */
export async function* recboleItems(
  file: string,
  quarantine: Quarantine,
  columns: RecboleItemColumns = {},
  encoding?: Encoding,
): AsyncGenerator<RawItem> {
  const header = headerCells(file, "\t", encoding);
  const names = header.map(nameOf);
  const at = (role: ItemRole, pattern: RegExp): number => {
    const named = columns[role];
    if (named === undefined) return names.findIndex((name) => pattern.test(name));
    const k = names.indexOf(named);
    if (k < 0)
      throw new DataError(`${file}:1 has no column "${named}"; it has ${names.map((n) => `"${n}"`).join(", ")}.`);
    return k;
  };
  const id = at("id", /^item_id$/);
  if (id < 0) throw new DataError(`${file}:1 has no item_id column; it has ${names.join(", ")}.`);
  const [title, brand, description] = [
    at("title", /title|^name$|(item|movie|artist|product|book|track|business)_?name/i),
    at("brand", /brand/i),
    at("description", /descri/i),
  ];
  const year = names.findIndex((name) => /year/i.test(name));
  const category = at("categories", /^class$|genre|categor/i);
  const categoryIsSequence = category >= 0 && typeOf(header[category] ?? "") === "token_seq";
  yield* itemLines(
    file,
    quarantine,
    (text) => {
      const cells = text.split("\t");
      const cell = (k: number): string => (k < 0 ? "" : (cells[k] ?? "").trim());
      if (cells.length !== header.length) return `${cells.length} columns, expected ${header.length}`;
      const own = idOf(cell(id));
      if (own === undefined) return "no item id";
      const withYear = cell(year) === "" || cell(title) === "" ? cell(title) : `${cell(title)} (${cell(year)})`;
      const classes = cell(category);
      return {
        id: own,
        title: withYear,
        brand: cell(brand),
        categories: classes === "" ? [] : categoryIsSequence ? classes.split(" ").filter((c) => c !== "") : [classes],
        description: cell(description),
      };
    },
    { skipHeader: true, ...(encoding === undefined ? {} : { encoding }) },
  );
}
