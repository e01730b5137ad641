/**
 * RecBole atomic files: tab-separated `NAME.inter` and `NAME.item` whose header cells are `name:type`.
 * Layout: https://recbole.io/docs/user_guide/data/atomic_files.html. Example: `{kind: "recbole", path: "data/ml-100k"}`.
 */
import { existsSync, readdirSync } from "node:fs";
import { basename, join } from "node:path";
import { DataError } from "../../core/errors.ts";
import { type Duck, headOf, type Quarantine, requireFile } from "../duck.ts";
import { type AdapterReport, itemLines, type RawItem, readDelimited, writeItems } from "./readers.ts";

export interface RecboleOptions {
  readonly kind: "recbole";
  /** Folder with one .inter and, if there is one, one .item file. */
  readonly path: string;
}

const nameOf = (cell: string): string => cell.trim().split(":")[0] ?? cell;
const typeOf = (cell: string): string => cell.trim().split(":")[1] ?? "token";

function onlyFile(folder: string, extension: string): string | undefined {
  if (!existsSync(folder)) throw new DataError(`Data folder ${folder} does not exist.`, { advice: "Set data.path." });
  const found = readdirSync(folder).filter((f) => f.endsWith(extension));
  if (found.length > 1)
    throw new DataError(`${folder} has ${found.length} ${extension} files; keep one data set a folder.`);
  return found[0] === undefined ? undefined : join(folder, found[0]);
}

/** Fills the raw tables from RecBole files. A year column joins the title: "Toy Story (1995)". */
export async function loadRecbole(duck: Duck, options: RecboleOptions, quarantine: Quarantine): Promise<AdapterReport> {
  const inter = onlyFile(options.path, ".inter");
  if (inter === undefined) throw new DataError(`${options.path} has no .inter file.`);
  requireFile(inter, "Interactions");
  const names = (headOf(inter).split(/\r?\n/)[0] ?? "").split("\t").map(nameOf);
  const rowsRead = await readDelimited(
    duck,
    inter,
    {
      delimiter: "\t",
      quoted: false,
      rename: nameOf,
      columns: {
        user: "user_id",
        item: "item_id",
        ...(names.includes("rating") ? { rating: "rating" } : {}),
        ...(names.includes("timestamp") ? { time: "timestamp" } : {}),
      },
    },
    quarantine,
  );
  const item = onlyFile(options.path, ".item");
  if (item !== undefined) await writeItems(duck, recboleItems(item, quarantine));
  const hasClock = names.includes("timestamp");
  return {
    files: item === undefined ? [inter] : [inter, item],
    rowsRead,
    hasItems: item !== undefined,
    hasClock,
    notes: hasClock ? [] : [`${basename(inter)} has no timestamp: file order is time order`],
  };
}

async function* recboleItems(file: string, quarantine: Quarantine): AsyncGenerator<RawItem> {
  requireFile(file, "Items");
  const header = (headOf(file).split(/\r?\n/)[0] ?? "").split("\t");
  const at = (pattern: RegExp): number => header.findIndex((cell) => pattern.test(nameOf(cell)));
  const id = at(/^item_id$/);
  if (id < 0) throw new DataError(`${file}:1 has no item_id column.`);
  const [title, year, brand, description] = [at(/title|^name$/i), at(/year/i), at(/brand/i), at(/descri/i)];
  const category = at(/^class$|genre|categor/i);
  const categoryIsSequence = category >= 0 && typeOf(header[category] ?? "") === "token_seq";
  yield* itemLines(
    file,
    quarantine,
    (text) => {
      const cells = text.split("\t");
      const cell = (k: number): string => (k < 0 ? "" : (cells[k] ?? "").trim());
      if (cells.length !== header.length) return `${cells.length} columns, expected ${header.length}`;
      if (cell(id) === "") return "no item id";
      const withYear = cell(year) === "" || cell(title) === "" ? cell(title) : `${cell(title)} (${cell(year)})`;
      const classes = cell(category).replace(/\r$/, "");
      return {
        id: cell(id),
        title: withYear,
        brand: cell(brand),
        categories: classes === "" ? [] : categoryIsSequence ? classes.split(" ").filter((c) => c !== "") : [classes],
        description: cell(description),
      };
    },
    { skipHeader: true },
  );
}
