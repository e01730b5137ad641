/**
 * Resolves settings that are paths: relative to the recipe's folder in a recipe, to the working directory with --set,
 * and to the installation for defaults. Only checks whether files exist.
 */
import { existsSync } from "node:fs";
import { isAbsolute, join, relative, resolve } from "node:path";
import { repositoryRoot } from "../core/paths.ts";

type Tree = { [key: string]: unknown };

/** Always paths. */
const paths = [
  "data.path",
  "data.cacheDir",
  "midtrain.languageFile",
  "serve.security.tokens",
  "serve.security.tls.cert",
  "serve.security.tls.key",
  "serve.security.tls.clientCa",
  "eval.baselines.*",
  "prerank.scores.*",
];
/** Paths, hub ids, or names: treated as a path if such a file exists. */
const pathsOrNames = ["model.path", "embed.model", "teacher.model", "rl.initial", "rl.opd.teacher"];
/** Treated as a command if there is no slash. */
const commands = ["runtime.python"];
/** Settings whose defaults are relative to the installation. */
const installed = ["data.cacheDir", "runtime.python"];

function change(tree: unknown, path: string, by: (value: string) => string): void {
  const keys = path.split(".");
  const last = keys.pop() ?? "";
  let node: unknown = tree;
  for (const key of keys) node = typeof node === "object" && node !== null ? (node as Tree)[key] : undefined;
  if (typeof node !== "object" || node === null) return;
  for (const key of last === "*" ? Object.keys(node) : [last]) {
    const value = (node as Tree)[key];
    if (typeof value === "string" && value !== "" && !isAbsolute(value)) (node as Tree)[key] = by(value);
  }
}

/** Makes the paths of a settings tree absolute, in place; relative ones are resolved against `folder`. */
export function resolvePaths(tree: Tree, folder: string): void {
  const full = (value: string): string => resolve(folder, value);
  for (const path of paths) change(tree, path, full);
  for (const path of pathsOrNames) change(tree, path, (v) => (existsSync(full(v)) ? full(v) : v));
  for (const path of commands) change(tree, path, (v) => (v.includes("/") ? full(v) : v));
}

/** The same for defaults, which are resolved against the installation. */
export function resolveDefaults(tree: object): void {
  for (const path of installed)
    change(tree, path, (v) => (v.includes("/") || path === "data.cacheDir" ? join(repositoryRoot, v) : v));
}

/** A copy of a configuration that other machines can read: paths within the installation become relative to it. */
export function portable<T extends object>(config: T): T {
  const copy = structuredClone(config);
  const tree: unknown = copy;
  for (const path of installed) {
    const [section = "", key = ""] = path.split(".");
    const node = (tree as Tree)[section] as Tree | undefined;
    const value = node?.[key];
    if (node !== undefined && typeof value === "string" && value.startsWith(`${repositoryRoot}/`))
      node[key] = relative(repositoryRoot, value);
  }
  return copy;
}
