/** Which files and which columns: several files, patterns, headers that are not there, names that stand twice. */
import { gzipSync } from "node:zlib";
import { describe } from "vitest";
import {
  csv,
  type Input,
  ids,
  items,
  jsonl,
  Parquet,
  type Row,
  record,
  sequencesIn,
  shop,
  testInputs,
} from "./shop.ts";

const part = (rows: readonly Row[], header = ["user_id", "item_id", "timestamp"]): string =>
  csv(undefined, { rows, header });
const third = (k: number): readonly Row[] => shop.slice(40 * k, 40 * k + 40);
const named = (interactions: unknown, more: object = {}): Input["settings"] => ({
  files: { interactions },
  columns: { time: "timestamp" },
  ...more,
});

/** The shop in the order of time, in twelve files without a time column. */
const inOrder = [...shop].sort((a, b) => a.time - b.time);
const withoutTime = (rows: readonly Row[]): string =>
  `user_id,item_id\n${rows.map((r) => `${r.user},${r.item}\n`).join("")}`;
const twelve = Object.fromEntries(
  Array.from({ length: 12 }, (_, k) => [`part-${k}.csv`, withoutTime(inOrder.slice(10 * k, 10 * k + 10))]),
);
const untimed = { columns: { user: "user_id" } };

describe("several files", () => {
  const three = { "e1.csv": part(third(0)), "e2.csv": part(third(1)), "e3.csv": part(third(2)) };
  testInputs([
    { what: "a list", files: three, settings: named(["e1.csv", "e2.csv", "e3.csv"]) },
    { what: "a pattern", files: three, settings: named("e*.csv") },
    { what: "a pattern with ?", files: three, settings: named("e?.csv") },
    {
      what: "a folder, as Spark writes it",
      files: {
        "out/part-0.csv": part(third(0)),
        "out/part-1.csv": part(third(1)),
        "out/part-2.csv": part(third(2)),
        "out/_SUCCESS": "",
      },
      settings: named("out"),
    },
    {
      what: "folders by a pattern",
      files: { "2023/a.csv": part(third(0)), "2024/b.csv": part(third(1)), "2025/c.csv": part(third(2)) },
      settings: named("20*/*.csv"),
    },
    {
      what: "Hive's partitions",
      files: {
        "log/day=1/p-0.csv": part(third(0)),
        "log/day=2/p-0.csv": part(third(1)),
        "log/day=10/p-0.csv": part(third(2)),
      },
      settings: named("log"),
    },
    {
      what: "any depth",
      files: { "log/a/x.csv": part(third(0)), "log/y.csv": part(third(1)), "log/b/c/z.csv": part(third(2)) },
      settings: named("log/**/*.csv"),
    },
    {
      what: "of several formats",
      files: {
        "e1.csv": part(third(0)),
        "e2.jsonl.gz": gzipSync(jsonl(record, third(1))),
        "e3.tsv": csv(undefined, { rows: third(2), delimiter: "\t" }),
      },
      settings: named(["e1.csv", "e2.jsonl.gz", "e3.tsv"]),
    },
    {
      what: "columns in another order",
      files: {
        "e1.csv": part(third(0)),
        "e2.csv": `timestamp,user_id,x,item_id\n${third(1)
          .map((r) => `${r.time},${r.user},,${r.item}\n`)
          .join("")}`,
        "e3.csv": part(third(2)),
      },
      settings: named("e*.csv"),
    },
    {
      what: "in seconds and in milliseconds",
      files: {
        "e1.csv": part(third(0)),
        "e2.csv": csv((r) => ({ time: `${r.time}000` }), { rows: third(1) }),
        "e3.csv": part(third(2)),
      },
      settings: named("e*.csv"),
      says: /e2\.csv.*milliseconds/,
    },
    {
      what: "floats in one of them",
      files: {
        "e1.csv": part(third(0)),
        "e2.csv": csv((r) => ({ item: `${r.item}.0` }), { rows: third(1) }),
        "e3.csv": part(third(2)),
      },
      settings: named("e*.csv"),
    },
    { what: "a file named twice counts once", files: three, settings: named(["e1.csv", "e2.csv", "e3.csv", "e*.csv"]) },
    { what: "no file that matches", files: three, settings: named("f*.csv"), refused: /no file that matches f\*\.csv/ },
    { what: "one that is not there", files: three, settings: named(["e1.csv", "e9.csv"]), refused: /e9\.csv/ },
    {
      what: "item files, the second with other columns",
      files: {
        "interactions.csv": csv(),
        "i1.jsonl": items((_, n) => (n < 5 ? {} : { item_id: `x${n}` })),
        "i2.csv": `item_id,title\n${ids
          .slice(5)
          .map((i) => `${i},Second ${i}\n`)
          .join("")}`,
      },
      settings: { columns: { time: "timestamp" }, files: { items: ["i1.jsonl", "i2.csv"] } },
      items: { 100: { title: "Item 100" }, 109: { title: "Second 109" } },
    },
    // pola-rs/polars#23376, larribas/dagger#39: part-10 comes after part-9
    {
      what: "without times: the order of files, then of rows",
      files: twelve,
      settings: { ...untimed, files: { interactions: "part-*.csv" } },
    },
    {
      what: "without times: in the order of a list",
      files: { "b.csv": withoutTime(inOrder.slice(0, 60)), "a.csv": withoutTime(inOrder.slice(60)) },
      settings: { ...untimed, files: { interactions: ["b.csv", "a.csv"] } },
    },
    {
      what: "without times, in JSON",
      files: {
        "b.jsonl": jsonl((r) => ({ user_id: r.user, item_id: r.item }), inOrder.slice(0, 60)),
        "a.jsonl": jsonl((r) => ({ user_id: r.user, item_id: r.item }), inOrder.slice(60)),
      },
      settings: { ...untimed, files: { interactions: ["b.jsonl", "a.jsonl"] } },
    },
  ]);
});

describe("headers", () => {
  const bare = csv(undefined, { header: [] });
  const byNumber = { columns: { user: 0, item: 1, time: 2 } };
  const twice = (header: string[]): Input["files"] => ({
    "interactions.csv": csv((r) => ({ more: [`9${r.item}`] }), { header }),
  });
  testInputs([
    { what: "none: columns by number", files: { "interactions.csv": bare }, settings: byNumber },
    {
      what: "none, quoted",
      files: { "interactions.csv": csv((r) => ({ item: `"${r.item}"` }), { header: [] }) },
      settings: byNumber,
    },
    {
      what: "none, compressed TSV",
      files: { "interactions.tsv.gz": gzipSync(csv(undefined, { header: [], delimiter: "\t" })) },
      settings: byNumber,
    },
    {
      what: "none, items by number too",
      files: { "interactions.csv": bare, "items.csv": ids.map((i) => `${i},Item ${i},Home|Lamp\n`).join("") },
      settings: { columns: { ...byNumber.columns, id: 0, title: 1, categories: 2 } },
      items: { 109: { title: "Item 109", categories: ["Home", "Lamp"] } },
    },
    {
      what: "none, items with names",
      files: { "interactions.csv": bare, "items.jsonl": items() },
      settings: { columns: { ...byNumber.columns, id: "item_id", title: "title" } },
      items: { 109: { title: "Item 109" } },
    },
    {
      what: "by number, though there is one: the header is a row that is none",
      files: { "interactions.csv": csv() },
      settings: byNumber,
      dropped: { malformed: 1 },
      bad: [/^1: time is neither a number nor a date: "#2" is "timestamp"/],
    },
    {
      what: "a number that is too high",
      files: { "interactions.csv": bare },
      settings: { columns: { user: 0, item: 1, time: 7 } },
      refused: /3 columns and no column 7/,
    },
    {
      what: "numbers and names",
      files: { "interactions.csv": csv() },
      settings: { columns: { user: 0, item: "item_id", time: "timestamp" } },
      refused: /some columns of one file by number and others by name/,
    },
    // manybabies/mb2-analysis#89, ckan/datapusher#74: files put together with their headers
    {
      what: "again in the middle",
      files: { "interactions.csv": `${part(third(0))}${part(third(1))}${part(third(2))}` },
      settings: named(undefined, { maxBadShare: 0.02 }),
      dropped: { malformed: 2 },
    },
    {
      what: "again in the middle, without times",
      files: { "interactions.csv": `${withoutTime(inOrder.slice(0, 60))}${withoutTime(inOrder.slice(60))}` },
      settings: untimed,
      dropped: { malformed: 1 },
    },
    {
      what: "again in the middle, with a mark and quotes",
      files: {
        "interactions.csv": `${withoutTime(inOrder.slice(0, 60))}\ufeff"user_id","item_id"\n${withoutTime(inOrder.slice(60)).split("\n").slice(1).join("\n")}`,
      },
      settings: untimed,
      dropped: { malformed: 1 },
    },
    {
      what: "again in an item file",
      files: {
        "interactions.csv": csv(),
        "items.csv": `item_id,title\n${ids.map((i) => `${i},Item ${i}\n`).join("")}item_id,title\n`,
      },
      settings: { columns: { time: "timestamp" }, maxBadShare: 0.1, catalogue: "all" },
      dropped: { malformed: 1 },
    },
    // aden-hive/hive#2153, mholt/PapaParse#129
    {
      what: "a name that stands twice, of a column that is read",
      files: twice(["user_id", "item_id", "timestamp", "item_id"]),
      refused: /interactions\.csv:1 has 2 columns "item_id"/,
    },
    {
      what: "a name that stands twice, of a column nobody reads",
      files: {
        "interactions.csv": csv(() => ({ more: ["a", "b"] }), {
          header: ["user_id", "item_id", "timestamp", "x", "x"],
        }),
      },
    },
    {
      what: "twice in an item file",
      files: {
        "interactions.csv": csv(),
        "items.csv": `item_id,title,title\n${ids.map((i) => `${i},Item ${i},Other ${i}\n`).join("")}`,
      },
      refused: /items\.csv:1 has 2 columns "title"/,
    },
    {
      what: "blanks around names",
      files: { "interactions.csv": csv(undefined, { header: [" user_id", "item_id ", "\ttimestamp"] }) },
    },
    {
      what: "names in capitals: what there is is said",
      files: { "interactions.csv": csv(undefined, { header: ["USER_ID", "ITEM_ID", "TIMESTAMP"] }) },
      refused: /no column "user_id"; it has "USER_ID", "ITEM_ID", "TIMESTAMP"/,
    },
    {
      what: "semicolons",
      files: { "interactions.csv": csv(undefined, { delimiter: ";" }) },
      says: /interactions\.csv: cells are separated by ";"/,
    },
    {
      what: "tabs in a .csv",
      files: { "interactions.csv": csv(undefined, { delimiter: "\t" }) },
      says: /separated by tabs/,
    },
    {
      what: "bars, quoted, no header, compressed",
      files: { "interactions.csv.gz": gzipSync(csv((r) => ({ user: `"${r.user}"` }), { delimiter: "|", header: [] })) },
      settings: byNumber,
    },
    // MovieLens 1M: UserID::MovieID::Rating::Timestamp
    {
      what: ":: in a .dat",
      files: { "interactions.dat": csv(undefined, { delimiter: "::", header: [] }) },
      settings: { ...byNumber, files: { interactions: "interactions.dat" } },
    },
    // HetRec 2011's user_artists.dat and artists.dat
    {
      what: "tabs in a .dat",
      files: { "interactions.dat": csv(undefined, { delimiter: "\t", end: "\r\n" }) },
      settings: named("interactions.dat"),
    },
    // Book-Crossing's BX-Books.csv: semicolons, Latin-1, quotes escaped with backslashes, semicolons in entities
    {
      what: "Book-Crossing",
      files: {
        "interactions.csv": csv((r) => ({ user: `"${r.user}"`, item: `"${r.item}"`, time: `"${r.time}"` }), {
          delimiter: ";",
          header: ['"User-ID"', '"ISBN"', '"At"'],
        }),
        "books.csv": Buffer.from(
          `"ISBN";"Book-Title";"Book-Author"\r\n${ids.map((i) => `"${i}";"The Real \\"J. P\u00e9terman\\" &amp; Co";"Who ${i}"\r\n`).join("")}`,
          "latin1",
        ),
      },
      settings: {
        encoding: "latin1",
        files: { items: "books.csv" },
        columns: { user: "User-ID", item: "ISBN", time: "At", title: "Book-Title", brand: "Book-Author" },
      },
      items: { 100: { title: 'The Real "J. P\u00e9terman" & Co', brand: "Who 100" } },
    },
  ]);
});

describe("nested columns of items", () => {
  const inParquet = (columns: string): Input["files"] => ({
    "interactions.csv": csv(),
    "items.parquet": new Parquet(columns),
  });
  const info = { columns: { time: "timestamp", title: "info.title" } };
  testInputs([
    {
      what: "in JSON",
      files: {
        "interactions.csv": csv(),
        "items.jsonl": items((id) => ({ title: undefined, info: { title: `Inner ${id}` } })),
      },
      settings: info,
      items: { 100: { title: "Inner 100" } },
    },
    {
      what: "of a STRUCT in Parquet",
      files: inParquet("item AS item_id, {'title': 'Inner ' || item} AS info"),
      settings: info,
      items: { 100: { title: "Inner 100" } },
    },
    {
      what: "of a JSON text in a CSV",
      files: {
        "interactions.csv": csv(),
        "items.csv": `item_id,info\n${ids.map((i) => `${i},"{""title"": ""Inner ${i}""}"\n`).join("")}`,
      },
      settings: info,
      refused: /no column "info\.title"/,
    },
    {
      what: "that the STRUCT lacks",
      files: inParquet("item AS item_id, {'name': 'x'} AS info"),
      settings: info,
      refused: /no column "info\.title"/,
    },
    {
      what: "ids within a STRUCT",
      files: { "interactions.parquet": new Parquet(`{'id': "user"} AS who, item AS item_id, time AS timestamp`) },
      settings: { columns: { user: "who.id", time: "timestamp" } },
    },
    {
      what: "a name with a dot in it",
      files: { "interactions.csv": csv(undefined, { header: ["user.id", "item_id", "timestamp"] }) },
      settings: { columns: { user: "user.id", time: "timestamp" } },
    },
  ]);
});

describe("an item file", () => {
  testInputs([
    {
      what: "with ids that stand twice says so",
      files: { "interactions.csv": csv(), "items.jsonl": items() + items(() => ({ title: "Another" })) },
      items: { 100: { title: "Item 100" } },
      says: /10 items occur in the item file several times with different texts; the first is used/,
    },
    {
      what: "with the same record twice says nothing of it",
      files: { "interactions.csv": csv(), "items.jsonl": items() + items() },
      items: { 100: { title: "Item 100" } },
    },
    { what: "that is empty", files: { "interactions.csv": csv(), "items.csv": "" }, refused: /items\.csv is empty/ },
    {
      what: "with a header alone",
      files: { "interactions.csv": csv(), "items.csv": "item_id,title\n" },
      refused: /No interactions are left.*in the item file: none/,
    },
  ]);
});

describe("data.keep", () => {
  const some = (yes: string, no: string, name = "liked"): Input["files"] => ({
    "interactions.csv": csv((_, n) => ({ more: [n % 10 === 4 ? no : yes] }), {
      header: ["user_id", "item_id", "timestamp", name],
    }),
  });
  const kept = sequencesIn(shop.filter((_, n) => n % 10 !== 4));
  const keep = (values: unknown[]) => ({ columns: { time: "timestamp" }, keep: { liked: values } });
  testInputs([
    { what: "true, as pandas writes it", files: some("True", "False"), settings: keep([true]), sequences: kept },
    {
      what: "true, as databases write it",
      files: some("t", "f"),
      settings: keep([true]),
      refused: /none of 120 rows has liked: true/,
    },
    { what: "TRUE, as Excel writes it", files: some("TRUE", "FALSE"), settings: keep([true]), sequences: kept },
    { what: "1 as 1.0", files: some("1.0", "0.0"), settings: keep([1]), sequences: kept },
    { what: "words with blanks around them", files: some(" yes ", "no"), settings: keep(["yes"]), sequences: kept },
    {
      what: "a text in Parquet as a boolean",
      files: {
        "interactions.parquet": new Parquet(
          `"user" AS user_id, item AS item_id, time AS timestamp, n % 10 <> 4 AS liked`,
        ),
      },
      settings: keep([true]),
      sequences: kept,
    },
    {
      what: "bad rows that it leaves out are not malformed",
      files: {
        "interactions.csv": csv(
          (r, n) => ({ time: n % 10 === 4 ? "none" : String(r.time), more: [n % 10 === 4 ? "no" : "yes"] }),
          { header: ["user_id", "item_id", "timestamp", "liked"] },
        ),
      },
      settings: keep(["yes"]),
      sequences: kept,
    },
  ]);
});
