/**
 * Columns with the outcome of a row: an item that was shown but not clicked is not an interaction. A yes/no column
 * becomes a filter (data.keep); kinds of events are listed for the user to decide. Pure.
 */
import type { FileView } from "./look.ts";

export interface Outcome {
  readonly column: string;
  /** The rows to keep; undefined if the note asks the user instead. */
  readonly keep?: readonly string[];
  /** Explanation for the user. */
  readonly note: string;
}

/** Yes/no columns, most informative first. */
const happened = [
  ...[/^is_?click(ed)?$/i, /^click(ed)?(_?label)?$/i, /^(is_?)?(purchased?|bought|buy|converted|conversion)$/i],
  ...[/^is_?read$/i, /^label$/i, /^(is_?)?(positive|relevant|liked?)$/i, /^target$/i],
];
const kinds = /^(event|action|behaviou?r|interaction|activity|feedback)(_?(type|name|kind))?$/i;
/** Kinds whose names mean that an item was shown, not chosen. */
const onlyShown = /^(impressions?|impress|shown?|show|exposures?|exposed?|display(ed)?)$/i;

/** The outcome column of a table of interactions, if it has one. `taken`: columns that already have a role. */
export function guessOutcome(file: FileView, taken: ReadonlySet<string>): Outcome | undefined {
  const free = file.columns.filter((c) => !taken.has(c.name) && c.distinct >= 2);
  for (const pattern of happened) {
    const column = free.find((c) => pattern.test(bare(c.name)) && c.distinct === 2);
    const found = column && yesOrNo(column.name, measureShares(file, column.name));
    if (found) return found;
  }
  const column = free.find((c) => kinds.test(bare(c.name)) && c.distinct <= 12);
  if (column !== undefined) return classifyKinds(column.name, measureShares(file, column.name));
  return free
    .filter((c) => c.distinct === 2 && !/^(ratings?|stars|overall)$/i.test(bare(c.name)))
    .flatMap((c) => askAbout(c.name, measureShares(file, c.name)) ?? [])[0];
}

/** A yes/no column of another name may be an outcome as well. */
function askAbout(column: string, shares: Shares): Outcome | undefined {
  const found = yesOrNo(column, shares);
  const [yes, no] = [found?.keep?.[0] ?? "", shares.find(([v]) => v !== found?.keep?.[0])];
  if (found === undefined || no === undefined || no[1] < 0.3) return undefined;
  return {
    column,
    note: `${column} = ${no[0]} in ${percent(no[1])} of the rows read: all rows count as interactions. If this means that the user did not choose the item, set data.keep: { ${column}: [${yes}] }`,
  };
}

/** RecBole's `label:float` is label. */
const bare = (name: string): string => name.split(":")[0] ?? name;

type Shares = readonly (readonly [value: string, share: number])[];

/** Values among the sampled rows, most frequent first. */
function measureShares(file: FileView, column: string): Shares {
  const counts = new Map<string, number>();
  const values = file.records.map((r) => r[column]).filter((v) => v !== undefined && v !== null && v !== "");
  for (const v of values) counts.set(String(v), (counts.get(String(v)) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1]).map(([v, n]) => [v, n / values.length] as const);
}

const percent = (share: number): string => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;

function yesOrNo(column: string, shares: Shares): Outcome | undefined {
  const yes = shares.find(([v]) => /^(1(\.0+)?|true|t|yes|y)$/i.test(v));
  const no = shares.find(([v]) => /^(0(\.0+)?|-1|false|f|no|n)$/i.test(v));
  if (!yes || !no) return undefined;
  return {
    column,
    keep: [yes[0]],
    note:
      `${column} = ${no[0]} in ${percent(no[1])} of the rows read: ` +
      `these are not interactions; data.keep keeps the rows with ${yes[0]}`,
  };
}

function classifyKinds(column: string, shares: Shares): Outcome {
  const told = shares.map(([v, s]) => `${v} (${percent(s)})`).join(", ");
  const chosen = shares.map(([v]) => v).filter((v) => !onlyShown.test(v));
  if (chosen.length > 0 && chosen.length < shares.length)
    return { column, keep: chosen, note: `${column} contains ${told}; data.keep drops items that were only shown` };
  const rarest = shares.at(-1)?.[0] ?? "";
  return {
    column,
    note:
      `${column} contains ${told}: all count as interactions; ` +
      `data.keep: { ${column}: [${rarest}] } would keep only one kind`,
  };
}
