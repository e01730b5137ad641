/** Recognises logged slates: what an incumbent ranker showed, with one row per request or per shown item. Pure. */
import type { FileView, FolderView } from "./look.ts";
import { described, type Recognised, type Recogniser, readable } from "./recogniser.ts";
import { interactionRoles, itemRoles } from "./roles.ts";

/** Common column names of logged slates, by role. */
const slateColumns: readonly (readonly [role: string, names: RegExp])[] = [
  ["candidates", /^(candidates|slate|slates|shown|impressions?|exposed|item_?ids)$/i],
  ["scores", /^(scores?|predictions?)$/i],
  ["labels", /^(labels?|grades?|relevance)$/i],
  ["positives", /^(positives|clicked|clicks|purchased|chosen)$/i],
];

/** Logged slates, one row per request: a column with lists of items, and the outcome. */
export const impressions: Recogniser = (view) => {
  for (const file of view.files) {
    const roles = slateColumns.flatMap(([role, names]) => {
      const column = file.columns.find((c) => names.test(c.name) && c.kind === "lists");
      return column ? [{ file: file.name, role, column: column.name, why: "its values are lists" }] : [];
    });
    const { user, time } = interactionRoles(file.columns, file.records.length);
    if (!roles.some((r) => r.role === "candidates") || !user?.byName) continue;
    return aLog(view, file, "a log of slates, one row per request", [
      ...roles,
      ...described(file, { user, ...(time ? { time } : {}) }),
    ]);
  }
  return undefined;
};

/** Common column names of a log where every row is a shown item. */
const shownColumns: readonly (readonly [role: string, names: RegExp])[] = [
  ["slate", /^(slate|request|impression|search|query|page_?view|session_?request)(_?id)?$/i],
  ["label", /^(label|grade|relevance|clicked|click|is_?click(ed)?|purchased|converted|target)$/i],
  ["position", /^(position|pos|rank|place|slot)$/i],
  ["score", /^(score|prediction|pred|incumbent_?score|model_?score)$/i],
];

/** Logged slates, one row per shown item: a request id that several rows share, and the outcome of each item. */
export const shownItems: Recogniser = (view) => {
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
    if (requests.size > 0.7 * file.records.length) continue; // almost no two rows share a request
    const taken = new Set(found.values());
    const { user, item, time } = interactionRoles(
      file.columns.filter((c) => !taken.has(c.name)),
      file.records.length,
    );
    if (!user?.byName || !item) continue;
    return aLog(view, file, "a log of slates, one row per shown item", [
      ...[...found].map(([role, column]) => ({ file: file.name, role, column, why: "by its name" })),
      ...described(file, { user, item, ...(time ? { time } : {}) }),
    ]);
  }
  return undefined;
};

/** The proposal for both forms: the impressions adapter, and the item file. */
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
