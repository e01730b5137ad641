/**
 * YAML file (+ `extends`) + `--set path=value` -> one validated, frozen Config, or a ConfigError that names the file,
 * the path, the value and the nearest valid key.
 */
import { existsSync, readFileSync } from "node:fs";
import { basename, dirname, resolve } from "node:path";
import { distance } from "fastest-levenshtein";
import { parseDocument, stringify } from "yaml";
import { z } from "zod";
import { ConfigError } from "../core/errors.ts";
import { hashJson } from "../core/hash.ts";
import { nameModule } from "../core/module-name.ts";
import { repositoryRoot } from "../core/paths.ts";
import { portable, resolveDefaults, resolvePaths, withoutPlaces } from "./paths.ts";
import { columnsFollowed, preRankerKinds } from "./schema/data.ts";
import { type Config, configSchema } from "./schema.ts";

type Tree = { [key: string]: unknown };

const isTree = (v: unknown): v is Tree => typeof v === "object" && v !== null && !Array.isArray(v);

function readYaml(path: string, seen: readonly string[] = []): Tree {
  const full = resolve(path);
  if (seen.includes(full)) throw new ConfigError(`${path}: extends itself through ${seen.join(" -> ")}`);
  if (!existsSync(full))
    throw new ConfigError(`${path}: no such config file`, { advice: "Shipped configs are in configs/." });
  let text: string;
  try {
    text = readFileSync(full, "utf8");
  } catch (cause) {
    throw new ConfigError(`${path}: cannot be read (${(cause as Error).message})`, { cause });
  }
  const document = parseDocument(text, { prettyErrors: true });
  const fault = document.errors[0];
  if (fault) throw new ConfigError(`${path}: not valid YAML: ${fault.message.split("\n")[0]}`, { cause: fault });
  const tree: unknown = document.toJS() ?? {};
  if (!isTree(tree)) throw new ConfigError(`${path}: expected a mapping of settings, found ${typeof tree}`);
  // A run's copy of its recipe is in another folder: its relative paths are relative to the installation.
  resolvePaths(tree, basename(full) === "config.resolved.yaml" ? repositoryRoot : dirname(full));
  if (typeof tree.extends !== "string") return tree;
  return inherit(tree, dirname(full), [...seen, full]);
}

/** Merges settings with the file they extend: one in the same folder, else one that GR2 ships (`base-sparse.yaml`). */
export function inherit(tree: Tree, folder: string, seen: readonly string[] = []): Tree {
  const { extends: parent, ...own } = tree;
  if (typeof parent !== "string") return tree;
  const beside = resolve(folder, parent);
  const ours = resolve(repositoryRoot, "configs", parent);
  const found = !existsSync(beside) && basename(parent) === parent && existsSync(ours) ? ours : beside;
  return merge(readYaml(found, seen), own);
}

/** Mappings merge key by key; anything else replaces. */
function merge(base: Tree, over: Tree): Tree {
  const out: Tree = { ...base };
  for (const [key, value] of Object.entries(over)) {
    const old = out[key];
    out[key] = isTree(old) && isTree(value) && key !== "architecture" ? merge(old, value) : value;
  }
  return out;
}

function applyOverride(tree: Tree, assignment: string): void {
  const at = assignment.indexOf("=");
  if (at < 1) throw new ConfigError(`--set ${assignment}: expected path=value, for example --set rl.steps=100`);
  const path = assignment.slice(0, at).trim().split(".");
  const document = parseDocument(assignment.slice(at + 1));
  if (document.errors[0]) throw new ConfigError(`--set ${assignment}: the value is not valid YAML`);
  let node = tree;
  for (const key of path.slice(0, -1)) {
    const next = node[key];
    if (next === undefined) node[key] = {};
    else if (!isTree(next)) throw new ConfigError(`--set ${assignment}: ${key} is not a section`);
    node = node[key] as Tree;
  }
  // An empty value means the empty string: `--set data.path=` clears a setting.
  node[path.at(-1) as string] = document.toJS() ?? "";
  resolvePaths(tree, process.cwd()); // paths from the recipe are already absolute
}

/** Keys allowed at a path of the schema, for suggestions. */
function keysAt(path: readonly PropertyKey[]): string[] {
  let node: z.ZodType | undefined = configSchema;
  for (const key of path) {
    node = unwrap(node);
    node = node instanceof z.ZodObject ? (node.shape as Record<string, z.ZodType>)[String(key)] : undefined;
  }
  const object = unwrap(node);
  return object instanceof z.ZodObject ? Object.keys(object.shape) : [];
}

/** Strips default/prefault/optional wrappers. */
export function unwrap(node: z.ZodType | undefined): z.ZodType | undefined {
  let inner = node;
  while (inner instanceof z.ZodDefault || inner instanceof z.ZodPrefault || inner instanceof z.ZodOptional)
    inner = inner.unwrap() as z.ZodType;
  return inner;
}

function allPaths(node: z.ZodType = configSchema, prefix = ""): string[] {
  const object = unwrap(node);
  if (!(object instanceof z.ZodObject)) return [prefix];
  return Object.entries(object.shape as Record<string, z.ZodType>).flatMap(([key, child]) =>
    allPaths(child, prefix ? `${prefix}.${key}` : key),
  );
}

function nearest(word: string, options: readonly string[]): string | undefined {
  const best = options
    .map((o) => ({ o, d: distance(word.toLowerCase(), o.toLowerCase()) }))
    .sort((a, b) => a.d - b.d)[0];
  return best && best.d <= Math.max(2, Math.ceil(word.length / 2)) ? best.o : undefined;
}

function valueAt(tree: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>((node, key) => (isTree(node) ? node[String(key)] : undefined), tree);
}

function explain(issue: z.core.$ZodIssue, tree: Tree): string {
  const path = issue.path.map(String).join(".");
  if (issue.code === "unrecognized_keys") {
    const options = keysAt(issue.path);
    return issue.keys
      .map((key) => {
        const full = path ? `${path}.${key}` : key;
        const near = nearest(key, options);
        const elsewhere = near ? undefined : allPaths().find((p) => p.split(".").at(-1) === key);
        const hint = near
          ? `did you mean ${path ? `${path}.` : ""}${near}?`
          : elsewhere
            ? `did you mean ${elsewhere}?`
            : `known keys here: ${options.join(", ")}`;
        return `unknown setting ${full}; ${hint}`;
      })
      .join("\n  ");
  }
  return `${path} = ${JSON.stringify(valueAt(tree, issue.path))}: ${issue.message}`;
}

/** Settings under `data` that only some adapters read; with other adapters they are refused, not ignored. */
const readBy: readonly (readonly [
  setting: string,
  isSet: (data: Config["data"]) => boolean,
  adapters: readonly string[],
])[] = [
  ["keep", (d) => Object.keys(d.keep).length > 0, ["table", "recbole", "impressions", "retailrocket"]],
  ["timeUnit", (d) => d.timeUnit !== "auto", ["table", "recbole", "impressions"]],
  ["encoding", (d) => d.encoding !== "auto", ["table", "recbole", "impressions"]],
  ["categorySeparator", (d) => d.categorySeparator !== "|", ["table", "impressions"]],
  ["clock", (d) => !d.clock, ["table"]],
  ["files.itemIds", (d) => d.files.itemIds !== undefined, ["table"]],
];

/** Settings that are valid individually but not together. */
function impossible(c: Config): string[] {
  const out: string[] = [];
  const s = c.data.split;
  const total = s.midtrain + s.rerank + s.validation + s.test;
  if (s.kind !== "leave-one-out" && Math.abs(total - 1) > 1e-6)
    out.push(`data.split: midtrain + rerank + validation + test = ${total}; they must add up to 1`);
  if (c.runtime.mode === "remote" && !c.runtime.address) out.push("runtime.mode = remote needs runtime.address");
  if (c.model.source === "pretrained" && !c.model.path) out.push("model.source = pretrained needs model.path");
  if (c.model.source === "scratch" && c.model.lora.rank > 0)
    out.push("model.lora.rank > 0 needs model.source = pretrained: a model from scratch has no weights to freeze");
  if (c.data.adapter !== "ml-100k" && c.data.adapter !== "module" && !c.data.path)
    out.push(`data.adapter = ${c.data.adapter} needs data.path`);
  const follows: readonly string[] = columnsFollowed[c.data.adapter];
  const refused = Object.keys(c.data.columns).filter((role) => !follows.includes(role));
  if (refused.length > 0)
    out.push(
      `data.columns.${refused[0]}: data.adapter = ${c.data.adapter} ` +
        `${follows.length > 0 ? `has no such column; it reads ${follows.join(", ")}` : "has fixed columns"}; ` +
        `data.adapter = table reads any table`,
    );
  for (const [setting, isSet, adapters] of readBy)
    if (isSet(c.data) && !adapters.includes(c.data.adapter))
      out.push(`data.${setting} needs data.adapter = ${adapters.join(" or ")}, not ${c.data.adapter}`);
  const { hiddenSize, heads } = c.prerank.sasrec;
  if (hiddenSize % heads !== 0)
    out.push(`prerank.sasrec.hiddenSize = ${hiddenSize} is not a multiple of prerank.sasrec.heads = ${heads}`);
  if (c.evidence.modelFolds > c.evidence.folds)
    out.push(
      `evidence.modelFolds = ${c.evidence.modelFolds} is above evidence.folds = ${c.evidence.folds}: ` +
        `each fold of the model consists of whole folds of the statistics`,
    );
  const p = c.prerank;
  if (p.folds === 1) out.push("prerank.folds = 1 leaves no users to learn from: use 0 (by segment), or 2 or more");
  if (p.trainSlates > 0 && (p.folds === 0 || p.kind === "logged"))
    out.push("prerank.trainSlates needs prerank.folds: a pre-ranker fitted by segment has seen those answers");
  if (p.kind !== "fused" && Object.keys(p.scores).length > 0)
    out.push(`prerank.scores needs prerank.kind = fused, not ${p.kind}`);
  const clash = p.experts.find((name) => Object.hasOwn(p.scores, name)) ?? ("fused" in p.scores ? "fused" : undefined);
  if (clash) out.push(`prerank.scores.${clash}: this name is taken; choose another`);
  if (c.prerank.kind === "logged" && c.data.adapter !== "impressions" && c.data.adapter !== "mind")
    out.push(
      `prerank.kind = logged needs data.adapter = impressions or mind, not ${c.data.adapter}: only these log slates`,
    );
  if (c.sft.lambdaReasoning >= c.sft.lambdaRanking)
    out.push(
      `sft.lambdaReasoning = ${c.sft.lambdaReasoning} must be below sft.lambdaRanking = ${c.sft.lambdaRanking} ` +
        `(GR2 v1)`,
    );
  if (c.rl.reward.dehacked && c.rl.reward.kind === "rank-promotion")
    out.push(
      "rl.reward.dehacked needs rl.reward.kind = ndcg or auc: rank-promotion already pays nothing for a copied order",
    );
  for (const [setting, chosen, { module }] of [
    ["data.adapter", c.data.adapter, c.data],
    ["prerank.kind", c.prerank.kind, c.prerank],
    ["teacher.kind", c.teacher.kind, c.teacher],
    ["rl.reward.kind", c.rl.reward.kind, c.rl.reward],
  ] as const)
    if (chosen === "module" && module === "")
      out.push(`${setting} = module needs ${setting.replace(/\.[a-z]+$/, ".module")}`);
  if (c.data.adapter === "module" && c.data.path === "" && c.data.version === "")
    out.push("data.module without data.path needs data.version: other sources that it reads cannot be hashed");
  const own = c.prerank.module === "" ? "" : nameModule(c.prerank.module);
  const taken: readonly string[] = [...preRankerKinds.filter((k) => k !== "module"), ...Object.keys(c.prerank.scores)];
  if (own !== "" && taken.includes(own))
    out.push(`prerank.module: its file name, ${own}, is also the name of another pre-ranker; rename the file`);
  if (c.rl.kind === "opd" && !c.rl.opd.teacher) out.push("rl.kind = opd needs rl.opd.teacher");
  const t = c.teacher;
  const cheap = c.prerank.kind === "itemknn" || c.prerank.kind === "popularity";
  const { midtrainFolds } = c.evidence;
  if (midtrainFolds === 1 || (midtrainFolds > 1 && !cheap))
    out.push(
      `evidence.midtrainFolds = ${midtrainFolds} must be 0, or 2 or more with ` +
        `prerank.kind itemknn or popularity (not ${c.prerank.kind}), which are cheap to fit that often`,
    );
  if (t.kind !== "statistical" && t.kind !== "module" && !t.model)
    out.push(`teacher.kind = ${t.kind} needs teacher.model`);
  if (t.kind === "openai" && !t.endpoint.baseUrl) out.push("teacher.kind = openai needs teacher.endpoint.baseUrl");
  if (t.kind !== "statistical" && c.sft.target === "belief")
    out.push(`sft.target = belief needs the statistical teacher; use sft.target = order with teacher.kind = ${t.kind}`);
  if (t.endpoint.maxCost > 0 && t.endpoint.inputPrice + t.endpoint.outputPrice === 0)
    out.push("teacher.endpoint.maxCost needs inputPrice and outputPrice");
  if (t.quality.minWords > t.quality.maxWords)
    out.push(`teacher.quality.minWords = ${t.quality.minWords} is above maxWords = ${t.quality.maxWords}`);
  if (c.sid.contrastiveWeight > 0 && c.sid.method === "rqkmeans")
    out.push("sid.contrastiveWeight needs sid.method = rqvae: k-means has no gradient");
  if (c.model.source === "scratch" && typeof c.model.architecture.model_type !== "string")
    out.push('model.architecture.model_type is missing; for example "qwen3" or "llama"');
  const m = c.midtrain.mixture;
  if (m.sequential <= 0) out.push("midtrain.mixture.sequential must be above 0: re-ranking depends on it");
  if (c.sid.levels > 26) out.push(`sid.levels = ${c.sid.levels}: at most 26, because levels are named a to z`);
  return out;
}

/** A section that names a module uses it, whatever kind an extended recipe sets. */
function chooseModules({ data, prerank, teacher, rl }: z.output<typeof configSchema>): void {
  if (data.module !== "") data.adapter = "module";
  if (prerank.module !== "" && prerank.kind !== "fused") prerank.kind = "module";
  if (teacher.module !== "") teacher.kind = "module";
  if (rl.reward.module !== "") rl.reward.kind = "module";
}

function freeze<T>(value: T): T {
  if (typeof value === "object" && value !== null) {
    for (const v of Object.values(value)) freeze(v);
    Object.freeze(value);
  }
  return value;
}

/** Validates a settings tree and compiles it. `origin` names it in errors. */
export function compileConfig(tree: Tree, origin: string): Config {
  const parsed = configSchema.safeParse(tree);
  if (!parsed.success) {
    const lines = parsed.error.issues.map((i) => explain(i, tree));
    throw new ConfigError(`${origin}:\n  ${lines.join("\n  ")}`, { advice: "`gr2 config docs` lists every setting." });
  }
  resolveDefaults(parsed.data);
  chooseModules(parsed.data);
  const config: Config = freeze(parsed.data);
  const faults = impossible(config);
  if (faults.length) throw new ConfigError(`${origin}:\n  ${faults.join("\n  ")}`);
  return config;
}

/** A relative path that does not exist here but is shipped (configs/NAME.yaml) means the shipped file. */
const shipped = (path: string): string => {
  const own = resolve(repositoryRoot, path);
  return !existsSync(path) && existsSync(own) ? own : path;
};

/** Loads a config file and applies `path=value` overrides in order. */
export function loadConfig(path: string, overrides: readonly string[] = []): Config {
  const tree = readYaml(shipped(path));
  for (const assignment of overrides) applyOverride(tree, assignment);
  return compileConfig(tree, overrides.length ? `${path} with ${overrides.map((o) => `--set ${o}`).join(" ")}` : path);
}

/** Identity of a configuration: what it computes, regardless of where it runs. */
export function configHash(config: Config): string {
  const { description: _, serve: _serve, runtime, data, ...rest } = withoutPlaces(config);
  const { mode: _mode, address: _address, python: _python, ...numerics } = runtime;
  return hashJson({ ...rest, runtime: numerics, data: { ...data, cacheDir: "", path: "" } }).slice(0, 16);
}

/** Loads and validates a file; returns one line to print. */
export function checkConfigFile(path: string, overrides: readonly string[] = []): string {
  const config = loadConfig(path, overrides);
  return `${path}: ok (${configHash(config)})${config.description ? ` — ${config.description}` : ""}`;
}

export const resolvedYaml = (config: Config): string => stringify(portable(config));
