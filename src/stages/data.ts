/** Stage 0, data: source files -> clean, time-ordered sequences with row numbers, split, and checked for leaks. */
import { join } from "node:path";
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
  const path =
    o.adapter === "ml-100k" && o.path === ""
      ? await fetchMovieLens100k({ dir: o.cacheDir, python: context.config.runtime.python })
      : o.path;
  const dataset = await buildDataset({
    name: o.name,
    source: adapterOptions(o, path),
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
  return { users: stats.users, items: stats.items, interactions: stats.interactions, tieShare: stats.tieShare };
}
