/**
 * Recognises a layout and names the settings that read it. Each layout is one entry of `recognisers`, tried in order; a
 * new layout is a new entry. Pure: works on the output of look.ts.
 */
import { isNumbered } from "../adapters/header.ts";
import { nextItemFiles } from "../adapters/next-item.ts";
import { recboleName } from "../adapters/recbole.ts";
import { knownTables } from "./known-tables.ts";
import { impressions, shownItems } from "./logs.ts";
import type { FileView, FolderView } from "./look.ts";
import { guessOutcome, type Outcome } from "./outcomes.ts";
import {
  described,
  findParts,
  has,
  named,
  nameFiles,
  pick,
  type Recognised,
  type Recogniser,
  readable,
} from "./recogniser.ts";
import { type Guesses, type InteractionRole, type ItemRole, interactionRoles, itemRoles } from "./roles.ts";

/** MIND: behaviors.tsv and news.tsv, without headers. */
const mind: Recogniser = (view) => {
  const at = (name: string) => view.files.find((f) => f.name === name);
  const [behaviors, news] = [at("behaviors.tsv"), at("news.tsv")];
  if (behaviors?.lines[0]?.split("\t").length !== 5 || news === undefined) return undefined;
  return {
    layout: "MIND, Microsoft News: logged impressions",
    settings: { adapter: "mind" },
    more: { prerank: { kind: "logged" } },
    interactions: behaviors.name,
    items: news.name,
    roles: [],
    notes: ["MIND shuffles the items it shows: the logged order is not a ranking, and outperforming it means little"],
  };
};

const retailrocket: Recogniser = (view) => {
  const events = named(view, /^events\.csv/);
  if (events === undefined || !has(events, "timestamp", "visitorid", "event", "itemid")) return undefined;
  const others = view.files.filter((f) => /^(item_properties.*|category_tree)\.csv/.test(f.name)).map((f) => f.name);
  const outcome = guessOutcome(events, new Set());
  return {
    layout: "Retailrocket's e-commerce events",
    settings: {
      adapter: "retailrocket",
      ...(events.name === "events.csv" ? {} : { files: { interactions: events.name } }),
    },
    interactions: events.name,
    others,
    roles: [],
    notes: [
      ...(outcome ? [outcome.note] : []),
      others.length > 0
        ? "item texts are hashed words, which can be compared but not understood; " +
          "a language model has little to work with"
        : "there is no item_properties*.csv: items would have no text, and semantic IDs need text",
    ],
  };
};

/** Rows of a history and its next item: MiniOneRec, RecBole's benchmark files. */
const nextItem: Recogniser = (view) => {
  const names = view.files.map((f) => f.name);
  const chosen = view.only !== undefined && /\.train\.inter$/.test(view.only) ? view.only : undefined;
  const found = nextItemFiles(names, chosen);
  const [train = "", ...later] = found?.rows ?? [];
  const file = view.files.find((f) => f.name === train);
  if (found === undefined || file === undefined) return undefined;
  const isInter = train.endsWith(".inter");
  const columns = file.columns.map((c) => recboleName(c.name));
  if (!columns.includes(isInter ? "item_id_list" : "history_item_id") || !columns.includes("item_id")) return undefined;
  const several = names.filter((n) => (isInter ? /\.train\.inter$/ : /^train\/.*\.csv$/).test(n));
  return {
    layout: `${isInter ? "RecBole's benchmark files" : "MiniOneRec's files"}: a history and its next item`,
    settings: { adapter: "next-item", ...(several.length > 1 ? { files: { interactions: train } } : {}) },
    interactions: train,
    ...(found.items ? { items: found.items } : {}),
    others: later,
    roles: [],
    notes: [
      ...(several.length > 1 ? [`found several data sets (${several.join(", ")}); proposing ${train}`] : []),
      ...(found.items ? [] : ["there is no item file: items would have no text, and semantic IDs need text"]),
    ],
  };
};

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
      ...nameFiles(view, inter, items, view.files.filter((f) => /\.(inter|item)$/.test(f.name)).length > 2),
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
    settings: { adapter: `amazon${edition}`, ...nameFiles(view, reviews, meta, true) },
    interactions: reviews.name,
    ...(meta ? { items: meta.name } : {}),
    roles: [],
    notes: [
      ...(meta ? [] : ["there is no meta_* file: items would have no text, and semantic IDs need text"]),
      ...(candidates.length > 1 ? [`${candidates.length} files contain reviews; proposing the largest`] : []),
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
    layout: "sequences, one line per user: user item item ... (TIGER, P5, S3-Rec, OneRec-Think)",
    settings: { adapter: "sequences", ...nameFiles(view, file, items, !usual) },
    interactions: file.name,
    ...(items ? { items: items.name } : {}),
    roles: [],
    notes: items ? [] : ["there is no item file: items would have no text, and semantic IDs need text"],
  };
};

/** A public data set of two tables: known-tables.ts. */
const knownTable: Recogniser = (view) => {
  for (const known of knownTables) {
    const candidates = view.files.filter(
      (f) => known.interactions.files.test(f.name) && has(f, ...known.interactions.has),
    );
    const rather = candidates.filter((f) => known.interactions.rather?.test(f.name) ?? true);
    const file = pick(view, rather.length > 0 && view.only === undefined ? rather : candidates);
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
    const outcome = guessOutcome(file, new Set(Object.values(known.columns)));
    const { names, parts } = findParts(view, file);
    const otherLogs = candidates.filter((f) => !parts.includes(f.name));
    const map = known.itemIds && view.files.find((f) => known.itemIds?.test(f.name));
    return {
      layout: known.layout,
      settings: {
        adapter: "table",
        files: {
          interactions: names,
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
      others: [...parts.filter((p) => p !== file.name), ...(map ? [map.name] : [])],
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
        ...(parts.length > 1 ? [`${parts.join(", ")} are parts of one table`] : []),
        ...(otherLogs.length > 0
          ? [
              `${otherLogs.map((f) => f.name).join(", ")} contain interactions too; ` +
                `${[names].flat().join(", ")} is proposed`,
            ]
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
    .map((t) => ({ ...t, score: scoreFile(t.file, t.roles, view) }))
    .filter(({ score }) => score > 0)
    .sort((a, b) => b.score - a.score || b.file.bytes - a.file.bytes);
  const best = scored[0];
  if (best === undefined) return undefined;
  const { file, roles } = best;
  const seen = new Set(file.records.map((r) => String(r[roles.item?.column ?? ""])));
  const items = tables
    .filter((f) => f !== file && !findParts(view, file).parts.includes(f.name))
    .map((f) => ({ file: f, roles: itemRoles(f.columns, f.records, roles.item?.column, seen) }))
    .filter((t) => t.roles.id && (t.roles.title || t.roles.categories || t.roles.description))
    .sort((a, b) => Object.keys(b.roles).length - Object.keys(a.roles).length || b.file.bytes - a.file.bytes)[0];
  const { names, parts } = findParts(view, file);
  const others = scored.slice(1).filter((t) => t.file !== items?.file && t.score >= 4 && !parts.includes(t.file.name));
  const unit = file.columns.find((c) => c.name === roles.time?.column)?.kind;
  const separator = items && detectSeparator(items.file, items.roles);
  const columns = mapColumns(roles, items?.roles ?? {});
  const outcome = guessOutcome(file, new Set(Object.values(roles).map((g) => g?.column ?? "")));
  return {
    layout: `a table of interactions${items ? " and a table of items" : ""}`,
    settings: {
      adapter: "table",
      files: { interactions: names, ...(items ? { items: items.file.name } : {}) },
      columns,
      ...keeping(outcome),
      ...(separator ? { categorySeparator: separator } : {}),
      ...(unit === "seconds" || unit === "milliseconds" ? { timeUnit: unit } : {}),
    },
    interactions: file.name,
    ...(items ? { items: items.file.name } : {}),
    others: parts.filter((p) => p !== file.name),
    roles: [...described(file, roles), ...(items ? described(items.file, items.roles) : [])],
    notes: [
      ...(outcome ? [outcome.note] : []),
      ...(parts.length > 1 ? [`${parts.join(", ")} are parts of one table`] : []),
      ...[file, ...(items ? [items.file] : [])].flatMap((f) =>
        isNumbered(f.columns[0]?.name ?? "")
          ? [`${f.name} has no header line: columns are named by number, from 0`]
          : [],
      ),
      ...(roles.time ? [] : ["no column looks like a time: the order of the file would be the order of time"]),
      ...(items ? [] : ["no file looks like items: items would have no text, and semantic IDs need text"]),
      ...(others.length > 0 ? [`${others.map((t) => t.file.name).join(", ")} could be interactions too`] : []),
    ],
  };
};

const keeping = (o: Outcome | undefined) => (o?.keep ? { keep: { [o.column]: o.keep } } : {});

/** Scores a table by its named roles; a file that looks like items (a title, no named user) scores 0. */
function scoreFile(file: FileView, roles: Guesses<InteractionRole>, view: FolderView): number {
  const byName = (["user", "item", "time", "rating"] as const).filter((r) => roles[r]?.byName).length;
  const texts = file.columns.filter(
    (c) => c.kind === "lists" || /title|descri|categor|genre|brand/i.test(c.name),
  ).length;
  const pointed = file.name === view.only ? 100 : 0;
  const usual = /interact|rating|review|order|event|click|purchase|transact|log|behavi/i.test(file.name) ? 1 : 0;
  return pointed + 2 * byName + usual + (roles.time ? 1 : 0) - (roles.user?.byName ? 0 : 2 * texts);
}

function mapColumns(roles: Guesses<InteractionRole>, items: Guesses<ItemRole>): Record<string, string | number> {
  const value = (column: string): string | number => (isNumbered(column) ? Number(column.slice(1)) : column);
  return Object.fromEntries(
    Object.entries({ ...roles, ...items }).flatMap(([role, guess]) => (guess ? [[role, value(guess.column)]] : [])),
  );
}

/** The separator in most category strings, if it is not the default. */
function detectSeparator(file: FileView, roles: Guesses<ItemRole>): string | undefined {
  const column = roles.categories?.column;
  if (column === undefined || file.columns.find((c) => c.name === column)?.kind === "lists") return undefined;
  const values = file.records.map((r) => r[column]).filter((v): v is string => typeof v === "string" && v !== "");
  const share = (s: string): number => values.filter((v) => v.includes(s)).length / Math.max(1, values.length);
  if (share("|") > 0.1) return undefined;
  return [" > ", ">", ";", ", ", ",", "/"].find((s) => share(s) > 0.3);
}

const recognisers: readonly Recogniser[] = [
  mind,
  retailrocket,
  nextItem,
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
