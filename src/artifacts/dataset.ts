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
  const { user, item, time, rating, id, title, brand, categories, description } = o.columns;
  const keep = Object.keys(o.keep).length > 0 ? { keep: mapValues(o.keep, (values) => values.map(String)) } : {};
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
        ...keep,
        itemColumns,
        categorySeparator: o.categorySeparator,
        timeUnit: o.timeUnit,
        clock: o.clock,
      };
    case "mind":
      return { kind: o.adapter, path, ...defined({ impressions: o.files.impressions ?? interactions, items }) };
    case "next-item":
      return { kind: o.adapter, path, ...defined({ interactions, items }) };
    case "retailrocket":
      return { kind: o.adapter, path, ...defined({ interactions }), ...keep };
    default:
      return { kind: o.adapter, path, ...defined({ reviews: interactions, metadata: items }), columns, itemColumns };
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
const defined = <T extends object>(o: T): { [P in keyof T]?: Exclude<T[P], undefined> } =>
  Object.fromEntries(Object.entries(o).filter(([, v]) => v !== undefined)) as {
    [P in keyof T]?: Exclude<T[P], undefined>;
  };

const mapValues = <A, B>(o: Readonly<Record<string, A>>, f: (a: A) => B): Record<string, B> =>
  Object.fromEntries(Object.entries(o).map(([k, v]) => [k, f(v)]));

const usual = { user: "user_id", time: "timestamp" };
