/**
 * Hash of the code a result depends on: its entry files and all they import, directly or not, in both languages. Needs
 * no git. Type-only imports change no result and are left out; so is generated code, which follows from the protos.
 *
 * A worker verb counts as code too: the module that computes it, all that module imports, and the client that packs its
 * tensors.
 */
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { RunError } from "../core/errors.ts";
import { hashJson, sha256 } from "../core/hash.ts";
import { repositoryRoot } from "../core/paths.ts";
import { isGenerated, readImports, workerPackages } from "./imports.ts";
import { type Verb, verbModules } from "./verbs.ts";

/** Packs and unpacks messages, on either side of the wire. */
const wire = ["src/worker/client.ts", "python_worker/gr2_worker/rpc/wire.py"];

const known = new Map<string, string>();

/**
 * @param entries files relative to the repository ("src/stages/sid.ts")
 * @param verbs the worker verbs they call
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
  const computed =
    verbs.length > 0 ? [...wire, ...verbs.map((v) => `${workerPackages}/gr2_worker/${verbModules[v]}`)] : [];
  const found = new Set<string>();
  const queue = [...entries, ...computed];
  for (let file = queue.pop(); file !== undefined; file = queue.pop()) {
    if (found.has(file)) continue;
    if (!statSync(join(root, file), { throwIfNoEntry: false })?.isFile())
      throw new RunError(`cannot hash the code: ${file} does not exist`);
    found.add(file);
    for (const { path, onlyTypes } of readImports(file, root))
      if (path !== undefined && !onlyTypes && !isGenerated(path)) queue.push(path);
  }
  return [...found].sort();
}
