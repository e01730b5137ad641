/** Identity of the data a user points at: the run's cache must notice when a file there changes. */
import { readdirSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { DataError } from "../core/errors.ts";
import { hashJson, sha256File } from "../core/hash.ts";

/** Larger files count by size and time of change: hashing them at every start would take longer than the start. */
const contentLimitBytes = 256 * 2 ** 20;

/**
 * Hash of the files directly in `path`; of a file and, by size and time of change, its neighbours, where the items may
 * lie. Undefined without a path: then the data are fetched, and
 * their checksum is part of the code. Throws DataError if the path does not exist.
 */
export async function sourceHash(data: { readonly path: string }): Promise<string | undefined> {
  const { path } = data;
  if (path === "") return undefined;
  const stat = statSync(path, { throwIfNoEntry: false });
  if (!stat)
    throw new DataError(`data.path = ${path}: there is no such file or folder.`, {
      advice: "Set data.path to the folder of the data, for example --set data.path=FOLDER.",
    });
  const folder = stat.isDirectory() ? path : dirname(path);
  const files = readdirSync(folder, { withFileTypes: true })
    .filter((e) => e.isFile() || e.isSymbolicLink())
    .map((e) => join(folder, e.name))
    .sort();
  const entries: (string | number)[][] = [];
  for (const file of files) {
    const own = statSync(file, { throwIfNoEntry: false });
    if (!own?.isFile()) continue; // a link to nowhere or to a folder
    const { size, mtimeMs } = own;
    const byTime = size > contentLimitBytes || (stat.isFile() && basename(file) !== basename(path));
    entries.push([basename(file), size, byTime ? mtimeMs : await sha256File(file)]);
  }
  // Parts of a data set in folders of their own (next-item): by size and time of change.
  for (const part of ["train", "valid", "test", "index"]) {
    const inner = join(folder, part);
    if (!stat.isDirectory() || !statSync(inner, { throwIfNoEntry: false })?.isDirectory()) continue;
    for (const name of readdirSync(inner).sort()) {
      const own = statSync(join(inner, name), { throwIfNoEntry: false });
      if (own?.isFile()) entries.push([`${part}/${name}`, own.size, own.mtimeMs]);
    }
  }
  return hashJson(entries);
}
