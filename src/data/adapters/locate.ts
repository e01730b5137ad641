/**
 * Finds a data set's files by their published names. Files that the user names take precedence; otherwise exactly one
 * file must match, and the error lists the names that were tried. Reads no contents.
 */
import { existsSync, readdirSync, statSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { DataError } from "../../core/errors.ts";

/** Names to look for, most common first: the first pattern with a match is used. */
export interface Wanted {
  /** For messages: "reviews", "items". */
  readonly what: string;
  /** The setting that names the file. */
  readonly setting: string;
  readonly patterns: readonly { readonly name: string; readonly fits: RegExp }[];
}

/** Names of the files directly in a folder, sorted. Throws DataError if it is not a folder. */
export function filesIn(folder: string): string[] {
  try {
    return readdirSync(folder, { withFileTypes: true })
      .filter((e) => !e.isDirectory() && !e.name.startsWith("."))
      .map((e) => e.name)
      .sort();
  } catch (cause) {
    throw new DataError(`data.path = ${folder}: there is no such folder.`, { cause, advice: "Set data.path." });
  }
}

/** One file name, several, or patterns with *, ? and **; a folder means all files below it. */
export type FileNames = string | readonly string[];

/** part-10 comes after part-9. */
const byNumber = new Intl.Collator("en", { numeric: true }).compare;
const inOrder = (a: string, b: string): number => byNumber(a, b) || (a < b ? -1 : 1);

/**
 * The paths of named files, in the order given; those of a pattern or a folder by name, numbers by size.
 * @throws DataError if a name has no file
 */
export function filesNamed(folder: string, names: FileNames): readonly string[] {
  const found = (typeof names === "string" ? [names] : names).flatMap((name) => {
    const path = resolve(folder, name);
    if (isFolder(path)) return filesWithin(path);
    if (!/[*?]/.test(name) || existsSync(path)) return [path];
    const parts = name.split("/");
    const fixed = parts.findIndex((p) => /[*?]/.test(p));
    const matching = matchParts(
      resolve(folder, parts.slice(0, fixed).join("/") || (name.startsWith("/") ? "/" : ".")),
      parts.slice(fixed),
    );
    if (matching.length === 0) throw new DataError(`${folder} has no file that matches ${name}.`);
    return matching.sort(inOrder);
  });
  if (found.length === 0) throw new DataError(`${folder}: the list of file names is empty.`);
  return [...new Set(found)];
}

const isFolder = (path: string): boolean => statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;

/**
 * Files of a folder and its subfolders (`date=2024-01-01/part-0.parquet`); names that begin with _ or . are ignored:
 * they are other programs' notes.
 */
function filesWithin(folder: string): string[] {
  return listEntries(folder)
    .flatMap((e) => (e.isDirectory() ? filesWithin(join(folder, e.name)) : [join(folder, e.name)]))
    .sort(inOrder);
}

const listEntries = (folder: string) =>
  readdirSync(folder, { withFileTypes: true }).filter((e) => !/^[._]/.test(e.name));

/** Files under `folder` whose path matches the parts: `*` and `?` within a name, `**` for any folders. */
function matchParts(folder: string, [part = "", ...rest]: readonly string[]): string[] {
  if (!isFolder(folder)) return [];
  const paths = listEntries(folder).map((e) => join(folder, e.name));
  if (part === "**") return [...matchParts(folder, rest), ...paths.flatMap((p) => matchParts(p, [part, ...rest]))];
  const pattern = part.replace(/[.+^${}()|[\]\\]/g, "\\$&");
  const fits = new RegExp(`^${pattern.replaceAll("*", ".*").replaceAll("?", ".")}$`);
  return paths
    .filter((p) => fits.test(basename(p)))
    .flatMap((p) => (rest.length > 0 ? matchParts(p, rest) : isFolder(p) ? filesWithin(p) : [p]));
}

/** The path of the one file that matches, undefined if none does. Throws DataError if several do. */
export function locate(folder: string, wanted: Wanted): string | undefined {
  const names = filesIn(folder);
  for (const { name, fits } of wanted.patterns) {
    const found = names.filter((n) => fits.test(n));
    if (found.length > 1)
      throw new DataError(
        `${folder} has ${found.length} files that could contain the ${wanted.what} (${name}): ` +
          `${found.slice(0, 5).join(", ")}.`,
        { advice: `Name the right one with ${wanted.setting}.` },
      );
    if (found[0] !== undefined) return join(folder, found[0]);
  }
  return undefined;
}

/** Like locate, but also throws DataError if no file matches. */
export function locateOrFail(folder: string, wanted: Wanted): string {
  const found = locate(folder, wanted);
  if (found !== undefined) return found;
  const names = filesIn(folder);
  const there = names.length === 0 ? "it is empty" : `it has ${names.slice(0, 8).join(", ")}`;
  throw new DataError(
    `${folder} has no file with the ${wanted.what}; looked for ${wanted.patterns.map((p) => p.name).join(", ")}, ` +
      `but ${there}${names.length > 8 ? ", ..." : ""}.`,
    { advice: `Name the file with ${wanted.setting}, or see how GR2 reads the folder: gr2 data inspect ${folder}` },
  );
}

/** Removes undefined keys. */
export const given = <T extends object>(o: T): { [K in keyof T]?: Exclude<T[K], undefined> } =>
  Object.fromEntries(Object.entries(o).filter(([, v]) => v !== undefined)) as {
    [K in keyof T]?: Exclude<T[K], undefined>;
  };
