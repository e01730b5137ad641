/**
 * Bytes, lines and quotes as files have them. The cases 01, 13, 14, 17, 18 and 21 of public bug reports, variants of
 * each, and forms from other threads: a fault costs its own line, is counted, and nothing else is lost.
 */
import { gzipSync } from "node:zlib";
import { describe, expect } from "vitest";
import { rawZstd } from "../../table-forms.ts";
import { csv, type Input, ids, items, jsonl, type Row, record, sequencesIn, shop, testInputs } from "./shop.ts";

const table = (text: string | Uint8Array, name = "interactions.csv"): Input["files"] => ({ [name]: text });
const without = (...lost: number[]) => sequencesIn(shop.filter((_, n) => !lost.includes(n)));
/** A column nobody asked for, whose cell is written as it comes. */
const noted = (cell: (row: Row, n: number) => string, delimiter = ","): string =>
  csv((r, n) => ({ more: [cell(r, n)] }), { delimiter, header: ["user_id", "item_id", "timestamp", "note"] });
const utf16 = (text: string): Buffer => Buffer.from(text, "utf16le");
const latin1 = (text: string): Buffer => Buffer.from(text, "latin1");
const lone = { settings: { columns: { time: "timestamp" }, maxBadShare: 0.05 } };

const zstd = (text: string): Buffer => rawZstd(Buffer.from(text));
/** A frame that decompressors skip, as pzstd begins its files with. */
const skippable = Buffer.from([0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 9, 9, 9, 9]);
const halves = (text: string): [string, string] => [text.slice(0, 1000), text.slice(1000)];

describe("compressed", () => {
  const [first, second] = halves(csv());
  testInputs([
    { what: "gzip", files: table(gzipSync(csv()), "interactions.csv.gz") },
    { what: ".CSV.GZ", files: table(gzipSync(csv()), "Interactions.CSV.GZ") },
    { what: "gzip under a plain name", files: table(gzipSync(csv())) },
    // MonetDB/MonetDB#7061, wgzhao/Addax#316
    {
      what: "gzip members one after the other",
      files: table(Buffer.concat([gzipSync(first), gzipSync(second)]), "interactions.csv.gz"),
    },
    {
      what: "a name that says gzip, a plain text",
      files: table(csv(), "interactions.csv.gz"),
      refused: /interactions\.csv\.gz is not a valid gzip file/,
    },
    {
      what: "gzip that is cut",
      files: table(gzipSync(csv()).subarray(0, 300), "interactions.csv.gz"),
      refused: /interactions\.csv\.gz is damaged/,
    },
    { what: "zstd", files: table(zstd(csv()), "interactions.csv.zst") },
    { what: ".TSV.ZST", files: table(zstd(csv(undefined, { delimiter: "\t" })), "INTERACTIONS.TSV.ZST") },
    // indygreg/python-zstandard#59, nodejs/node#64748
    {
      what: "zstd frames one after the other",
      files: table(Buffer.concat([zstd(first), zstd(second)]), "interactions.csv.zst"),
    },
    {
      what: "zstd that begins with a frame to skip",
      files: table(Buffer.concat([skippable, zstd(csv())]), "interactions.csv.zst"),
    },
    {
      what: "zstd with a frame to skip in the middle",
      files: table(Buffer.concat([zstd(first), skippable, zstd(second)]), "interactions.csv.zst"),
    },
    {
      what: "zstd that is cut",
      files: table(zstd(csv()).subarray(0, 900), "interactions.csv.zst"),
      refused: /damaged/,
    },
    { what: "zstd under a plain name, JSON lines", files: table(zstd(jsonl(record)), "interactions.jsonl") },
    {
      what: "a zip archive called .csv",
      files: table(Buffer.from("PK\u0003\u0004 and more")),
      refused: /is a zip archive/,
    },
    {
      what: "items in .csv.gz with a mark (case 18)",
      files: {
        ...table(csv()),
        "items.csv.gz": gzipSync(`\ufeffitem_id,title\n${ids.map((i) => `${i},Item ${i}\n`).join("")}`),
      },
      items: { 100: { title: "Item 100" } },
    },
  ]);
});

describe("encodings", () => {
  const cafe = (text: (i: string) => string): string =>
    `item_id,title\n${ids.map((i) => `${i},${text(i)}\n`).join("")}`;
  const itemFile = (bytes: Uint8Array, name = "items.csv"): Input["files"] => ({ ...table(csv()), [name]: bytes });
  const read = { 100: { title: "Café über 100" } };
  const title = (i: string): string => `Café über ${i}`;
  testInputs([
    { what: "a mark", files: table(`\ufeff${csv()}`) },
    {
      what: "a mark before a quoted name",
      files: table(`\ufeff${csv(undefined, { header: ['"user_id"', "item_id", "timestamp"] })}`),
    },
    { what: "a mark in JSON lines", files: table(`\ufeff${jsonl(record)}`, "interactions.jsonl") },
    { what: "a mark in a JSON array", files: table(`\ufeff${JSON.stringify(shop.map(record))}`, "interactions.json") },
    {
      what: "case 13: Latin-1 items are refused by name",
      files: itemFile(latin1(cafe(title))),
      refused: /items\.csv:2: not UTF-8.*data\.encoding/,
    },
    {
      what: "case 13: Latin-1, said so",
      files: itemFile(latin1(cafe(title))),
      settings: { columns: { time: "timestamp" }, encoding: "latin1" },
      items: read,
    },
    {
      what: "Windows-1252 quotes, said so",
      files: itemFile(
        Buffer.concat([
          latin1("item_id,title\n"),
          ...ids.map((i) =>
            Buffer.concat([latin1(`${i},`), Buffer.from([0x93]), latin1(`Caf${i}`), Buffer.from([0x94, 10])]),
          ),
        ]),
      ),
      settings: { columns: { time: "timestamp" }, encoding: "windows-1252" },
      items: { 100: { title: expect.stringContaining("Caf100") as unknown } },
    },
    {
      what: "GBK, said so",
      files: itemFile(
        Buffer.from([
          ...Buffer.from("item_id,title\n"),
          ...ids.flatMap((i) => [...Buffer.from(`${i},`), 0xc9, 0xcc, 0xc6, 0xb7, 10]),
        ]),
      ),
      settings: { columns: { time: "timestamp" }, encoding: "gbk" },
      items: { 100: { title: "商品" } },
    },
    {
      what: "one Latin-1 line among good ones costs itself",
      files: table(Buffer.concat([Buffer.from(csv()), latin1("u\u00e9,100,1700000000\n")])),
      dropped: { malformed: 1 },
      bad: [/^122: not UTF-8/],
    },
    {
      what: "UTF-16 with a mark",
      files: itemFile(Buffer.concat([Buffer.from([0xff, 0xfe]), utf16(cafe(title))])),
      items: read,
    },
    { what: "UTF-16 without a mark", files: itemFile(utf16(cafe(title))), items: read },
    {
      what: "UTF-16, big end first",
      files: itemFile(Buffer.concat([Buffer.from([0xfe, 0xff]), Buffer.from(utf16(cafe(title))).swap16()])),
      items: read,
    },
    {
      what: "UTF-16 interactions with CRLF",
      files: table(Buffer.concat([Buffer.from([0xff, 0xfe]), utf16(csv(undefined, { end: "\r\n" }))])),
    },
    {
      what: "UTF-16 TSV, as Excel's Unicode text",
      files: table(
        Buffer.concat([Buffer.from([0xff, 0xfe]), utf16(csv(undefined, { end: "\r\n", delimiter: "\t" }))]),
        "interactions.tsv",
      ),
    },
    {
      what: "UTF-32 is refused by name",
      files: table(Buffer.from([0xff, 0xfe, 0, 0, 0x75, 0, 0, 0])),
      refused: /UTF-32/,
    },
    {
      what: "an encoding that is none",
      files: table(csv()),
      settings: { columns: { time: "timestamp" }, encoding: "utf-88" },
      refused: /unknown encoding "utf-88"/,
    },
    {
      what: "a surrogate in half, UTF-8 of Java",
      files: table(
        Buffer.concat([Buffer.from(csv()), Buffer.from([0xed, 0xa0, 0x80]), Buffer.from(",100,1700000000\n")]),
      ),
      dropped: { malformed: 1 },
    },
    {
      what: "a NUL byte",
      files: table(`${csv()}u1\u0000,100,1700000000\n`),
      dropped: { malformed: 1 },
      bad: ["122: contains a NUL byte"],
    },
  ]);
});

describe("ends of lines", () => {
  const mixed = csv()
    .split("\n")
    .map((l, k) => l + ["\n", "\r\n"][k % 2])
    .join("");
  testInputs([
    { what: "CRLF", files: table(csv(undefined, { end: "\r\n" })) },
    { what: "CR alone, old Macs", files: table(csv(undefined, { end: "\r" })) },
    { what: "case 17: LF and CRLF", files: table(mixed) },
    {
      what: "LF, CRLF and CR",
      files: table(
        csv()
          .split("\n")
          .map((l, k) => l + ["\n", "\r\n", "\r"][k % 3])
          .join(""),
      ),
    },
    {
      what: "JSON lines with CRLF and CR",
      files: table(
        jsonl(record)
          .split("\n")
          .map((l, k) => l + ["\r\n", "\r"][k % 2])
          .join(""),
        "interactions.jsonl",
      ),
    },
    { what: "no end of the last line", files: table(csv().trimEnd()) },
    { what: "no end of the last line, quoted", files: table(noted(() => '"x"').trimEnd()) },
    { what: "blank lines", files: table(csv().replaceAll("\n", "\n\n")) },
    { what: "blank lines at the beginning", files: table(`\n\n${csv()}`) },
    {
      what: "lines of blanks, and a Ctrl-Z of DOS at the end",
      files: table(`${csv()}   \n\t\n\u001a`),
      ...lone,
      dropped: { malformed: 1 },
    },
    {
      what: "case 14: U+2028 and U+0085 in JSON",
      files: { ...table(csv()), "items.jsonl": items((id) => ({ description: `a\u2028b\u2029c\u0085${id}` })) },
      items: { 100: { title: "Item 100" } },
    },
    { what: "case 14: U+2028 in a CSV", files: table(noted(() => "a\u2028b")) },
    { what: "form feeds and vertical tabs within a line", files: table(noted(() => "a\fb\u000bc")) },
  ]);
});

describe("quotes", () => {
  const many = Array.from({ length: 60 }, (_, k) => `<p class=""a"">line ${k}, more</p>`).join("\n");
  const ending = (n: number) => (n === 30 ? '"The end' : "fine");
  testInputs([
    {
      what: "case 01: a quote that opens in one row",
      files: table(noted((_, n) => ending(n))),
      sequences: without(30),
      dropped: { malformed: 1 },
      bad: [/^32: a quote opens and never closes/],
    },
    {
      what: "case 01: in a TSV",
      files: table(
        noted((_, n) => ending(n), "\t"),
        "interactions.tsv",
      ),
      sequences: without(30),
      dropped: { malformed: 1 },
    },
    {
      what: "case 01: in two rows, which together would enclose good ones",
      files: table(noted((_, n) => (n === 30 || n === 60 ? '"The end' : "fine"))),
      ...lone,
      sequences: without(30, 60),
      dropped: { malformed: 2 },
    },
    {
      what: "case 01: opens in one row, closes at the end of a later one",
      files: table(noted((_, n) => (n === 30 ? '"The end' : n === 33 ? 'late"' : "fine"))),
      sequences: without(30),
      dropped: { malformed: 1 },
    },
    {
      what: "case 01: in the first row",
      files: table(noted((_, n) => (n === 0 ? '"The end' : "fine"))),
      sequences: without(0),
      dropped: { malformed: 1 },
    },
    {
      what: "case 01: in the last row",
      files: table(noted((_, n) => (n === 119 ? '"The end' : "fine"))),
      sequences: without(119),
      dropped: { malformed: 1 },
    },
    {
      what: "case 01: in the first column",
      files: table(csv((r, n) => ({ user: n === 50 ? `"${r.user}` : r.user }))),
      sequences: without(50),
      dropped: { malformed: 1 },
    },
    {
      what: "case 01: above the share allowed it stops, counted in lines",
      files: table(noted((_, n) => (n % 60 === 30 ? '"The end' : "fine"))),
      refused: /2 of 12[012] rows are malformed \(1\.6/,
    },
    {
      what: "case 01: items in a TSV",
      files: {
        ...table(csv()),
        "items.tsv": `item_id\ttitle\tnote\n${ids.map((i) => `${i}\tItem ${i}\t${i === "104" ? '"open' : "x"}\n`).join("")}`,
      },
      settings: { columns: { time: "timestamp" }, maxBadShare: 0.2 },
      sequences: sequencesIn(shop.filter((r) => r.item !== "104")),
      dropped: { malformed: 1, "unknown item": 12 },
    },
    {
      what: "case 21: sixty lines in quotes",
      files: {
        ...table(csv()),
        "items.csv": `item_id,title,description\n${ids.map((i) => `${i},Item ${i},"${many}"\n`).join("")}`,
      },
      items: { 109: { title: "Item 109", description: expect.stringMatching(/line 59, more/) as unknown } },
    },
    {
      what: "a line break in quotes in every row",
      files: table(noted((_, n) => `"first ${n}\nsecond, with ""quotes"""`)),
    },
    { what: "a CRLF in quotes", files: table(noted(() => '"first\r\nsecond"').replaceAll(/(?<!\r)\n/g, "\r\n")) },
    { what: "inches: a quote in the middle of a cell", files: table(noted(() => '5" disk')) },
    { what: "a cell that is one quote in quotes", files: table(noted(() => '""""')) },
    {
      what: "quotes around every cell",
      files: table(
        csv((r) => ({ user: `"${r.user}"`, item: `"${r.item}"`, time: `"${r.time}"` }), {
          header: ['"user_id"', '"item_id"', '"timestamp"'],
        }),
      ),
    },
    { what: "text after a quote that closes", files: table(noted(() => '"a"b')) },
    // MySQL's and Hive's way to escape
    { what: "quotes escaped with backslashes", files: table(noted(() => '"say \\"hi\\" now"')) },
    {
      what: "a row too short and one too long",
      files: table(`${csv()}u1,100\nu1,100,1700000000,9\n`),
      ...lone,
      dropped: { malformed: 2 },
      bad: ["122: 2 columns, expected 3", "123: 4 columns, expected 3"],
    },
    {
      what: "a comma at the end of every line",
      files: table(csv(() => ({ more: [""] }), { header: ["user_id", "item_id", "timestamp", ""] })),
    },
    {
      what: "a header only",
      files: table("user_id,item_id,timestamp\n"),
      refused: /No interactions are left from 0 rows/,
    },
  ]);
});

describe("JSON", () => {
  const json = (text: string, name = "interactions.json"): Input["files"] => table(text, name);
  testInputs([
    { what: "an array", files: json(JSON.stringify(shop.map(record))) },
    { what: "an array, indented", files: json(JSON.stringify(shop.map(record), null, 2)) },
    {
      what: "an array, an element a line",
      files: json(`[\n${shop.map((r) => JSON.stringify(record(r))).join(",\n")}\n]\n`),
    },
    {
      what: "objects over several lines, one after the other",
      files: json(shop.map((r) => JSON.stringify(record(r), null, 1)).join("\n")),
    },
    {
      what: "an array that is cut",
      files: json(JSON.stringify(shop.map(record)).slice(0, -20)),
      refused: /ends in the middle of its JSON/,
    },
    {
      what: "a bracket within a text",
      files: json(JSON.stringify(shop.map((r) => ({ note: 'a ] } " [ {', ...record(r) })))),
    },
    {
      what: "a line that is cut costs itself",
      files: json(`${jsonl(record)}{"user_id": "u1", "item`, "interactions.jsonl"),
      dropped: { malformed: 1 },
      bad: ["121: not JSON"],
    },
    {
      what: "two records on one line",
      files: json(
        jsonl((r, n) => (n === 3 ? `${JSON.stringify(record(r))}${JSON.stringify(record(r))}` : record(r))),
        "interactions.ndjson",
      ),
      sequences: without(3),
      dropped: { malformed: 1 },
    },
    {
      what: "pandas' columns: an object of objects",
      files: json(JSON.stringify({ user_id: { 0: "a" }, item_id: { 0: "b" } })),
      refused: /malformed/,
    },
    {
      what: "records within an object",
      files: json(JSON.stringify({ data: shop.map(record) })),
      refused: /malformed.*no user id/,
    },
    {
      what: "nested fields by their path",
      files: json(
        jsonl((r) => ({ who: { id: r.user }, what: { sku: r.item }, at: r.time })),
        "interactions.jsonl",
      ),
      settings: { columns: { user: "who.id", item: "what.sku", time: "at" } },
    },
    {
      what: "escapes of Unicode in ids",
      files: json(
        jsonl(
          (r) =>
            `{"user_id":"u\\u${"00"}${(0x30 + (Number(r.user.slice(1)) % 10)).toString(16)}${r.user.length > 2 ? `x` : ""}","item_id":"${r.item}","timestamp":${r.time}}`,
        ),
        "interactions.jsonl",
      ),
      sequences: sequencesIn(shop.map((r) => ({ ...r, user: `u${r.user.at(-1)}${r.user.length > 2 ? "x" : ""}` }))),
    },
  ]);
});
