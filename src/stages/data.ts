/** Stage 0, data: source files -> clean, time-ordered sequences with row numbers, split, and checked for leaks. */
import { existsSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import type { Config } from "../config/schema.ts";
import type { AdapterOptions } from "../data/adapters/index.ts";
import { saveDataset } from "../data/cache.ts";
import { buildDataset } from "../data/dataset.ts";
import { fetchMovieLens100k } from "../data/fetch.ts";
import { checkSplit } from "../data/leakage.ts";
import { split } from "../data/split.ts";
import { dataStatistics } from "../data/statistics.ts";
import { neutralise } from "../sid/sanitise.ts";
import { splitOptions } from "./corpus.ts";
import { writeJson } from "./files.ts";
import type { Stage, StageContext, Summary } from "./stage.ts";

export const data: Stage = {
  name: "data",
  inputs: [],
  settings: (c) => ({ ...c.data, cacheDir: undefined }),
  run,
};

async function run(context: StageContext): Promise<Summary> {
  const o = context.config.data;
  const dataset = await buildDataset({
    name: o.name,
    source: await sourceOf(context),
    prepare: {
      minUserInteractions: o.minInteractions,
      minItemInteractions: o.minInteractions,
      repeats: o.repeats,
      ...(o.minRating > 0 ? { minRating: o.minRating } : {}),
      ...(o.maxHistoryPerUser > 0 ? { maxPerUser: o.maxHistoryPerUser } : {}),
    },
    catalogue: o.catalogue,
    maxBadShare: o.maxBadShare,
    quarantineFile: join(context.dir, "quarantine.jsonl"),
    neutralise: (text) => neutralise(text, []),
    neutraliseId: "sid/sanitise 1",
  });
  await saveDataset(dataset, context.dir);
  const parts = split(dataset, splitOptions(o.split));
  checkSplit(parts);
  writeJson(join(context.dir, "stats.json"), dataset.stats);
  writeJson(join(context.dir, "statistics.json"), dataStatistics(parts));
  const { stats } = dataset;
  context.log(
    `${o.name}: ${stats.users} users, ${stats.items} items, ${stats.interactions} interactions, median length ${stats.lengthMedian}, ties ${(100 * stats.tieShare).toFixed(0)} %`,
  );
  for (const [reason, rows] of Object.entries(stats.dropped)) context.log(`left out: ${rows} rows (${reason})`);
  if (stats.impressions) {
    const { read, slates, candidates, dropped, unknownCandidates } = stats.impressions;
    context.log(`${slates} of ${read} logged slates, ${candidates} candidates`);
    for (const [reason, n] of Object.entries(dropped)) context.log(`left out: ${n} logged slates (${reason})`);
    if (unknownCandidates > 0)
      context.log(`left out: ${unknownCandidates} shown items that the item file does not know`);
  }
  if (stats.itemsWithoutText > 0)
    context.log(
      `${stats.itemsWithoutText} of ${stats.items} items have no text at all: they are told apart by what people did with them, or not at all`,
    );
  return { users: stats.users, items: stats.items, interactions: stats.interactions, tieShare: stats.tieShare };
}

/** MovieLens-100K is fetched on first use; anything else lies where the settings say. */
async function sourceOf(context: StageContext): Promise<AdapterOptions> {
  const { config, signal } = context;
  if (config.data.adapter !== "ml-100k") return adapterOptions(config.data);
  const { path } = config.data;
  if (path !== "")
    return existsSync(join(path, "ml-100k.inter")) ? { kind: "recbole", path } : { kind: "movielens", path };
  const progress = (message: string): void => context.log(message);
  return fetchMovieLens100k({ dir: config.data.cacheDir, python: config.runtime.python, progress, signal });
}

/** The settings as the adapter takes them. `data.path` may name the file of interactions instead of its folder. */
export function adapterOptions(o: Config["data"]): AdapterOptions {
  const isFile = statSync(o.path, { throwIfNoEntry: false })?.isFile() ?? false;
  const path = isFile ? dirname(o.path) : o.path;
  const interactions = o.files.interactions ?? (isFile ? basename(o.path) : undefined);
  const { items } = o.files;
  const { user, item, time, rating, id, title, brand, categories, description } = o.columns;
  const columns = defined({ user, item, time, rating });
  const itemColumns = defined({ id, title, brand, categories, description });
  switch (o.adapter) {
    case "recbole":
      return { kind: o.adapter, path, ...defined({ interactions, items }), columns, itemColumns };
    case "ml-100k":
    case "movielens":
      return { kind: "movielens", path };
    case "sequences":
      return { kind: o.adapter, path, ...defined({ interactions, items }), itemColumns };
    case "impressions": {
      const { slate, position, score, label, candidates, scores, labels, positives } = o.columns;
      const shown = { slate, item, position, score, label, candidates, scores, labels, positives };
      return {
        kind: o.adapter,
        path,
        impressions: o.files.impressions ?? "impressions.csv",
        ...defined({ interactions: o.files.interactions, items }),
        columns: { ...usual, ...defined({ user, time }), ...defined(shown) },
        interactionColumns: { ...usual, item: "item_id", ...columns },
        itemColumns: { id: item ?? "item_id", ...itemColumns },
      };
    }
    case "table":
      return {
        kind: o.adapter,
        path,
        ...defined({ interactions, items, itemIds: o.files.itemIds }),
        columns: { user: "user_id", item: "item_id", ...columns },
        ...(Object.keys(o.keep).length > 0 ? { keep: mapValues(o.keep, (values) => values.map(String)) } : {}),
        itemColumns,
        categorySeparator: o.categorySeparator,
        timeUnit: o.timeUnit,
        clock: o.clock,
      };
    default:
      return { kind: o.adapter, path, ...defined({ reviews: interactions, metadata: items }), columns, itemColumns };
  }
}

/** Without the keys that are undefined. */
const defined = <T extends object>(o: T): { [P in keyof T]?: Exclude<T[P], undefined> } =>
  Object.fromEntries(Object.entries(o).filter(([, v]) => v !== undefined)) as {
    [P in keyof T]?: Exclude<T[P], undefined>;
  };

const mapValues = <A, B>(o: Readonly<Record<string, A>>, f: (a: A) => B): Record<string, B> =>
  Object.fromEntries(Object.entries(o).map(([k, v]) => [k, f(v)]));

const usual = { user: "user_id", time: "timestamp" };
