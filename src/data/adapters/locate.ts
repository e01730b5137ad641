/**
 * Finds a data set's files by the names they are published under. Named files win; otherwise exactly one file must fit,
 * and the error says what was looked for. Reads no contents.
 */
import { readdirSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { DataError } from "../../core/errors.ts";

/** What is looked for, most usual name first: the first pattern that any file fits decides. */
export interface Wanted {
  /** For messages: "reviews", "items". */
  readonly what: string;
  /** The setting that names the file. */
  readonly setting: string;
  readonly patterns: readonly { readonly name: string; readonly fits: RegExp }[];
}

/** Names of the files directly in a folder, sorted. Throws DataError if it is none. */
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

/** One file name, several, or patterns with * and ?; a folder stands for the files in it. */
export type FileNames = string | readonly string[];

/** The paths of named files, in the order given; a pattern's or folder's by name. Throws DataError where there is none. */
export function filesNamed(folder: string, names: FileNames): readonly string[] {
  const found = (typeof names === "string" ? [names] : names).flatMap((name) => {
    const path = join(folder, name);
    if (statSync(path, { throwIfNoEntry: false })?.isDirectory() === true)
      return filesIn(path)
        .filter((n) => !n.startsWith("_"))
        .map((n) => join(path, n));
    if (!/[*?]/.test(name)) return [path];
    const own = dirname(path);
    const fits = new RegExp(
      `^${basename(name)
        .replace(/[.+^${}()|[\]\\]/g, "\\$&")
        .replaceAll("*", ".*")
        .replaceAll("?", ".")}$`,
    );
    const matching = filesIn(own).filter((n) => fits.test(n));
    if (matching.length === 0) throw new DataError(`${own} has no file that fits ${basename(name)}.`);
    return matching.map((n) => join(own, n));
  });
  if (found.length === 0) throw new DataError(`${folder}: no file is named.`);
  return [...new Set(found)];
}

/** The path of the one file that fits, undefined if none does. Throws DataError if several do. */
export function locate(folder: string, wanted: Wanted): string | undefined {
  const names = filesIn(folder);
  for (const { name, fits } of wanted.patterns) {
    const found = names.filter((n) => fits.test(n));
    if (found.length > 1)
      throw new DataError(
        `${folder} has ${found.length} files that could hold the ${wanted.what} (${name}): ${found.slice(0, 5).join(", ")}.`,
        { advice: `Say which one with ${wanted.setting}.` },
      );
    if (found[0] !== undefined) return join(folder, found[0]);
  }
  return undefined;
}

/** As locate, but none is a DataError too. */
export function locateOrFail(folder: string, wanted: Wanted): string {
  const found = locate(folder, wanted);
  if (found !== undefined) return found;
  const names = filesIn(folder);
  const there = names.length === 0 ? "it is empty" : `it has ${names.slice(0, 8).join(", ")}`;
  throw new DataError(
    `${folder} has no file with the ${wanted.what}; looked for ${wanted.patterns.map((p) => p.name).join(", ")}, and ${there}${names.length > 8 ? ", ..." : ""}.`,
    { advice: `Name the file with ${wanted.setting}, or see what GR2 makes of the folder: gr2 data inspect ${folder}` },
  );
}

/** Without the keys that are undefined. */
export const given = <T extends object>(o: T): { [K in keyof T]?: Exclude<T[K], undefined> } =>
  Object.fromEntries(Object.entries(o).filter(([, v]) => v !== undefined)) as {
    [K in keyof T]?: Exclude<T[K], undefined>;
  };
