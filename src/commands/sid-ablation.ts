/**
 * The ablation of GR2 v1 table "semantic IDs": the recipe as configured, each technique flipped alone, the
 * gradient-free tokenizer, and none of the techniques. Owns what a row changes and how one cell (row x seed) is
 * measured, with the pipeline's own stages. Not here: which cells to measure, where they are stored, how they are
 * shown.
 */
import { rmSync } from "node:fs";
import { join } from "node:path";
import { readJson } from "../artifacts/files.ts";
import { compileConfig } from "../config/load.ts";
import type { Config } from "../config/schema.ts";
import { ConfigError, RunError } from "../core/errors.ts";
import { makeFolder } from "../run/files.ts";
import type { Stage, StageContext, StageName, Summary } from "../run/stage.ts";
import { data } from "../stages/data.ts";
import { embed } from "../stages/embed.ts";
import { midtrain } from "../stages/midtrain.ts";
import { sid } from "../stages/sid.ts";
import type { WorkerClient } from "../worker/types.ts";
import { nextItemRecall } from "./sid-recall.ts";

type SidSettings = Config["sid"];

/** Strength of a technique that the recipe has off and a row switches on. */
const strengths = { emaDecay: 0.95, diversityWeight: 0.1, deadCodeResetEpochs: 5, contrastiveWeight: 0.1 } as const;

const flipped = (value: number, on: number): number => (value > 0 ? 0 : on);

/** What each row changes in the recipe's `sid` section, in table order. */
const ablationRows = {
  configured: () => ({}),
  ema: (s) => ({ emaDecay: flipped(s.emaDecay, strengths.emaDecay) }),
  "random-last-level": (s) => ({ randomLastLevel: !s.randomLastLevel }),
  diversity: (s) => ({ diversityWeight: flipped(s.diversityWeight, strengths.diversityWeight) }),
  "dead-codes": (s) => ({ deadCodeResetEpochs: flipped(s.deadCodeResetEpochs, strengths.deadCodeResetEpochs) }),
  contrastive: (s) => ({ contrastiveWeight: flipped(s.contrastiveWeight, strengths.contrastiveWeight) }),
  "kmeans-init": (s) => ({ kmeansInit: !s.kmeansInit }),
  rqkmeans: () => ({ method: "rqkmeans", contrastiveWeight: 0 }),
  none: () => ({
    emaDecay: 0,
    randomLastLevel: false,
    diversityWeight: 0,
    deadCodeResetEpochs: 0,
    contrastiveWeight: 0,
    kmeansInit: false,
  }),
} satisfies Record<string, (s: SidSettings) => Partial<SidSettings>>;

export type RowName = keyof typeof ablationRows;
export const rowNames = Object.keys(ablationRows) as RowName[];

/** The settings a row changes, as the config spells them: {"sid.emaDecay": 0}. */
export const changesFor = (row: RowName, base: Config): Readonly<Record<string, unknown>> =>
  Object.fromEntries(Object.entries(ablationRows[row](base.sid)).map(([key, value]) => [`sid.${key}`, value]));

/** The recipe of one cell. The uniqueness gate is off, because uniqueness is what is measured. */
export function cellConfig(base: Config, row: RowName, seed: number): Config {
  if (base.sid.method !== "rqvae")
    throw new ConfigError(`sid.method = ${base.sid.method}: the ablation is about the techniques of the RQ-VAE`, {
      advice: "Leave sid.method at rqvae; the row rqkmeans shows the other method.",
    });
  const { extends: _, ...rest } = structuredClone(base) as Config & { extends?: string };
  const changed = { ...rest, seed, sid: { ...rest.sid, ...ablationRows[row](base.sid), minUniqueness: 0 } };
  return compileConfig(changed as unknown as Record<string, unknown>, `row ${row}`);
}

/** The settings a cell's numbers depend on, besides the data and `ablationCode`. */
export function cellSettings(config: Config): unknown {
  const { threads, device, dtype, microBatchTokens } = config.runtime;
  return {
    data: data.settings(config),
    embed: config.embed,
    sid: config.sid,
    midtrain: midtrain.settings(config),
    historyItems: config.prompts.historyItems,
    beamWidth: config.prerank.beamWidth,
    seed: config.seed,
    numerics: { threads, device, dtype, microBatchTokens },
  };
}

/** What a cell's code hash covers: this file, the stages it runs and the worker verbs they call. */
export const ablationCode = {
  entries: ["src/commands/sid-ablation.ts"],
  verbs: [...new Set([...data.verbs, ...embed.verbs, ...sid.verbs, ...midtrain.verbs])],
};

export interface AblationWorkspace {
  /** Scratch space; may be emptied between cells. */
  readonly dir: string;
  readonly worker: () => Promise<WorkerClient>;
  readonly signal: AbortSignal;
  readonly log: (message: string) => void;
  readonly progress: (note: string, done: number, total: number) => void;
}

/** Runs the stage data; its folder. */
export async function prepareData(workspace: AblationWorkspace, base: Config): Promise<string> {
  const dirs = { data: join(workspace.dir, "data") };
  await runStage(data, workspace, base, dirs);
  return dirs.data;
}

/** Data and embeddings, which all cells share. */
export async function prepareCells(
  workspace: AblationWorkspace,
  base: Config,
): Promise<Readonly<Record<"data" | "embed", string>>> {
  const dirs = { data: await prepareData(workspace, base), embed: join(workspace.dir, "embed") };
  await runStage(embed, workspace, base, dirs);
  return dirs;
}

export interface CellResult {
  readonly metrics: Readonly<Record<string, number>>;
  /** Wall-clock seconds of fitting, training and searching. */
  readonly seconds: Readonly<Record<"sid" | "midtrain" | "search", number>>;
}

/** Fits the IDs of one cell, trains its LM on them and measures both. Its folder is removed afterwards. */
export async function measureCell(
  workspace: AblationWorkspace,
  config: Config,
  shared: Readonly<Record<"data" | "embed", string>>,
  maxPositions: number,
): Promise<CellResult> {
  const dir = join(workspace.dir, "cell");
  rmSync(dir, { recursive: true, force: true });
  const dirs = { ...shared, sid: join(dir, "sid"), midtrain: join(dir, "midtrain") };
  const clock = stopwatch();
  const fitted = await runStage(sid, workspace, config, dirs);
  const sidSeconds = clock();
  const trained = await runStage(midtrain, workspace, config, dirs);
  const midtrainSeconds = clock();
  const recall = await nextItemRecall(makeContext("slates", workspace, config, dirs), maxPositions);
  const report = readJson<{ numCollidingItems: number; numCollisions: number }>(join(dirs.sid, "report.json"));
  rmSync(dir, { recursive: true, force: true });
  return {
    metrics: {
      ...fitted,
      colliding_items: report.numCollidingItems,
      shared_ids: report.numCollisions,
      final_loss: trained.finalLoss ?? 0,
      parameters: trained.parameters ?? 0,
      training_tokens: trained.tokens ?? 0,
      positions: recall.positions,
      recall_at_10: recall.recallAt10,
      ndcg_at_10: recall.ndcgAt10,
    },
    seconds: { sid: sidSeconds, midtrain: midtrainSeconds, search: clock() },
  };
}

type Dirs = Partial<Record<StageName, string>>;

async function runStage(stage: Stage, workspace: AblationWorkspace, config: Config, dirs: Dirs): Promise<Summary> {
  const context = makeContext(stage.name, workspace, config, dirs);
  makeFolder(context.dir);
  return stage.run(context);
}

/** A stage's context without a run folder: nothing is resumed within a cell. */
function makeContext(name: StageName, workspace: AblationWorkspace, config: Config, dirs: Dirs): StageContext {
  const { worker, signal, log, progress } = workspace;
  const dir = dirs[name] ?? workspace.dir;
  return {
    config,
    dir,
    worker,
    signal,
    log,
    progress,
    work: (file) => join(dir, "work", file),
    inputDir: (input) => {
      const found = dirs[input];
      if (found === undefined) throw new RunError(`the ablation has no stage ${input}`);
      return found;
    },
    metrics: () => {},
    rollout: () => {},
    cursor: { read: () => undefined, write: () => {} },
  };
}

/** Seconds since the last call. */
function stopwatch(): () => number {
  let last = performance.now();
  return () => {
    const now = performance.now();
    const seconds = Math.round((now - last) / 10) / 100;
    last = now;
    return seconds;
  };
}
