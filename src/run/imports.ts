/**
 * What a source file imports, in both languages, parsed from its text. Cache keys (code-hash.ts), the rules about rooms
 * (tests/architecture) and `npm run imports` all use these edges, so they cannot disagree.
 *
 * Paths are relative to the repository, with forward slashes ("src/stages/sid.ts").
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join, posix, relative, sep } from "node:path";

export interface Import {
  /** As written: "../core/errors.ts", "node:fs", "gr2_worker.errors". */
  readonly specifier: string;
  /**
   * The file of this repository it names; undefined: a package. A TypeScript file need not exist, a Python one must.
   */
  readonly path: string | undefined;
  /** Imports only types, so it changes no result. */
  readonly onlyTypes: boolean;
}

export const workerPackages = "python_worker";

/** Source files of a folder and its sub-folders, sorted, without generated code (which follows from the protos). */
export function listSources(folder: string, root: string): string[] {
  return readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && /\.(ts|py)$/.test(entry.name))
    .map((entry) => relative(root, join(entry.parentPath, entry.name)).split(sep).join("/"))
    .filter((path) => !isGenerated(path))
    .sort();
}

export const isGenerated = (path: string): boolean => path.includes("/generated/");

export function readImports(path: string, root: string): Import[] {
  const text = readFileSync(join(root, path), "utf8");
  return path.endsWith(".py") ? pythonImports(text, root) : typescriptImports(text, path);
}

/** Imports, re-exports and import(...) with a literal, one per statement. */
export function typescriptImports(text: string, path: string): Import[] {
  const code = text.replace(/\/\*[\s\S]*?\*\//g, "").replace(/^\s*\/\/.*$/gm, "");
  const found = [
    ...[...code.matchAll(/^\s*(?:import|export)\b([^;'"]*?)\bfrom\s*["']([^"']+)["']/gm)].map(([, names, from]) => ({
      specifier: from as string,
      onlyTypes: namesOnlyTypes(names as string),
    })),
    ...[...code.matchAll(/\bimport\s*\(?\s*["']([^"']+)["']/g)].map(([, from]) => ({
      specifier: from as string,
      onlyTypes: false,
    })),
  ];
  return found.map(({ specifier, onlyTypes }) => ({
    specifier,
    path: specifier.startsWith(".") ? posix.join(dirname(path), specifier) : undefined,
    onlyTypes,
  }));
}

/** `type { A }`, `{ type A, type B }`. */
function namesOnlyTypes(names: string): boolean {
  if (/^\s*type\b/.test(names)) return true;
  const braces = names.match(/^\s*\{([^}]*)\}\s*$/)?.[1];
  if (braces === undefined) return false;
  return braces
    .split(",")
    .map((name) => name.trim())
    .filter((name) => name !== "")
    .every((name) => name.startsWith("type "));
}

/** The worker's own modules. `from gr2_worker.model import lm` names a module or a name in one, so both are tried. */
function pythonImports(text: string, root: string): Import[] {
  const whenRun = text.replace(/^if TYPE_CHECKING:\n(?:[ \t]+.*\n|\n)+/gm, "");
  const run = new Set(pythonModules(whenRun));
  return [...new Set(pythonModules(text))].flatMap((name) => {
    const path = `${workerPackages}/${name.replaceAll(".", "/")}`;
    return [`${path}.py`, `${path}/__init__.py`]
      .filter((file) => existsSync(join(root, file)))
      .map((file) => ({ specifier: name, path: file, onlyTypes: !run.has(name) }));
  });
}

const pythonImport = /^[ \t]*(?:from (gr2_worker[\w.]*) import (?:\(([^)]*)\)|([^\n]*))|import (gr2_worker[\w.]*))/gm;

function pythonModules(text: string): string[] {
  return [...text.matchAll(pythonImport)].flatMap(([, from, inBraces = "", inLine = "", whole]) =>
    whole !== undefined
      ? [whole]
      : [
          from as string,
          ...`${inBraces},${inLine}`
            .split(",")
            .map((name) => name.trim().split(" ")[0] as string)
            .filter((name) => name !== "")
            .map((name) => `${from}.${name}`),
        ],
  );
}

/** Cycles of a graph, one line each ("b -> c -> b"), found by depth-first search. */
export function findCycles(graph: ReadonlyMap<string, readonly string[]>): string[] {
  const done = new Set<string>();
  const found: string[] = [];
  const visit = (node: string, trail: readonly string[]): void => {
    const at = trail.indexOf(node);
    if (at >= 0) {
      found.push([...trail.slice(at), node].join(" -> "));
      return;
    }
    if (done.has(node)) return;
    for (const next of graph.get(node) ?? []) visit(next, [...trail, node]);
    done.add(node);
  };
  for (const node of graph.keys()) visit(node, []);
  return found;
}
