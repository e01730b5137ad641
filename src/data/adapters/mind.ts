/**
 * MIND, the Microsoft News data set, as published (https://github.com/msnews/msnews.github.io): behaviors.tsv, one row
 * per impression (id, user, time, earlier clicks, items shown as `N1-1 N2-0`), and news.tsv (id, category, subcategory,
 * title, abstract, ...). No header, no quotes. Slates are stored as by the impressions adapter. Histories have an
 * order but no times: they are placed before the log's first impression, one second apart.
 */
import { join } from "node:path";
import { DataError } from "../../core/errors.ts";
import type { Duck, Quarantine } from "../duck.ts";
import { readStart, requireFile } from "../text-file.ts";
import { readId } from "../values.ts";
import { stageLog, takeWide } from "./impressions.ts";
import { type AdapterReport, itemLines, type RawItem, writeItems } from "./readers.ts";

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
  const first = (readStart(file).split(/\r\n|\n|\r/)[0] ?? "").split("\t");
  if (first.length === names.length && !/-[01](\s|$)/.test(first[4] ?? ""))
    throw new DataError(`${file}:1 has no click labels (N1-1 N2-0).`, {
      advice: "The labels of MIND's test split are not published; use the train or dev folder.",
    });
  const fields = { u: "user", t: "time", h: "history", l: "shown" };
  const rowsRead = await stageLog(duck, file, fields, quarantine, { names, quoted: false, timeUnit: "iso" });
  const parts = "list_filter(string_split(l, ' '), p -> p <> '')";
  await duck.run(`CREATE OR REPLACE TEMP TABLE staged AS SELECT n, line, u, t, sec, h,
    to_json(list_transform(${parts}, p -> regexp_replace(p, '-[01]$', '')))::VARCHAR AS c,
    to_json(list_transform(${parts}, p -> TRY_CAST(regexp_extract(p, '-([01])$', 1) AS INTEGER)))::VARCHAR AS y FROM staged`);
  const columns = { user: "user", time: "time", candidates: "shown", labels: "shown" };
  await duck.run(`CREATE OR REPLACE TEMP TABLE before AS SELECT u, arg_min(h, sec) AS h FROM staged
    WHERE h IS NOT NULL AND trim(h) <> '' AND sec IS NOT NULL GROUP BY u`);
  await takeWide(duck, file, columns, quarantine);
  await duck.run(`INSERT INTO raw_interactions SELECT u, unnest(items), NULL, start - unnest(range(len(items), 0, -1))
    FROM (SELECT u, list_filter(string_split(h, ' '), p -> p <> '') AS items FROM before),
      (SELECT min(t) AS start FROM raw_impressions);
    INSERT INTO raw_interactions SELECT u, i, NULL, t FROM raw_impressions WHERE y > 0; DROP TABLE before`);
  await writeItems(duck, mindItems(items, quarantine));
  return {
    files: [file, items],
    rowsRead,
    hasItems: true,
    hasImpressions: true,
    hasClock: true,
    notes: [
      "histories have no times: they are placed before the log's first impression, in order",
      "MIND shuffles the items it shows: the order of an impression is not a ranking and not a baseline",
    ],
  };
}

/** Items of a news.tsv. */
export const mindItems = (file: string, quarantine: Quarantine): AsyncGenerator<RawItem> =>
  itemLines(file, quarantine, (text) => {
    const [id = "", category = "", subcategory = "", title, description = ""] = text.split("\t");
    if (title === undefined) return `${text.split("\t").length} columns, expected 8`;
    const own = readId(id);
    if (own === undefined) return "no news id";
    return { id: own, title, brand: "", categories: [category, subcategory].filter((c) => c !== ""), description };
  });
