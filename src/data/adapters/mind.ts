/**
 * MIND, the Microsoft News data set, as published (https://github.com/msnews/msnews.github.io): behaviors.tsv, a row an
 * impression (id, user, time, clicked before, shown as `N1-1 N2-0`), and news.tsv (id, category, subcategory, title,
 * abstract, ...). No header, no quotes. Slates go where the impressions adapter puts them. Histories have an order and no
 * times: they are placed before the log's first impression, a second apart.
 */
import { join } from "node:path";
import { DataError } from "../../core/errors.ts";
import { type Duck, type Quarantine, readStart, requireFile } from "../duck.ts";
import { stageFields } from "./fields.ts";
import { takeWide } from "./impressions.ts";
import { type AdapterReport, itemLines, type RawItem, timeSql, writeItems } from "./readers.ts";

export interface MindOptions {
  readonly kind: "mind";
  /** Folder, for example MINDsmall_train. */
  readonly path: string;
  /** Default behaviors.tsv. */
  readonly impressions?: string;
  /** Default news.tsv. */
  readonly items?: string;
}

const names = ["impression", "user", "time", "history", "shown"];

export async function loadMind(duck: Duck, options: MindOptions, quarantine: Quarantine): Promise<AdapterReport> {
  const file = join(options.path, options.impressions ?? "behaviors.tsv");
  const items = join(options.path, options.items ?? "news.tsv");
  requireFile(file, "Impressions");
  requireFile(items, "News");
  const first = (readStart(file).split(/\r?\n/)[0] ?? "").split("\t");
  if (first.length === names.length && !/-[01](\s|$)/.test(first[4] ?? ""))
    throw new DataError(`${file}:1 shows news without what was clicked (N1-1 N2-0).`, {
      advice: "The labels of MIND's test split are not published; use the folder of train or dev.",
    });
  const staged = await stageFields(duck, file, { u: "user", t: "time", h: "history", s: "shown" }, quarantine, {
    names,
    quoted: false,
  });
  const parts = "list_filter(string_split(s, ' '), p -> p <> '')";
  await duck.run(`CREATE OR REPLACE TEMP TABLE staged AS SELECT n, broken, u, t, h,
    to_json(list_transform(${parts}, p -> regexp_replace(p, '-[01]$', '')))::VARCHAR AS c,
    to_json(list_transform(${parts}, p -> TRY_CAST(regexp_extract(p, '-([01])$', 1) AS INTEGER)))::VARCHAR AS y FROM staged`);
  const time = timeSql("t", "iso", undefined);
  const columns = { user: "user", time: "time", candidates: "shown", labels: "shown" };
  await duck.run(`CREATE OR REPLACE TEMP TABLE before AS SELECT u, arg_min(h, ${time}) AS h FROM staged
    WHERE h IS NOT NULL AND trim(h) <> '' AND ${time} IS NOT NULL GROUP BY u`);
  await takeWide(duck, file, staged, columns, time, quarantine);
  await duck.run(`INSERT INTO raw_interactions SELECT u, unnest(items), NULL, start - unnest(range(len(items), 0, -1))
    FROM (SELECT u, list_filter(string_split(h, ' '), p -> p <> '') AS items FROM before),
      (SELECT min(t) AS start FROM raw_impressions);
    INSERT INTO raw_interactions SELECT u, i, NULL, t FROM raw_impressions WHERE y > 0; DROP TABLE before`);
  await writeItems(duck, readNews(items, quarantine));
  return {
    files: [file, items],
    rowsRead: staged.rows,
    hasItems: true,
    hasImpressions: true,
    hasClock: true,
    notes: [
      "histories have no times: they come before the log's first impression, in their order",
      "MIND shuffles what it shows: the order of an impression is nobody's ranking, and no baseline",
    ],
  };
}

const readNews = (file: string, quarantine: Quarantine): AsyncGenerator<RawItem> =>
  itemLines(file, quarantine, (text) => {
    const [id = "", category = "", subcategory = "", title, description = ""] = text.split("\t");
    if (title === undefined) return `${text.split("\t").length} columns, expected 8`;
    if (id === "") return "no news id";
    return { id, title, brand: "", categories: [category, subcategory].filter((c) => c !== ""), description };
  });
