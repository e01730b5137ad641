/** The interface of a recogniser, and file checks that several share. Pure. */
import type { FileView, FolderView } from "./look.ts";
import type { Guesses } from "./roles.ts";

export interface Recognised {
  /** The layout's name, in plain words. */
  readonly layout: string;
  /** Settings under `data`, all but name and path. */
  readonly settings: Readonly<Record<string, unknown>>;
  /** Settings outside `data` that the layout requires. */
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
  /** Notes for the user to know or check. */
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
  /\.(csv|tsv|tab|dat|jsonl|json|ndjson)(\.(gz|zst))?$|\.(parquet|pq)$/i.test(f.name);

/** Files that are parts of one table: names that differ only in numbers, and equal columns. */
export function findParts(
  view: FolderView,
  file: FileView,
): { readonly names: string | readonly string[]; readonly parts: readonly string[] } {
  const stem = (name: string): string => name.replace(/\d+/g, "0");
  const columns = (f: FileView): string => f.columns.map((c) => c.name).join("\n");
  const parts = view.files
    .filter((f) => stem(f.name) === stem(file.name) && columns(f) === columns(file))
    .map((f) => f.name);
  if (parts.length < 2 || file.name === view.only) return { names: file.name, parts: [file.name] };
  const same = (a: string, b: string): number => Array.from(a).findIndex((ch, k) => ch !== b[k]);
  const reversed = (s: string): string => Array.from(s).reverse().join("");
  const common = (names: readonly string[]): number =>
    Math.min(...names.map((n) => (same(n, names[0] ?? "") < 0 ? n.length : same(n, names[0] ?? ""))));
  const [head, tail] = [common(parts), common(parts.map(reversed))];
  const first = parts[0] ?? "";
  const [prefix, suffix] = [first.slice(0, head), first.slice(Math.max(head, first.length - tail))];
  const others = view.files.filter(
    (f) => !parts.includes(f.name) && f.name.startsWith(prefix) && f.name.endsWith(suffix),
  );
  return { names: others.length > 0 ? parts : `${prefix}*${suffix}`, parts };
}

export const described = (file: FileView, roles: Guesses<string>): Recognised["roles"] =>
  Object.entries(roles).flatMap(([role, guess]) =>
    guess ? [{ file: file.name, role, column: guess.column, why: guess.why }] : [],
  );
