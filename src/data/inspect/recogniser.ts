/** The interface of a recogniser, and file checks that several share. Pure. */
import type { FileView, FolderView } from "./look.ts";
import type { Guesses } from "./roles.ts";

export interface Recognised {
  /** In plain words. */
  readonly layout: string;
  /** Settings under `data`, all but name and path. */
  readonly settings: Readonly<Record<string, unknown>>;
  /** Settings outside `data` that belong to the layout. */
  readonly more?: Readonly<Record<string, unknown>>;
  readonly interactions: string;
  readonly items?: string;
  /** More files that the proposal reads. */
  readonly others?: readonly string[];
  /** Column -> role, with the reason. */
  readonly roles: readonly {
    readonly file: string;
    readonly role: string;
    readonly column: string;
    readonly why: string;
  }[];
  /** What the user should know or check. */
  readonly notes: readonly string[];
}

export type Recogniser = (view: FolderView) => Recognised | undefined;

export const named = (view: FolderView, pattern: RegExp): FileView | undefined =>
  pick(
    view,
    view.files.filter((f) => pattern.test(f.name)),
  );

/** The file that the path names, else the largest. */
export const pick = (view: FolderView, files: readonly FileView[]): FileView | undefined =>
  files.find((f) => f.name === view.only) ?? [...files].sort((a, b) => b.bytes - a.bytes)[0];

export const has = (f: FileView, ...columns: readonly string[]): boolean => {
  const names = new Set(f.columns.map((c) => c.name));
  return columns.every((c) => names.has(c));
};

export const nameFiles = (view: FolderView, interactions: FileView, items: FileView | undefined, several: boolean) =>
  view.only !== undefined || several
    ? { files: { interactions: interactions.name, ...(items ? { items: items.name } : {}) } }
    : {};

export const readable = (f: FileView): boolean =>
  ["csv", "tsv", "jsonl", "parquet"].includes(f.format) &&
  f.problem === undefined &&
  /\.(csv|tsv|jsonl|json|ndjson)(\.gz)?$|\.parquet$/i.test(f.name);

export const described = (file: FileView, roles: Guesses<string>): Recognised["roles"] =>
  Object.entries(roles).flatMap(([role, guess]) =>
    guess ? [{ file: file.name, role, column: guess.column, why: guess.why }] : [],
  );
