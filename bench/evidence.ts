/**
 * The evidence on MovieLens-100K: how fast it scores slates of 50 candidates as a server would, one slate at a time on
 * one core, and how much better the listwise model orders validation slates (the test segment is not used). Trees: a
 * model of 150 trees with
 * 15 leaves each, drawn at random, since their cost depends only on their number and size.
 *   npm run bench -- evidence [CACHE_DIR] [PYTHON]
 */

import { familyNames } from "../src/config/schema/evidence.ts";
import { Rng } from "../src/core/rng.ts";
import { buildDataset } from "../src/data/dataset.ts";
import { fetchMovieLens100k } from "../src/data/fetch.ts";
import { splitByPosition, trainingView } from "../src/data/split.ts";
import type { FeatureInput } from "../src/evidence/families/family.ts";
import { Features } from "../src/evidence/features.ts";
import { itemTable } from "../src/evidence/items.ts";
import { Statistics } from "../src/evidence/statistics.ts";
import { parseTrees, predictTrees } from "../src/evidence/trees.ts";
import { fitItemKnn } from "../src/prerank/item-knn.ts";
import { buildSlates } from "../src/prerank/slates.ts";
import type { Benchmark } from "./claim.ts";

const size = 50;
const numTrees = 150;
const numLeaves = 15;

export const bench: Benchmark = async (emit, [dir = "data", python = ".venv/bin/python"]) => {
  const dataset = await buildDataset({
    name: "ml-100k",
    source: await fetchMovieLens100k({ dir, python }),
    prepare: { minUserInteractions: 5, minItemInteractions: 1, repeats: "first" },
    neutralise: (s) => s,
    neutraliseId: "none",
  });
  const data = splitByPosition(dataset);
  const view = trainingView(data, "rerank");
  const options = { size, repeats: "unseen", minHistory: 1 } as const;
  const { slates } = await buildSlates(data, "validation", fitItemKnn(view), options);
  const rng = Rng.of(0, "bench evidence");
  const cols = 384;
  const vectors = Float32Array.from({ length: dataset.items.length * cols }, () => rng.uniform() - 0.5);
  const items = itemTable(dataset.items, { rows: dataset.items.length, cols, data: vectors });
  const features = new Features(items, new Statistics(view, true), familyNames);
  const inputs = slates.map(({ user, position, candidates, scores }): FeatureInput => {
    const { items: sequence, times } = dataset.sequences[user] as (typeof dataset.sequences)[number];
    return { history: sequence.subarray(0, position), now: times[position - 1] as number, candidates, scores };
  });
  const rows = inputs.slice(0, 2000).map((q) => features.of(q));
  const trees = parseTrees(randomTrees(rows, features.count, rng));
  const out = new Float64Array(size);
  const perSecond = (work: () => void): number => {
    work(); // warm
    const before = process.cpuUsage();
    work();
    const { user, system } = process.cpuUsage(before);
    return (1e6 * rows.length) / (user + system);
  };
  const asked = inputs.slice(0, rows.length);
  const n = rows.length;
  const row = new Float32Array(size * features.count);
  const unit = "slates/CPU second";
  emit({
    claim: `evidence/${features.count} features of slates of ${size}`,
    ...{ value: perSecond(() => asked.forEach((q) => void features.write(q, row))), unit, n },
  });
  emit({
    claim: `evidence/${numTrees} trees on slates of ${size}`,
    ...{ value: perSecond(() => rows.forEach((r) => void predictTrees(trees, r, out))), unit, n },
  });
  emit({
    claim: `evidence/features and trees on slates of ${size}`,
    value: perSecond(() => {
      for (const q of asked) {
        features.write(q, row);
        predictTrees(trees, row, out);
      }
    }),
    ...{ unit, n, bar: ["value", ">=", 5000] },
  });
};

/** LightGBM's text format: balanced trees that cut at values the features really take. */
function randomTrees(rows: readonly Float32Array[], F: number, rng: Rng): string {
  const trees = Array.from({ length: numTrees }, (_, t) => {
    const nodes = Array.from({ length: numLeaves - 1 }, () => {
      const f = rng.int(F);
      const x = rng.pick(rows)[rng.int(size) * F + f] as number;
      return { f, x: Number.isNaN(x) ? 0 : x };
    });
    // A heap: the children of node k are 2k + 1 and 2k + 2; beyond the nodes they are leaves.
    const child = (k: number): number => (k < nodes.length ? k : -(k - nodes.length) - 1);
    const list = (of: (k: number) => number): string => nodes.map((_, k) => of(k)).join(" ");
    return [
      ...[`Tree=${t}`, `num_leaves=${numLeaves}`, "num_cat=0", `split_feature=${nodes.map((n) => n.f).join(" ")}`],
      ...[`threshold=${nodes.map((n) => n.x).join(" ")}`, `decision_type=${list(() => 10)}`],
      ...[`left_child=${list((k) => child(2 * k + 1))}`, `right_child=${list((k) => child(2 * k + 2))}`],
      ...[`leaf_value=${Array.from({ length: numLeaves }, () => rng.uniform() - 0.5).join(" ")}`, "is_linear=0", ""],
    ].join("\n");
  });
  return [`tree\nmax_feature_idx=${F - 1}\n`, ...trees].join("\n");
}
