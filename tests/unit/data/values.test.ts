/**
 * Ids as files have them. The cases 06, 15 and 16 of public bug reports, variants of each, and forms
 * from other threads: an id is one and the same whatever the file that names it, or the run stops and shows both.
 */
import { describe } from "vitest";
import { csv, type Input, ids, items, jsonl, Parquet, record, sequencesIn, shop, testInputs } from "./shop.ts";

/** The shop with other item ids. */
const renamed = (id: (item: string) => string) => sequencesIn(shop.map((r) => ({ ...r, item: id(r.item) })));
const without = (lost: (n: number) => boolean) => sequencesIn(shop.filter((_, n) => !lost(n)));
const rows = (item: (id: string, n: number) => string): string => csv((r, n) => ({ item: item(r.item, n) }));
/** An item record whose id is written as it comes. */
const itemsWritten = (id: (id: string) => string): string =>
  ids.map((i) => `{"item_id": ${id(i)}, "title": "Item ${i}"}\n`).join("");
const parquet = (item: string, user = '"user"') =>
  new Parquet(`${user} AS user_id, ${item} AS item_id, time AS timestamp`);
const files = (
  interactions: Input["files"][string],
  itemFile: string | Parquet,
  name = "interactions.csv",
): Input["files"] => ({
  [interactions instanceof Parquet ? "interactions.parquet" : name]: interactions,
  [itemFile instanceof Parquet ? "items.parquet" : "items.jsonl"]: itemFile,
});
const titles = (id: (item: string) => string): Input["items"] =>
  Object.fromEntries(ids.map((i) => [id(i), { title: `Item ${i}` }]));
const big = (i: string): string => `91000000000000${i.slice(1)}`;
const huge = (i: string): string => `90719925474099${i.slice(1)}1234`;
const beyond = (i: string): string => `1844674407370955161${i.slice(2)}${i}`;

describe("integers", () => {
  testInputs([
    {
      what: "case 06: 16 digits, above 2^53, as JSON numbers",
      files: files(rows(big), itemsWritten(big)),
      sequences: renamed(big),
      items: titles(big),
    },
    {
      what: "case 06: 20 digits",
      files: files(rows(huge), itemsWritten(huge)),
      sequences: renamed(huge),
      items: titles(huge),
    },
    {
      what: "beyond 64 bits",
      files: files(rows(beyond), itemsWritten(beyond)),
      sequences: renamed(beyond),
      items: titles(beyond),
    },
    {
      what: "both sides JSON numbers",
      files: files(
        jsonl((r) => `{"user_id":"${r.user}","item_id":${huge(r.item)},"timestamp":${r.time}}`),
        itemsWritten(huge),
        "interactions.jsonl",
      ),
      sequences: renamed(huge),
    },
    {
      what: "BIGINT in Parquet, numbers in JSON",
      files: files(parquet("('91000000000000' || item[2:])::BIGINT"), itemsWritten(big)),
      sequences: renamed(big),
      items: titles(big),
    },
    {
      what: "UBIGINT and HUGEINT in Parquet",
      files: files(parquet("('90719925474099' || item[2:] || '1234')::HUGEINT"), itemsWritten(huge)),
      refused: /floating-point|DOUBLE/,
    },
    {
      what: "UBIGINT",
      files: files(
        parquet("('1844674407370955' || item)::UBIGINT"),
        itemsWritten((i) => `1844674407370955${i}`),
      ),
      sequences: renamed((i) => `1844674407370955${i}`),
    },
    { what: "DECIMAL(20, 0)", files: files(parquet("item::DECIMAL(20, 0)"), items()), items: titles((i) => i) },
    {
      what: "TINYINT to text",
      files: files(
        parquet("(item::INTEGER - 100)::TINYINT"),
        itemsWritten((i) => `"${Number(i) - 100}"`),
      ),
      sequences: renamed((i) => String(Number(i) - 100)),
    },
    {
      what: "negative ids",
      files: files(
        rows((i) => `-${i}`),
        itemsWritten((i) => `-${i}`),
      ),
      sequences: renamed((i) => `-${i}`),
      items: titles((i) => `-${i}`),
    },
    {
      what: "numbers and text in one column of JSON",
      files: files(
        jsonl((r, n) => ({ ...record(r), item_id: n % 2 ? r.item : Number(r.item) })),
        items(),
        "interactions.jsonl",
      ),
      items: titles((i) => i),
    },
    {
      what: "rounded in Excel, 9.1E+15: refused with the reason",
      files: files(
        rows((i) => `9.1${i}E+15`),
        itemsWritten(big),
      ),
      refused: /"9\.1100E\+15".*in the item file: "9100000000000000".*last digits are lost/,
    },
  ]);
});

describe("floats", () => {
  testInputs([
    {
      what: "case 16: DOUBLE in Parquet, integers in JSON",
      files: files(
        parquet("item::DOUBLE"),
        itemsWritten((i) => i),
      ),
      items: titles((i) => i),
    },
    {
      what: "case 16: FLOAT on both sides",
      files: files(parquet("item::FLOAT"), new Parquet("item::DOUBLE AS item_id, 'Item ' || item AS title")),
      items: titles((i) => i),
    },
    {
      what: "101.0 in CSV",
      files: files(
        rows((i) => `${i}.0`),
        itemsWritten((i) => i),
      ),
      items: titles((i) => i),
    },
    {
      what: "101.0 in JSON items",
      files: files(
        rows((i) => i),
        itemsWritten((i) => `${i}.0`),
      ),
      items: titles((i) => i),
    },
    {
      what: "101.0 as text in JSON items",
      files: files(
        rows((i) => i),
        itemsWritten((i) => `"${i}.0"`),
      ),
      items: titles((i) => i),
    },
    {
      what: "some of a column only: versions, as they are",
      files: files(
        rows((i) => (i === "100" ? "v1.0" : `${i}.0`)),
        itemsWritten((i) => (i === "100" ? '"v1.0"' : `"${i}.0"`)),
      ),
      sequences: renamed((i) => (i === "100" ? "v1.0" : `${i}.0`)),
    },
    {
      what: "gaps as NaN: a DOUBLE with a missing value",
      files: files(parquet("CASE WHEN n = 5 THEN 'nan'::DOUBLE ELSE item::DOUBLE END"), items()),
      sequences: without((n) => n === 5),
      dropped: { malformed: 1 },
    },
    {
      what: "DOUBLE above 2^53: refused",
      files: files(parquet("item::DOUBLE * 1e15"), items()),
      refused: /stored as floating-point numbers \(DOUBLE\), which are exact only below 9007199254740992/,
    },
    {
      what: "FLOAT above 2^24: refused",
      files: files(parquet("(item::BIGINT * 1000000)::FLOAT"), items()),
      refused: /FLOAT.*exact only below 16777216/,
    },
  ]);
});

describe("no id", () => {
  const every4 = (n: number): boolean => n % 60 === 3;
  const gone = {
    sequences: without(every4),
    dropped: { malformed: 2 },
    settings: { columns: { time: "timestamp" }, maxBadShare: 0.02 },
  };
  const json = (id: unknown): Input["files"] => ({
    "interactions.jsonl": jsonl((r, n) => (every4(n) ? { ...record(r), user_id: id } : record(r))),
  });
  testInputs([
    {
      what: "case 15: an empty user in JSON",
      files: json(""),
      ...gone,
      bad: ['4: no user id: "user_id" is empty', '64: no user id: "user_id" is empty'],
    },
    {
      what: "case 15: in Parquet",
      files: { "interactions.parquet": parquet("item", "CASE WHEN n % 60 = 3 THEN '' ELSE \"user\" END") },
      ...gone,
    },
    { what: "in CSV", files: { "interactions.csv": csv((r, n) => ({ user: every4(n) ? "" : r.user })) }, ...gone },
    { what: "blank", files: json("  "), ...gone },
    { what: "null", files: json(null), ...gone },
    { what: "absent", files: json(undefined), ...gone },
    { what: "the word null", files: json("null"), ...gone },
    {
      what: "NaN, which Python writes",
      files: {
        "interactions.jsonl": jsonl((r, n) =>
          every4(n) ? `{"user_id": NaN, "item_id": "${r.item}", "timestamp": ${r.time}}` : record(r),
        ),
      },
      ...gone,
    },
    {
      what: "\\N, which databases write",
      files: { "interactions.tsv": csv((r, n) => ({ user: every4(n) ? "\\N" : r.user }), { delimiter: "\t" }) },
      ...gone,
    },
    {
      what: "None in quotes",
      files: { "interactions.csv": csv((r, n) => ({ user: every4(n) ? '"None"' : `"${r.user}"` })) },
      ...gone,
    },
    { what: "an object that is no id", files: json({ a: 1, b: [] }), ...gone },
    {
      what: "more than the share allowed stops",
      files: json(""),
      refused: /2 of 120 rows are malformed \(1\.67 %, allowed 1\.00 %\).*no user id/,
    },
    {
      what: "an item file without an id in one record",
      files: { "interactions.csv": csv(), "items.jsonl": items((_, n) => (n === 4 ? { item_id: null } : {})) },
      settings: { columns: { time: "timestamp" }, maxBadShare: 0.1 },
      sequences: sequencesIn(shop.filter((r) => r.item !== "104")),
      dropped: { malformed: 1, "unknown item": 12 },
    },
  ]);
});

describe("the same id", () => {
  const nfc = (i: string): string => `caf\u00e9${i}`;
  const nfd = (i: string): string => `cafe\u0301${i}`;
  const bson = (i: string) => ({ item_id: { $oid: i } });
  testInputs([
    {
      what: "blanks around it",
      files: files(
        rows((i, n) => (n % 2 ? ` ${i}` : `${i} `)),
        items(),
      ),
      items: titles((i) => i),
    },
    {
      what: "a no-break space or a mark in front",
      files: files(
        rows((i, n) => `${n % 2 ? "\u00a0" : "\ufeff"}${i}`),
        items(),
      ),
    },
    {
      what: "composed and decomposed",
      files: files(
        rows(nfd),
        itemsWritten((i) => JSON.stringify(nfc(i))),
      ),
      sequences: renamed(nfc),
      items: titles(nfc),
    },
    {
      what: "zero-padded on both sides stays so",
      files: files(
        rows((i) => `000${i}`),
        itemsWritten((i) => `"000${i}"`),
      ),
      sequences: renamed((i) => `000${i}`),
      items: titles((i) => `000${i}`),
    },
    // nao1215/filesql#278: 007 joins to 7
    {
      what: "007 is not 7: refused, with both and the reason",
      files: files(
        rows((i) => `00${i}`),
        items(),
      ),
      refused:
        /No interactions are left.*ids only in the interactions: "00100", "00101", "00102"; in the item file: "100", "101", "102"; likely because one side is padded with zeros/,
    },
    {
      what: "another case",
      files: files(
        rows((i) => `SKU${i}`),
        itemsWritten((i) => `"sku${i}"`),
      ),
      refused: /likely because they differ in case/,
    },
    {
      what: "a prefix",
      files: files(
        rows((i) => i),
        itemsWritten((i) => `"item:${i}"`),
      ),
      refused: /likely because one side has a prefix/,
    },
    {
      what: "other ids altogether: both are shown",
      files: files(
        rows((i) => i),
        itemsWritten((i) => `"x${Number(i) * 7}y"`),
      ),
      refused: /"100", "101", "102"; in the item file: "x700y", "x707y", "x714y"/,
    },
    {
      what: "MongoDB's $oid",
      files: files(
        rows((i) => i),
        items(bson),
      ),
      items: titles((i) => i),
    },
    {
      what: "quotes in a TSV",
      files: { "interactions.tsv": csv((r) => ({ item: `"${r.item}"` }), { delimiter: "\t" }), "items.jsonl": items() },
    },
    {
      what: "with commas, quotes and hashes",
      files: files(
        rows((i) => `"a,""${i}""#"`),
        itemsWritten((i) => JSON.stringify(`a,"${i}"#`)),
      ),
      sequences: renamed((i) => `a,"${i}"#`),
    },
    { what: "text as bytes in Parquet", files: files(parquet("item::BLOB"), items()) },
    {
      what: "UUID in Parquet, text in JSON",
      files: files(
        parquet("('0d000000-0000-4000-8000-000000000' || item)::UUID"),
        itemsWritten((i) => `"0d000000-0000-4000-8000-000000000${i}"`),
      ),
      sequences: renamed((i) => `0d000000-0000-4000-8000-000000000${i}`),
    },
    {
      what: "an enumeration in Parquet",
      files: files(parquet(`item::ENUM(${ids.map((i) => `'${i}'`).join(", ")})`), items()),
    },
    {
      what: "booleans as users",
      files: { "interactions.jsonl": jsonl((r) => ({ ...record(r), user_id: r.user === "u1" })) },
      sequences: sequencesIn(shop.map((r) => ({ ...r, user: String(r.user === "u1") }))),
      settings: { columns: { time: "timestamp" }, repeats: "keep" },
    },
    {
      what: "1e2 and hex as text",
      files: files(
        rows((i) => (i === "100" ? "1e2" : `0x${i}`)),
        itemsWritten((i) => (i === "100" ? '"1e2"' : `"0x${i}"`)),
      ),
      sequences: renamed((i) => (i === "100" ? "1e2" : `0x${i}`)),
    },
    {
      what: "emoji and other scripts",
      files: files(
        rows((i) => `商品${i}🛋`),
        itemsWritten((i) => `"商品${i}🛋"`),
      ),
      sequences: renamed((i) => `商品${i}🛋`),
    },
  ]);
});
