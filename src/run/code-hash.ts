/**
 * Hash of the code a result depends on: what its entry files import, followed to the end, in both languages. A checkout
 * without git works the same. Type-only imports change no result and are left out; so is generated code, which follows
 * from the protos.
 *
 * A verb of the worker is code too: the module that computes it with all it imports, and the client that packs its tensors.
 */
import { existsSync, readFileSync, statSync } from "node:fs";
import { dirname, join, relative, resolve, sep } from "node:path";
import { RunError } from "../core/errors.ts";
import { hashJson, sha256 } from "../core/hash.ts";
import { repositoryRoot } from "../core/paths.ts";
import type { WorkerClient } from "../worker/types.ts";

/** What a stage may ask of the worker. Verbs that compute nothing (health, versions) belong to every stage. */
export type Verb = Exclude<keyof WorkerClient, "address" | "getInfo" | "shutdown" | "stats" | "close">;

const engine = "engine.py";
const quantizer = "items/quantizer.py";

/** The module behind each verb, below python_worker/gr2_worker. */
export const verbModules: Readonly<Record<Verb, string>> = {
  trainTokenizer: "items/bpe.py",
  embed: "items/embed.py",
  factorize: "items/factorize.py",
  fitTrees: "trees.py",
  fitSemanticIds: quantizer,
  encodeSemanticIds: quantizer,
  loadModel: engine,
  unloadModel: engine,
  forward: engine,
  forwardBackward: engine,
  optimStep: engine,
  sample: engine,
  beamSearch: engine,
  saveState: engine,
  loadState: engine,
  exportModel: engine,
};

/** All verbs over a loaded language model. */
export const modelVerbs: readonly Verb[] = (Object.keys(verbModules) as Verb[]).filter(
  (v) => verbModules[v] === engine,
);

/** Packs and unpacks what goes to a worker, on either side. */
const wire = ["src/worker/client.ts", "python_worker/gr2_worker/rpc/wire.py"];
const packages = "python_worker";

const known = new Map<string, string>();

/**
 * @param entries files relative to the repository ("src/stages/sid.ts")
 * @param verbs what they ask of the worker
 * @throws RunError if an entry or something it imports does not exist
 */
export function codeHash(entries: readonly string[], verbs: readonly Verb[] = [], root = repositoryRoot): string {
  const key = JSON.stringify([root, [...entries].sort(), [...verbs].sort()]);
  let hash = known.get(key);
  if (hash === undefined) {
    hash = hashJson(codeFiles(entries, verbs, root).map((file) => [file, sha256(readFileSync(join(root, file)))]));
    known.set(key, hash);
  }
  return hash;
}

/** The files behind `codeHash`, relative to the repository, sorted. */
export function codeFiles(entries: readonly string[], verbs: readonly Verb[] = [], root = repositoryRoot): string[] {
  const computed = verbs.length > 0 ? [...wire, ...verbs.map((v) => `${packages}/gr2_worker/${verbModules[v]}`)] : [];
  const found = new Set<string>();
  const queue = [...entries, ...computed];
  for (let file = queue.pop(); file !== undefined; file = queue.pop()) {
    if (found.has(file)) continue;
    if (!statSync(join(root, file), { throwIfNoEntry: false })?.isFile())
      throw new RunError(`cannot hash the code: ${file} does not exist`);
    found.add(file);
    queue.push(...(file.endsWith(".py") ? importedModules(file, root) : importedFiles(file, root)));
  }
  return [...found].sort();
}

const isGenerated = (file: string): boolean => file.includes("/generated/");

/** What a TypeScript or JavaScript text imports values from. */
export function findSpecifiers(text: string): string[] {
  const code = text.replace(/\/\*[\s\S]*?\*\//g, "");
  return [
    ...[...code.matchAll(/^\s*(?:import|export)\b([^;'"]*?)\bfrom\s*["']([^"']+)["']/gm)]
      .filter(([, names]) => !onlyTypes(names as string))
      .map((m) => m[2] as string),
    ...[...code.matchAll(/\bimport\s*\(?\s*["']([^"']+)["']/g)].map((m) => m[1] as string),
  ];
}

/** Files of the repository that one of them imports values from. */
function importedFiles(file: string, root: string): string[] {
  return findSpecifiers(readFileSync(join(root, file), "utf8"))
    .filter((s) => s.startsWith("."))
    .map((s) =>
      relative(root, resolve(root, dirname(file), s))
        .split(sep)
        .join("/"),
    )
    .filter((path) => !isGenerated(path));
}

/** `type { A }`, `{ type A, type B }`. */
function onlyTypes(names: string): boolean {
  if (/^\s*type\b/.test(names)) return true;
  const braces = names.match(/^\s*\{([^}]*)\}\s*$/)?.[1];
  if (braces === undefined) return false;
  return braces
    .split(",")
    .map((name) => name.trim())
    .filter((name) => name !== "")
    .every((name) => name.startsWith("type "));
}

/** Modules of the worker a Python file imports; `from gr2_worker.model import lm` names a module or a name in one. */
function importedModules(file: string, root: string): string[] {
  const code = readFileSync(join(root, file), "utf8").replace(/^if TYPE_CHECKING:\n(?:[ \t]+.*\n|\n)+/gm, "");
  const modules = [
    ...[...code.matchAll(/^[ \t]*from (gr2_worker[\w.]*) import (?:\(([^)]*)\)|([^\n]*))/gm)].flatMap((m) => [
      m[1] as string,
      ...`${m[2] ?? ""}${m[3] ?? ""}`.split(",").map((name) => `${m[1]}.${name.trim().split(" ")[0]}`),
    ]),
    ...[...code.matchAll(/^[ \t]*import (gr2_worker[\w.]*)/gm)].map((m) => m[1] as string),
  ];
  return modules
    .flatMap((name) => {
      const path = `${packages}/${name.replaceAll(".", "/")}`;
      return [`${path}.py`, `${path}/__init__.py`];
    })
    .filter((path) => !isGenerated(path) && existsSync(join(root, path)));
}
