/** Identity of the data a user points at: the run's cache must notice when a file there changes. */
import { readdirSync, statSync } from "node:fs";
import { basename, dirname, join, relative, resolve } from "node:path";
import { DataError } from "../core/errors.ts";
import { hashJson, sha256File } from "../core/hash.ts";
import { type FileNames, filesNamed } from "./adapters/locate.ts";

/** Larger files count by size and time of change: hashing them at every start would take longer than the start. */
const contentLimitBytes = 256 * 2 ** 20;

/** Settings that say where the data are. */
export interface SourceSettings {
  readonly path: string;
  readonly files?: Readonly<Record<string, FileNames | undefined>>;
}

/**
 * Hash of the files directly in `path`; of a file and, by size and time of change, its neighbours, where the items may
 * lie; and of files named that are elsewhere. Undefined without a path: then the data are fetched, and
 * their checksum is part of the code. Throws DataError if the path does not exist.
 */
export async function sourceHash(data: SourceSettings): Promise<string | undefined> {
  const { path } = data;
  if (path === "") return undefined;
  const stat = statSync(path, { throwIfNoEntry: false });
  if (!stat)
    throw new DataError(`data.path = ${path}: there is no such file or folder.`, {
      advice: "Set data.path to the folder of the data, for example --set data.path=FOLDER.",
    });
  const folder = resolve(stat.isDirectory() ? path : dirname(path));
  const files = readdirSync(folder, { withFileTypes: true })
    .filter((e) => e.isFile() || e.isSymbolicLink())
    .map((e) => join(folder, e.name))
    .sort();
  const entries: (string | number)[][] = [];
  for (const file of [...files, ...namedElsewhere(folder, data.files ?? {})]) {
    const own = statSync(file, { throwIfNoEntry: false });
    if (!own?.isFile()) continue; // a link to nowhere or to a folder
    const { size, mtimeMs } = own;
    const byTime = size > contentLimitBytes || (stat.isFile() && basename(file) !== basename(path));
    entries.push([relative(folder, file), size, byTime ? mtimeMs : await sha256File(file)]);
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

/**
 * Files that the settings name and that are not directly in the folder. What is not there is the data stage's to say.
 */
function namedElsewhere(folder: string, files: NonNullable<SourceSettings["files"]>): string[] {
  const named = Object.values(files).flatMap((names) => {
    try {
      return names === undefined ? [] : filesNamed(folder, names);
    } catch {
      return [];
    }
  });
  return [...new Set(named)].filter((file) => dirname(file) !== folder).sort();
}
