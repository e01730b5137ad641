/** Chooses the adapter. Each fills the raw tables (duck.ts) and reports the files it read. */
import type { Duck, Quarantine } from "../duck.ts";
import { type AmazonOptions, loadAmazon } from "./amazon.ts";
import { type ImpressionsOptions, loadImpressions } from "./impressions.ts";
import { loadMind, type MindOptions } from "./mind.ts";
import type { ModuleOptions } from "./module.ts";
import { loadMovielens, type MovielensOptions } from "./movielens.ts";
import { loadNextItem, type NextItemOptions } from "./next-item.ts";
import type { AdapterReport } from "./readers.ts";
import { loadRecbole, type RecboleOptions } from "./recbole.ts";
import { loadRetailrocket, type RetailrocketOptions } from "./retailrocket.ts";
import { loadSequences, type SequencesOptions } from "./sequences.ts";
import { loadTable, type TableOptions } from "./table.ts";

export type AdapterOptions =
  | RecboleOptions
  | MovielensOptions
  | SequencesOptions
  | TableOptions
  | ImpressionsOptions
  | MindOptions
  | NextItemOptions
  | RetailrocketOptions
  | AmazonOptions
  | ModuleOptions;

/** Throws DataError for missing or unreadable files; malformed rows go to the quarantine. */
export function loadRaw(duck: Duck, options: AdapterOptions, quarantine: Quarantine): Promise<AdapterReport> {
  switch (options.kind) {
    case "recbole":
      return loadRecbole(duck, options, quarantine);
    case "movielens":
      return loadMovielens(duck, options, quarantine);
    case "sequences":
      return loadSequences(duck, options, quarantine);
    case "table":
      return loadTable(duck, options, quarantine);
    case "impressions":
      return loadImpressions(duck, options, quarantine);
    case "mind":
      return loadMind(duck, options, quarantine);
    case "next-item":
      return loadNextItem(duck, options, quarantine);
    case "retailrocket":
      return loadRetailrocket(duck, options, quarantine);
    case "module":
      return options.load(duck, quarantine);
    case "amazon2014":
    case "amazon2018":
    case "amazon2023":
      return loadAmazon(duck, options, quarantine);
  }
}
