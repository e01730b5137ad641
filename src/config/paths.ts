/**
 * Resolves settings that are paths: relative to the recipe's folder in a recipe, to the working directory with --set,
 * and to the installation for defaults. Only checks whether files exist.
 */
import { existsSync } from "node:fs";
import { basename, isAbsolute, join, relative, resolve } from "node:path";
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
/** Sections with a user's module: a path, unless it is an address. */
const pluginSections = ["data", "prerank", "teacher", "rl.reward", "eval.metrics.*", "eval.baselines.*"];
/** Paths, hub ids, or names: treated as a path if the file exists. */
const pathsOrNames = ["model.path", "embed.model", "teacher.model", "rl.initial", "rl.opd.teacher"];
/** Treated as a command if there is no slash. */
const commands = ["runtime.python"];
/** Settings whose defaults are relative to the installation. */
const installed = ["data.cacheDir", "runtime.python"];

/** Calls `use` for every node that a path leads to, with the key of the value; `*` is any key. */
function visit(tree: unknown, path: string, use: (node: Tree, key: string) => void): void {
  const [first = "", ...rest] = path.split(".");
  if (typeof tree !== "object" || tree === null) return;
  const node = tree as Tree;
  for (const key of first === "*" ? Object.keys(node) : [first]) {
    if (rest.length > 0) visit(node[key], rest.join("."), use);
    else use(node, key);
  }
}

/** Applies `by` to the values at `path` that are relative paths. */
function change(tree: unknown, path: string, by: (value: string) => string): void {
  visit(tree, path, (node, key) => {
    const value = node[key];
    if (typeof value === "string" && value !== "" && !isAbsolute(value)) node[key] = by(value);
  });
}

/** Makes the paths of a settings tree absolute, in place; relative ones are resolved against `folder`. */
export function resolvePaths(tree: Tree, folder: string): void {
  const full = (value: string): string => resolve(folder, value);
  for (const path of paths) change(tree, path, full);
  for (const section of pluginSections) change(tree, `${section}.module`, (v) => (isAddress(v) ? v : full(v)));
  for (const path of pathsOrNames) change(tree, path, (v) => (existsSync(full(v)) ? full(v) : v));
  for (const path of commands) change(tree, path, (v) => (v.includes("/") ? full(v) : v));
}

/** Whether a module is called over HTTP. */
export const isAddress = (module: string): boolean => /^https?:\/\//.test(module);

/** A copy of a configuration that does not depend on where its modules are: only their content counts. */
export function withoutPlaces<T extends object>(config: T): T {
  const copy = structuredClone(config);
  for (const section of pluginSections) {
    visit(copy, `${section}.module`, (node, key) => {
      const value = node[key];
      if (typeof value === "string" && !isAddress(value)) node[key] = basename(value);
    });
    visit(copy, `${section}.timeoutSeconds`, (node, key) => delete node[key]);
  }
  return copy;
}

/** The same for defaults, which are resolved against the installation. */
export function resolveDefaults(tree: object): void {
  for (const path of installed)
    change(tree, path, (v) => (v.includes("/") || path === "data.cacheDir" ? join(repositoryRoot, v) : v));
}

/** A portable copy of a configuration: paths within the installation become relative to it. */
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
