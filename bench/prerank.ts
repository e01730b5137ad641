/** The pre-ranker on MovieLens-100K, on re-rank and validation slates only (the test segment is not used): how often
the true item is among the candidates. For how much better evidence orders them see bench/evidence.ts.
 *   npm run bench -- prerank [CACHE_DIR] [PYTHON]
 */
import { buildDataset } from "../src/data/dataset.ts";
import { fetchMovieLens100k } from "../src/data/fetch.ts";
import { checkSlates, checkSplit } from "../src/data/leakage.ts";
import { splitByPosition, trainingView } from "../src/data/split.ts";
import { fitItemKnn } from "../src/prerank/item-knn.ts";
import { fitPopularity } from "../src/prerank/popularity.ts";
import { buildSlates } from "../src/prerank/slates.ts";
import { type Benchmark, timed } from "./claim.ts";

export const bench: Benchmark = async (emit, [dir = "data", python = ".venv/bin/python"]) => {
  const dataset = await buildDataset({
    name: "ml-100k",
    source: await fetchMovieLens100k({ dir, python }),
    prepare: { minUserInteractions: 5, minItemInteractions: 1, repeats: "keep" },
    neutralise: (s) => s,
    neutraliseId: "none",
  });
  const data = splitByPosition(dataset);
  checkSplit(data);
  const [early, late] = [trainingView(data, "midtrain"), trainingView(data, "rerank")];
  const fits = timed(1, () => ({ early: fitItemKnn(early), late: fitItemKnn(late) }));
  emit({ claim: "prerank/CPU seconds of two item-kNN fits", value: fits.seconds, unit: "s", n: 1 });
  const before = process.cpuUsage();
  const rerank = await buildSlates(data, "rerank", fits.result.early);
  const validation = await buildSlates(data, "validation", fits.result.late);
  const { user, system } = process.cpuUsage(before);
  const numSlates = rerank.slates.length + validation.slates.length;
  emit({
    claim: "prerank/CPU milliseconds per slate",
    value: (user + system) / 1000 / numSlates,
    unit: "ms",
    n: numSlates,
  });
  checkSlates(data, [...rerank.slates, ...validation.slates], { repeats: "unseen" });

  const popularity = {
    rerank: (await buildSlates(data, "rerank", fitPopularity(early))).stats,
    validation: (await buildSlates(data, "validation", fitPopularity(late))).stats,
  };
  for (const [segment, { stats }] of Object.entries({ rerank, validation })) {
    emit({
      claim: `prerank/HR@10 of item-kNN, ${segment} slates`,
      value: stats.hitRate,
      unit: "share",
      n: stats.slates,
      peer: "popularity",
      peerValue: popularity[segment as keyof typeof popularity].hitRate,
      bar: ["ratio", ">", 1],
    });
  }
};
