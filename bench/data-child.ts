/**
 * What bench/data.ts starts and measures: the product's buildDataset on one file, and nothing else in the process.
 *   node --import tsx bench/data-child.ts GIVEN_JSON    prints one JSON line (BuildReport)
 */
import { createHash } from "node:crypto";
import { rmSync, statSync } from "node:fs";
import { loadDataset, saveDataset } from "../src/data/cache.ts";
import { buildDataset } from "../src/data/dataset.ts";
import type { Dataset } from "../src/data/types.ts";

/** Input: a file with columns user, item, rating, time. */
export interface BuildTask {
  readonly folder: string;
  readonly file: string;
  readonly core: number;
  /** Folder to save the finished data set to and load it from; without it nothing is saved. */
  readonly cache?: string;
  readonly maxBadShare?: number;
}

export interface BuildReport {
  readonly seconds: number;
  /** All threads of the process. */
  readonly cpuSeconds: number;
  /** Peak of the resident set, mebibytes. */
  readonly peakMb: number;
  readonly users: number;
  readonly interactions: number;
  /** SHA-256 over lines `user item item ...`, users in order of their ids. */
  readonly sequences: string;
  /** CPU seconds, all threads. */
  readonly cache?: { readonly saveSeconds: number; readonly loadSeconds: number; readonly mb: number };
}

const elapsed = (since: number): number => (performance.now() - since) / 1000;
const cpuSeconds = (since: NodeJS.CpuUsage): number => {
  const { user, system } = process.cpuUsage(since);
  return (user + system) / 1e6;
};

function sequencesHash({ sequences, items }: Dataset): string {
  const hash = createHash("sha256");
  const order = sequences.map((_, row) => row).sort((a, b) => (name(a) < name(b) ? -1 : 1));
  function name(row: number): string {
    return sequences[row]?.user ?? "";
  }
  for (const row of order) {
    const ids = Array.from(sequences[row]?.items ?? [], (i) => items[i]?.id ?? "");
    hash.update(`${name(row)} ${ids.join(" ")}\n`);
  }
  return hash.digest("hex");
}

const task = JSON.parse(process.argv[2] ?? "{}") as BuildTask;
const cpu = process.cpuUsage();
const start = performance.now();
const dataset = await buildDataset({
  name: "bench",
  source: {
    kind: "table",
    path: task.folder,
    interactions: task.file,
    columns: { user: "user", item: "item", rating: "rating", time: "time" },
  },
  prepare: { minUserInteractions: task.core, minItemInteractions: task.core, repeats: "first" },
  neutralise: (text) => text,
  neutraliseId: "none",
  ...(task.maxBadShare === undefined ? {} : { maxBadShare: task.maxBadShare }),
});
const seconds = elapsed(start);
const buildCpuSeconds = cpuSeconds(cpu);
const peakMb = process.resourceUsage().maxRSS / 1024;
let cache: BuildReport["cache"];
if (task.cache !== undefined) {
  const saving = process.cpuUsage();
  const files = await saveDataset(dataset, task.cache);
  const saveSeconds = cpuSeconds(saving);
  const loading = process.cpuUsage();
  await loadDataset(task.cache);
  cache = {
    saveSeconds,
    loadSeconds: cpuSeconds(loading),
    mb: files.reduce((n, f) => n + statSync(f).size, 0) / 2 ** 20,
  };
  for (const file of files) rmSync(file);
}
const report: BuildReport = {
  seconds,
  cpuSeconds: buildCpuSeconds,
  peakMb,
  users: dataset.stats.users,
  interactions: dataset.stats.interactions,
  sequences: sequencesHash(dataset),
  ...(cache ? { cache } : {}),
};
process.stdout.write(`${JSON.stringify(report)}\n`);
