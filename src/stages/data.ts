/** Stage 0, data: source files -> clean, time-ordered sequences with row numbers, split, and checked for leaks. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { adapterOptions, splitOptions } from "../artifacts/dataset.ts";
import { writeJson } from "../artifacts/files.ts";
import type { AdapterOptions } from "../data/adapters/index.ts";
import { saveDataset } from "../data/cache.ts";
import { buildDataset } from "../data/dataset.ts";
import { fetchMovieLens100k } from "../data/fetch.ts";
import { checkSplit } from "../data/leakage.ts";
import { checkSegments, split } from "../data/split.ts";
import { dataStatistics } from "../data/statistics.ts";
import { openAdapter } from "../plugins/adapter.ts";
import type { Stage, StageContext, Summary } from "../run/stage.ts";
import { neutralise } from "../sid/sanitise.ts";

export const data: Stage = {
  name: "data",
  source: import.meta.url,
  inputs: [],
  verbs: [],
  plugins: ["adapter"],
  settings: (c) => ({ ...c.data, cacheDir: undefined, path: undefined }), // the data's contents count, not its location
  run,
};

async function run(context: StageContext): Promise<Summary> {
  const o = context.config.data;
  const dataset = await buildDataset({
    name: o.name,
    source: await resolveSource(context),
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
    `${o.name}: ${stats.users} users, ${stats.items} items, ${stats.interactions} interactions, ` +
      `median length ${stats.lengthMedian}, ties ${(100 * stats.tieShare).toFixed(0)} %`,
  );
  for (const note of stats.notes ?? []) context.log(note);
  for (const [reason, rows] of Object.entries(stats.dropped)) context.log(`dropped: ${rows} rows (${reason})`);
  if (stats.impressions) {
    const { read, slates, candidates, dropped, unknownCandidates } = stats.impressions;
    context.log(`${slates} of ${read} logged slates, ${candidates} candidates`);
    for (const [reason, n] of Object.entries(dropped)) context.log(`dropped: ${n} logged slates (${reason})`);
    if (unknownCandidates > 0)
      context.log(`dropped: ${unknownCandidates} shown items that are missing from the item file`);
  }
  if (stats.itemsWithoutText > 0)
    context.log(
      `${stats.itemsWithoutText} of ${stats.items} items have no text: only interactions, if any, distinguish them`,
    );
  return { users: stats.users, items: stats.items, interactions: stats.interactions, tieShare: stats.tieShare };
}

/** MovieLens-100K is downloaded on first use; other data is read from data.path. */
async function resolveSource(context: StageContext): Promise<AdapterOptions> {
  const { config, signal } = context;
  const own = await openAdapter({ config, items: [], signal });
  if (own) return own.options;
  if (config.data.adapter !== "ml-100k") return adapterOptions(config.data);
  const { path } = config.data;
  if (path !== "")
    return existsSync(join(path, "ml-100k.inter")) ? { kind: "recbole", path } : { kind: "movielens", path };
  const progress = (message: string): void => context.log(message);
  return fetchMovieLens100k({ dir: config.data.cacheDir, python: config.runtime.python, progress, signal });
}
