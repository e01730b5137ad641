/** Hash of the source files a stage depends on, from their contents: a checkout without git works the same. */
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join, relative, sep } from "node:path";
import { RunError } from "../core/errors.ts";
import { hashOf, sha256 } from "../core/hash.ts";
import { repositoryRoot } from "../core/paths.ts";

const cache = new Map<string, string>();

/**
 * `parts`: files or folders relative to the repository ("src/sid", "src/stages/tokenize.ts", "python_worker/gr2_worker").
 * Counts .ts, .py and .proto files outside generated code. Throws RunError if a part does not exist.
 */
export function codeHash(parts: readonly string[], root: string = repositoryRoot): string {
  const key = JSON.stringify([root, [...parts].sort()]);
  let hash = cache.get(key);
  if (hash === undefined) {
    const files = new Set(parts.flatMap((part) => sourceFiles(join(root, part))));
    const entries = [...files].sort().map((f) => [relative(root, f).split(sep).join("/"), sha256(readFileSync(f))]);
    hash = hashOf(entries);
    cache.set(key, hash);
  }
  return hash;
}

function sourceFiles(path: string): string[] {
  const stat = statSync(path, { throwIfNoEntry: false });
  if (!stat) throw new RunError(`cannot hash the code: ${path} does not exist`);
  if (stat.isFile()) return [path];
  return readdirSync(path, { withFileTypes: true }).flatMap((e) => {
    if (e.isDirectory())
      return e.name === "generated" || e.name === "__pycache__" ? [] : sourceFiles(join(path, e.name));
    return /\.(ts|py|proto)$/.test(e.name) ? [join(path, e.name)] : [];
  });
}
