/** What most stages read: items, sequences with their split, and the catalogue of semantic IDs. */
import type { Item, SplitDataset } from "../data/types.ts";
import type { StageContext } from "../run/stage.ts";
import { Catalogue } from "../sid/catalogue.ts";
import { openData } from "./dataset.ts";
import { readJson } from "./files.ts";
import { catalogueFile } from "./semantic-ids.ts";

export interface Corpus {
  readonly split: SplitDataset;
  readonly items: readonly Item[];
  readonly catalogue: Catalogue;
  /** Identity of data and semantic IDs. */
  readonly hash: string;
}

export async function openCorpus(context: StageContext): Promise<Corpus> {
  const data = await openData(context);
  const catalogue = Catalogue.fromJSON(readJson(catalogueFile(context.inputDir("sid"))));
  return { split: data, items: data.dataset.items, catalogue, hash: `${data.dataset.hash} ${catalogue.hash()}` };
}

/** The most frequent categories of some items, strongest first; ties alphabetically. */
export function dominantCategories(corpus: Pick<Corpus, "items">, rows: ArrayLike<number>, n: number): string[] {
  const counts = new Map<string, number>();
  for (let i = 0; i < rows.length; i++)
    for (const category of corpus.items[rows[i] as number]?.categories ?? [])
      counts.set(category, (counts.get(category) ?? 0) + 1);
  return [...counts]
    .sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1))
    .slice(0, n)
    .map(([category]) => category);
}
