/**
 * Pre-ranker and statistical teacher on MovieLens-100K, rerank and validation slates only (the test is not touched):
 *   npx tsx bench/prerank-ml100k.ts [CACHE_DIR] [PYTHON]
 * Prints one JSON line a measurement.
 */
import { buildDataset } from "../src/data/dataset.ts";
import { fetchMovieLens100k } from "../src/data/fetch.ts";
import { checkSlates, checkSplit } from "../src/data/leakage.ts";
import { splitByPosition, trainingView } from "../src/data/split.ts";
import { rankOf } from "../src/eval/metrics.ts";
import { resultsTable } from "../src/eval/table.ts";
import { fitItemKnn } from "../src/prerank/item-knn.ts";
import { fitPopularity } from "../src/prerank/popularity.ts";
import { buildSlates } from "../src/prerank/slates.ts";
import { viewOf } from "../src/teacher/features.ts";
import { rankingFrom, sampleTraces } from "../src/teacher/sampling.ts";
import { fitTeacher } from "../src/teacher/statistical.ts";

const [dir = "data", python = ".venv/bin/python"] = process.argv.slice(2);
const print = (line: object): void => console.log(JSON.stringify(line));
async function timed<T>(claim: string, work: () => T | Promise<T>): Promise<T> {
  const start = performance.now();
  const result = await work();
  print({ claim, value: Math.round(performance.now() - start), unit: "ms" });
  return result;
}

const dataset = await timed("data: build", async () =>
  buildDataset({
    name: "ml-100k",
    source: await fetchMovieLens100k({ dir, python }),
    prepare: { minUserInteractions: 5, minItemInteractions: 1, repeats: "keep" },
    neutralise: (s) => s,
    neutraliseId: "none",
  }),
);
const data = splitByPosition(dataset);
checkSplit(data);
const [early, late] = [trainingView(data, "midtrain"), trainingView(data, "rerank")];
const [knn, lateKnn] = await timed("item-knn: two fits", () => [fitItemKnn(early), fitItemKnn(late)] as const);
const [rerank, validation] = await timed(
  "item-knn: slates of rerank and validation",
  () => [buildSlates(data, "rerank", knn), buildSlates(data, "validation", lateKnn)] as const,
);
checkSlates(data, [...rerank.slates, ...validation.slates], { repeats: "unseen" });
print({ claim: "popularity rerank", ...buildSlates(data, "rerank", fitPopularity(early)).stats });
print({ claim: "item-knn rerank", ...rerank.stats });
print({ claim: "item-knn validation", ...validation.stats });

const teacher = await timed("teacher: fit", () => fitTeacher(dataset, { rerank: early, heldOut: late }, rerank.slates));
for (const { slates } of [rerank, validation]) {
  const list = slates.filter((s) => s.targetIndex >= 0);
  const { comparisons } = await timed("teacher: scores and 10,000 resamples", () =>
    resultsTable({
      users: list.map((s) => s.user),
      missedUsers: [],
      systems: [
        { system: "prerank", ranks: list.map((s) => s.targetIndex + 1) },
        { system: "teacher", ranks: list.map((s) => rankOf(rankingFrom(teacher.scores(viewOf(s))), s.targetIndex)) },
      ],
      baselines: ["prerank"],
    }),
  );
  for (const c of comparisons) print({ segment: list[0]?.segment, ...c });
}
print({ claim: "rejection sampling", ...sampleTraces(teacher, rerank.slates).stats });
