/** Assigns roles to columns: by name, else by values. Every guess has a reason. Pure. */
import { isNumbered } from "../adapters/header.ts";
import type { ColumnKind, ColumnView } from "./look.ts";

export interface Guess {
  readonly column: string;
  /** The reason, for the user to confirm. */
  readonly why: string;
  readonly byName: boolean;
}

export type InteractionRole = "user" | "item" | "time" | "rating";
export type ItemRole = "id" | "title" | "brand" | "categories" | "description";
export type Guesses<R extends string> = Partial<Record<R, Guess>>;

const itemNames = [
  ...["itemid", "item", "iid", "productid", "product", "asin", "parentasin", "sku", "movieid", "articleid", "trackid"],
  ...[
    "artistid",
    "songid",
    "bookid",
    "isbn",
    "newsid",
    "videoid",
    "gameid",
    "businessid",
    "listingid",
    "contentid",
    "docid",
  ],
  ...["poiid", "venueid", "courseid", "recipeid", "hotelid", "adid", "creativeid", "gid", "goodsid", "photoid"],
];

/** Names in lower case without punctuation, in order of preference. */
const synonyms: Readonly<Record<InteractionRole | ItemRole, readonly string[]>> = {
  user: [
    ...[
      "userid",
      "user",
      "uid",
      "customerid",
      "customer",
      "reviewerid",
      "visitorid",
      "memberid",
      "clientid",
      "buyerid",
    ],
    ...["accountid", "profileid", "sessionid", "session", "member", "client", "buyer"],
  ],
  item: itemNames,
  time: [
    ...["timestamp", "time", "unixreviewtime", "ts", "datetime", "eventtime", "createdat", "orderedat", "purchasedat"],
    ...["timestampms", "timems", "eventtimems", "tsms", "unixtime", "epoch", "dateadded"],
    ...[
      "date",
      "tdat",
      "eventtimestamp",
      "createdtime",
      "purchasedate",
      "orderdate",
      "reviewtime",
      "position",
      "order",
    ],
  ],
  rating: ["rating", "ratings", "stars", "overall", "score", "rate", "reviewscore"],
  id: [...itemNames, "id", "code"],
  title: [
    "title",
    "name",
    "productname",
    "itemname",
    "producttitle",
    "movietitle",
    "prodname",
    "headline",
    "titlename",
    "appname",
    "caption",
  ],
  brand: ["brand", "brandname", "store", "manufacturer", "author", "artist", "publisher", "vendor", "seller"],
  categories: [
    ...["categories", "category", "genres", "genre", "class", "productcategory", "maincategory", "department"],
    ...["productgroupname", "producttype", "tags"],
  ],
  description: ["description", "desc", "summary", "overview", "abstract", "detaildesc", "about", "features", "text"],
};

const plain = (name: string): string => (name.split(":")[0] ?? "").toLowerCase().replace(/[^a-z0-9]/g, "");

function byName(
  columns: readonly ColumnView[],
  role: InteractionRole | ItemRole,
  taken: ReadonlySet<string>,
): Guess | undefined {
  for (const synonym of synonyms[role]) {
    const column = columns.find((c) => !taken.has(c.name) && c.kind !== "empty" && plain(c.name) === synonym);
    if (column !== undefined) return { column: column.name, why: "by its name", byName: true };
  }
  return undefined;
}

const clocks: ReadonlySet<ColumnKind> = new Set(["seconds", "milliseconds", "microseconds", "nanoseconds", "dates"]);

/** A named time, else any time, else days, else a named order (0, 1, 2, ...). */
function guessClock(columns: readonly ColumnView[], taken: ReadonlySet<string>): Guess | undefined {
  const free = columns.filter((c) => !taken.has(c.name) && c.kind !== "text");
  const clock = free.find((c) => clocks.has(c.kind));
  const days = free.find((c) => c.kind === "days as YYYYMMDD");
  const byValues = (c: ColumnView | undefined): Guess | undefined =>
    c && { column: c.name, why: `its values are ${c.kind}`, byName: false };
  return (
    byName(
      free.filter((c) => clocks.has(c.kind)),
      "time",
      taken,
    ) ??
    byValues(clock) ??
    byValues(days) ??
    byName(free, "time", taken)
  );
}

/** `rows`: how many rows the views were made of. */
export function interactionRoles(columns: readonly ColumnView[], rows: number): Guesses<InteractionRole> {
  const out: Guesses<InteractionRole> = {};
  const taken = new Set<string>();
  const take = (role: InteractionRole, guess: Guess | undefined): void => {
    if (guess === undefined || out[role] !== undefined) return;
    out[role] = guess;
    taken.add(guess.column);
  };
  const isId = (c: ColumnView): boolean => (c.kind === "text" || c.kind === "whole numbers") && c.missing < 0.5;
  const usable = columns.filter((c) => c.kind !== "lists");
  // By name, any column except a measure qualifies: ten-digit numbers can be ids as well as seconds.
  const nameable = usable.filter((c) => c.kind !== "numbers" && c.kind !== "dates" && c.missing < 0.5);
  take("user", byName(nameable, "user", taken));
  take("item", byName(nameable, "item", taken));
  take("time", guessClock(usable, taken));
  take(
    "rating",
    byName(
      usable.filter((c) => c.kind === "numbers" || c.kind === "whole numbers"),
      "rating",
      taken,
    ),
  );
  // Ids recur. A column whose values all differ is neither a user nor an item.
  const repeated = usable.filter((c) => !taken.has(c.name) && isId(c) && c.distinct >= 2 && c.distinct < rows);
  for (const role of ["user", "item"] as const) {
    const next = repeated.find((c) => !taken.has(c.name));
    if (next)
      take(role, {
        column: next.name,
        why: `a guess: its values recur (${next.distinct} different in ${rows} rows)`,
        byName: false,
      });
  }
  return out;
}

/** Whether a column has several categories in one string. */
const isSplit = (c: ColumnView): boolean => c.examples.some((e) => /[|;>]/.test(e));

/** @param interactionItem name of the interactions' item column; @param ids item ids in the sampled interactions */
export function itemRoles(
  columns: readonly ColumnView[],
  records: readonly Readonly<Record<string, unknown>>[],
  interactionItem?: string,
  ids: ReadonlySet<string> = new Set(),
): Guesses<ItemRole> {
  const out: Guesses<ItemRole> = {};
  const taken = new Set<string>();
  const take = (role: ItemRole, guess: Guess | undefined): void => {
    if (guess === undefined) return;
    out[role] = guess;
    taken.add(guess.column);
  };
  const unique = columns.filter(
    (c) => c.kind !== "lists" && c.missing < 0.5 && c.distinct > 0.9 * records.length * (1 - c.missing),
  );
  const overlap = (c: ColumnView): number => records.filter((r) => ids.has(String(r[c.name]))).length;
  const named = byName(unique, "id", taken);
  const same = unique.find((c) => c.name === interactionItem && !isNumbered(c.name));
  const best = [...unique].sort((a, b) => overlap(b) - overlap(a))[0];
  if (same) take("id", { column: same.name, why: "named as in the interactions", byName: true });
  else if (best && overlap(best) > 0 && overlap(best) > 2 * (named ? overlap({ ...best, name: named.column }) : 0))
    take("id", { column: best.name, why: "its values match the interactions' items", byName: false });
  else take("id", named);
  const texts = columns.filter((c) => isNumbered(c.name) && !taken.has(c.name) && c.kind === "text");
  const [title, categories] = [texts.find((c) => !isSplit(c)), texts.find(isSplit)];
  for (const [role, c] of Object.entries({ title, categories }) as [ItemRole, ColumnView | undefined][])
    take(role, c && { column: c.name, why: "a guess: its values are text", byName: false });
  for (const role of ["title", "brand", "categories", "description"] as const)
    take(
      role,
      byName(
        columns.filter((c) => c.kind === "text" || c.kind === "lists" || role === "categories"),
        role,
        taken,
      ),
    );
  return out;
}
