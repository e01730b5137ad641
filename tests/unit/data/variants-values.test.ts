/**
 * Variants of cases of public bug reports: the same kind of fault in another format, column, unit or layout.
 * Here: ids, ratings, lists, rows without an id. Variants in logs of slates: logs.test.ts.
 */
import { gzipSync } from "node:zlib";
import { describe } from "vitest";
import {
  array,
  csv,
  type Input,
  ids,
  items,
  jsonl,
  numbers,
  Parquet,
  parquet,
  recbole,
  record,
  sequencesIn,
  shop,
  table,
  testInputs,
} from "./shop.ts";

describe("06 and 16: ids that are numbers", () => {
  const big = (item: string): string => String(9_100_000_000_000_000n + BigInt(item) - 100n);
  const bigItems = (write: (id: string) => string): string =>
    ids.map((i) => `{"item_id": ${write(big(i))}, "title": "Item ${i}"}\n`).join("");
  const sequences = Object.fromEntries(Object.entries(sequencesIn(shop)).map(([u, own]) => [u, own.map(big)]));
  const right = { sequences, items: { [big("103")]: { title: "Item 103" } } };
  const bigCsv = csv((r) => ({ item: big(r.item) }));
  const keyed = (write: (id: string) => string): string =>
    `{${ids.map((i) => `"${write(big(i))}": {"title": "Item ${i}"}`).join(", ")}}`;
  const lines = (change: (i: string) => string): string =>
    Object.entries(sequencesIn(shop))
      .map(([u, own]) => `${u} ${own.map(change).join(" ")}\n`)
      .join("");
  testInputs([
    {
      what: "an array of items",
      files: { "interactions.csv": bigCsv, "items.json": numbers(bigItems(String).trim().split("\n")) },
      ...right,
    },
    {
      what: "9100000000000003.0 in JSON",
      files: { "interactions.csv": bigCsv, "items.jsonl": bigItems((i) => `${i}.0`) },
      ...right,
    },
    {
      what: "9100000000000003.0 in JSON interactions",
      files: {
        "interactions.jsonl": jsonl(
          (r) => `{"user_id": "${r.user}", "item_id": ${big(r.item)}.0, "timestamp": ${r.time}}`,
        ),
        "items.jsonl": bigItems(String),
      },
      ...right,
    },
    {
      what: "within an object",
      files: {
        "interactions.jsonl": jsonl(
          (r) => `{"user_id": "${r.user}", "p": {"id": ${big(r.item)}}, "timestamp": ${r.time}}`,
        ),
        "items.jsonl": bigItems(String),
      },
      settings: { columns: { time: "timestamp", item: "p.id", id: "item_id" } },
      ...right,
    },
    {
      what: "items of sequences in one object",
      files: { "sequential_data.txt": lines(big), "x.item.json": keyed(String) },
      settings: { adapter: "sequences", columns: {} },
      ...right,
    },
    {
      what: "users",
      files: {
        "interactions.jsonl": jsonl(
          (r) => `{"user_id": ${big(r.user.slice(1))}, "item_id": ${r.item}, "timestamp": ${r.time}}`,
        ),
      },
      sequences: Object.fromEntries(Object.entries(sequencesIn(shop)).map(([u, own]) => [big(u.slice(1)), own])),
    },
    {
      ...recbole((r) => `${r.user}\t${r.item}.0\t${r.time}`, "user_id:token\titem_id:float\ttimestamp:float"),
      what: "floats, RecBole",
    },
    {
      what: "floats for users and items, TSV in CRLF",
      files: table(
        csv((r) => ({ item: `${r.item}.0`, user: `${r.user.slice(1)}.0` }), { delimiter: "\t", end: "\r\n" }),
        "interactions.tsv",
      ),
      sequences: Object.fromEntries(Object.entries(sequencesIn(shop)).map(([u, own]) => [u.slice(1), own])),
    },
    {
      what: "DECIMAL(10, 2)",
      files: { ...parquet("time", "item::DECIMAL(10, 2)"), "items.jsonl": items() },
      items: { 103: { title: "Item 103" } },
    },
    {
      what: "floats in an array",
      files: table(
        array((r) => `{"user_id": "${r.user}", "item_id": ${r.item}.0, "timestamp": ${r.time}}`),
        "interactions.json",
      ),
    },
  ]);
});

describe("09: ratings that are none", () => {
  const rated = (bad: string): string =>
    csv((r, n) => ({ more: [n % 3 === 0 ? bad : String(r.rating)] }), {
      header: ["user_id", "item_id", "timestamp", "rating"],
    });
  const settings = { columns: { time: "timestamp", rating: "rating" }, minRating: 4 };
  const refused = /40 of 120 rows are malformed.*rating is not a number/;
  testInputs([
    ...["NaN", "inf", "-Infinity", "5 stars", "", "4,5 "].map(
      (bad): Input => ({
        what: `"${bad}"`,
        files: table(rated(bad.includes(",") ? `"${bad}"` : bad)),
        settings,
        refused,
      }),
    ),
    {
      what: "NaN in Parquet",
      files: {
        "interactions.parquet": new Parquet(
          "\"user\" AS user_id, item AS item_id, time AS timestamp, CASE WHEN n % 3 = 0 THEN 'nan'::DOUBLE ELSE rating END AS rating",
        ),
      },
      settings,
      refused,
    },
    {
      what: "infinity in Parquet",
      files: {
        "interactions.parquet": new Parquet(
          "\"user\" AS user_id, item AS item_id, time AS timestamp, CASE WHEN n % 3 = 0 THEN 'inf'::FLOAT ELSE rating::FLOAT END AS rating",
        ),
      },
      settings,
      refused,
    },
    {
      what: "NaN as Python writes it in JSON",
      files: table(
        jsonl(
          (r, n) =>
            `{"user_id": "${r.user}", "item_id": ${r.item}, "timestamp": ${r.time}, "rating": ${n % 3 === 0 ? "NaN" : r.rating}}`,
        ),
        "interactions.jsonl",
      ),
      settings,
      refused,
    },
    {
      what: "nan in MovieLens' ratings.csv",
      files: {
        "ratings.csv": csv(
          (r, n) => ({ item: r.item, more: [], time: `${n % 3 === 0 ? "nan" : r.rating},${r.time}` }),
          { header: ["userId", "movieId", "rating", "timestamp"] },
        ),
        "movies.csv": `movieId,title,genres\n${ids.map((i) => `${i},Item,Drama\n`).join("")}`,
      },
      settings: { adapter: "movielens", columns: {}, minRating: 4 },
      refused,
    },
    {
      ...recbole(
        (r, n) => `${r.user}\t${r.item}\t${n % 3 === 0 ? "nan" : r.rating}\t${r.time}`,
        "user_id:token\titem_id:token\trating:float\ttimestamp:float",
      ),
      what: "nan, RecBole",
      refused,
    },
  ]);
});

describe("11 and 12: lists", () => {
  const withCategories = (cell: string, name = "items.tsv", delimiter = "\t"): Input["files"] => ({
    "interactions.csv": csv(),
    [name]: `item_id${delimiter}title${delimiter}categories\n${ids.map((i) => [i, `Item ${i}`, cell].join(delimiter)).join("\n")}\n`,
  });
  const two = { items: { 103: { categories: ["Home", "Lamp"] } } };
  const inParquet = (categories: string, more = ""): Input["files"] => ({
    ...parquet("time"),
    "items.parquet": new Parquet(
      `DISTINCT ON (item) item AS item_id, 'Item ' || item AS title, ${categories} AS categories${more}`,
    ),
  });
  testInputs([
    { what: "JSON in a TSV", files: withCategories('["Home", "Lamp"]'), ...two },
    { what: "JSON in a TSV, quoted", files: withCategories('"[""Home"", ""Lamp""]"'), ...two },
    {
      what: "Python in a TSV, compressed",
      files: {
        "interactions.csv": csv(),
        "items.tsv.gz": gzipSync(withCategories("['Home', 'Lamp']")["items.tsv"] as string),
      },
      ...two,
    },
    { what: "Postgres' {Home,Lamp}", files: withCategories("{Home,Lamp}"), ...two },
    {
      what: "Postgres' quotes where they are needed",
      files: withCategories('{"Arts, Crafts",Lamp}'),
      items: { 103: { categories: ["Arts, Crafts", "Lamp"] } },
    },
    { what: "a set of Python", files: withCategories("{'Home', 'Lamp'}"), ...two },
    {
      what: "a list in text in JSON",
      files: { "interactions.csv": csv(), "items.jsonl": items(() => ({ categories: "['Home', 'Lamp']" })) },
      ...two,
    },
    { what: "a list in text in Parquet", files: inParquet('\'["Home", "Lamp"]\''), ...two },
    {
      what: "a list of one text that is a list",
      files: { "interactions.csv": csv(), "items.jsonl": items(() => ({ categories: ['["Home", "Lamp"]'] })) },
      ...two,
    },
    { what: "INTEGER[]", files: inParquet("[1, 20]"), items: { 103: { categories: ["1", "20"] } } },
    {
      what: "UBIGINT[] beyond 2^53",
      files: inParquet("[9100000000000003::UBIGINT, 2]"),
      items: { 103: { categories: ["9100000000000003", "2"] } },
    },
    { what: "DECIMAL[]", files: inParquet("[1::DECIMAL(4, 1), 20]"), items: { 103: { categories: ["1", "20"] } } },
    {
      what: "BIGINT[][]",
      files: inParquet("[[1::BIGINT], [20::BIGINT]]"),
      items: { 103: { categories: ["1", "20"] } },
    },
    {
      what: "numbers as brand and description",
      files: inParquet("['Home', 'Lamp']", ", 7::BIGINT AS brand, 12345678901234567::BIGINT AS description"),
      items: { 103: { categories: ["Home", "Lamp"], brand: "7", description: "12345678901234567" } },
    },
  ]);
});

describe("15: no id", () => {
  const quarter = sequencesIn(shop.filter((_, n) => n % 4 !== 0));
  const guests = { settings: { maxBadShare: 0.5 }, sequences: quarter, dropped: { malformed: 30 } };
  const user = (n: number, u: string, none: string): string => (n % 4 === 0 ? none : u);
  testInputs([
    ...["", "  ", '""', "NULL", "None", "nan", "\\N", "\u00a0"].map(
      (none): Input => ({
        what: `"${none}" in a CSV`,
        files: table(csv((r, n) => ({ user: user(n, r.user, none) }))),
        ...guests,
      }),
    ),
    ...["''", "' '", "NULL", "'nan'"].map(
      (none): Input => ({
        what: `${none} in Parquet`,
        files: parquet("time", "item", `CASE WHEN n % 4 = 0 THEN ${none} ELSE "user" END`),
        ...guests,
      }),
    ),
    {
      ...recbole((r, n) => `${user(n, r.user, "")}\t${r.item}\t${r.time}`),
      what: "RecBole",
      ...guests,
      settings: { adapter: "recbole", columns: {}, maxBadShare: 0.5 },
    },
    {
      what: "items, in an array",
      files: table(
        array((r, n) => ({ ...record(r), item_id: user(n, r.item, "") })),
        "interactions.json",
      ),
      ...guests,
    },
    {
      what: "in rows of a history and its next item",
      files: {
        "train/x.csv":
          "user_id,history_item_id,item_id\na,\"['1', '2']\",3\n,\"['1']\",2\nb,\"['2']\",\n c ,\"['2']\",1\n",
      },
      settings: { adapter: "next-item", columns: {}, maxBadShare: 0.6 },
      sequences: { a: ["1", "2", "3"], c: ["2", "1"] },
      dropped: { malformed: 2 },
    },
  ]);
});
