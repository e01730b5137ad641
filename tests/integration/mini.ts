/**
 * A pipeline in miniature for the tests of robustness: a small RecBole-layout data set with text and structure, a
 * recipe whose every stage really runs (a few seconds in all), and the command line as a child process.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { stringify } from "yaml";
import { repositoryRoot } from "../../src/core/paths.ts";
import { Rng } from "../../src/core/rng.ts";

const genres = ["Drama", "Comedy", "Action", "Horror", "Romance"];
const words = [
  "Night",
  "River",
  "Stone",
  "Glass",
  "Summer",
  "Iron",
  "Paper",
  "Silent",
  "Golden",
  "Lost",
  "Last",
  "Blue",
];

export const numUsers = 80;
export const numItems = 60;
const historyLength = 30;

/** Lines of toy.inter and toy.item: users walk a ring of items, genre by genre, with noise. Nobody repeats an item. */
export function miniLines(seed = 1): { inter: string[]; item: string[] } {
  const rng = Rng.of(seed, "mini");
  const item = ["item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq"];
  for (let i = 0; i < numItems; i++) {
    const title = `${words[i % words.length]} ${words[(5 * i + 3) % words.length]} ${i}`;
    item.push(`${100 + i}\t${title}\t${1950 + i}\t${genres[Math.floor(i / 12)]} ${genres[(i * 7) % 5]}`);
  }
  const inter = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"];
  for (let u = 0; u < numUsers; u++) {
    const seen = new Set<number>();
    let at = rng.int(numItems);
    while (seen.size < historyLength) {
      at = rng.uniform() < 0.15 ? rng.int(numItems) : (at + 1 + rng.int(3)) % numItems;
      if (seen.has(at)) continue;
      seen.add(at);
      inter.push(`u${u}\t${100 + at}\t${1 + rng.int(5)}\t${880_000_000 + 1000 * u + seen.size}`);
    }
  }
  return { inter, item };
}

/** Writes the data set and returns its folder. */
export function writeMiniData(folder: string, lines = miniLines()): string {
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "toy.inter"), `${lines.inter.join("\n")}\n`);
  writeFileSync(join(folder, "toy.item"), `${lines.item.join("\n")}\n`);
  return folder;
}

/** The recipe; `data` is the folder of writeMiniData. Checkpoints are frequent, so that a killed run really resumes. */
export const miniRecipe = (data: string) => ({
  runtime: { threads: 1, device: "cpu" },
  data: { name: "toy", adapter: "recbole", path: data, minInteractions: 0, cacheDir: join(repositoryRoot, "data") },
  sid: { levels: 2, codes: 16, format: "bare", hiddenDims: [32], latentDim: 8, epochs: 60, batchSize: 60 },
  model: {
    bpeVocab: 300,
    architecture: {
      model_type: "qwen3",
      hidden_size: 32,
      intermediate_size: 64,
      num_hidden_layers: 1,
      num_attention_heads: 2,
      num_key_value_heads: 2,
      head_dim: 16,
      max_position_embeddings: 512,
      tie_word_embeddings: true,
      embedding_dropout: 0.1,
    },
  },
  midtrain: { epochs: 6, batchTokens: 512, windowItems: 20, windowStride: 10, checkpointSteps: 5, warmupSteps: 5 },
  prerank: { candidates: 5 },
  prompts: { historyItems: 12 },
  decoding: { maxReasoningTokens: 64 },
  sft: { epochs: 2, batchSlates: 16, checkpointSteps: 3, warmupSteps: 2 },
  rl: {
    steps: 8,
    prompts: 6,
    group: 4,
    learningRate: 1e-3,
    keepBest: false,
    evalSteps: 3,
    evalSlates: 20,
    checkpointSteps: 2,
    warmupSteps: 1,
  },
  eval: { validationSlates: 40, maxSlates: 60, bootstrap: 500, examples: 2 },
});

export type Recipe = ReturnType<typeof miniRecipe>;

export interface Workspace {
  readonly folder: string;
  readonly config: string;
  readonly root: string;
}

/**
 * A folder with data, recipe and an empty folder for runs. Removed by nobody: it lies under the system's temp folder.
 */
export function workplace(change: (recipe: Recipe) => unknown = (r) => r): Workspace {
  const folder = mkdtempSync(join(tmpdir(), "gr2test-"));
  const config = join(folder, "mini.yaml");
  const recipe = change(miniRecipe(writeMiniData(join(folder, "data"))));
  mkdirSync(join(folder, "tmp"));
  writeFileSync(config, stringify(recipe));
  return { folder, config, root: join(folder, "runs") };
}

export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly seconds: number;
}

export interface Running {
  readonly child: ChildProcess;
  readonly ended: Promise<Ended>;
}

/**
 * Starts `node bin/gr2.mjs ARGS`; `tmp` is its folder for temporary files.
 * A process that runs longer than `limitMs` is killed and counts as hung.
 */
export function start(
  args: readonly string[],
  options: { limitMs?: number; tmp?: string; env?: NodeJS.ProcessEnv } = {},
): Running {
  const begin = performance.now();
  const child = spawn(process.execPath, [resolve(repositoryRoot, "bin/gr2.mjs"), ...args], {
    cwd: repositoryRoot,
    env: {
      ...process.env,
      NO_COLOR: "1",
      GR2_DEBUG: "",
      ...(options.tmp ? { TMPDIR: options.tmp } : {}),
      ...options.env,
    },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let stdout = "";
  let stderr = "";
  child.stdout.on("data", (d) => {
    stdout += d;
  });
  child.stderr.on("data", (d) => {
    stderr += d;
  });
  const limit = setTimeout(() => {
    stderr += "\n[test] still running: killed";
    child.kill("SIGKILL");
  }, options.limitMs ?? 400_000);
  const ended = new Promise<Ended>((done) => {
    child.on("close", (code, signal) => {
      clearTimeout(limit);
      done({ code, signal, stdout, stderr, seconds: (performance.now() - begin) / 1000 });
    });
  });
  return { child, ended };
}

export const gr2 = (args: readonly string[], options?: Parameters<typeof start>[1]): Promise<Ended> =>
  start(args, options).ended;

export const pipelineArgs = (w: Workspace, run: string, ...more: string[]): string[] => [
  "pipeline",
  "--config",
  w.config,
  "--root",
  w.root,
  "--run",
  run,
  "--no-share", // equal runs are compared: each computes its own stages
  ...more,
];

/** metrics.json without what may differ between two equal runs: the name and what the clock measured. */
export function readMetrics(w: Workspace, run: string): Record<string, unknown> {
  const file = JSON.parse(readFileSync(join(w.root, run, "metrics.json"), "utf8"));
  const { timings: _timings, request_ms: _times, run: _name, ...rest } = file;
  return rest;
}

/** Every line of metrics.jsonl as text, without number, clocks, and the worker's own count of weight changes. */
export function metricLines(w: Workspace, run: string): string[] {
  return readFileSync(join(w.root, run, "metrics.jsonl"), "utf8")
    .trim()
    .split("\n")
    .map((line) => {
      const { stage, step, values } = JSON.parse(line);
      delete values.weightVersion;
      const timeless = Object.entries(values).filter(([name]) => !name.startsWith("seconds"));
      const sorted = Object.fromEntries(timeless.sort(([a], [b]) => (a < b ? -1 : 1)));
      return JSON.stringify({ stage, step, values: sorted });
    });
}

/** Pids of running Python workers whose environment names this run's log, i.e. workers of this test's runs. */
export function listWorkers(w: Workspace): number[] {
  return readdirSync("/proc").flatMap((entry) => {
    if (!/^\d+$/.test(entry)) return [];
    try {
      const environment = readFileSync(`/proc/${entry}/environ`, "latin1");
      const isWorker = readFileSync(`/proc/${entry}/cmdline`, "latin1").includes("python");
      return isWorker && environment.includes(`GR2_WORKER_LOG=${w.folder}`) && existsSync(`/proc/${entry}/exe`)
        ? [Number(entry)]
        : [];
    } catch {
      return []; // ended meanwhile, or not ours
    }
  });
}

export const wait = (ms: number): Promise<void> => new Promise((done) => setTimeout(done, ms));

/** Waits until the condition holds; throws after the time. */
export async function until(condition: () => boolean, what: string, ms = 300_000): Promise<void> {
  for (const end = Date.now() + ms; !condition(); await wait(10))
    if (Date.now() > end) throw new Error(`${what} did not happen within ${ms} ms`);
}

interface ManifestPart {
  readonly state: string;
  readonly data: Record<string, string>;
  readonly versions: Record<string, string>;
  readonly stages: Record<string, { cached: boolean; peak_bytes: number; outputs: Record<string, string> }>;
}

export const readRunManifest = (w: Workspace, run: string): ManifestPart =>
  JSON.parse(readFileSync(join(w.root, run, "manifest.json"), "utf8"));

/** sha256 of every stage's outputs, weights included; not of summaries, whose numbers come in the worker's order. */
export function readOutputs(w: Workspace, run: string): Record<string, string> {
  return Object.fromEntries(
    Object.entries(readRunManifest(w, run).stages).flatMap(([stage, { outputs }]) =>
      Object.entries(outputs)
        .filter(([file]) => !file.endsWith("summary.json") && !file.endsWith("gr2_state.json"))
        .map(([file, hash]) => [`${stage}/${file}`, hash]),
    ),
  );
}
