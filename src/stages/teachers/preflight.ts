/**
 * Finds problems with a recipe's teachers before its first stage: the teacher that writes traces is needed only hours
 * later, after mid-training, and the one for distillation later still. Checks only stages that will run.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { readJson } from "../../artifacts/files.ts";
import { catalogueFile } from "../../artifacts/semantic-ids.ts";
import type { SavedWeights } from "../../artifacts/weights.ts";
import { loadConfig } from "../../config/load.ts";
import type { Config } from "../../config/schema.ts";
import { CheckpointError, ConfigError, EnvironmentError } from "../../core/errors.ts";
import { listModels } from "../../endpoint/models.ts";
import { Secret } from "../../endpoint/secret.ts";
import { checkPretrained } from "../../models/base-model.ts";
import { addedTokens, checkLineage } from "../../models/language-model.ts";
import type { StageName } from "../../run/stage.ts";
import { Catalogue } from "../../sid/catalogue.ts";
import { loraRecipe, readTeacherFolder, recipePath, teacherPath } from "../rl/opd-teacher.ts";
import { keptAnswers } from "./in-words.ts";

/** Facts about the stages before any of them runs. */
export interface PlannedStages {
  /** Whether the run reaches the stage (--until). */
  reaches(stage: StageName): boolean;
  /** Whether it is finished and up to date. */
  finished(stage: StageName): Promise<boolean>;
  /** The stage's folder. */
  folder(stage: StageName): string;
  /** Stages up to the semantic IDs whose settings differ in another recipe. */
  otherIds(theirs: Config): StageName[];
}

/** Seconds that a server has to list its models. Longer than a refused connection takes. */
const patienceSeconds = 15;
/** Maximum number of model names shown. */
const shownModels = 10;

/** Throws ConfigError, CheckpointError or EnvironmentError; possible problems go to `log`. */
export async function checkTeachers(
  config: Config,
  planned: PlannedStages,
  log: (message: string) => void,
  signal: AbortSignal,
): Promise<void> {
  const willRun = async (stage: StageName): Promise<boolean> =>
    planned.reaches(stage) && !(await planned.finished(stage));
  const { kind, model, ggufFile } = config.teacher;
  if (kind === "openai" && (await willRun("traces"))) await checkEndpoint(config, planned, log, signal);
  if (kind === "worker" && (await willRun("traces")))
    checkPretrained(
      { path: model, ggufFile, settings: { path: "teacher.model", ggufFile: "teacher.ggufFile" } },
      config.runtime,
    );
  if (config.rl.kind === "opd" && (await willRun("rl"))) await checkDistillation(config, planned, log);
}

/** Stages that must be finished before the teacher is asked. */
const beforeTraces: readonly StageName[] = ["data", "embed", "sid", "midtrain", "slates"];

async function checkEndpoint(
  config: Config,
  planned: PlannedStages,
  log: (message: string) => void,
  signal: AbortSignal,
): Promise<void> {
  const { model, endpoint } = config.teacher;
  const { baseUrl, apiKeyEnv, timeoutSeconds } = endpoint;
  const secret = Secret.fromEnvironment(apiKeyEnv);
  const timeoutMs = 1000 * Math.min(timeoutSeconds, patienceSeconds);
  const found = await listModels(baseUrl, { secret, timeoutMs, signal });
  if (found.kind === "unknown") log(`teacher.model = ${model} was not checked: ${found.reason} at ${baseUrl}`);
  if (found.kind === "models" && !found.names.includes(model)) {
    const more = found.names.length > shownModels ? `, and ${found.names.length - shownModels} more` : "";
    log(`! teacher.model = ${model}: ${baseUrl} has ${found.names.slice(0, shownModels).join(", ")}${more}`);
  }
  if (found.kind !== "unusable") return;
  // No other stage runs before the teacher, and cached answers may suffice: the stage itself reports it soon.
  const ready = (await Promise.all(beforeTraces.map((s) => planned.finished(s)))).every(Boolean);
  const kept = ready ? keptAnswers(config).size : 0;
  if (kept > 0) log(`! the teacher at ${baseUrl} cannot be used: ${found.reason}; ${kept} answers are cached`);
  else
    throw new EnvironmentError(`the teacher at ${baseUrl} cannot be used: ${found.reason}`, {
      advice: `${found.advice} The stages before it run without it: gr2 pipeline --until slates.`,
    });
}

async function checkDistillation(
  config: Config,
  planned: PlannedStages,
  log: (message: string) => void,
): Promise<void> {
  const path = teacherPath(config);
  const folder = readTeacherFolder(path);
  if (!folder) {
    if (config.rl.opd.address !== "" || config.runtime.mode === "remote") return; // the folder may exist for the worker
    throw new ConfigError(`rl.opd.teacher = ${path}: there is no such folder`, {
      advice: "Train the teacher first, or name its folder: runs/NAME/stages/rl/state, or one that gr2 export wrote.",
    });
  }
  if (folder.kind === "lora") {
    const file = recipePath(folder);
    const settings = { path: `${file}: model.path`, ggufFile: `${file}: model.ggufFile` };
    const recipe = loraRecipe(folder);
    checkPretrained({ ...recipe.model, settings }, config.runtime);
  }
  checkCodes(folder, config);
  if (await planned.finished("sid")) {
    const catalogue = Catalogue.fromJSON(readJson(catalogueFile(planned.folder("sid"))));
    checkLineage(path, folder, { catalogue: catalogue.hash() });
  } else warnAboutOtherSettings(folder, planned, log);
}

/** The tokenizer of a teacher with these semantic IDs has all of their tokens, and no other codes. */
function checkCodes({ path }: SavedWeights, config: Config): void {
  const file = join(path, "tokenizer.json");
  if (!existsSync(file)) return;
  const { added_tokens = [] } = readJson<{ added_tokens?: readonly { content: string }[] }>(file);
  const theirs = new Set(added_tokens.map((t) => t.content));
  const ours = addedTokens(config);
  const own = new Set(ours);
  const lacks = ours.find((token) => !theirs.has(token));
  const besides = [...theirs].find((token) => /^<s_[a-z]_\d+>$/.test(token) && !own.has(token));
  if (lacks === undefined && besides === undefined) return;
  throw new CheckpointError(
    `rl.opd.teacher = ${path}: its semantic IDs differ: ` +
      `${lacks ? `it lacks the token ${lacks}` : `it has the token ${besides}, which this recipe lacks`}`,
    { advice: "Give both runs the same sid.levels, sid.codes and sid.format." },
  );
}

/** Before this run has its own semantic IDs, only the settings that produce them can be compared. */
function warnAboutOtherSettings(folder: SavedWeights, planned: PlannedStages, log: (message: string) => void): void {
  const file = recipePath(folder);
  if (!existsSync(file)) return;
  let theirs: Config;
  try {
    theirs = loadConfig(file);
  } catch {
    return; // a recipe of another GR2 version
  }
  const others = planned.otherIds(theirs);
  if (others.length > 0)
    log(
      `! rl.opd.teacher = ${folder.path}: its run has different settings for ${others.join(", ")}; ` +
        `if its semantic IDs differ, distillation will refuse it`,
    );
}
