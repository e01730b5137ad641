/**
 * The stage before and the offline teacher on MovieLens-100K, on re-rank and validation slates only (the test is not
 * looked at): how often the true item is among the candidates, and how much better the teacher orders them.
 *   npm run bench -- prerank [CACHE_DIR] [PYTHON]
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
import { rankingFrom, sampleTraces, statisticalTeacher } from "../src/teacher/sampling.ts";
import { fitTeacher } from "../src/teacher/statistical.ts";
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
    claim: "prerank/CPU milliseconds a slate",
    value: (user + system) / 1000 / numSlates,
    unit: "ms",
    n: numSlates,
  });
  checkSlates(data, [...rerank.slates, ...validation.slates], { repeats: "unseen" });

  const popularity = {
    rerank: (await buildSlates(data, "rerank", fitPopularity(early))).stats,
    validation: (await buildSlates(data, "validation", fitPopularity(late))).stats,
  };
  const teacher = fitTeacher(dataset, { rerank: early, heldOut: late }, rerank.slates);
  for (const [segment, { slates, stats }] of Object.entries({ rerank, validation })) {
    emit({
      claim: `prerank/HR@10 of item-kNN, ${segment} slates`,
      value: stats.hitRate,
      unit: "share",
      n: stats.slates,
      peer: "popularity",
      peerValue: popularity[segment as keyof typeof popularity].hitRate,
      bar: ["ratio", ">", 1],
    });
    const list = slates.filter((s) => s.targetIndex >= 0);
    const { rows, comparisons } = resultsTable({
      users: list.map((s) => s.user),
      missedUsers: [],
      systems: [
        { system: "prerank", ranks: list.map((s) => s.targetIndex + 1) },
        { system: "teacher", ranks: list.map((s) => rankOf(rankingFrom(teacher.scores(viewOf(s))), s.targetIndex)) },
      ],
      baselinesOf: () => ["prerank"],
    });
    const ndcg = (system: string): number =>
      rows.find((r) => r.system === system && r.metric === "N@5")?.value ?? Number.NaN;
    const peer = { peer: "the pre-rank", peerValue: ndcg("prerank") };
    emit({
      claim: `prerank/N@5 of the teacher, ${segment}`,
      value: ndcg("teacher"),
      unit: "N@5",
      n: list.length,
      ...peer,
    });
    emit({
      claim: `prerank/lower end of the paired 95 % interval of that difference, ${segment}`,
      value: comparisons.find((c) => c.metric === "N@5")?.ci_low ?? Number.NaN,
      unit: "N@5",
      n: list.length,
      bar: ["value", ">", 0],
    });
  }
  const asked = statisticalTeacher(teacher, { temperature: 1, seed: 0, thoughtOf: () => ({ words: [] }) });
  const { stats } = await sampleTraces(asked, rerank.slates);
  emit({
    claim: "prerank/share of slates with an accepted trace",
    value: stats.acceptance,
    unit: "share",
    n: stats.offered,
  });
};
