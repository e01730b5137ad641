/**
 * A finished run for the server: settings, items, semantic IDs, priors, and which weights answer in which mode. Reads
 * only the run folder; refuses an unfinished or damaged one. Not here: workers and their models.
 */
import { existsSync, realpathSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import type { Priors } from "../../artifacts/calibration.ts";
import { splitOptions } from "../../artifacts/dataset.ts";
import { readJson, readLines } from "../../artifacts/files.ts";
import { type DirectPriors, priorsFile, type Results } from "../../artifacts/results.ts";
import { refitDir, stateDir, tokenizerFile } from "../../artifacts/weights.ts";
import { loadConfig } from "../../config/load.ts";
import type { Config } from "../../config/schema.ts";
import { CheckpointError, ConfigError, RunError } from "../../core/errors.ts";
import { loadDataset } from "../../data/cache.ts";
import { split } from "../../data/split.ts";
import type { Item } from "../../data/types.ts";
import type { Recommendation } from "../../eval/recommend.ts";
import { findSystem, quickModes, type SystemMode, servable, sibling, systems } from "../../eval/systems.ts";
import { type ItemEncoder, openItemEncoder } from "../../models/item-encoder.ts";
import { type Prior, standardise } from "../../policy/prior.ts";
import type { Slate } from "../../prerank/types.ts";
import { tryReadJson } from "../../run/files.ts";
import { readManifest } from "../../run/manifest.ts";
import { RunFolder } from "../../run/run-folder.ts";
import type { StageName } from "../../run/stage.ts";
import { type Done, finishedWith } from "../../run/stage-cache.ts";
import type { Catalogue } from "../../sid/catalogue.ts";
import type { Lift, ServeMode } from "../request/types.ts";
import { type ComputeEvidence, servingEvidence } from "./evidence.ts";
import { ServedExperts } from "./experts.ts";
import { type FindUser, indexUsers } from "./known-users.ts";

/** The system that answers in one mode. */
export interface ServedSystem {
  /** Its name in the results table. */
  readonly name: string;
  /** Folder of its weights; undefined: no language model, or one with weight 0, so the prior is the whole score. */
  readonly weights: string | undefined;
  readonly prior: Prior;
  /** Its gain on test; undefined if the evaluation did not compare it. */
  readonly lift?: Lift;
  /** Mode direct answers with an order that the language model writes without reasoning; absent: by likelihood. */
  readonly writes?: "answer";
}

/** Whether its prior uses evidence, or evidence selects the candidates that its language model sees. */
export const usesEvidence = ({ prompts }: Config, { prior, weights }: ServedSystem): boolean =>
  prior.evidence !== 0 || (prompts.candidates > 0 && weights !== undefined);

/** Per position, the mean over the run's slates: the default for values that a caller omits. */
export interface TypicalScores {
  /** Pre-rank score, standardised within the slate. */
  readonly score: readonly number[];
}

export interface ServedRun {
  readonly name: string;
  readonly config: Config;
  readonly configHash: string;
  readonly dataHash: string;
  readonly items: readonly Item[];
  readonly rowById: ReadonlyMap<string, number>;
  /** Rows by title, lower case; titles shared by several items are excluded. */
  readonly rowByTitle: ReadonlyMap<string, number>;
  readonly catalogue: Catalogue;
  readonly tokenizer: ItemEncoder;
  /** tokenizer.json of a language model from scratch. */
  readonly tokenizerFile: string;
  readonly systems: Readonly<Partial<Record<ServeMode, ServedSystem>>>;
  /** The evaluation's recommendation and its reason. */
  readonly recommendation: Recommendation;
  readonly typical: TypicalScores;
  /** Undefined unless a system uses evidence. */
  readonly evidence: ComputeEvidence | undefined;
  /** Undefined unless the evidence was trained on the scores of several pre-rankers. */
  readonly experts: ServedExperts | undefined;
  readonly findUser: FindUser;
}

/** A run's serving settings, known before the run is read. Throws RunError or ConfigError. */
export function readServeSettings(root: string, name: string, overrides: readonly string[]): Config {
  checkOverrides(overrides);
  return loadConfig(viewFolder(root, name).file("config.resolved.yaml"), overrides);
}

/** @param name may be a symbolic link to the run's folder */
function viewFolder(root: string, name: string): RunFolder {
  const real = realpathSync(RunFolder.view(root, name).path);
  return RunFolder.view(dirname(real), basename(real));
}

/** Throws RunError, CheckpointError or ConfigError; `name` may be a symbolic link to the run's folder. */
export async function openServedRun(root: string, name: string, overrides: readonly string[]): Promise<ServedRun> {
  const config = readServeSettings(root, name, overrides);
  const folder = viewFolder(root, name);
  const stageDir = (stage: StageName): string => folder.file("stages", stage);
  await checkFinished(folder, [
    ...["data", "sid", "midtrain", "slates", "evidence", "traces", "calibrate"],
    ...["sft", "rl", "evaluate"],
  ] as StageName[]);
  const dataset = await loadDataset(stageDir("data"));
  const tokenizer = openItemEncoder(folder);
  const results = readJson<Results>(join(stageDir("evaluate"), "results.json"));
  if (!results.recommendation)
    throw new RunError(`run ${folder.name} was evaluated by an earlier version, which made no recommendation`, {
      advice: `Rerun its evaluation with its recipe: gr2 pipeline --run ${folder.name} --from evaluate.`,
    });
  const names = chooseSystems(config.serve.system, results);
  const priors = readJson<Priors>(join(stageDir("calibrate"), "prior.json"));
  const direct = (tryReadJson(priorsFile(stageDir("evaluate"))) ?? {}) as DirectPriors;
  const describeSystem = (system: string): ServedSystem => {
    const { stage, mode } = findSystem(system) ?? {};
    const prior = direct[system] ?? priors.withLikelihood;
    const lift = findLift(system, results);
    const measured = { name: system, prior, ...(lift ? { lift } : {}) };
    if (!stage || stage === "base" || (mode === "direct" && prior.likelihood === 0))
      return { ...measured, weights: undefined };
    const refitted = refitDir(stageDir("evaluate"), stage);
    return {
      ...measured,
      weights: mode === "direct" && existsSync(refitted) ? refitted : stateDir(stageDir(stage)),
      ...(mode === "answer" ? { writes: mode } : {}),
    };
  };
  const served = {
    ...(names.think ? { think: describeSystem(names.think) } : {}),
    ...(names.direct ? { direct: describeSystem(names.direct) } : {}),
  };
  const weighsEvidence = Object.values(served).some((s) => usesEvidence(config, s));
  const data = split(dataset, splitOptions(config.data.split));
  const evidence = weighsEvidence ? servingEvidence(data, stageDir("evidence"), config.refit) : undefined;
  const { catalogue } = tokenizer;
  let experts: ServedExperts | undefined;
  if (evidence && evidence.experts.length > 0) {
    await checkFinished(folder, ["candidates"]);
    experts = await ServedExperts.open(evidence.experts, { config, data, catalogue, stageDir });
  }
  const titles = dataset.items.map((item) => item.title.toLowerCase());
  return {
    name: folder.name,
    config,
    configHash: readManifest(folder.path)?.config_hash ?? "",
    dataHash: dataset.hash,
    items: dataset.items,
    rowById: new Map(dataset.items.map((item, row) => [item.id, row])),
    rowByTitle: uniqueRows(titles),
    catalogue,
    tokenizer,
    tokenizerFile: tokenizerFile(stageDir("midtrain")),
    systems: served,
    recommendation: results.recommendation,
    typical: averageScores(readLines<Slate>(join(stageDir("slates"), "validation.jsonl"))),
    evidence: evidence?.compute,
    experts,
    findUser: indexUsers(dataset),
  };
}

/** Other settings would change the model. */
function checkOverrides(overrides: readonly string[]): void {
  for (const o of overrides)
    if (!/^\s*(serve|runtime)\./.test(o))
      throw new ConfigError(`--set ${o}: a run is served with its own settings`, {
        advice: "Only serve.* and runtime.* can be set here.",
      });
}

async function checkFinished(folder: RunFolder, stages: readonly StageName[]): Promise<void> {
  const manifest = readManifest(folder.path);
  const rerun = { advice: `Finish it first with its recipe: gr2 pipeline --run ${folder.name}.` };
  if (!manifest) throw new RunError(`run ${folder.name} has no manifest.json`, rerun);
  const open = stages.filter((stage) => manifest.stages[stage]?.state !== "finished" || manifest.stages[stage]?.stale);
  if (open.length > 0)
    throw new RunError(
      `run ${folder.name} is not finished: ${open.join(", ")} ${open.length > 1 ? "are" : "is"} missing or stale`,
      rerun,
    );
  for (const stage of stages) {
    const dir = folder.file("stages", stage);
    const done = tryReadJson(join(dir, "done.json")) as Done | undefined;
    if (!done || !(await finishedWith(dir, done.key)))
      throw new CheckpointError(`${dir}: files are missing or have changed since the stage wrote them`, {
        advice: `Restore them, or rerun the stage: gr2 pipeline --run ${folder.name} --from ${stage}.`,
      });
  }
}

function findLift(system: string, { comparisons }: Results): Lift | undefined {
  const row = comparisons.find(
    (c) => c.system === system && c.baseline === "prerank" && c.slice === "conditional" && c.metric === "N@5",
  );
  return row && { metric: row.metric, delta: row.delta, ciLow: row.ci_low, ciHigh: row.ci_high };
}

/** The systems that answer; see the setting serve.system. */
function chooseSystems(asked: string, { selected }: Results): { think?: string; direct?: string } {
  const named = (think: string | undefined, direct: string | undefined) => ({
    ...(think ? { think } : {}),
    ...(direct ? { direct } : {}),
  });
  if (asked === "auto") {
    const best = (modes: readonly SystemMode[]): string | undefined =>
      servable(modes)
        .map((s) => s.name)
        .filter((n) => selected.validation[n] !== undefined)
        .reduce<string | undefined>(
          (top, n) =>
            top === undefined || (selected.validation[n] as number) > (selected.validation[top] as number) ? n : top,
          undefined,
        );
    const recommended = findSystem(selected.system);
    const thinks = recommended?.mode === "think";
    return named(
      thinks ? recommended.name : best(["think"]),
      recommended && !thinks ? recommended.name : best(quickModes),
    );
  }
  const system = findSystem(asked);
  if (!system?.servable)
    throw new ConfigError(`serve.system = ${asked}: this run has no such system that can be served`, {
      advice: `Choose auto or one of ${systems
        .filter((s) => s.servable)
        .map((s) => s.name)
        .join(", ")}.`,
    });
  return system.mode === "think" ? named(system.name, sibling(system, "direct")?.name) : named(undefined, system.name);
}

function uniqueRows(titles: readonly string[]): ReadonlyMap<string, number> {
  const rows = new Map<string, number>();
  const twice = new Set<string>();
  titles.forEach((title, row) => {
    if (rows.has(title)) twice.add(title);
    rows.set(title, row);
  });
  for (const title of ["", ...twice]) rows.delete(title);
  return rows;
}

function averageScores(slates: readonly Slate[]): TypicalScores {
  const sums: number[] = [];
  const counts: number[] = [];
  for (const slate of slates)
    standardise(slate.scores).forEach((z, position) => {
      sums[position] = (sums[position] ?? 0) + z;
      counts[position] = (counts[position] ?? 0) + 1;
    });
  return { score: sums.map((sum, position) => sum / (counts[position] as number)) };
}
