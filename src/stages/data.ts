/** Stage 0, data: source files -> clean, time-ordered sequences with row numbers, split, and checked for leaks. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import type { AdapterOptions } from "../data/adapters/index.ts";
import { saveDataset } from "../data/cache.ts";
import { buildDataset } from "../data/dataset.ts";
import { fetchMovieLens100k } from "../data/fetch.ts";
import { checkSplit } from "../data/leakage.ts";
import { split } from "../data/split.ts";
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
      repeats: "first",
      ...(o.minRating > 0 ? { minRating: o.minRating } : {}),
      ...(o.maxHistoryPerUser > 0 ? { maxPerUser: o.maxHistoryPerUser } : {}),
    },
    maxBadShare: o.maxBadShare,
    quarantineFile: join(context.dir, "quarantine.jsonl"),
    neutralise: (text) => neutralise(text, []),
    neutraliseId: "sid/sanitise 1",
  });
  saveDataset(dataset, join(context.dir, "dataset"));
  const parts = split(dataset, splitOptions(o.split));
  checkSplit(parts);
  writeJson(join(context.dir, "stats.json"), dataset.stats);
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

/** The settings as the adapter takes them; MovieLens-100K is fetched on first use. */
async function sourceOf(context: StageContext): Promise<AdapterOptions> {
  const { config, signal } = context;
  const { adapter, path, columns, files } = config.data;
  switch (adapter) {
    case "ml-100k": {
      if (path !== "")
        return existsSync(join(path, "ml-100k.inter")) ? { kind: "recbole", path } : { kind: "movielens", path };
      const progress = (message: string): void => context.log(message);
      return fetchMovieLens100k({ dir: config.data.cacheDir, python: config.runtime.python, progress, signal });
    }
    case "recbole":
    case "movielens":
      return { kind: adapter, path };
    case "sequences":
      return { kind: adapter, path, ...files };
    case "impressions": {
      const { slate, user, item, time, position, score, label, candidates, scores, labels, positives } = columns;
      const { rating, id, title, brand, categories, description } = columns;
      const common = { user: user ?? "user_id", time: time ?? "timestamp" };
      return {
        kind: adapter,
        path,
        impressions: files.impressions ?? "impressions.csv",
        ...(files.interactions ? { interactions: files.interactions } : {}),
        ...(files.items ? { items: files.items } : {}),
        columns: {
          ...common,
          ...defined({ slate, item, position, score, label, candidates, scores, labels, positives }),
        },
        interactionColumns: { ...common, item: item ?? "item_id", ...(rating ? { rating } : {}) },
        itemColumns: { id: id ?? item ?? "item_id", ...defined({ title, brand, categories, description }) },
      };
    }
    case "table": {
      const { user, item, time, rating, id, title, brand, categories, description } = columns;
      return {
        kind: adapter,
        path,
        interactions: files.interactions ?? "interactions.csv",
        ...(files.items ? { items: files.items } : {}),
        columns: {
          user: user ?? "user_id",
          item: item ?? "item_id",
          ...(time ? { time } : {}),
          ...(rating ? { rating } : {}),
        },
        itemColumns: { id: id ?? item ?? "item_id", ...defined({ title, brand, categories, description }) },
      };
    }
    default:
      return {
        kind: adapter,
        path,
        reviews: files.interactions ?? "reviews.json.gz",
        ...(files.items ? { metadata: files.items } : {}),
      };
  }
}

const defined = (o: Record<string, string | undefined>): Record<string, string> =>
  Object.fromEntries(Object.entries(o).filter((e): e is [string, string] => e[1] !== undefined));
