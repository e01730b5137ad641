/**
 * Semantic IDs: CPU seconds and peak memory of every step (embed, fit, encode, report) and how unique the IDs are, at
 * our defaults, compared with MiniOneRec's recipe on the same embeddings, with the same levels and codes, on one thread
 * of this machine.
 *   npm run bench -- sid [--config RECIPE] [--set k=v] [--embeddings FILE.f32] [--budget SECONDS] [--python FILE]
 *     [--full] [--kmeans]
 * `--embeddings`: the matrix of a finished run (stages/embed/embeddings.f32) instead of data and embedding. The peer
 * runs twice on our encoder's widths: for as many CPU seconds as our fit took, and for `--budget` (default 60).
 * `--full`: also for the budget with its own, much larger encoder. `--kmeans`: also its constrained RQ-KMeans, which
 * needs the package
 * k-means-constrained. Items with equal embeddings limit what nearest codes can reach.
 */
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { readMatrix, writeMatrix } from "../src/artifacts/files.ts";
import { prepareData } from "../src/commands/sid-ablation.ts";
import { loadConfig } from "../src/config/load.ts";
import type { Config } from "../src/config/schema.ts";
import { EnvironmentError } from "../src/core/errors.ts";
import { loadDataset } from "../src/data/cache.ts";
import { fetchMiniLm } from "../src/data/fetch.ts";
import { itemText } from "../src/models/embedder.ts";
import { Catalogue } from "../src/sid/catalogue.ts";
import { sidReport } from "../src/sid/report.ts";
import { runtimeOptions, startWorker } from "../src/worker/launcher.ts";
import type { Matrix, WorkerClient } from "../src/worker/types.ts";
import { type Benchmark, timed } from "./claim.ts";

/** The output of peers/minionerec_sid.py. */
interface PeerResult {
  readonly epochs: number;
  /** The epoch with the fewest collisions, which the recipe keeps. */
  readonly kept_epoch: number;
  readonly fit_cpu_seconds: number;
  readonly encode_cpu_seconds: number;
  readonly repair_cpu_seconds: number;
  readonly repair_rounds: number;
  readonly uniqueness_nearest: number;
  readonly uniqueness: number;
  readonly lost_variance: number;
  readonly peak_bytes: number;
}

type PeerMethod = "rqvae" | "kmeans";

const gib = 2 ** 30;

export const bench: Benchmark = async (emit, args) => {
  const { values: o } = parseArgs({
    args: [...args],
    options: {
      config: { type: "string", default: "configs/ablations/sid-ml100k.yaml" },
      set: { type: "string", multiple: true, default: [] },
      embeddings: { type: "string" },
      budget: { type: "string", default: "60" },
      python: { type: "string", default: ".venv/bin/python" },
      full: { type: "boolean", default: false },
      kmeans: { type: "boolean", default: false },
    },
  });
  const config = loadConfig(o.config, [...o.set, "runtime.threads=1", "runtime.device=cpu"]);
  const folder = mkdtempSync(join(tmpdir(), "gr2-bench-"));
  const running = await startWorker(runtimeOptions(config, join(folder, "worker.log")));
  try {
    const worker = running.client;
    const cpu = cpuClock(worker, running.pid);
    const information = (claim: string, value: number, unit: string, n: number) =>
      emit({ claim: `sid/${claim}`, value, unit, n });
    let titles: string[] | undefined;
    let embeddings: Matrix;
    if (o.embeddings !== undefined) embeddings = readMatrix(o.embeddings);
    else {
      const items = await loadItems(config, worker, folder);
      titles = items.map((item) => item.title);
      await cpu();
      embeddings = await embed(
        config,
        worker,
        items.map((item) => itemText(item, config.embed.fields)),
      );
      information("CPU seconds to embed the items", await cpu(), "s", items.length);
    }
    const n = embeddings.rows;
    await cpu();
    const fitted = await worker.fitSemanticIds({ embeddings, config: { ...config.sid, seed: config.seed } });
    const fitSeconds = await cpu();
    const taken = { rows: 0, cols: config.sid.levels, data: new Int32Array() };
    await worker.encodeSemanticIds({ artifact: fitted.artifact, embeddings, taken });
    information("CPU seconds to encode the items from the artifact", await cpu(), "s", n);
    information("peak memory of the worker", (await worker.getInfo()).memoryUsedBytes / gib, "GiB", n);
    const report = timed(3, () => {
      const catalogue = Catalogue.fromMatrix(fitted.codes, config.sid.codes, config.sid.format);
      return sidReport({ catalogue, titles: titles ?? Array.from({ length: n }, () => "") });
    });
    information("CPU seconds of the report", report.seconds, "s", 3);

    const file = join(folder, "embeddings.f32");
    writeMatrix(file, embeddings);
    information(
      "items with a unique embedding: the most that nearest codes can reach",
      ownShare(embeddings),
      "share",
      n,
    );
    const own = "MiniOneRec's RQ-VAE recipe on our encoder's widths";
    const peers: [name: string, method: PeerMethod, layers: readonly number[], budget: number][] = [
      [own, "rqvae", config.sid.hiddenDims, fitSeconds],
      [own, "rqvae", config.sid.hiddenDims, Number(o.budget)],
    ];
    if (o.full) peers.push(["MiniOneRec's RQ-VAE recipe, its own encoder", "rqvae", [], Number(o.budget)]);
    if (o.kmeans) peers.push(["MiniOneRec's constrained RQ-KMeans", "kmeans", [], Number.POSITIVE_INFINITY]);
    for (const [name, method, layers, budget] of peers) {
      const theirs = askPeer(o.python, method, file, config, layers, budget);
      const how = `, epoch ${theirs.kept_epoch} of ${theirs.epochs} in ${budget.toFixed(0)} s, ${theirs.repair_rounds} rounds of repair`;
      const peer = method === "rqvae" ? name + how : `${name}, a running number where items collide`;
      emit({
        claim: "sid/CPU seconds of fitting and assigning IDs",
        value: fitSeconds,
        unit: "s",
        n,
        peer,
        peerValue: theirs.fit_cpu_seconds + theirs.encode_cpu_seconds + theirs.repair_cpu_seconds,
      });
      const compare = (claim: string, value: number | undefined, peerValue: number) =>
        emit({ claim: `sid/${claim}`, value: value ?? Number.NaN, unit: "share", n, peer, peerValue });
      compare("items with a unique ID", fitted.metrics.uniqueness, theirs.uniqueness);
      compare("the same with nearest codes only", fitted.metrics.uniqueness_nearest, theirs.uniqueness_nearest);
      compare("variance the nearest codes lose", fitted.metrics.reconstruction, theirs.lost_variance);
      information(`peak memory of the peer's process (${peer})`, theirs.peak_bytes / gib, "GiB", n);
    }
    emit({
      claim: "sid/items with a unique ID, at our defaults",
      value: fitted.metrics.uniqueness ?? Number.NaN,
      unit: "share",
      n,
      bar: ["value", ">=", 0.99],
    });
  } finally {
    await running.close();
    rmSync(folder, { recursive: true, force: true });
  }
};

/** Share of rows that no other row equals. */
function ownShare({ rows, cols, data }: Matrix): number {
  const counts = new Map<string, number>();
  const keys = Array.from({ length: rows }, (_, row) => data.subarray(row * cols, (row + 1) * cols).join());
  for (const key of keys) counts.set(key, (counts.get(key) ?? 0) + 1);
  return keys.filter((key) => counts.get(key) === 1).length / Math.max(1, rows);
}

async function loadItems(config: Config, worker: WorkerClient, folder: string) {
  const signal = new AbortController().signal;
  const workspace = { dir: folder, worker: async () => worker, signal, log: () => {}, progress: () => {} };
  return (await loadDataset(await prepareData(workspace, config))).items;
}

async function embed(config: Config, worker: WorkerClient, texts: readonly string[]): Promise<Matrix> {
  const { model, batchSize } = config.embed;
  const { cacheDir } = config.data;
  const modelPath = model === "minilm" ? await fetchMiniLm({ dir: cacheDir, python: config.runtime.python }) : model;
  return worker.embed({ modelPath, texts, batchSize, normalize: true });
}

/** CPU seconds of the worker since the last call; where the system does not tell them, seconds inside verbs. */
function cpuClock(worker: WorkerClient, pid: number | undefined): () => Promise<number> {
  let last = 0;
  return async () => {
    const now = cpuSeconds(pid) ?? (await worker.getInfo()).busySeconds;
    const spent = now - last;
    last = now;
    return spent;
  };
}

/** User and system time of a process on Linux, in its clock ticks of 10 ms. */
function cpuSeconds(pid: number | undefined): number | undefined {
  const file = `/proc/${pid}/stat`;
  if (pid === undefined || !existsSync(file)) return undefined;
  const stat = readFileSync(file, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" "); // from field 3, state; utime and stime are 14 and 15
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

const oneThread = { OMP_NUM_THREADS: "1", OPENBLAS_NUM_THREADS: "1", MKL_NUM_THREADS: "1" };

function askPeer(
  python: string,
  method: PeerMethod,
  file: string,
  config: Config,
  layers: readonly number[],
  budget: number,
): PeerResult {
  const script = ["bench/peers/minionerec_sid.py", method, file];
  const shape = ["--levels", config.sid.levels, "--codes", config.sid.codes, "--budget", budget].map(String);
  const width = layers.length > 0 ? ["--layers", ...layers.map(String)] : [];
  try {
    const out = execFileSync(python, [...script, ...shape, ...width], { encoding: "utf8", env: oneThread });
    return JSON.parse(out) as PeerResult;
  } catch (cause) {
    throw new EnvironmentError("the peer of this benchmark did not run", {
      cause,
      advice: "Run make setup; --kmeans also needs the Python package k-means-constrained.",
    });
  }
}
