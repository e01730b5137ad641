/**
 * Reads events of a Parquet lake, partitioned by month, straight into GR2's tables with SQL. It names every file it
 * reads, so that a changed file counts as new data. For Postgres, `ATTACH` it in the same DuckDB, or yield its rows
 * from read().
 */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import type { Adapter, Plugin } from "gr2/plugins";

const plugin: Plugin<Adapter> = ({ options }) => ({
  async load(duck, { path }) {
    const from = String(options.from ?? "");
    const files = readdirSync(join(path, "events"), { recursive: true, encoding: "utf8" })
      .filter((f) => f.endsWith(".parquet") && (/month=([0-9-]+)/.exec(f)?.[1] ?? "") >= from)
      .map((f) => join(path, "events", f))
      .sort();
    if (files.length === 0) throw new Error(`no events since ${from} in ${path}`);
    const items = join(path, "items.parquet");
    const list = files.map(quote).join(", ");
    await duck.run(`INSERT INTO raw_interactions SELECT user_id, item_id, NULL, epoch(seen) FROM read_parquet([${list}])`);
    await duck.run(`INSERT INTO raw_items SELECT item_id, title, '', to_json(categories), '', row_number() OVER () - 1
      FROM read_parquet(${quote(items)})`);
    const rowsRead = await duck.number("SELECT count(*) FROM raw_interactions");
    return { files: [...files, items], rowsRead, hasItems: true, hasClock: true, notes: [`${files.length} files of events`] };
  },
});
export default plugin;

const quote = (text: string): string => `'${text.replaceAll("'", "''")}'`;
