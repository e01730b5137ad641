/** Chooses the adapter. Each fills the raw tables (duck.ts) and reports the files it read. */
import type { Duck, Quarantine } from "../duck.ts";
import type { AdapterReport } from "./readers.ts";
import { loadRecbole, type RecboleOptions } from "./recbole.ts";

export type AdapterOptions = RecboleOptions;

export function loadRaw(duck: Duck, options: AdapterOptions, quarantine: Quarantine): Promise<AdapterReport> {
  switch (options.kind) {
    case "recbole":
      return loadRecbole(duck, options, quarantine);
  }
}
