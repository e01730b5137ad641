/**
 * Variants of the 23 cases of public bug reports: the same kind of fault in another format, column, unit
 * or layout. Where a variant of a case belongs to logs of slates it is in logs.test.ts.
 */
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

const without = (...n: number[]) => sequencesIn(shop.filter((_, k) => !n.includes(k)));
const table = (content: string | Uint8Array, name = "interactions.csv"): Input["files"] => ({ [name]: content });
const numbers = (records: readonly string[]): string => `[${records.join(",\n")}]`;
const array = (make: (r: Row, n: number) => object | string): string => numbers(jsonl(make).trim().split("\n"));
const parquet = (time: string, item = "item", user = '"user"'): Input["files"] => ({
  "interactions.parquet": new Parquet(`${user} AS user_id, ${item} AS item_id, ${time} AS timestamp`),
});
const recbole = (line: (r: Row, n: number) => string, header = "user_id:token\titem_id:token\ttimestamp:float"): Input => ({ what: "", files: { "x.inter": `${header}\n${shop.map((r, n) => `${line(r, n)}\n`).join("")}` }, settings: { adapter: "recbole", columns: {} } }); // biome-ignore format: one line
const iso = (t: number): string => new Date(1000 * t).toISOString();
const first = { u3: Array.from({ length: 10 }, (_, k) => 1_700_000_183 + 86_400 * k) };
const more = (cell: (n: number) => string, delimiter = ","): string =>
  csv((_, n) => ({ more: [cell(n)] }), { header: ["user_id", "item_id", "timestamp", "artist"], delimiter });
const open = (n: number): string => (n === 70 ? '"The' : "The");

describe("01: a quote that opens", () => {
  testInputs([
    { what: "semicolons, compressed", files: table(gzipSync(more(open, ";")), "interactions.csv.gz"), sequences: without(70), dropped: { malformed: 1 } }, // biome-ignore format: one line
    { what: "CRLF", files: table(more(open).replaceAll("\n", "\r\n")), sequences: without(70), dropped: { malformed: 1 } }, // biome-ignore format: one line
    { what: "CR alone", files: table(more(open).replaceAll("\n", "\r")), sequences: without(70), dropped: { malformed: 1 } }, // biome-ignore format: one line
    { what: "a TSV in UTF-16", files: table(Buffer.from(`\ufeff${more(open, "\t")}`, "utf16le"), "interactions.tsv"), sequences: without(70), dropped: { malformed: 1 } }, // biome-ignore format: one line
    { ...recbole((r, n) => `${r.user}\t${r.item}\t${r.time}\t${open(n)}`, "user_id:token\titem_id:token\ttimestamp:float\tartist:token"), what: "RecBole quotes nothing" }, // biome-ignore format: one line
    { what: "a string that does not end in JSON lines", files: table(jsonl((r, n) => (n === 70 ? `{"user_id": "${r.user}` : record(r))), "interactions.jsonl"), sequences: without(70), dropped: { malformed: 1 } }, // biome-ignore format: one line
    { what: "a string that does not end in an array", files: table(numbers(shop.map((r, n) => (n === 70 ? `{"user_id": "${r.user}` : JSON.stringify(record(r))))), "interactions.json"), refused: /interactions\.json ends in the middle of its JSON|malformed/ }, // biome-ignore format: one line
    { what: "item titles in a CSV", files: { "interactions.csv": csv(), "items.csv": `item_id,title\n${ids.map((i, n) => `${i},${n === 4 ? '"' : ""}Item ${i}\n`).join("")}` }, settings: { maxBadShare: 0.2, catalogue: "all" }, sequences: sequencesIn(shop.filter((r) => r.item !== "104")), dropped: { malformed: 1, "unknown item": 12 } }, // biome-ignore format: one line
  ]);
});

describe("02 to 05: units", () => {
  const mixed = (r: Row, n: number) => ({ ...record(r), timestamp: n % 3 === 0 ? 1000 * r.time : r.time });
  testInputs([
    { what: "two units in an array", files: table(array(mixed), "interactions.json"), times: first, says: /several units/ }, // biome-ignore format: one line
    { what: "two units in text in Parquet", files: parquet("CASE WHEN n % 3 = 0 THEN (1000 * time)::VARCHAR ELSE time::VARCHAR END"), times: first, says: /several units/ }, // biome-ignore format: one line
    { what: "two units as floats, compressed TSV", files: table(gzipSync(csv((r, n) => ({ time: `${n % 2 ? r.time : 1000 * r.time}.0` }), { delimiter: "\t" })), "interactions.tsv.gz"), times: first, says: /several units/ }, // biome-ignore format: one line
    { what: "dates and seconds in one column", files: table(csv((r, n) => ({ time: n % 4 === 0 ? iso(r.time) : String(r.time) }))), times: first, says: /several units/ }, // biome-ignore format: one line
    { what: "days among seconds are no times", files: table(csv((r, n) => ({ time: n % 4 === 0 ? iso(r.time).slice(0, 10).replaceAll("-", "") : String(r.time) }))), refused: /30 of 120 rows are malformed.*is "202311\d\d", which would be in 1970/ }, // biome-ignore format: one line
    { ...recbole((r, n) => `${r.user}\t${r.item}\t${n % 2 ? r.time : 1000 * r.time}`), what: "two units, RecBole", times: first, says: /several units/ }, // biome-ignore format: one line
    { what: "seconds of 2030 that could be hours of 1900", files: table("user_id,item_id,timestamp\na,1,1900060616\na,2,1900060600\n"), sequences: { a: ["2", "1"] }, times: { a: [1_900_060_600, 1_900_060_616] } }, // biome-ignore format: one line
    { what: "microseconds as DOUBLE", files: parquet("(time * 1000000)::DOUBLE"), times: first, says: /in microseconds/ }, // biome-ignore format: one line
    { what: "microseconds in an array", files: table(array((r) => ({ ...record(r), timestamp: 1e6 * r.time })), "interactions.json"), times: first, says: /in microseconds/ }, // biome-ignore format: one line
    { ...recbole((r) => `${r.user}\t${r.item}\t${r.time}000000`), what: "microseconds, RecBole", times: first, says: /in microseconds/ }, // biome-ignore format: one line
    { what: "nanoseconds as text in Parquet", files: parquet("(time * 1000000000)::VARCHAR"), times: first, says: /in nanoseconds/ }, // biome-ignore format: one line
    { what: "milliseconds of 12 digits as a float in JSON", files: table(jsonl((r) => ({ ...record(r), timestamp: `${r.time - 820_000_000}000.0` })), "interactions.jsonl"), says: /in milliseconds/ }, // biome-ignore format: one line
    { what: "milliseconds of 12 digits, HUGEINT", files: parquet("((time - 820000000) * 1000)::HUGEINT"), says: /in milliseconds/ }, // biome-ignore format: one line
    { what: "milliseconds of 1972, of 11 digits: nobody can tell, refused", files: table(csv((r) => ({ time: `${r.time - 1_630_000_000}000` }))), refused: /which would be in|malformed/ }, // biome-ignore format: one line
    { what: "the first thirty rows have no time, TSV", files: table(csv((r, n) => ({ time: n < 30 ? "" : `${r.time}000` }), { delimiter: "\t" }), "interactions.tsv"), settings: { maxBadShare: 0.3 }, sequences: sequencesIn(shop.slice(30)), dropped: { malformed: 30 }, says: /in milliseconds/ }, // biome-ignore format: one line
    { what: "the first time is a word, in an array", files: table(array((r, n) => ({ ...record(r), timestamp: n === 0 ? "n/a" : 1000 * r.time })), "interactions.json"), sequences: without(0), dropped: { malformed: 1 }, says: /in milliseconds/ }, // biome-ignore format: one line
    { what: "the first review has line breaks, compressed", files: table(gzipSync(csv((r, n) => ({ more: [n < 2 ? '"a\n\nb, c"' : "d"], time: `${r.time}000` }), { header: ["user_id", "item_id", "timestamp", "review"] })), "interactions.csv.gz"), says: /in milliseconds/ }, // biome-ignore format: one line
    { what: "the first time is NaT, as pandas writes it, in Parquet", files: parquet("CASE WHEN n = 0 THEN 'NaT' ELSE (1000 * time)::VARCHAR END"), sequences: without(0), dropped: { malformed: 1 } }, // biome-ignore format: one line
  ]);
});

describe("dates", () => {
  const parts = (t: number) => iso(t).match(/\d+/g) as [string, string, string, string, string, string];
  const dated = (write: (p: ReturnType<typeof parts>, t: number) => string): Input["files"] =>
    table(csv((r) => ({ time: write(parts(r.time), r.time) })));
  const clock = (p: ReturnType<typeof parts>): string => `${Number(p[3]) % 12 || 12}:${p[4]} ${Number(p[3]) < 12 ? "AM" : "PM"}`; // biome-ignore format: one line
  const minute = { u3: first.u3.map((t) => t - (t % 60)) };
  /** Only days that may be months as well. */
  const early = (r: Row): ReturnType<typeof parts> => parts(r.time - 13 * 86_400);
  testInputs([
    { what: "11/28/2026 3:04 PM", files: dated((p) => `${Number(p[1])}/${Number(p[2])}/${p[0]} ${clock(p)}`), times: minute, says: /in dates, month first/ }, // biome-ignore format: one line
    { what: "28/11/2026 3:04 PM", files: dated((p) => `${p[2]}/${p[1]}/${p[0]} ${clock(p)}`), times: minute, says: /in dates, day first/ }, // biome-ignore format: one line
    { what: "28.11.2026 15:04", files: dated((p) => `${p[2]}.${p[1]}.${p[0]} ${p[3]}:${p[4]}`), times: minute, says: /day first/ }, // biome-ignore format: one line
    { what: "28-11-2026 15:04:05", files: dated((p) => `${p[2]}-${p[1]}-${p[0]} ${p[3]}:${p[4]}:${p[5]}`), times: first, says: /day first/ }, // biome-ignore format: one line
    { what: "28/11/26", files: dated((p) => `${p[2]}/${p[1]}/${p[0].slice(2)}`), says: /day first/ },
    { what: "a day or a month, with AM and PM: month first, and it says so", files: table(csv((r) => ({ time: `${Number(early(r)[1])}/${Number(early(r)[2])}/${early(r)[0]} ${clock(early(r))}` }))), says: /in dates, month first/ }, // biome-ignore format: one line
    { what: "a day or a month, 24 hours: refused", files: table(csv((r) => ({ time: `${early(r)[2]}.${early(r)[1]}.${early(r)[0]} ${early(r)[3]}:${early(r)[4]}` }))), refused: /day and month are ambiguous/ }, // biome-ignore format: one line
    { what: "2026-11-28 3:04 PM is no 3 in the morning", files: dated((p) => `${p.slice(0, 3).join("-")} ${clock(p)}`), refused: /time is neither a number nor a date: "timestamp" is "2023-11-/ }, // biome-ignore format: one line
    { what: "15112023: not a number", files: dated((p) => `${p[2]}${p[1]}${p[0]}`), refused: /"timestamp" is "\d{8}", a date whose year comes last/ }, // biome-ignore format: one line
    { what: "11152023, in Parquet", files: parquet("strftime(to_timestamp(time), '%m%d%Y')::INTEGER"), refused: /a date whose year comes last/ }, // biome-ignore format: one line
    { what: "5112023, a zero lost", files: dated((p) => `${Number(p[2])}${p[1]}${p[0]}`), refused: /a date whose year comes last/ }, // biome-ignore format: one line
    { what: "nanoseconds in ISO 8601", files: dated((_, t) => iso(t).replace("000Z", "000000000Z")), times: first }, // biome-ignore format: one line
    { what: "half a format among others costs its own row", files: table(csv((r, n) => ({ time: n === 50 ? "2023-11-15T" : iso(r.time) }))), sequences: without(50), dropped: { malformed: 1 } }, // biome-ignore format: one line
    { what: "a month without a day", files: dated((p) => `${p[0]}-${p[1]}`), refused: /time is neither a number nor a date/ }, // biome-ignore format: one line
    { what: "a time of day alone", files: dated((p) => p.slice(3).join(":")), refused: /time is neither a number nor a date/ }, // biome-ignore format: one line
    { what: "a time of day alone, in Parquet", files: parquet("make_timestamp(time * 1000000)::TIME"), refused: /type TIME.* not a time/ }, // biome-ignore format: one line
  ]);
});

describe("06 and 16: ids that are numbers", () => {
  const big = (item: string): string => String(9_100_000_000_000_000n + BigInt(item) - 100n);
  const bigItems = (write: (id: string) => string): string => ids.map((i) => `{"item_id": ${write(big(i))}, "title": "Item ${i}"}\n`).join(""); // biome-ignore format: one line
  const sequences = Object.fromEntries(Object.entries(sequencesIn(shop)).map(([u, own]) => [u, own.map(big)])); // biome-ignore format: one line
  const right = { sequences, items: { [big("103")]: { title: "Item 103" } } };
  const bigCsv = csv((r) => ({ item: big(r.item) }));
  const keyed = (write: (id: string) => string): string => `{${ids.map((i) => `"${write(big(i))}": {"title": "Item ${i}"}`).join(", ")}}`; // biome-ignore format: one line
  const lines = (change: (i: string) => string): string =>
    Object.entries(sequencesIn(shop)).map(([u, own]) => `${u} ${own.map(change).join(" ")}\n`).join(""); // biome-ignore format: one line
  testInputs([
    { what: "an array of items", files: { "interactions.csv": bigCsv, "items.json": numbers(bigItems(String).trim().split("\n")) }, ...right }, // biome-ignore format: one line
    { what: "9100000000000003.0 in JSON", files: { "interactions.csv": bigCsv, "items.jsonl": bigItems((i) => `${i}.0`) }, ...right }, // biome-ignore format: one line
    { what: "9100000000000003.0 in JSON interactions", files: { "interactions.jsonl": jsonl((r) => `{"user_id": "${r.user}", "item_id": ${big(r.item)}.0, "timestamp": ${r.time}}`), "items.jsonl": bigItems(String) }, ...right }, // biome-ignore format: one line
    { what: "within an object", files: { "interactions.jsonl": jsonl((r) => `{"user_id": "${r.user}", "p": {"id": ${big(r.item)}}, "timestamp": ${r.time}}`), "items.jsonl": bigItems(String) }, settings: { columns: { time: "timestamp", item: "p.id", id: "item_id" } }, ...right }, // biome-ignore format: one line
    { what: "items of sequences in one object", files: { "sequential_data.txt": lines(big), "x.item.json": keyed(String) }, settings: { adapter: "sequences", columns: {} }, ...right }, // biome-ignore format: one line
    { what: "users", files: { "interactions.jsonl": jsonl((r) => `{"user_id": ${big(r.user.slice(1))}, "item_id": ${r.item}, "timestamp": ${r.time}}`) }, sequences: Object.fromEntries(Object.entries(sequencesIn(shop)).map(([u, own]) => [big(u.slice(1)), own])) }, // biome-ignore format: one line
    { ...recbole((r) => `${r.user}\t${r.item}.0\t${r.time}`, "user_id:token\titem_id:float\ttimestamp:float"), what: "floats, RecBole" }, // biome-ignore format: one line
    { what: "floats for users and items, TSV in CRLF", files: table(csv((r) => ({ item: `${r.item}.0`, user: `${r.user.slice(1)}.0` }), { delimiter: "\t", end: "\r\n" }), "interactions.tsv"), sequences: Object.fromEntries(Object.entries(sequencesIn(shop)).map(([u, own]) => [u.slice(1), own])) }, // biome-ignore format: one line
    { what: "DECIMAL(10, 2)", files: { ...parquet("time", "item::DECIMAL(10, 2)"), "items.jsonl": items() }, items: { 103: { title: "Item 103" } } }, // biome-ignore format: one line
    { what: "floats in an array", files: table(array((r) => `{"user_id": "${r.user}", "item_id": ${r.item}.0, "timestamp": ${r.time}}`), "interactions.json") }, // biome-ignore format: one line
  ]);
});

describe("09: ratings that are none", () => {
  const rated = (bad: string): string => csv((r, n) => ({ more: [n % 3 === 0 ? bad : String(r.rating)] }), { header: ["user_id", "item_id", "timestamp", "rating"] }); // biome-ignore format: one line
  const settings = { columns: { time: "timestamp", rating: "rating" }, minRating: 4 };
  const refused = /40 of 120 rows are malformed.*rating is not a number/;
  testInputs([
    ...["NaN", "inf", "-Infinity", "5 stars", "", "4,5 "].map((bad): Input => ({ what: `"${bad}"`, files: table(rated(bad.includes(",") ? `"${bad}"` : bad)), settings, refused })), // biome-ignore format: one line
    { what: "NaN in Parquet", files: { "interactions.parquet": new Parquet("\"user\" AS user_id, item AS item_id, time AS timestamp, CASE WHEN n % 3 = 0 THEN 'nan'::DOUBLE ELSE rating END AS rating") }, settings, refused }, // biome-ignore format: one line
    { what: "infinity in Parquet", files: { "interactions.parquet": new Parquet("\"user\" AS user_id, item AS item_id, time AS timestamp, CASE WHEN n % 3 = 0 THEN 'inf'::FLOAT ELSE rating::FLOAT END AS rating") }, settings, refused }, // biome-ignore format: one line
    { what: "NaN as Python writes it in JSON", files: table(jsonl((r, n) => `{"user_id": "${r.user}", "item_id": ${r.item}, "timestamp": ${r.time}, "rating": ${n % 3 === 0 ? "NaN" : r.rating}}`), "interactions.jsonl"), settings, refused }, // biome-ignore format: one line
    { what: "nan in MovieLens' ratings.csv", files: { "ratings.csv": csv((r, n) => ({ item: r.item, more: [] , time: `${n % 3 === 0 ? "nan" : r.rating},${r.time}` }), { header: ["userId", "movieId", "rating", "timestamp"] }), "movies.csv": `movieId,title,genres\n${ids.map((i) => `${i},Item,Drama\n`).join("")}` }, settings: { adapter: "movielens", columns: {}, minRating: 4 }, refused }, // biome-ignore format: one line
    { ...recbole((r, n) => `${r.user}\t${r.item}\t${n % 3 === 0 ? "nan" : r.rating}\t${r.time}`, "user_id:token\titem_id:token\trating:float\ttimestamp:float"), what: "nan, RecBole", refused }, // biome-ignore format: one line
  ]);
});

describe("11 and 12: lists", () => {
  const withCategories = (cell: string, name = "items.tsv", delimiter = "\t"): Input["files"] => ({
    "interactions.csv": csv(),
    [name]: `item_id${delimiter}title${delimiter}categories\n${ids.map((i) => [i, `Item ${i}`, cell].join(delimiter)).join("\n")}\n`,
  });
  const two = { items: { 103: { categories: ["Home", "Lamp"] } } };
  const inParquet = (categories: string, more = ""): Input["files"] => ({ ...parquet("time"), "items.parquet": new Parquet(`DISTINCT ON (item) item AS item_id, 'Item ' || item AS title, ${categories} AS categories${more}`) }); // biome-ignore format: one line
  testInputs([
    { what: "JSON in a TSV", files: withCategories('["Home", "Lamp"]'), ...two },
    { what: "JSON in a TSV, quoted", files: withCategories('"[""Home"", ""Lamp""]"'), ...two },
    { what: "Python in a TSV, compressed", files: { "interactions.csv": csv(), "items.tsv.gz": gzipSync(withCategories("['Home', 'Lamp']")["items.tsv"] as string) }, ...two }, // biome-ignore format: one line
    { what: "Postgres' {Home,Lamp}", files: withCategories("{Home,Lamp}"), ...two },
    { what: "Postgres' quotes where they are needed", files: withCategories('{"Arts, Crafts",Lamp}'), items: { 103: { categories: ["Arts, Crafts", "Lamp"] } } }, // biome-ignore format: one line
    { what: "a set of Python", files: withCategories("{'Home', 'Lamp'}"), ...two },
    { what: "a list in text in JSON", files: { "interactions.csv": csv(), "items.jsonl": items(() => ({ categories: "['Home', 'Lamp']" })) }, ...two }, // biome-ignore format: one line
    { what: "a list in text in Parquet", files: inParquet('\'["Home", "Lamp"]\''), ...two },
    { what: "a list of one text that is a list", files: { "interactions.csv": csv(), "items.jsonl": items(() => ({ categories: ['["Home", "Lamp"]'] })) }, ...two }, // biome-ignore format: one line
    { what: "INTEGER[]", files: inParquet("[1, 20]"), items: { 103: { categories: ["1", "20"] } } },
    { what: "UBIGINT[] beyond 2^53", files: inParquet("[9100000000000003::UBIGINT, 2]"), items: { 103: { categories: ["9100000000000003", "2"] } } }, // biome-ignore format: one line
    { what: "DECIMAL[]", files: inParquet("[1::DECIMAL(4, 1), 20]"), items: { 103: { categories: ["1", "20"] } } },
    { what: "BIGINT[][]", files: inParquet("[[1::BIGINT], [20::BIGINT]]"), items: { 103: { categories: ["1", "20"] } } }, // biome-ignore format: one line
    { what: "numbers as brand and description", files: inParquet("['Home', 'Lamp']", ", 7::BIGINT AS brand, 12345678901234567::BIGINT AS description"), items: { 103: { categories: ["Home", "Lamp"], brand: "7", description: "12345678901234567" } } }, // biome-ignore format: one line
  ]);
});

describe("13, 14, 17, 18, 21: bytes", () => {
  const latin = (text: string): Uint8Array => Buffer.from(text, "latin1");
  const accent = (delimiter: string): string => `item_id${delimiter}title\n${ids.map((i) => `${i}${delimiter}Café ${i}\n`).join("")}`; // biome-ignore format: one line
  const long = Array.from({ length: 300 }, (_, k) => `line ${k}, "" quoted ""`).join("\r\n");
  const recboleItems = (text: string | Uint8Array): Input => ({ ...recbole((r) => `${r.user}\t${r.item}\t${r.time}`), what: "", files: { ...recbole((r) => `${r.user}\t${r.item}\t${r.time}`).files, "x.item": text } }); // biome-ignore format: one line
  const settings = { adapter: "recbole", columns: {} };
  testInputs([
    { ...recboleItems(latin(accent("\t").replace("item_id\ttitle", "item_id:token\ttitle:token_seq"))), what: "Latin-1, RecBole items: refused", refused: /x\.item:\d+: not UTF-8/ }, // biome-ignore format: one line
    { ...recboleItems(latin(accent("\t").replace("item_id\ttitle", "item_id:token\ttitle:token_seq"))), what: "Latin-1, RecBole items: said so", settings: { ...settings, encoding: "latin1" }, items: { 103: { title: "Café 103" } } }, // biome-ignore format: one line
    { what: "Latin-1 JSON lines", files: { "interactions.csv": csv(), "items.jsonl": latin(items((i) => ({ title: `Café ${i}` }))) }, refused: /items\.jsonl:\d+: not UTF-8/ }, // biome-ignore format: one line
    { what: "Latin-1 in an array", files: { "interactions.csv": csv(), "items.json": latin(numbers(items((i) => ({ title: `Café ${i}` })).trim().split("\n"))) }, refused: /items\.json is not UTF-8/ }, // biome-ignore format: one line
    { what: "Latin-1, compressed", files: { "interactions.csv": csv(), "items.tsv.gz": gzipSync(latin(accent("\t"))) }, refused: /not UTF-8/ }, // biome-ignore format: one line
    { what: "Latin-1 in sequences' items", files: { "sequential_data.txt": "a 1 2\nb 2 1\n", "item_plain_text.txt": latin("1 Café\n2 Tea\n") }, settings: { adapter: "sequences", columns: {} }, refused: /not UTF-8/ }, // biome-ignore format: one line
    { what: "U+2028 in a quoted CSV", files: { "interactions.csv": csv(), "items.csv": `item_id,title\n${ids.map((i) => `${i},"A\u2028B ${i}"\n`).join("")}` }, items: { 103: { title: "A B 103" } } }, // biome-ignore format: one line
    { ...recboleItems(`item_id:token\ttitle:token_seq\n${ids.map((i) => `${i}\tA\u2029B\u0085C ${i}\n`).join("")}`), what: "U+2029 and U+0085 in RecBole" }, // biome-ignore format: one line
    { what: "U+2028 in sequences' items", files: { "sequential_data.txt": "a 1 2\nb 2 1\n", "items.jsonl": '{"item_id": 1, "title": "A\u2028B"}\n{"item_id": 2, "title": "C"}\n' }, settings: { adapter: "sequences", columns: {} }, sequences: { a: ["1", "2"], b: ["2", "1"] } }, // biome-ignore format: one line
    { what: "CR and CRLF in turn, TSV, compressed", files: table(gzipSync(csv(undefined, { delimiter: "\t" }).split("\n").map((l, k) => l + (l === "" ? "" : ["\r", "\r\n"][k % 2])).join("")), "interactions.tsv.gz") }, // biome-ignore format: one line
    { what: "CRLF and LF, RecBole", files: { "x.inter": `user_id:token\titem_id:token\ttimestamp:float\r\n${shop.map((r, n) => `${r.user}\t${r.item}\t${r.time}${n % 2 ? "\r\n" : "\n"}`).join("")}` }, settings, items: { 103: { title: "" } } }, // biome-ignore format: one line
    { what: "CR in sequences", files: { "sequential_data.txt": Object.entries(sequencesIn(shop)).map(([u, own]) => `${u} ${own.join(" ")}`).join("\r") }, settings: { adapter: "sequences", columns: {} } }, // biome-ignore format: one line
    { what: "a mark, RecBole", files: { "x.inter": `\ufeffuser_id:token\titem_id:token\ttimestamp:float\n${shop.map((r) => `${r.user}\t${r.item}\t${r.time}\n`).join("")}` }, settings }, // biome-ignore format: one line
    { what: "a mark in sequences", files: { "sequential_data.txt": `\ufeff${Object.entries(sequencesIn(shop)).map(([u, own]) => `${u} ${own.join(" ")}\n`).join("")}` }, settings: { adapter: "sequences", columns: {} } }, // biome-ignore format: one line
    { what: "a mark in MovieLens' files", files: { "ratings.csv": `\ufeff${csv((r) => ({ time: `${r.rating},${r.time}` }), { header: ["userId", "movieId", "rating", "timestamp"] })}`, "movies.csv": `\ufeffmovieId,title,genres\n${ids.map((i) => `${i},Item ${i},Drama\n`).join("")}` }, settings: { adapter: "movielens", columns: {} }, items: { 103: { title: "Item 103" } } }, // biome-ignore format: one line
    { what: "a mark in .GZ", files: { "interactions.csv": csv(), "items.CSV.GZ": gzipSync(`\ufeff"item_id","title"\n${ids.map((i) => `${i},Item ${i}\n`).join("")}`) }, settings: { columns: { time: "timestamp" }, files: { items: "items.CSV.GZ" } }, items: { 103: { title: "Item 103" } } }, // biome-ignore format: one line
    { what: "three hundred lines with quotes and CRLF", files: { "interactions.csv": csv(), "items.csv.gz": gzipSync(`item_id,description,title\n${ids.map((i) => `${i},"${long}",Item ${i}\n`).join("")}`) }, items: { 103: { title: "Item 103" } } }, // biome-ignore format: one line
    { what: "long texts in the interactions", files: table(csv((r, n) => ({ more: [n % 5 === 0 ? `"${long}"` : "short"], time: String(r.time) }), { header: ["user_id", "item_id", "timestamp", "review"] })) }, // biome-ignore format: one line
    { what: "UTF-16 that begins with a NUL", files: table(Buffer.from(`\ufeff\u0000x,1,2\n${csv(undefined, { header: [] })}`, "utf16le")), settings: { columns: { user: 0, item: 1, time: 2 } }, dropped: { malformed: 1 }, bad: ["1: contains a NUL byte"] }, // biome-ignore format: one line
    { what: "long texts in a TSV", files: { "interactions.csv": csv(), "items.tsv": `item_id\tdescription\ttitle\n${ids.map((i) => `${i}\t"${long}"\tItem ${i}\n`).join("")}` }, items: { 103: { title: "Item 103" } } }, // biome-ignore format: one line
  ]);
});

describe("15: no id", () => {
  const quarter = sequencesIn(shop.filter((_, n) => n % 4 !== 0));
  const guests = { settings: { maxBadShare: 0.5 }, sequences: quarter, dropped: { malformed: 30 } };
  const user = (n: number, u: string, none: string): string => (n % 4 === 0 ? none : u);
  testInputs([
    ...["", "  ", '""', "NULL", "None", "nan", "\\N", "\u00a0"].map((none): Input => ({ what: `"${none}" in a CSV`, files: table(csv((r, n) => ({ user: user(n, r.user, none) }))), ...guests })), // biome-ignore format: one line
    ...["''", "' '", "NULL", "'nan'"].map((none): Input => ({ what: `${none} in Parquet`, files: parquet("time", "item", `CASE WHEN n % 4 = 0 THEN ${none} ELSE "user" END`), ...guests })), // biome-ignore format: one line
    { ...recbole((r, n) => `${user(n, r.user, "")}\t${r.item}\t${r.time}`), what: "RecBole", ...guests, settings: { adapter: "recbole", columns: {}, maxBadShare: 0.5 } }, // biome-ignore format: one line
    { what: "items, in an array", files: table(array((r, n) => ({ ...record(r), item_id: user(n, r.item, "") })), "interactions.json"), ...guests }, // biome-ignore format: one line
    { what: "in rows of a history and its next item", files: { "train/x.csv": "user_id,history_item_id,item_id\na,\"['1', '2']\",3\n,\"['1']\",2\nb,\"['2']\",\n c ,\"['2']\",1\n" }, settings: { adapter: "next-item", columns: {}, maxBadShare: 0.6 }, sequences: { a: ["1", "2", "3"], c: ["2", "1"] }, dropped: { malformed: 2 } }, // biome-ignore format: one line
  ]);
});

describe("22: times that say no order", () => {
  const all = (time: (r: Row, n: number) => string, split: object): Input => ({ what: "", files: table(csv((r, n) => ({ time: time(r, n) }))), settings: { split } }); // biome-ignore format: one line
  testInputs([
    { ...all(() => "2023-11-15", { kind: "leave-one-out" }), what: "one day for all, leave one out", refused: /All 120 interactions have the same time/ }, // biome-ignore format: one line
    { ...all((_, n) => (n === 0 ? "1700000000" : "1700086400"), { kind: "global-time" }), what: "all but one", refused: /segment|same time/ }, // biome-ignore format: one line
    { ...all(() => "1700000000000", { kind: "position" }), what: "milliseconds", refused: /All 120 interactions have the same time/ }, // biome-ignore format: one line
  ]);
});
