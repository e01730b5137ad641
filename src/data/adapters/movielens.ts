/**
 * MovieLens in GroupLens' own layouts, distinguished by the files in the folder:
 *   100K         u.data (tab), u.item (bar-separated, Latin-1, 19 genre flags)
 *   1M           ratings.dat, movies.dat (`::`, Latin-1)
 *   20M, latest  ratings.csv, movies.csv
 * Example: `{kind: "movielens", path: "data/ml-1m"}`. Titles keep their year and article order.
 */
import { existsSync } from "node:fs";
import { basename, join } from "node:path";
import { DataError } from "../../core/errors.ts";
import type { Duck, Quarantine } from "../duck.ts";
import { splitCells } from "../records.ts";
import { splitList } from "../values.ts";
import { type AdapterReport, itemLines, type RawItem, readInteractions, writeItems } from "./readers.ts";

export interface MovielensOptions {
  readonly kind: "movielens";
  /** Folder with the original files. */
  readonly path: string;
}

const genres100k = [
  "unknown",
  "Action",
  "Adventure",
  "Animation",
  "Children's",
  "Comedy",
  "Crime",
  "Documentary",
  "Drama",
  "Fantasy",
  "Film-Noir",
  "Horror",
  "Musical",
  "Mystery",
  "Romance",
  "Sci-Fi",
  "Thriller",
  "War",
  "Western",
];

type ItemParser = (text: string) => RawItem | string;

const item = (id: string, title: string, categories: readonly string[]): RawItem | string =>
  id === "" ? "no movie id" : { id, title: title.trim(), brand: "", categories, description: "" };

interface Layout {
  readonly ratings: string;
  readonly movies: string;
  readonly delimiter: string;
  readonly header: boolean;
  readonly encoding: "utf8" | "latin1";
  readonly parse: ItemParser;
}

const layouts: readonly Layout[] = [
  {
    ratings: "u.data",
    movies: "u.item",
    delimiter: "\t",
    header: false,
    encoding: "latin1",
    parse(text) {
      const cells = text.split("|");
      if (cells.length !== 24) return `${cells.length} columns, expected 24`;
      return item(
        cells[0] ?? "",
        cells[1] ?? "",
        genres100k.filter((_, k) => cells[5 + k] === "1"),
      );
    },
  },
  {
    ratings: "ratings.dat",
    movies: "movies.dat",
    delimiter: "::",
    header: false,
    encoding: "latin1",
    parse(text) {
      const cells = text.split("::");
      return cells.length === 3
        ? item(cells[0] ?? "", cells[1] ?? "", splitList(cells[2], "|"))
        : `${cells.length} columns, expected 3`;
    },
  },
  {
    ratings: "ratings.csv",
    movies: "movies.csv",
    delimiter: ",",
    header: true,
    encoding: "utf8",
    parse(text) {
      const cells = splitCells(text, { delimiter: ",", quoted: true });
      return cells?.length === 3
        ? item(cells[0] ?? "", cells[1] ?? "", splitList(cells[2], "|"))
        : `${cells?.length ?? 1} columns, expected 3`;
    },
  },
];

/** Items of a file with one of MovieLens' names; undefined for any other name. */
export function movielensItems(file: string, quarantine: Quarantine): AsyncGenerator<RawItem> | undefined {
  const layout = layouts.find((l) => l.movies === basename(file).toLowerCase());
  return layout && readMovies(file, layout, quarantine);
}

const readMovies = (file: string, layout: Layout, quarantine: Quarantine): AsyncGenerator<RawItem> =>
  itemLines(file, quarantine, layout.parse, { skipHeader: layout.header, encoding: layout.encoding });

export async function loadMovielens(
  duck: Duck,
  options: MovielensOptions,
  quarantine: Quarantine,
): Promise<AdapterReport> {
  const layout = layouts.find((l) => existsSync(join(options.path, l.ratings)));
  if (layout === undefined)
    throw new DataError(`${options.path} has none of ${layouts.map((l) => l.ratings).join(", ")}.`, {
      advice: "Set data.path to a folder with MovieLens' original files.",
    });
  const ratings = join(options.path, layout.ratings);
  const columns = { user: "userId", item: "movieId", rating: "rating", time: "timestamp" };
  const read = await readInteractions(duck, ratings, columns, quarantine, {
    delimiter: layout.delimiter,
    quoted: layout.header,
    ...(layout.header ? {} : { names: Object.values(columns) }),
  });
  const movies = join(options.path, layout.movies);
  await writeItems(duck, readMovies(movies, layout, quarantine));
  return { files: [ratings, movies], rowsRead: read.rows, hasItems: true, hasClock: true, notes: read.notes };
}
