/**
 * What settings that are paths are relative to: in a recipe to the recipe's folder, with --set to the working directory, by
 * default to the installation. Reads nothing but whether a file is there.
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
];
/** Sections with a module of the user's: a path, unless it is an address. */
const pluginSections = ["rl.reward", "eval.metrics.*", "eval.baselines.*"];
/** Paths, ids of a hub, or names: a path where there is such a file. */
const pathsOrNames = ["model.path", "embed.model", "teacher.model", "rl.initial", "rl.opd.teacher"];
/** A command where it has no slash. */
const commands = ["runtime.python"];
/** Whose defaults belong to the installation. */
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

/** Changes relative paths. */
function change(tree: unknown, path: string, by: (value: string) => string): void {
  visit(tree, path, (node, key) => {
    const value = node[key];
    if (typeof value === "string" && value !== "" && !isAbsolute(value)) node[key] = by(value);
  });
}

/** Makes the paths of a settings tree absolute, in place: they are relative to `folder`. */
export function resolvePaths(tree: Tree, folder: string): void {
  const full = (value: string): string => resolve(folder, value);
  for (const path of paths) change(tree, path, full);
  for (const section of pluginSections) change(tree, `${section}.module`, (v) => (isAddress(v) ? v : full(v)));
  for (const path of pathsOrNames) change(tree, path, (v) => (existsSync(full(v)) ? full(v) : v));
  for (const path of commands) change(tree, path, (v) => (v.includes("/") ? full(v) : v));
}

/** Whether a module is asked over HTTP. */
export const isAddress = (module: string): boolean => /^https?:\/\//.test(module);

/** A copy of a configuration that says the same wherever its modules are: their content is what counts. */
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
