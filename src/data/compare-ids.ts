/** Explains why ids of two tables do not match: shows both, and the transformation after which they would match. */
import type { Duck } from "./duck.ts";

/** Transformations of ids, and the reason if ids of both sides match after one. */
const likely: readonly (readonly [sql: string, reason: string])[] = [
  ["lower(id)", "they differ in case"],
  ["ltrim(id, '0')", "one side is padded with zeros"],
  ["regexp_replace(id, '\\.0+$', '')", "one side went through floating point (101.0 for 101)"],
  ["trim(id, '\"'' ')", "one side is in quotes"],
  ["regexp_replace(id, '^.*[/:#_-]', '')", "one side has a prefix"],
  ["regexp_replace(id, '\\D', '', 'g')", "the digits agree but not the characters around them"],
  ["regexp_replace(id, '\\s', '', 'g')", "they differ in white space"],
  ["strip_accents(lower(id))", "they differ in accents"],
];

/** One side of the comparison. */
export interface Side {
  /** SQL of a query with the column `id`. */
  readonly ids: string;
  /** As in "ids in the ...". */
  readonly name: string;
}

const interactions: Side = { ids: "SELECT i AS id FROM raw_interactions", name: "interactions" };
const items: Side = { ids: "SELECT i AS id FROM raw_items", name: "item file" };

/** A sentence for the log or an error. By default, about the items of raw_interactions and raw_items. */
export async function compareIds(duck: Duck, here = interactions, there = items): Promise<string> {
  await duck.run(`CREATE OR REPLACE TEMP TABLE ids_there AS SELECT DISTINCT id FROM (${there.ids});
    CREATE OR REPLACE TEMP TABLE ids_here AS SELECT DISTINCT id FROM (${here.ids})
      ANTI JOIN ids_there USING (id) ORDER BY id LIMIT 1000`);
  const show = async (table: string): Promise<string> =>
    (await duck.rows(`SELECT id FROM ${table} ORDER BY id LIMIT 3`)).map((r) => JSON.stringify(r.id)).join(", ");
  const [own, theirs] = [await show("ids_here"), await show("ids_there")];
  const reason = await guessReason(duck, here.name, there.name);
  await duck.run("DROP TABLE ids_here; DROP TABLE ids_there");
  return (
    `ids only in the ${here.name}: ${own}; in the ${there.name}: ` +
    `${theirs || "none"}${reason === undefined ? "" : `; ${reason}`}`
  );
}

async function guessReason(duck: Duck, here: string, there: string): Promise<string | undefined> {
  const count = await duck.number("SELECT count(*) FROM ids_here");
  for (const [table, name] of [
    ["ids_here", here],
    ["ids_there", there],
  ] as const) {
    const rounded = await duck.number(`SELECT avg(regexp_matches(id, '[eE]\\+?\\d+$')::INTEGER) FROM ${table}`);
    if (rounded > 0.5)
      return `ids in the ${name} are written as rounded floating-point numbers: their last digits are lost`;
  }
  for (const [sql, reason] of likely) {
    const met = await duck.number(
      `SELECT count(*) FROM ids_here h WHERE ${sql.replaceAll("id", "h.id")} <> '' AND
        ${sql.replaceAll("id", "h.id")} IN (SELECT ${sql} FROM ids_there)`,
    );
    if (met > 0.5 * count) return `likely because ${reason}`;
  }
  return undefined;
}
