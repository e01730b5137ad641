/**
 * What a module's results depend on, for its stage's key and the manifest: the bytes of its file and of everything it
 * imports by relative path, in either language, and the versions of the packages it imports. Code behind an
 * address has the version that the recipe declares. Files that a module reads at run time are not seen: declare a
 * version for them.
 */
import { existsSync, readFileSync, statSync } from "node:fs";
import { builtinModules } from "node:module";
import { basename, dirname, join, relative, resolve } from "node:path";
import { hashJson, sha256 } from "../core/hash.ts";
import { repositoryRoot } from "../core/paths.ts";
import { typescriptImports } from "../run/imports.ts";
import { findFile, findLanguage, type NamedPlugin, pluginMisfit } from "./named.ts";

export interface PluginIdentity {
  readonly setting: string;
  readonly module: string;
  readonly version: string;
  /** Hash of its files and packages; "" if its code runs elsewhere. */
  readonly sha256: string;
  /** Relative to the module's folder. */
  readonly files: readonly string[];
  /** Package versions by name. */
  readonly packages: Readonly<Record<string, string>>;
}

/** @param packages of a Python module, as its interpreter reports them */
export function identify(plugin: NamedPlugin, packages: Readonly<Record<string, string>> = {}): PluginIdentity {
  const { setting, module, version } = plugin;
  const file = findFile(module);
  if (file === undefined) return { setting, module, version, sha256: "", files: [], packages: {} };
  const python = findLanguage(plugin) === "python";
  const found = followImports(file, python ? localModules : localFiles);
  const versions = python ? packages : findPackages(found);
  const folder = dirname(file);
  const files = found.map((f) => relative(folder, f));
  const bytes = found.map((f, i) => [files[i], sha256(readFileSync(f))]);
  const host = python ? sha256(readFileSync(join(repositoryRoot, "python_worker/gr2_worker/plugins.py"))) : "";
  const hash = hashJson({ entry: module.slice(folder.length), bytes, versions, host });
  return { setting, module: basename(module), version, sha256: hash, files, packages: versions };
}

/** Throws ConfigError if its file does not exist. */
export function requireFile(plugin: NamedPlugin): void {
  const file = findFile(plugin.module);
  if (file !== undefined && !statSync(file, { throwIfNoEntry: false })?.isFile())
    throw pluginMisfit(plugin, "file not found");
}

/** Files of a module and of what it imports, sorted. */
function followImports(entry: string, importedBy: (file: string) => string[]): string[] {
  const found = new Set<string>();
  const queue = [entry];
  for (let file = queue.pop(); file !== undefined; file = queue.pop()) {
    if (found.has(file)) continue;
    found.add(file);
    queue.push(...importedBy(file));
  }
  return [...found].sort();
}

function findImports(file: string): string[] {
  const text = readFileSync(file, "utf8");
  const required = [...text.matchAll(/\brequire\(\s*["']([^"']+)["']\s*\)/g)].map((m) => m[1] as string);
  const imported = typescriptImports(text, file).filter(({ onlyTypes }) => !onlyTypes);
  return [...imported.map(({ specifier }) => specifier), ...required];
}

const isFile = (path: string): boolean => statSync(path, { throwIfNoEntry: false })?.isFile() === true;

/** "./a", "./a.js" for a.ts, "./folder": what a bundler or tsx would resolve. */
function localFiles(file: string): string[] {
  if (!/\.[cm]?[jt]sx?$/.test(file)) return []; // imported data: JSON
  return findImports(file)
    .filter((s) => s.startsWith("."))
    .flatMap((s) => {
      const path = resolve(dirname(file), s);
      const stem = path.replace(/\.([cm]?)js$/, ".$1ts");
      const endings = ["", ".ts", ".js", ".mts", ".mjs", ".json", "/index.ts", "/index.js"];
      return [path, stem, ...endings.map((e) => path + e)].find(isFile) ?? [];
    });
}

/** Modules in the folder of a Python file, and packages there. */
function localModules(file: string): string[] {
  const code = readFileSync(file, "utf8");
  const folder = dirname(file);
  const names = [
    ...[...code.matchAll(/^[ \t]*from[ \t]+(\.*[\w.]*)[ \t]+import[ \t]+(?:\(([^)]*)\)|([^\n]*))/gm)].flatMap((m) => {
      const from = (m[1] as string).replace(/^\.+/, "");
      const inside = `${m[2] ?? ""}${m[3] ?? ""}`.split(",").map((name) => name.trim().split(/\s/)[0] as string);
      return [from, ...inside.map((name) => (from === "" ? name : `${from}.${name}`))];
    }),
    ...[...code.matchAll(/^[ \t]*import[ \t]+([^\n]+)/gm)].flatMap((m) =>
      (m[1] as string).split(",").map((name) => name.trim().split(/\s/)[0] as string),
    ),
  ];
  return names
    .filter((name) => /^[\w.]+$/.test(name))
    .flatMap((name) => {
      const path = join(folder, ...name.split("."));
      return [`${path}.py`, join(path, "__init__.py")].filter(isFile);
    });
}

/** Versions of the packages that scripts import; "?" if none is found. */
function findPackages(files: readonly string[]): Record<string, string> {
  const out: Record<string, string> = {};
  for (const file of files) {
    if (!/\.[cm]?[jt]sx?$/.test(file)) continue;
    for (const specifier of findImports(file)) {
      if (specifier.startsWith(".") || specifier.startsWith("/") || /^node:/.test(specifier)) continue;
      const name = specifier
        .split("/")
        .slice(0, specifier.startsWith("@") ? 2 : 1)
        .join("/");
      if (builtinModules.includes(name)) continue;
      out[name] = packageVersion(name, dirname(file));
    }
  }
  return Object.fromEntries(Object.entries(out).sort(([a], [b]) => (a < b ? -1 : 1)));
}

function packageVersion(name: string, from: string): string {
  for (let folder = from; ; folder = dirname(folder)) {
    const path = join(folder, "node_modules", name, "package.json");
    if (existsSync(path))
      return String((JSON.parse(readFileSync(path, "utf8")) as { version?: string }).version ?? "?");
    if (folder === dirname(folder)) return "?";
  }
}
