/**
 * Writes a small shop to ./data next to this file (or to a given folder): users walk along shelves of items, mostly
 * forward. Every call writes the same data.
 *
 *   interactions.csv, items.jsonl         for the table adapter
 *   lake/events/month=YYYY-MM/*.parquet, lake/items.parquet   the same for examples/parquet-lake
 */
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DuckDBInstance } from "@duckdb/node-api";

const people = 60;
const visits = 20;
const shelves = ["Tea", "Cups", "Books", "Lamps", "Plants"];
const words = ["Small", "Round", "Blue", "Old", "Quiet", "Green"];
const perShelf = 8;

/** Park and Miller's generator: enough for a toy. */
let state = 20261128;
const draw = (n) => {
  state = (state * 48271) % 2147483647;
  return state % n;
};

const folder = process.argv[2] ?? join(import.meta.dirname, "data");
rmSync(folder, { recursive: true, force: true });
mkdirSync(join(folder, "lake"), { recursive: true });

const things = Array.from({ length: shelves.length * perShelf }, (_, i) => ({
  item_id: `t${i}`,
  title: `${words[i % words.length]} ${shelves[Math.floor(i / perShelf)]} ${i}`,
  categories: [shelves[Math.floor(i / perShelf)], words[(5 * i) % words.length]],
}));
writeFileSync(join(folder, "items.jsonl"), things.map((t) => `${JSON.stringify(t)}\n`).join(""));

const rows = ["user_id,item_id,timestamp"];
for (let person = 0; person < people; person++) {
  const met = new Set();
  let at = draw(things.length);
  while (met.size < visits) {
    at = draw(5) === 0 ? draw(things.length) : (at + 1 + draw(3)) % things.length;
    if (met.has(at)) continue;
    met.add(at);
    rows.push(`p${person},t${at},${1_700_000_000 + 200_000 * met.size + 50 * person}`);
  }
}
writeFileSync(join(folder, "interactions.csv"), `${rows.join("\n")}\n`);

const duck = await (await DuckDBInstance.create(":memory:")).connect();
const quoted = (path) => `'${join(folder, path).replaceAll("'", "''")}'`;
await duck.run(`COPY (SELECT user_id, item_id, to_timestamp(timestamp) AS seen, strftime(to_timestamp(timestamp), '%Y-%m') AS month
  FROM read_csv(${quoted("interactions.csv")}) ORDER BY timestamp) TO ${quoted("lake/events")} (FORMAT parquet, PARTITION_BY (month))`);
await duck.run(`COPY (SELECT * FROM read_json(${quoted("items.jsonl")})) TO ${quoted("lake/items.parquet")} (FORMAT parquet)`);
