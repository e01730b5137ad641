/**
 * Exports a run's trained model as an ordinary checkpoint: LoRA merged, tokenizer with the run's tokens, chat template
 * and provenance; also the semantic IDs, without which its answers are meaningless.
 */
import { existsSync, readFileSync } from "node:fs";
import { resolve } from "node:path";
import { openCorpus } from "../artifacts/corpus.ts";
import type { Metrics } from "../artifacts/results.ts";
import { catalogueFile } from "../artifacts/semantic-ids.ts";
import { exportFile, exportSchema, readSavedWeights, stateDir, tokenizerFile } from "../artifacts/weights.ts";
import { configHash, loadConfig } from "../config/load.ts";
import type { Config } from "../config/schema.ts";
import { RunError } from "../core/errors.ts";
import { formatGain } from "../eval/recommend.ts";
import { systems } from "../eval/systems.ts";
import { openLanguageModel } from "../models/language-model.ts";
import { tryReadJson } from "../run/files.ts";
import { readManifest } from "../run/manifest.ts";
import type { RunFolder } from "../run/run-folder.ts";
import type { StageContext } from "../run/stage.ts";
import type { WorkerClient } from "../worker/types.ts";

/** Stages that leave weights, best first. */
export const exportable = ["rl", "sft", "midtrain"] as const;
export type Exportable = (typeof exportable)[number];

export interface ExportOptions {
  readonly run: RunFolder;
  /** Left out: the last of rl, sft, midtrain that is finished. */
  readonly stage?: Exportable;
  readonly out: string;
  /** Left out: the recipe's compute type. */
  readonly dtype?: "float32" | "bfloat16";
  readonly worker: (config: Config) => Promise<WorkerClient>;
  readonly log: (message: string) => void;
  readonly signal: AbortSignal;
}

export interface Exported {
  readonly stage: Exportable;
  readonly bytes: number;
}

/** Throws RunError if the stage is not finished; what the worker refuses is a WorkerError. */
export async function exportRun(options: ExportOptions): Promise<Exported> {
  const { run, out, signal, log } = options;
  const config = loadConfig(run.file("config.resolved.yaml"));
  const stage = finishedStage(run, options.stage);
  const dtype = options.dtype ?? config.runtime.dtype;
  const worker = await options.worker(config);
  // Frozen, and loaded in the type that is written: no optimizer, no second rounding.
  const frozen: Config = { ...config, runtime: { ...config.runtime, dtype } };
  const context = makeContext(run, frozen, worker, log, signal);
  const corpus = await openCorpus(context);
  const weights = stateDir(run.file("stages", stage));
  const modelId = "reference";
  const model = await openLanguageModel(
    context,
    corpus,
    weights,
    tokenizerFile(run.file("stages", "midtrain")),
    modelId,
  );
  const catalogue = readFileSync(catalogueFile(run.file("stages", "sid")), "utf8");
  const about = provenance(run, config, stage, dtype, model.lineage, weights);
  const files = {
    [exportFile]: `${JSON.stringify(about, null, 2)}\n`,
    "semantic_ids.json": catalogue,
    "README.md": modelCard(about, config, readResults(run, stage)),
  };
  const bytes = await worker.exportModel({ modelId, path: resolve(out), dtype, files }, { signal });
  return { stage, bytes };
}

function finishedStage(run: RunFolder, asked: Exportable | undefined): Exportable {
  const done = exportable.filter((s) => existsSync(run.file("stages", s, "done.json")));
  const stage = asked ?? done[0];
  if (stage === undefined || !done.includes(stage))
    throw new RunError(
      `run ${run.name} has no finished ${asked ? `stage ${asked}` : "model"} to export`,
      done.length > 0 ? { advice: `Finished: ${done.join(", ")}.` } : { advice: "Stage midtrain makes the first one." },
    );
  return stage;
}

/** A stage's view of a run, for reading only. */
function makeContext(
  run: RunFolder,
  config: Config,
  worker: WorkerClient,
  log: (message: string) => void,
  signal: AbortSignal,
): StageContext {
  const nothing = (): void => {};
  return {
    config,
    dir: run.path,
    signal,
    log,
    work: (name) => run.file(name),
    inputDir: (name) => run.file("stages", name),
    worker: async () => worker,
    progress: nothing,
    metrics: nothing,
    rollout: nothing,
    cursor: { read: () => undefined, write: nothing },
  };
}

interface Provenance {
  readonly schema: typeof exportSchema;
  readonly run: string;
  readonly stage: Exportable;
  readonly base_model: string;
  readonly lora_rank: number;
  readonly dtype: string;
  readonly config_hash: string;
  readonly seed: number;
  readonly catalogue: string;
  readonly tokenizer: string;
  readonly weights_sha256: string;
  readonly code_revision: string;
  readonly data: Readonly<Record<string, string>>;
}

function provenance(
  run: RunFolder,
  config: Config,
  stage: Exportable,
  dtype: string,
  lineage: Readonly<Record<"catalogue" | "tokenizer", string>>,
  weights: string,
): Provenance {
  const { source, path, ggufFile, lora } = config.model;
  const manifest = readManifest(run.path);
  return {
    schema: exportSchema,
    run: run.name,
    stage,
    base_model: source === "scratch" ? "" : ggufFile ? `${path} (${ggufFile}, dequantised)` : path,
    lora_rank: lora.rank,
    dtype,
    config_hash: configHash(config),
    seed: config.seed,
    ...lineage,
    weights_sha256: readSavedWeights(weights)?.sha256 ?? "",
    code_revision: manifest?.code.revision ?? "",
    data: manifest?.data ?? {},
  };
}

/** What the evaluation measured for the stage's systems; undefined unless it is finished and still up to date. */
function readResults(run: RunFolder, stage: Exportable): CardResults | undefined {
  const evaluated = readManifest(run.path)?.stages.evaluate;
  const metrics = tryReadJson(run.file("metrics.json")) as Metrics | undefined;
  if (evaluated?.state !== "finished" || evaluated.stale || !metrics?.recommendation) return undefined;
  const own = new Set(systems.filter((s) => s.stage === stage && s.kind === "policy").map((s) => s.name));
  const measured = metrics.comparisons.filter((c) => own.has(c.system) && c.metric === "N@5");
  const over = measured.filter((c) => c.baseline === "prerank" || c.baseline === metrics.recommendation.without_model);
  return { sentence: metrics.recommendation.sentence, rows: metrics.rows, over };
}

export interface CardResults extends Pick<Metrics, "rows"> {
  readonly sentence: string;
  /** Differences in N@5 to the pre-rank and to the best system without a language model. */
  readonly over: Metrics["comparisons"];
}

function resultsSection(results: CardResults | undefined): string {
  if (!results) return "The run's evaluation was not finished when this was exported.";
  const slices = {
    end_to_end: "all test slates, a miss counts 0",
    conditional: "test slates that contain their true item",
  };
  const lines = results.over.map((c) => {
    const own = results.rows.find((r) => r.system === c.system && r.slice === c.slice && r.metric === "N@5");
    const value = own ? `${own.value.toFixed(4)} [${own.ci_low.toFixed(4)}, ${own.ci_high.toFixed(4)}]` : "";
    return (
      `| ${c.system} | ${slices[c.slice]} (${c.n}) | ${value} | ${c.baseline} | ` +
      `${formatGain(c).replace(" N@5", "")} |`
    );
  });
  const head = ["| system | slates | N@5 [95 %] | compared with | difference [95 %] |", "|---|---|---|---|---|"];
  return [
    `On the test segment, used once; paired bootstrap over users. ${results.sentence}`,
    "",
    ...head,
    ...lines,
  ].join("\n");
}

/** README.md of the folder. */
function modelCard(about: Provenance, config: Config, results?: CardResults): string {
  const made = {
    rl: "mid-trained on semantic IDs, fine-tuned on reasoning traces, trained by reinforcement learning (DAPO)",
    sft: "mid-trained on semantic IDs and fine-tuned on reasoning traces",
    midtrain: "mid-trained on semantic IDs",
  }[about.stage];
  const base = about.base_model || "none (from scratch)";
  const rows = Object.entries(about).filter(([key]) => key !== "schema");
  const shown = (value: unknown): string => (typeof value === "object" ? JSON.stringify(value) : String(value));
  return `---
library_name: transformers
pipeline_tag: text-generation
tags: [gr2, recommendation, re-ranking]
---
# ${about.run}, stage ${about.stage}

A generative re-ranker made with GR2: ${made}. Base model: ${base}.${config.description ? ` ${config.description}` : ""}

It reads a user's history and candidates, written as semantic IDs (${config.sid.levels} codes of ${config.sid.codes} per item), and
answers with an order of the candidates. \`semantic_ids.json\` holds the ID of every item. The codes are special tokens of the
tokenizer: decode with \`skip_special_tokens=False\`.

\`\`\`python
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained("FOLDER")
tokenizer = AutoTokenizer.from_pretrained("FOLDER")
\`\`\`

\`\`\`sh
vllm serve FOLDER   # requests: "skip_special_tokens": false
\`\`\`

| | |
|---|---|
${rows.map(([key, value]) => `| ${key} | ${shown(value)} |`).join("\n")}

## Results

${resultsSection(results)}

## Limits

- Prompts, constrained decoding and the calibrated prior are part of GR2; without them answers may be invalid or differ.
- It knows only the items of its data set; new ones need semantic IDs from the same tokenizer (\`gr2 sid encode\`).
- The numbers are for one seed, one data set and logged choices: users could not choose what they were not shown, and
  might choose differently if shown another order.
- Reasoning is learned from a teacher; nothing here measures whether it explains the resulting order.
`;
}
