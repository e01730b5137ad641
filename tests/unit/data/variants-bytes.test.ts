/**
 * Variants of cases of public bug reports: the same kind of fault in another format, column, unit or layout.
 * Here: quotes, encodings, line ends. Variants in logs of slates: logs.test.ts.
 */
import { gzipSync } from "node:zlib";
import { describe } from "vitest";
import {
  csv,
  type Input,
  ids,
  items,
  jsonl,
  numbers,
  recbole,
  record,
  sequencesIn,
  shop,
  table,
  testInputs,
  without,
} from "./shop.ts";

const more = (cell: (n: number) => string, delimiter = ","): string =>
  csv((_, n) => ({ more: [cell(n)] }), { header: ["user_id", "item_id", "timestamp", "artist"], delimiter });
const open = (n: number): string => (n === 70 ? '"The' : "The");

describe("01: a quote that opens", () => {
  testInputs([
    {
      what: "semicolons, compressed",
      files: table(gzipSync(more(open, ";")), "interactions.csv.gz"),
      sequences: without(70),
      dropped: { malformed: 1 },
    },
    {
      what: "CRLF",
      files: table(more(open).replaceAll("\n", "\r\n")),
      sequences: without(70),
      dropped: { malformed: 1 },
    },
    {
      what: "CR alone",
      files: table(more(open).replaceAll("\n", "\r")),
      sequences: without(70),
      dropped: { malformed: 1 },
    },
    {
      what: "a TSV in UTF-16",
      files: table(Buffer.from(`\ufeff${more(open, "\t")}`, "utf16le"), "interactions.tsv"),
      sequences: without(70),
      dropped: { malformed: 1 },
    },
    {
      ...recbole(
        (r, n) => `${r.user}\t${r.item}\t${r.time}\t${open(n)}`,
        "user_id:token\titem_id:token\ttimestamp:float\tartist:token",
      ),
      what: "RecBole quotes nothing",
    },
    {
      what: "a string that does not end in JSON lines",
      files: table(
        jsonl((r, n) => (n === 70 ? `{"user_id": "${r.user}` : record(r))),
        "interactions.jsonl",
      ),
      sequences: without(70),
      dropped: { malformed: 1 },
    },
    {
      what: "a string that does not end in an array",
      files: table(
        numbers(shop.map((r, n) => (n === 70 ? `{"user_id": "${r.user}` : JSON.stringify(record(r))))),
        "interactions.json",
      ),
      refused: /interactions\.json ends in the middle of its JSON|malformed/,
    },
    {
      what: "item titles in a CSV",
      files: {
        "interactions.csv": csv(),
        "items.csv": `item_id,title\n${ids.map((i, n) => `${i},${n === 4 ? '"' : ""}Item ${i}\n`).join("")}`,
      },
      settings: { maxBadShare: 0.2, catalogue: "all" },
      sequences: sequencesIn(shop.filter((r) => r.item !== "104")),
      dropped: { malformed: 1, "unknown item": 12 },
    },
  ]);
});

describe("13, 14, 17, 18, 21: bytes", () => {
  const latin = (text: string): Uint8Array => Buffer.from(text, "latin1");
  const accent = (delimiter: string): string =>
    `item_id${delimiter}title\n${ids.map((i) => `${i}${delimiter}Café ${i}\n`).join("")}`;
  const long = Array.from({ length: 300 }, (_, k) => `line ${k}, "" quoted ""`).join("\r\n");
  const recboleItems = (text: string | Uint8Array): Input => ({
    ...recbole((r) => `${r.user}\t${r.item}\t${r.time}`),
    what: "",
    files: { ...recbole((r) => `${r.user}\t${r.item}\t${r.time}`).files, "x.item": text },
  });
  const settings = { adapter: "recbole", columns: {} };
  testInputs([
    {
      ...recboleItems(latin(accent("\t").replace("item_id\ttitle", "item_id:token\ttitle:token_seq"))),
      what: "Latin-1, RecBole items: refused",
      refused: /x\.item:\d+: not UTF-8/,
    },
    {
      ...recboleItems(latin(accent("\t").replace("item_id\ttitle", "item_id:token\ttitle:token_seq"))),
      what: "Latin-1, RecBole items: said so",
      settings: { ...settings, encoding: "latin1" },
      items: { 103: { title: "Café 103" } },
    },
    {
      what: "Latin-1 JSON lines",
      files: { "interactions.csv": csv(), "items.jsonl": latin(items((i) => ({ title: `Café ${i}` }))) },
      refused: /items\.jsonl:\d+: not UTF-8/,
    },
    {
      what: "Latin-1 in an array",
      files: {
        "interactions.csv": csv(),
        "items.json": latin(
          numbers(
            items((i) => ({ title: `Café ${i}` }))
              .trim()
              .split("\n"),
          ),
        ),
      },
      refused: /items\.json is not UTF-8/,
    },
    {
      what: "Latin-1, compressed",
      files: { "interactions.csv": csv(), "items.tsv.gz": gzipSync(latin(accent("\t"))) },
      refused: /not UTF-8/,
    },
    {
      what: "Latin-1 in sequences' items",
      files: { "sequential_data.txt": "a 1 2\nb 2 1\n", "item_plain_text.txt": latin("1 Café\n2 Tea\n") },
      settings: { adapter: "sequences", columns: {} },
      refused: /not UTF-8/,
    },
    {
      what: "U+2028 in a quoted CSV",
      files: {
        "interactions.csv": csv(),
        "items.csv": `item_id,title\n${ids.map((i) => `${i},"A\u2028B ${i}"\n`).join("")}`,
      },
      items: { 103: { title: "A B 103" } },
    },
    {
      ...recboleItems(`item_id:token\ttitle:token_seq\n${ids.map((i) => `${i}\tA\u2029B\u0085C ${i}\n`).join("")}`),
      what: "U+2029 and U+0085 in RecBole",
    },
    {
      what: "U+2028 in sequences' items",
      files: {
        "sequential_data.txt": "a 1 2\nb 2 1\n",
        "items.jsonl": '{"item_id": 1, "title": "A\u2028B"}\n{"item_id": 2, "title": "C"}\n',
      },
      settings: { adapter: "sequences", columns: {} },
      sequences: { a: ["1", "2"], b: ["2", "1"] },
    },
    {
      what: "CR and CRLF in turn, TSV, compressed",
      files: table(
        gzipSync(
          csv(undefined, { delimiter: "\t" })
            .split("\n")
            .map((l, k) => l + (l === "" ? "" : ["\r", "\r\n"][k % 2]))
            .join(""),
        ),
        "interactions.tsv.gz",
      ),
    },
    {
      what: "CRLF and LF, RecBole",
      files: {
        "x.inter": `user_id:token\titem_id:token\ttimestamp:float\r\n${shop.map((r, n) => `${r.user}\t${r.item}\t${r.time}${n % 2 ? "\r\n" : "\n"}`).join("")}`,
      },
      settings,
      items: { 103: { title: "" } },
    },
    {
      what: "CR in sequences",
      files: {
        "sequential_data.txt": Object.entries(sequencesIn(shop))
          .map(([u, own]) => `${u} ${own.join(" ")}`)
          .join("\r"),
      },
      settings: { adapter: "sequences", columns: {} },
    },
    {
      what: "a mark, RecBole",
      files: {
        "x.inter": `\ufeffuser_id:token\titem_id:token\ttimestamp:float\n${shop.map((r) => `${r.user}\t${r.item}\t${r.time}\n`).join("")}`,
      },
      settings,
    },
    {
      what: "a mark in sequences",
      files: {
        "sequential_data.txt": `\ufeff${Object.entries(sequencesIn(shop))
          .map(([u, own]) => `${u} ${own.join(" ")}\n`)
          .join("")}`,
      },
      settings: { adapter: "sequences", columns: {} },
    },
    {
      what: "a mark in MovieLens' files",
      files: {
        "ratings.csv": `\ufeff${csv((r) => ({ time: `${r.rating},${r.time}` }), { header: ["userId", "movieId", "rating", "timestamp"] })}`,
        "movies.csv": `\ufeffmovieId,title,genres\n${ids.map((i) => `${i},Item ${i},Drama\n`).join("")}`,
      },
      settings: { adapter: "movielens", columns: {} },
      items: { 103: { title: "Item 103" } },
    },
    {
      what: "a mark in .GZ",
      files: {
        "interactions.csv": csv(),
        "items.CSV.GZ": gzipSync(`\ufeff"item_id","title"\n${ids.map((i) => `${i},Item ${i}\n`).join("")}`),
      },
      settings: { columns: { time: "timestamp" }, files: { items: "items.CSV.GZ" } },
      items: { 103: { title: "Item 103" } },
    },
    {
      what: "three hundred lines with quotes and CRLF",
      files: {
        "interactions.csv": csv(),
        "items.csv.gz": gzipSync(`item_id,description,title\n${ids.map((i) => `${i},"${long}",Item ${i}\n`).join("")}`),
      },
      items: { 103: { title: "Item 103" } },
    },
    {
      what: "long texts in the interactions",
      files: table(
        csv((r, n) => ({ more: [n % 5 === 0 ? `"${long}"` : "short"], time: String(r.time) }), {
          header: ["user_id", "item_id", "timestamp", "review"],
        }),
      ),
    },
    {
      what: "UTF-16 that begins with a NUL",
      files: table(Buffer.from(`\ufeff\u0000x,1,2\n${csv(undefined, { header: [] })}`, "utf16le")),
      settings: { columns: { user: 0, item: 1, time: 2 } },
      dropped: { malformed: 1 },
      bad: ["1: contains a NUL byte"],
    },
    {
      what: "long texts in a TSV",
      files: {
        "interactions.csv": csv(),
        "items.tsv": `item_id\tdescription\ttitle\n${ids.map((i) => `${i}\t"${long}"\tItem ${i}\n`).join("")}`,
      },
      items: { 103: { title: "Item 103" } },
    },
  ]);
});
