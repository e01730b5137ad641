/**
 * Pre-rankers compared as the literature compares them: leave one out, every user, all items that are not in the
 * history. Each is fitted by the product's code; R@K and N@K count a miss as a miss.
 *   npm run bench -- retrieval --config configs/beauty-retrieval.yaml --set data.path=FOLDER
 *     [--kinds popularity,itemknn,sasrec,generative] [--seeds 0,1,2] [--run NAME] [--root runs] [--users N] [--test]
 * Reports validation; --test adds the test segment, to be used once, when nothing is left to choose. --users samples
 * some users for a quick look. A finished fit with the same settings is reused from the run's folder (after a change of
 * code, use another --run or delete it), and an interrupted fit resumes.
 */
import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { openData } from "../src/artifacts/dataset.ts";
import { readJson, writeJson } from "../src/artifacts/files.ts";
import { runPipeline } from "../src/cli/pipeline.ts";
import { loadConfig } from "../src/config/load.ts";
import type { Config } from "../src/config/schema.ts";
import { ConfigError } from "../src/core/errors.ts";
import { hashJson } from "../src/core/hash.ts";
import { unitHash } from "../src/core/rng.ts";
import { checkSlates } from "../src/data/leakage.ts";
import { ndcgAt, recallAt } from "../src/eval/metrics.ts";
import { planFits } from "../src/prerank/fits.ts";
import { buildSlates, type SlateSegment } from "../src/prerank/slates.ts";
import { readManifest } from "../src/run/manifest.ts";
import { RunFolder } from "../src/run/run-folder.ts";
import type { StageContext } from "../src/run/stage.ts";
import { preRankerFitter } from "../src/stages/prerankers/fitter.ts";
import { runtimeOptions, startWorker } from "../src/worker/launcher.ts";
import type { WorkerClient } from "../src/worker/types.ts";
import type { Benchmark, Measurement } from "./claim.ts";

const kinds = ["popularity", "itemknn", "sasrec", "generative"] as const;
type Kind = (typeof kinds)[number];

/**
 * Amazon Beauty 5-core, leave one out, test, as published; R@K of one positive is HR@K. `peerKind`: its counterpart.
 */
const publishedOnBeauty: readonly Published[] = [
  { system: "SASRec as OneRec-Think reports it", values: { "R@5": 0.0402, "N@5": 0.0254 }, peerKind: "sasrec" },
  { system: "a well-trained full-softmax SASRec, about", values: { "R@10": 0.083 }, peerKind: "sasrec" },
  { system: "TIGER", values: { "R@5": 0.0405, "N@5": 0.0267 }, peerKind: "generative" },
  { system: "OneRec-Think", values: { "R@5": 0.0563, "N@5": 0.0398 } },
];

interface Published {
  readonly system: string;
  readonly values: Readonly<Record<string, number>>;
  readonly peerKind?: Kind;
}

/** One row of the table. */
interface Result {
  readonly kind: Kind;
  readonly segment: SlateSegment;
  readonly values: Readonly<Record<string, number>>;
}

const depth = 10;

export const bench: Benchmark = async (emit, args) => {
  const { values: o } = parseArgs({
    args: [...args],
    options: {
      config: { type: "string", default: "configs/beauty-retrieval.yaml" },
      kinds: { type: "string", default: kinds.join(",") },
      seeds: { type: "string", default: "0" },
      set: { type: "string", multiple: true, default: [] },
      run: { type: "string", default: "retrieval" },
      root: { type: "string", default: "runs" },
      users: { type: "string", default: "0" },
      test: { type: "boolean", default: false },
    },
  });
  const chosen = o.kinds.split(",").map((name) => {
    const kind = kinds.find((k) => k === name);
    if (!kind) throw new ConfigError(`--kinds ${name}: there are ${kinds.join(", ")}`);
    return kind;
  });
  const segments: SlateSegment[] = o.test ? ["validation", "test"] : ["validation"];
  const results: Result[] = [];
  for (const seed of o.seeds.split(","))
    for (const kind of chosen) {
      const set = [...o.set, `seed=${seed}`, `prerank.kind=${kind}`];
      // The generative pre-ranker is the mid-trained LM; the others need nothing but the data.
      const until = kind === "generative" ? "midtrain" : "data";
      const name = `${o.run}-${seed}`;
      await runPipeline({ config: o.config, set, run: name, root: o.root, until, share: true }, process.stderr);
      const { measured, rows } = await measure(loadConfig(o.config, set), name, o.root, segments, Number(o.users));
      for (const m of measured) emit(m);
      results.push(...rows);
    }
  process.stderr.write(`\n${table(results, loadConfig(o.config, o.set).data.name === "beauty")}\n`);
};

/** Fits (or finds fitted) and ranks one kind with one seed. */
async function measure(
  config: Config,
  run: string,
  root: string,
  segments: readonly SlateSegment[],
  users: number,
): Promise<{ measured: Measurement[]; rows: Result[] }> {
  const kind = config.prerank.kind as Kind; // --kinds set it
  const folder = RunFolder.view(root, run);
  const { seed, runtime } = config;
  const key = hashJson({ kind, sasrec: config.prerank.sasrec, seed, runtime, data: config.data }).slice(0, 8);
  const own = join(folder.path, "retrieval", `${kind}-${key}`);
  mkdirSync(join(own, "work"), { recursive: true });
  const needsWorker = kind === "sasrec" || kind === "generative";
  const running = needsWorker ? await startWorker(runtimeOptions(config, folder.file("worker.log"))) : undefined;
  try {
    const context = makeContext(config, own, folder, running?.client);
    const data = await openData(context);
    let begin = performance.now();
    const [late] = planFits(data, { folds: 0, refit: false, seed, midtrain: false });
    if (!late) throw new ConfigError("nothing to fit");
    const preRanker = await preRankerFitter(context, data, kind)(late.view, late);
    const fit = readFitCost(folder.path, own, kind, {
      seconds: (performance.now() - begin) / 1000,
      bytes: await peakBytes(running?.client),
    });

    const label = (what: string): string => `retrieval/${what} of ${preRanker.name}, ${config.data.name}, seed ${seed}`;
    const measured: Measurement[] = [
      { claim: label("seconds to fit"), value: fit.seconds, unit: "s", n: 1 },
      { claim: label("peak memory to fit"), value: fit.bytes / 2 ** 20, unit: "MiB", n: 1 },
      { claim: label("numbers stored"), value: preRanker.parameters, unit: "numbers", n: 1 },
    ];
    const rows: Result[] = [];
    const share = users / data.splits.length;
    const keepUser = (user: number): boolean => users === 0 || unitHash(seed, "retrieval-users", user) < share;
    for (const segment of segments) {
      begin = performance.now();
      const options = { size: depth, repeats: "unseen", minHistory: 1 } as const;
      const { slates } = await buildSlates(data, segment, preRanker, options, keepUser, (done, total) =>
        context.progress(`${segment} slates`, done, total),
      );
      const seconds = (performance.now() - begin) / 1000;
      checkSlates(data, slates, { repeats: "unseen" });
      const ranks = slates.map((s) => (s.targetIndex < 0 ? Number.POSITIVE_INFINITY : s.targetIndex + 1));
      const mean = (f: (rank: number) => number): number => ranks.reduce((a, r) => a + f(r), 0) / ranks.length;
      const values: Record<string, number> = {};
      for (const k of [5, 10]) {
        values[`R@${k}`] = mean((r) => recallAt(r, k));
        values[`N@${k}`] = mean((r) => ndcgAt(r, k));
      }
      rows.push({ kind, segment, values: { ...values, users: ranks.length, "fit s": fit.seconds } });
      for (const [metric, value] of Object.entries(values)) {
        const published = publishedOnBeauty.find((p) => p.peerKind === kind && p.values[metric] !== undefined);
        const peer = config.data.name === "beauty" && segment === "test" ? published : undefined;
        const peerResult = peer ? { peer: peer.system, peerValue: peer.values[metric] as number } : {};
        measured.push({ claim: label(`${segment} ${metric}`), value, unit: metric, n: ranks.length, ...peerResult });
      }
      const milliseconds = (1000 * seconds) / ranks.length;
      measured.push({
        claim: label(`${segment}, milliseconds per user`),
        value: milliseconds,
        unit: "ms",
        n: ranks.length,
      });
    }
    const bytes = await peakBytes(running?.client);
    measured.push({ claim: label("peak memory to rank"), value: bytes / 2 ** 20, unit: "MiB", n: 1 });
    return { measured, rows };
  } finally {
    await running?.close();
  }
}

interface Cost {
  readonly seconds: number;
  readonly bytes: number;
}

/** The original cost of the fit: for mid-training from the manifest, for SASRec of the attempt that finished it. */
function readFitCost(run: string, own: string, kind: Kind, now: Cost): Cost {
  if (kind === "generative") {
    const stage = readManifest(run)?.stages.midtrain;
    return stage ? { seconds: stage.seconds, bytes: stage.peak_bytes } : now;
  }
  const file = join(own, "fit.json");
  if (kind !== "sasrec") return now;
  if (!existsSync(file)) writeJson(file, now);
  return readJson<Cost>(file);
}

/** Peak resident memory of the worker or, without one, of this process. */
const peakBytes = async (worker: WorkerClient | undefined): Promise<number> =>
  worker ? (await worker.getInfo()).memoryUsedBytes : process.resourceUsage().maxRSS * 1024;

/** A stage's context whose folder is `own` and whose inputs are the run's finished stages. */
function makeContext(config: Config, own: string, folder: RunFolder, worker: WorkerClient | undefined): StageContext {
  const cursorFile = join(own, "work", "cursor.json");
  let said = 0;
  return {
    config,
    dir: own,
    signal: new AbortController().signal,
    work: (name) => join(own, "work", name),
    inputDir: (stage) => folder.stageFolder(stage),
    worker: async () => {
      if (!worker) throw new ConfigError(`prerank.kind = ${config.prerank.kind} has no worker`);
      return worker;
    },
    log: (message) => process.stderr.write(`${new Date().toISOString()} ${message}\n`),
    progress: (label, done, total) => {
      if (done < total && performance.now() - said < 30_000) return;
      said = performance.now();
      process.stderr.write(`${new Date().toISOString()} ${label} ${done}/${total}\n`);
    },
    metrics: () => {},
    rollout: () => {},
    cursor: {
      read: <T>() => (existsSync(cursorFile) ? readJson<T>(cursorFile) : undefined),
      write: (value) => writeJson(cursorFile, value),
    },
  };
}

/** Markdown: one row per kind and segment, means over seeds, and published numbers. */
function table(results: readonly Result[], onBeauty: boolean): string {
  const columns = ["R@5", "R@10", "N@5", "N@10"];
  const lines = [
    `| pre-ranker | segment | seeds | users | ${columns.join(" | ")} | fit s |`,
    `|---|---|---|---|${"---|".repeat(columns.length + 1)}`,
  ];
  for (const name of new Set(results.map((r) => `${r.kind} | ${r.segment}`))) {
    const of = results.filter((r) => `${r.kind} | ${r.segment}` === name);
    const mean = (column: string): number => of.reduce((sum, r) => sum + (r.values[column] ?? 0), 0) / of.length;
    const cells = columns.map((c) => mean(c).toFixed(4));
    lines.push(`| ${name} | ${of.length} | ${mean("users")} | ${cells.join(" | ")} | ${mean("fit s").toFixed(0)} |`);
  }
  if (onBeauty)
    for (const { system, values } of publishedOnBeauty)
      lines.push(`| ${system} | test | | 22363 | ${columns.map((c) => values[c]?.toFixed(4) ?? "").join(" | ")} | |`);
  return lines.join("\n");
}
