/** What stage data left, and the settings for reading and splitting, as src/data takes them. */
import { statSync } from "node:fs";
import { basename, dirname } from "node:path";
import type { Config } from "../config/schema.ts";
import { ConfigError } from "../core/errors.ts";
import type { AdapterOptions } from "../data/adapters/index.ts";
import { type FileNames, given } from "../data/adapters/locate.ts";
import { loadDataset } from "../data/cache.ts";
import { type SplitOptions, split } from "../data/split.ts";
import type { SplitDataset } from "../data/types.ts";
import type { StageContext } from "../run/stage.ts";

/** The settings as adapters take them. `data.path` may name the interactions file instead of its folder. */
export function adapterOptions(o: Config["data"]): AdapterOptions {
  const isFile = statSync(o.path, { throwIfNoEntry: false })?.isFile() ?? false;
  const path = isFile ? dirname(o.path) : o.path;
  const interactions = o.files.interactions ?? (isFile ? basename(o.path) : undefined);
  const { items } = o.files;
  const { user, item, time, rating, id, title, brand, categories, description } = o.columns;
  const columns = given({ user, item, time, rating });
  const itemColumns = given({ id, title, brand, categories, description });
  const reading = {
    timeUnit: o.timeUnit,
    ...(Object.keys(o.keep).length > 0 ? { keep: o.keep } : {}),
    ...(o.encoding === "auto" ? {} : { encoding: o.encoding }),
  };
  const several = o.adapter === "table" || o.adapter === "impressions";
  const one = several ? {} : given({ interactions: oneFile(interactions), items: oneFile(items) });
  switch (o.adapter) {
    case "recbole":
      return { kind: o.adapter, path, ...one, columns, itemColumns, ...reading };
    case "ml-100k":
    case "movielens":
      return { kind: "movielens", path };
    case "module":
      return { kind: "table", path, columns: { ...usual, item: "item_id" } }; // new items come as a table
    case "sequences":
      return { kind: o.adapter, path, ...one, itemColumns };
    case "impressions": {
      const { slate, position, score, label, candidates, scores, labels, positives } = o.columns;
      const shown = { slate, item, position, score, label, candidates, scores, labels, positives };
      return {
        kind: o.adapter,
        path,
        impressions: o.files.impressions ?? "impressions.csv",
        ...given({ interactions: o.files.interactions, items }),
        columns: { ...usual, ...given({ user, time }), ...given(shown) },
        interactionColumns: { ...usual, item: "item_id", ...columns },
        itemColumns,
        categorySeparator: o.categorySeparator,
        ...reading,
      };
    }
    case "table":
      return {
        kind: o.adapter,
        path,
        ...given({ interactions, items, itemIds: o.files.itemIds }),
        columns: { user: "user_id", item: "item_id", ...columns },
        itemColumns,
        categorySeparator: o.categorySeparator,
        clock: o.clock,
        ...reading,
      };
    case "mind":
      return {
        kind: o.adapter,
        path,
        ...given({ impressions: oneFile(o.files.impressions) ?? one.interactions, items: one.items }),
      };
    case "next-item":
      return { kind: o.adapter, path, ...one };
    case "retailrocket":
      return { kind: o.adapter, path, ...given({ interactions: one.interactions }), ...given({ keep: reading.keep }) };
    default:
      return {
        kind: o.adapter,
        path,
        ...given({ reviews: one.interactions, metadata: one.items }),
        columns,
        itemColumns,
      };
  }
}

/** For layouts with a single file. */
function oneFile(names: FileNames | undefined): string | undefined {
  if (names === undefined || typeof names === "string") return names;
  if (names.length === 1) return names[0];
  throw new ConfigError(`data.files: this adapter reads one file, not ${names.join(", ")}.`, {
    advice: "The table adapter reads several.",
  });
}

const usual = { user: "user_id", time: "timestamp" };

export async function openData(context: StageContext): Promise<SplitDataset> {
  return split(await loadDataset(context.inputDir("data")), splitOptions(context.config.data.split));
}

/** The split's settings as data/split takes them. */
export function splitOptions(s: StageContext["config"]["data"]["split"]): SplitOptions {
  if (s.kind === "leave-one-out") return { kind: "leave-one-out", rerankItems: s.rerankItems };
  const { midtrain, rerank, validation, test } = s;
  return { kind: s.kind, shares: { midtrain, rerank, validation, test } };
}
