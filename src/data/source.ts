/** Identity of the user's data: the run's cache must notice when a file changes. */
import { readdirSync, statSync } from "node:fs";
import { basename, dirname, join, relative, resolve } from "node:path";
import { DataError } from "../core/errors.ts";
import { hashJson, sha256File } from "../core/hash.ts";
import { type FileNames, filesNamed } from "./adapters/locate.ts";

/** Larger files are identified by size and modification time: hashing them would take longer than the start itself. */
const contentLimitBytes = 256 * 2 ** 20;

/** Settings that locate the data. */
export interface SourceSettings {
  readonly path: string;
  readonly files?: Readonly<Record<string, FileNames | undefined>>;
}

/**
 * Hash of the files directly in `path`; if it is a file, of that file and, by size and modification time, its
 * neighbours, which may contain the items; and of named files elsewhere. Undefined without a path: the data is then
 * fetched, and its checksum is part of the code. Throws DataError if the path does not exist.
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
    if (!own?.isFile()) continue; // a broken link or a link to a folder
    const { size, mtimeMs } = own;
    const byTime = size > contentLimitBytes || (stat.isFile() && basename(file) !== basename(path));
    entries.push([relative(folder, file), size, byTime ? mtimeMs : await sha256File(file)]);
  }
  // Parts of a data set in subfolders (next-item): by size and modification time.
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

/** Files named by the settings that are not directly in the folder. The data stage reports missing ones. */
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
