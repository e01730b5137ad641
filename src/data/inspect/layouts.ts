/**
 * Recognises a layout and names the settings that read it. Each layout is one entry of `recognisers`, tried in order; a
 * new layout is a new entry. Pure: works on what look.ts saw.
 */
import { recboleName } from "../adapters/recbole.ts";
import { knownTables } from "./known-tables.ts";
import type { FileView, FolderView } from "./look.ts";
import { type Outcome, outcomeOf } from "./outcomes.ts";
import { type Guesses, type InteractionRole, type ItemRole, interactionRoles, itemRoles } from "./roles.ts";

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
  /** What the reader should know or check. */
  readonly notes: readonly string[];
}

type Recogniser = (view: FolderView) => Recognised | undefined;

const named = (view: FolderView, pattern: RegExp): FileView | undefined =>
  pick(
    view,
    view.files.filter((f) => pattern.test(f.name)),
  );

/** The file that was pointed at, else the largest. */
const pick = (view: FolderView, files: readonly FileView[]): FileView | undefined =>
  files.find((f) => f.name === view.only) ?? [...files].sort((a, b) => b.bytes - a.bytes)[0];

const has = (f: FileView, ...columns: readonly string[]): boolean => {
  const names = new Set(f.columns.map((c) => c.name));
  return columns.every((c) => names.has(c));
};

const filesOf = (view: FolderView, interactions: FileView, items: FileView | undefined, several: boolean) =>
  view.only !== undefined || several
    ? { files: { interactions: interactions.name, ...(items ? { items: items.name } : {}) } }
    : {};

const recbole: Recogniser = (view) => {
  const inter = named(view, /\.inter$/);
  if (inter === undefined) return undefined;
  const items = named(view, /\.item$/);
  const roles = interactionRoles(inter.columns, inter.records.length);
  const usual: Readonly<Record<string, string>> = {
    ...{ user: "user_id", item: "item_id", time: "timestamp", rating: "rating" },
  };
  const other = Object.entries(roles).filter(([role, g]) => g && recboleName(g.column) !== usual[role]);
  const columns = Object.fromEntries(other.map(([role, g]) => [role, recboleName(g?.column ?? "")]));
  return {
    layout: "RecBole's atomic files",
    settings: {
      adapter: "recbole",
      ...filesOf(view, inter, items, view.files.filter((f) => /\.(inter|item)$/.test(f.name)).length > 2),
      ...(other.length > 0 ? { columns } : {}),
    },
    interactions: inter.name,
    ...(items ? { items: items.name } : {}),
    roles: described(inter, roles),
    notes: items ? [] : ["there is no .item file: items would have no text, and semantic IDs need text"],
  };
};

const movielens: Recogniser = (view) => {
  const at = (name: string) => view.files.find((f) => f.name === name);
  const csv = at("ratings.csv");
  const found: readonly [FileView | undefined, string, string][] = [
    [at("u.data"), "u.item", "MovieLens 100K"],
    [at("ratings.dat"), "movies.dat", "MovieLens 1M or 10M (::)"],
    [csv && has(csv, "userId", "movieId") ? csv : undefined, "movies.csv", "MovieLens 20M or latest (CSV)"],
  ];
  for (const [ratings, movies, layout] of found)
    if (ratings !== undefined && at(movies) !== undefined)
      return {
        layout,
        settings: { adapter: "movielens" },
        interactions: ratings.name,
        items: movies,
        roles: [],
        notes: [],
      };
  return undefined;
};

const amazon: Recogniser = (view) => {
  const isReviews = (f: FileView): boolean =>
    has(f, "reviewerID", "asin", "unixReviewTime") || has(f, "user_id", "parent_asin", "timestamp");
  const candidates = view.files.filter(isReviews);
  const reviews = pick(view, candidates);
  if (reviews === undefined) return undefined;
  const stem = (name: string): string =>
    name.replace(/^(meta_|reviews_)/, "").replace(/(_5)?\.(json|jsonl|csv)(\.gz)?$/, "");
  const metas = view.files.filter((f) => /^meta_/.test(f.name));
  const meta = metas.find((f) => stem(f.name) === stem(reviews.name)) ?? metas[0];
  const edition = has(reviews, "parent_asin")
    ? "2023"
    : meta?.format === "python lines" || /^reviews_/.test(reviews.name) || has(reviews, "helpful")
      ? "2014"
      : "2018";
  return {
    layout: `Amazon Reviews ${edition}`,
    settings: { adapter: `amazon${edition}`, ...filesOf(view, reviews, meta, true) },
    interactions: reviews.name,
    ...(meta ? { items: meta.name } : {}),
    roles: [],
    notes: [
      ...(meta ? [] : ["there is no meta_* file: items would have no text, and semantic IDs need text"]),
      ...(candidates.length > 1 ? [`${candidates.length} files hold reviews; the largest is proposed`] : []),
    ],
  };
};

const sequences: Recogniser = (view) => {
  const file = pick(
    view,
    view.files.filter((f) => f.format === "sequence lines"),
  );
  if (file === undefined) return undefined;
  const items = named(
    view,
    /^items?\.jsonl(\.gz)?$|\.pretrain\.json$|\.item\.json$|^item_plain_text\.txt$|item2attributes\.json$/,
  );
  const usual = /^(sequential_data(_processed)?|user_sequences?)\.txt$/.test(file.name);
  return {
    layout: "sequences, a line a user: user item item ... (TIGER, P5, S3-Rec, OneRec-Think)",
    settings: { adapter: "sequences", ...filesOf(view, file, items, !usual) },
    interactions: file.name,
    ...(items ? { items: items.name } : {}),
    roles: [],
    notes: items ? [] : ["there is no item file: items would have no text, and semantic IDs need text"],
  };
};

/** Names that columns of logged slates have, by role. */
const slateColumns: readonly (readonly [role: string, names: RegExp])[] = [
  ["candidates", /^(candidates|slate|slates|shown|impressions?|exposed|item_?ids)$/i],
  ["scores", /^(scores?|predictions?)$/i],
  ["labels", /^(labels?|grades?|relevance)$/i],
  ["positives", /^(positives|clicked|clicks|purchased|chosen)$/i],
];

/** Logged slates, a row a request: a column of lists of items, with what came of it. */
const impressions: Recogniser = (view) => {
  for (const file of view.files) {
    const roles = slateColumns.flatMap(([role, names]) => {
      const column = file.columns.find((c) => names.test(c.name) && c.kind === "lists");
      return column ? [{ file: file.name, role, column: column.name, why: "its values are lists" }] : [];
    });
    const { user, time } = interactionRoles(file.columns, file.records.length);
    if (!roles.some((r) => r.role === "candidates") || !user?.byName) continue;
    return aLog(view, file, "a log of slates, a row a request", [
      ...roles,
      ...described(file, { user, ...(time ? { time } : {}) }),
    ]);
  }
  return undefined;
};

/** Names that columns of a log have where every row is a shown item. */
const shownColumns: readonly (readonly [role: string, names: RegExp])[] = [
  ["slate", /^(slate|request|impression|search|query|page_?view|session_?request)(_?id)?$/i],
  ["label", /^(label|grade|relevance|clicked|click|is_?click(ed)?|purchased|converted|target)$/i],
  ["position", /^(position|pos|rank|place|slot)$/i],
  ["score", /^(score|prediction|pred|incumbent_?score|model_?score)$/i],
];

/** Logged slates, a row a shown item: a request id that several rows share, and what came of each item. */
const shownItems: Recogniser = (view) => {
  for (const file of view.files.filter(readable)) {
    const found = new Map(
      shownColumns.flatMap(([role, names]) => {
        const column = file.columns.find((c) => names.test(c.name) && c.kind !== "lists" && c.kind !== "empty");
        return column ? [[role, column.name]] : [];
      }),
    );
    const [slate, label] = [found.get("slate"), found.get("label")];
    if (slate === undefined || label === undefined) continue;
    const requests = new Set(file.records.map((r) => String(r[slate])));
    if (requests.size > 0.7 * file.records.length) continue; // hardly any two rows of one request
    const taken = new Set(found.values());
    const { user, item, time } = interactionRoles(
      file.columns.filter((c) => !taken.has(c.name)),
      file.records.length,
    );
    if (!user?.byName || !item) continue;
    return aLog(view, file, "a log of slates, a row a shown item", [
      ...[...found].map(([role, column]) => ({ file: file.name, role, column, why: "by its name" })),
      ...described(file, { user, item, ...(time ? { time } : {}) }),
    ]);
  }
  return undefined;
};

/** What both forms of a log propose: the impressions adapter, with the items next to it. */
function aLog(view: FolderView, file: FileView, layout: string, own: Recognised["roles"]): Recognised {
  const items = view.files.find((f) => f !== file && /^(items?|products?|meta)/i.test(f.name) && readable(f));
  const roles = [...own, ...(items ? described(items, itemRoles(items.columns, items.records)) : [])];
  return {
    layout,
    settings: {
      adapter: "impressions",
      files: { impressions: file.name, ...(items ? { items: items.name } : {}) },
      columns: Object.fromEntries(roles.map((r) => [r.role, r.column])),
    },
    more: { prerank: { kind: "logged" } },
    interactions: file.name,
    ...(items ? { items: items.name } : {}),
    roles,
    notes: items ? [] : ["no file looks like items: items would have no text, and semantic IDs need text"],
  };
}

const readable = (f: FileView): boolean =>
  ["csv", "tsv", "jsonl", "parquet"].includes(f.format) &&
  f.problem === undefined &&
  /\.(csv|tsv|jsonl|json|ndjson)(\.gz)?$|\.parquet$/i.test(f.name);

/** A public data set that is two tables: known-tables.ts. */
const knownTable: Recogniser = (view) => {
  for (const known of knownTables) {
    const candidates = view.files.filter(
      (f) => known.interactions.files.test(f.name) && has(f, ...known.interactions.has),
    );
    const file = pick(view, candidates);
    if (file === undefined) continue;
    const found = known.items.flatMap((k) => {
      const own = view.files.find((f) => k.files.test(f.name));
      return own === undefined ? [] : [{ ...k, file: own }];
    })[0];
    const there = new Set(found?.file.columns.map((c) => c.name));
    const texts = Object.fromEntries(
      Object.entries(found?.columns ?? {}).flatMap(([role, names]) => {
        const left = [names].flat().filter((n) => there.has(n));
        return left.length === 0 ? [] : [[role, left.length === 1 ? left[0] : left]];
      }),
    );
    const outcome = outcomeOf(file, new Set(Object.values(known.columns)));
    const map = known.itemIds && view.files.find((f) => known.itemIds?.test(f.name));
    return {
      layout: known.layout,
      settings: {
        adapter: "table",
        files: {
          interactions: file.name,
          ...(found ? { items: found.file.name } : {}),
          ...(map ? { itemIds: map.name } : {}),
        },
        columns: { ...known.columns, ...texts },
        ...keeping(outcome),
        ...(found?.settings ?? {}),
        ...(known.settings ?? {}),
      },
      interactions: file.name,
      ...(found ? { items: found.file.name } : {}),
      ...(map ? { others: [map.name] } : {}),
      roles: [
        ...Object.entries(known.columns).map(([role, column]) => ({
          file: file.name,
          role,
          column,
          why: "as published",
        })),
        ...Object.entries(texts).flatMap(([role, names]) =>
          [names]
            .flat()
            .map((column) => ({ file: found?.file.name ?? "", role, column: column ?? "", why: "as published" })),
        ),
      ],
      notes: [
        ...(known.notes ?? []),
        ...(outcome ? [outcome.note] : []),
        ...(known.itemIds && !map ? [known.withoutIds ?? ""] : []),
        ...(candidates.length > 1
          ? [`${candidates.map((f) => f.name).join(", ")} hold interactions; ${file.name} is proposed`]
          : []),
        ...(found ? [] : ["no file looks like items: items would have no text, and semantic IDs need text"]),
      ],
    };
  }
  return undefined;
};

const table: Recogniser = (view) => {
  const tables = view.files.filter(readable);
  const scored = tables
    .map((file) => ({ file, roles: interactionRoles(file.columns, file.records.length) }))
    .filter(({ roles }) => roles.user && roles.item)
    .map((t) => ({ ...t, score: scoreOf(t.file, t.roles, view) }))
    .filter(({ score }) => score > 0)
    .sort((a, b) => b.score - a.score || b.file.bytes - a.file.bytes);
  const best = scored[0];
  if (best === undefined) return undefined;
  const { file, roles } = best;
  const seen = new Set(file.records.map((r) => String(r[roles.item?.column ?? ""])));
  const items = tables
    .filter((f) => f !== file)
    .map((f) => ({ file: f, roles: itemRoles(f.columns, f.records, roles.item?.column, seen) }))
    .filter((t) => t.roles.id && (t.roles.title || t.roles.categories || t.roles.description))
    .sort((a, b) => Object.keys(b.roles).length - Object.keys(a.roles).length || b.file.bytes - a.file.bytes)[0];
  const others = scored.slice(1).filter((t) => t.file !== items?.file && t.score >= 4);
  const unit = file.columns.find((c) => c.name === roles.time?.column)?.kind;
  const separator = items && separatorOf(items.file, items.roles);
  const columns = columnsOf(roles, items?.roles ?? {});
  const outcome = outcomeOf(file, new Set(Object.values(roles).map((g) => g?.column ?? "")));
  return {
    layout: `a table of interactions${items ? " and a table of items" : ""}`,
    settings: {
      adapter: "table",
      files: { interactions: file.name, ...(items ? { items: items.file.name } : {}) },
      columns,
      ...keeping(outcome),
      ...(separator ? { categorySeparator: separator } : {}),
      ...(unit === "seconds" || unit === "milliseconds" ? { timeUnit: unit } : {}),
    },
    interactions: file.name,
    ...(items ? { items: items.file.name } : {}),
    roles: [...described(file, roles), ...(items ? described(items.file, items.roles) : [])],
    notes: [
      ...(outcome ? [outcome.note] : []),
      ...(roles.time ? [] : ["no column looks like a time: the order of the file would be the order of time"]),
      ...(items ? [] : ["no file looks like items: items would have no text, and semantic IDs need text"]),
      ...(others.length > 0 ? [`${others.map((t) => t.file.name).join(", ")} could be interactions too`] : []),
    ],
  };
};

const keeping = (o: Outcome | undefined) => (o?.keep ? { keep: { [o.column]: o.keep } } : {});

/** Named roles count; a file that looks like items (a title, no named user) does not. */
function scoreOf(file: FileView, roles: Guesses<InteractionRole>, view: FolderView): number {
  const byName = (["user", "item", "time", "rating"] as const).filter((r) => roles[r]?.byName).length;
  const texts = file.columns.filter(
    (c) => c.kind === "lists" || /title|descri|categor|genre|brand/i.test(c.name),
  ).length;
  const pointed = file.name === view.only ? 100 : 0;
  const usual = /interact|rating|review|order|event|click|purchase|transact|log|behavi/i.test(file.name) ? 1 : 0;
  return pointed + 2 * byName + usual + (roles.time ? 1 : 0) - (roles.user?.byName ? 0 : 2 * texts);
}

function columnsOf(roles: Guesses<InteractionRole>, items: Guesses<ItemRole>): Record<string, string> {
  return Object.fromEntries(
    Object.entries({ ...roles, ...items }).flatMap(([role, guess]) => (guess ? [[role, guess.column]] : [])),
  );
}

const described = (file: FileView, roles: Guesses<string>): Recognised["roles"] =>
  Object.entries(roles).flatMap(([role, guess]) =>
    guess ? [{ file: file.name, role, column: guess.column, why: guess.why }] : [],
  );

/** The separator that most categories in one string hold, if it is not the default. */
function separatorOf(file: FileView, roles: Guesses<ItemRole>): string | undefined {
  const column = roles.categories?.column;
  if (column === undefined || file.columns.find((c) => c.name === column)?.kind === "lists") return undefined;
  const values = file.records.map((r) => r[column]).filter((v): v is string => typeof v === "string" && v !== "");
  const share = (s: string): number => values.filter((v) => v.includes(s)).length / Math.max(1, values.length);
  if (share("|") > 0.1) return undefined;
  return [" > ", ">", ";", ", ", ",", "/"].find((s) => share(s) > 0.3);
}

export const recognisers: readonly Recogniser[] = [
  recbole,
  movielens,
  amazon,
  sequences,
  impressions,
  knownTable,
  shownItems,
  table,
];

/** The first layout that fits. */
export function recognise(view: FolderView): Recognised | undefined {
  for (const recogniser of recognisers) {
    const found = recogniser(view);
    if (found !== undefined) return found;
  }
  return undefined;
}
