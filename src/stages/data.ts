/** Stage 0, data: source files -> clean, time-ordered sequences with row numbers, split, and checked for leaks. */
import { existsSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import type { Config } from "../config/schema.ts";
import { ConfigError } from "../core/errors.ts";
import type { AdapterOptions } from "../data/adapters/index.ts";
import type { FileNames } from "../data/adapters/locate.ts";
import { given } from "../data/adapters/table.ts";
import { saveDataset } from "../data/cache.ts";
import { buildDataset } from "../data/dataset.ts";
import { fetchMovieLens100k } from "../data/fetch.ts";
import { checkSplit } from "../data/leakage.ts";
import { checkSegments, split } from "../data/split.ts";
import { dataStatistics } from "../data/statistics.ts";
import { neutralise } from "../sid/sanitise.ts";
import { splitOptions } from "./corpus.ts";
import { writeJson } from "./files.ts";
import type { Stage, StageContext, Summary } from "./stage.ts";

export const data: Stage = {
  name: "data",
  inputs: [],
  settings: (c) => ({ ...c.data, cacheDir: undefined, path: undefined }), // its contents count, wherever they are
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
  checkSegments(parts, splitOptions(o.split));
  writeJson(join(context.dir, "stats.json"), dataset.stats);
  writeJson(join(context.dir, "statistics.json"), dataStatistics(parts));
  const { stats } = dataset;
  context.log(
    `${o.name}: ${stats.users} users, ${stats.items} items, ${stats.interactions} interactions, median length ${stats.lengthMedian}, ties ${(100 * stats.tieShare).toFixed(0)} %`,
  );
  for (const note of stats.notes ?? []) context.log(note);
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
  const reading = {
    timeUnit: o.timeUnit,
    ...(Object.keys(o.keep).length > 0 ? { keep: o.keep } : {}),
    ...(o.encoding === "auto" ? {} : { encoding: o.encoding }),
  };
  switch (o.adapter) {
    case "recbole": {
      const { user, item, time, rating, ...texts } = o.columns;
      return {
        kind: o.adapter,
        path,
        ...given({ interactions: oneFile(o.files.interactions), items: oneFile(items) }),
        columns: given({ user, item, time, rating }),
        itemColumns: given(texts),
        ...reading,
      };
    }
    case "ml-100k":
    case "movielens":
      return { kind: "movielens", path };
    case "sequences":
      return { kind: o.adapter, path, ...given({ interactions: oneFile(interactions), items: oneFile(items) }) };
    case "impressions": {
      const { user = "user_id", item, time = "timestamp", rating, ...rest } = o.columns;
      const { slate, position, score, label, candidates, scores, labels, positives, ...texts } = rest;
      const shown = { slate, item, position, score, label, candidates, scores, labels, positives };
      return {
        kind: o.adapter,
        path,
        impressions: o.files.impressions ?? "impressions.csv",
        ...given({ interactions: o.files.interactions, items }),
        columns: { user, time, ...given(shown) },
        interactionColumns: { user, time, item: item ?? "item_id", ...given({ rating }) },
        itemColumns: given(texts),
        categorySeparator: o.categorySeparator,
        ...reading,
      };
    }
    case "table": {
      const { user = "user_id", item = "item_id", time, rating, ...texts } = o.columns;
      return {
        kind: o.adapter,
        path,
        ...given({ interactions, items }),
        columns: { user, item, ...given({ time, rating }) },
        itemColumns: given(texts),
        categorySeparator: o.categorySeparator,
        clock: o.clock,
        ...reading,
      };
    }
    default:
      return { kind: o.adapter, path, ...given({ reviews: oneFile(interactions), metadata: oneFile(items) }) };
  }
}

/** Where a layout has one file. */
function oneFile(names: FileNames | undefined): string | undefined {
  if (names === undefined || typeof names === "string") return names;
  if (names.length === 1) return names[0];
  throw new ConfigError(`data.files: this adapter reads one file, not ${names.join(", ")}.`, {
    advice: "The table adapter reads several.",
  });
}
