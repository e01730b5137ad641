/** What stage data left, and the settings of reading and splitting in the terms of the data room. */
import { statSync } from "node:fs";
import { basename, dirname } from "node:path";
import type { Config } from "../config/schema.ts";
import type { AdapterOptions } from "../data/adapters/index.ts";
import { loadDataset } from "../data/cache.ts";
import { type SplitOptions, split } from "../data/split.ts";
import type { SplitDataset } from "../data/types.ts";
import type { StageContext } from "../run/stage.ts";

/** The settings as the adapter takes them. `data.path` may name the file of interactions instead of its folder. */
export function adapterOptions(o: Config["data"]): AdapterOptions {
  const isFile = statSync(o.path, { throwIfNoEntry: false })?.isFile() ?? false;
  const path = isFile ? dirname(o.path) : o.path;
  const interactions = o.files.interactions ?? (isFile ? basename(o.path) : undefined);
  const { items } = o.files;
  switch (o.adapter) {
    case "recbole":
      return { kind: o.adapter, path };
    case "ml-100k":
    case "movielens":
      return { kind: "movielens", path };
    case "sequences":
      return { kind: o.adapter, path, ...defined({ interactions, items }) };
    case "impressions": {
      const { user = "user_id", item, time = "timestamp", rating, ...rest } = o.columns;
      const { slate, position, score, label, candidates, scores, labels, positives, ...texts } = rest;
      const shown = { slate, item, position, score, label, candidates, scores, labels, positives };
      return {
        kind: o.adapter,
        path,
        impressions: o.files.impressions ?? "impressions.csv",
        ...defined({ interactions: o.files.interactions, items }),
        columns: { user, time, ...defined(shown) },
        interactionColumns: { user, time, item: item ?? "item_id", ...defined({ rating }) },
        itemColumns: { id: texts.id ?? item ?? "item_id", ...defined(texts) },
      };
    }
    case "table": {
      const { user = "user_id", item = "item_id", time, rating, ...texts } = o.columns;
      return {
        kind: o.adapter,
        path,
        ...defined({ interactions, items }),
        columns: { user, item, ...defined({ time, rating }) },
        itemColumns: defined(texts),
        categorySeparator: o.categorySeparator,
        timeUnit: o.timeUnit,
        clock: o.clock,
      };
    }
    default:
      return { kind: o.adapter, path, ...defined({ reviews: interactions, metadata: items }) };
  }
}

export async function openData(context: StageContext): Promise<SplitDataset> {
  return split(await loadDataset(context.inputDir("data")), splitOptions(context.config.data.split));
}

/** The split's settings as data/split takes them. */
export function splitOptions(s: StageContext["config"]["data"]["split"]): SplitOptions {
  if (s.kind === "leave-one-out") return { kind: "leave-one-out", rerankItems: s.rerankItems };
  const { midtrain, rerank, validation, test } = s;
  return { kind: s.kind, shares: { midtrain, rerank, validation, test } };
}

/** Without the keys that are undefined. */
export const defined = <K extends string>(o: Readonly<Partial<Record<K, string | undefined>>>): { [P in K]?: string } =>
  Object.fromEntries(Object.entries(o).filter(([, v]) => v !== undefined)) as { [P in K]?: string };
