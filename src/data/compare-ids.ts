/** Why the items of interactions are not those of the item file: ids of both side by side, and what would make them one. */
import type { Duck } from "./duck.ts";

/** What may be done to an id, and what it means if ids of both sides then meet. */
const likely: readonly (readonly [sql: string, reason: string])[] = [
  ["lower(id)", "they differ in upper and lower case"],
  ["ltrim(id, '0')", "one side is padded with zeros"],
  ["regexp_replace(id, '\\.0+$', '')", "one side went through floating point (101.0 for 101)"],
  ["trim(id, '\"'' ')", "one side is in quotes"],
  ["regexp_replace(id, '^.*[/:#_-]', '')", "one side has a prefix"],
  ["regexp_replace(id, '\\D', '', 'g')", "they have the same digits with other characters around them"],
  ["regexp_replace(id, '\\s', '', 'g')", "they differ in blanks"],
  ["strip_accents(lower(id))", "they differ in accents"],
];

/** Needs raw_interactions and raw_items. A sentence for the log or an error. */
export async function compareIds(duck: Duck): Promise<string> {
  await duck.run(`CREATE OR REPLACE TEMP TABLE ids_here AS SELECT DISTINCT i AS id FROM raw_interactions
      ANTI JOIN raw_items USING (i) ORDER BY id LIMIT 1000;
    CREATE OR REPLACE TEMP TABLE ids_there AS SELECT DISTINCT i AS id FROM raw_items`);
  const show = async (table: string): Promise<string> =>
    (await duck.rows(`SELECT id FROM ${table} ORDER BY id LIMIT 3`)).map((r) => JSON.stringify(r.id)).join(", ");
  const [here, there] = [await show("ids_here"), await show("ids_there")];
  const reason = await parseReason(duck);
  await duck.run("DROP TABLE ids_here; DROP TABLE ids_there");
  return `ids in the interactions alone: ${here}; in the item file: ${there || "none"}${reason === undefined ? "" : `; ${reason}`}`;
}

async function parseReason(duck: Duck): Promise<string | undefined> {
  const here = await duck.number("SELECT count(*) FROM ids_here");
  const rounded = await duck.number("SELECT count(*) FROM ids_here WHERE regexp_matches(id, '[eE]\\+?\\d+$')");
  if (here > 0 && rounded > 0.5 * here)
    return "ids in the interactions are written as rounded floating-point numbers: their last digits are lost";
  const theirs = await duck.number("SELECT avg(regexp_matches(id, '[eE]\\+?\\d+$')::INTEGER) FROM ids_there");
  if (theirs > 0.5)
    return "ids in the item file are written as rounded floating-point numbers: their last digits are lost";
  for (const [sql, reason] of likely) {
    const met = await duck.number(
      `SELECT count(*) FROM ids_here h WHERE ${sql.replaceAll("id", "h.id")} <> '' AND
        ${sql.replaceAll("id", "h.id")} IN (SELECT ${sql} FROM ids_there)`,
    );
    if (met > 0.5 * here) return `likely because ${reason}`;
  }
  return undefined;
}
