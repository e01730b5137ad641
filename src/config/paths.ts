/**
 * What settings that are paths are relative to: in a recipe to the recipe's folder, with --set to the working directory, by
 * default to the installation. Reads nothing but whether a file is there.
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
/** Paths, ids of a hub, or names: a path where there is such a file. */
const pathsOrNames = ["model.path", "embed.model", "teacher.model", "rl.initial", "rl.opd.teacher"];
/** A command where it has no slash. */
const commands = ["runtime.python"];
/** Whose defaults belong to the installation. */
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

/** Makes the paths of a settings tree absolute, in place: they are relative to `folder`. */
export function resolvePaths(tree: Tree, folder: string): void {
  const full = (value: string): string => resolve(folder, value);
  for (const path of paths) change(tree, path, full);
  for (const path of pathsOrNames) change(tree, path, (v) => (existsSync(full(v)) ? full(v) : v));
  for (const path of commands) change(tree, path, (v) => (v.includes("/") ? full(v) : v));
}

/** The same for defaults, which are relative to the installation. */
export function resolveDefaults(tree: object): void {
  for (const path of installed)
    change(tree, path, (v) => (v.includes("/") || path === "data.cacheDir" ? join(repositoryRoot, v) : v));
}

/** A copy of a configuration that another machine can read: paths within the installation are relative to it again. */
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
