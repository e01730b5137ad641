/**
 * Variants of cases of public bug reports: the same kind of fault in another format, column, unit or layout.
 * Here: units, dates, times that say no order. Variants in logs of slates: logs.test.ts.
 */
import { gzipSync } from "node:zlib";
import { describe } from "vitest";
import {
  array,
  csv,
  first,
  type Input,
  iso,
  jsonl,
  parquet,
  type Row,
  recbole,
  record,
  sequencesIn,
  shop,
  table,
  testInputs,
  without,
} from "./shop.ts";

describe("02 to 05: units", () => {
  const mixed = (r: Row, n: number) => ({ ...record(r), timestamp: n % 3 === 0 ? 1000 * r.time : r.time });
  testInputs([
    {
      what: "two units in an array",
      files: table(array(mixed), "interactions.json"),
      times: first,
      says: /several units/,
    },
    {
      what: "two units in text in Parquet",
      files: parquet("CASE WHEN n % 3 = 0 THEN (1000 * time)::VARCHAR ELSE time::VARCHAR END"),
      times: first,
      says: /several units/,
    },
    {
      what: "two units as floats, compressed TSV",
      files: table(
        gzipSync(csv((r, n) => ({ time: `${n % 2 ? r.time : 1000 * r.time}.0` }), { delimiter: "\t" })),
        "interactions.tsv.gz",
      ),
      times: first,
      says: /several units/,
    },
    {
      what: "dates and seconds in one column",
      files: table(csv((r, n) => ({ time: n % 4 === 0 ? iso(r.time) : String(r.time) }))),
      times: first,
      says: /several units/,
    },
    {
      what: "days among seconds are no times",
      files: table(
        csv((r, n) => ({ time: n % 4 === 0 ? iso(r.time).slice(0, 10).replaceAll("-", "") : String(r.time) })),
      ),
      refused: /30 of 120 rows are malformed.*is "202311\d\d", which would be in 1970/,
    },
    {
      ...recbole((r, n) => `${r.user}\t${r.item}\t${n % 2 ? r.time : 1000 * r.time}`),
      what: "two units, RecBole",
      times: first,
      says: /several units/,
    },
    {
      what: "seconds of 2030 that could be hours of 1900",
      files: table("user_id,item_id,timestamp\na,1,1900060616\na,2,1900060600\n"),
      sequences: { a: ["2", "1"] },
      times: { a: [1_900_060_600, 1_900_060_616] },
    },
    {
      what: "microseconds as DOUBLE",
      files: parquet("(time * 1000000)::DOUBLE"),
      times: first,
      says: /in microseconds/,
    },
    {
      what: "microseconds in an array",
      files: table(
        array((r) => ({ ...record(r), timestamp: 1e6 * r.time })),
        "interactions.json",
      ),
      times: first,
      says: /in microseconds/,
    },
    {
      ...recbole((r) => `${r.user}\t${r.item}\t${r.time}000000`),
      what: "microseconds, RecBole",
      times: first,
      says: /in microseconds/,
    },
    {
      what: "nanoseconds as text in Parquet",
      files: parquet("(time * 1000000000)::VARCHAR"),
      times: first,
      says: /in nanoseconds/,
    },
    {
      what: "milliseconds of 12 digits as a float in JSON",
      files: table(
        jsonl((r) => ({ ...record(r), timestamp: `${r.time - 820_000_000}000.0` })),
        "interactions.jsonl",
      ),
      says: /in milliseconds/,
    },
    {
      what: "milliseconds of 12 digits, HUGEINT",
      files: parquet("((time - 820000000) * 1000)::HUGEINT"),
      says: /in milliseconds/,
    },
    {
      what: "milliseconds of 1972, of 11 digits: nobody can tell, refused",
      files: table(csv((r) => ({ time: `${r.time - 1_630_000_000}000` }))),
      refused: /which would be in|malformed/,
    },
    {
      what: "the first thirty rows have no time, TSV",
      files: table(
        csv((r, n) => ({ time: n < 30 ? "" : `${r.time}000` }), { delimiter: "\t" }),
        "interactions.tsv",
      ),
      settings: { maxBadShare: 0.3 },
      sequences: sequencesIn(shop.slice(30)),
      dropped: { malformed: 30 },
      says: /in milliseconds/,
    },
    {
      what: "the first time is a word, in an array",
      files: table(
        array((r, n) => ({ ...record(r), timestamp: n === 0 ? "n/a" : 1000 * r.time })),
        "interactions.json",
      ),
      sequences: without(0),
      dropped: { malformed: 1 },
      says: /in milliseconds/,
    },
    {
      what: "the first review has line breaks, compressed",
      files: table(
        gzipSync(
          csv((r, n) => ({ more: [n < 2 ? '"a\n\nb, c"' : "d"], time: `${r.time}000` }), {
            header: ["user_id", "item_id", "timestamp", "review"],
          }),
        ),
        "interactions.csv.gz",
      ),
      says: /in milliseconds/,
    },
    {
      what: "the first time is NaT, as pandas writes it, in Parquet",
      files: parquet("CASE WHEN n = 0 THEN 'NaT' ELSE (1000 * time)::VARCHAR END"),
      sequences: without(0),
      dropped: { malformed: 1 },
    },
  ]);
});

describe("dates", () => {
  const parts = (t: number) => iso(t).match(/\d+/g) as [string, string, string, string, string, string];
  const dated = (write: (p: ReturnType<typeof parts>, t: number) => string): Input["files"] =>
    table(csv((r) => ({ time: write(parts(r.time), r.time) })));
  const clock = (p: ReturnType<typeof parts>): string =>
    `${Number(p[3]) % 12 || 12}:${p[4]} ${Number(p[3]) < 12 ? "AM" : "PM"}`;
  const minute = { u3: first.u3.map((t) => t - (t % 60)) };
  /** Only days that may be months as well. */
  const early = (r: Row): ReturnType<typeof parts> => parts(r.time - 13 * 86_400);
  testInputs([
    {
      what: "11/28/2026 3:04 PM",
      files: dated((p) => `${Number(p[1])}/${Number(p[2])}/${p[0]} ${clock(p)}`),
      times: minute,
      says: /in dates, month first/,
    },
    {
      what: "28/11/2026 3:04 PM",
      files: dated((p) => `${p[2]}/${p[1]}/${p[0]} ${clock(p)}`),
      times: minute,
      says: /in dates, day first/,
    },
    {
      what: "28.11.2026 15:04",
      files: dated((p) => `${p[2]}.${p[1]}.${p[0]} ${p[3]}:${p[4]}`),
      times: minute,
      says: /day first/,
    },
    {
      what: "28-11-2026 15:04:05",
      files: dated((p) => `${p[2]}-${p[1]}-${p[0]} ${p[3]}:${p[4]}:${p[5]}`),
      times: first,
      says: /day first/,
    },
    { what: "28/11/26", files: dated((p) => `${p[2]}/${p[1]}/${p[0].slice(2)}`), says: /day first/ },
    {
      what: "a day or a month, with AM and PM: month first, and it says so",
      files: table(
        csv((r) => ({ time: `${Number(early(r)[1])}/${Number(early(r)[2])}/${early(r)[0]} ${clock(early(r))}` })),
      ),
      says: /in dates, month first/,
    },
    {
      what: "a day or a month, 24 hours: refused",
      files: table(
        csv((r) => ({ time: `${early(r)[2]}.${early(r)[1]}.${early(r)[0]} ${early(r)[3]}:${early(r)[4]}` })),
      ),
      refused: /day and month are ambiguous/,
    },
    {
      what: "2026-11-28 3:04 PM is no 3 in the morning",
      files: dated((p) => `${p.slice(0, 3).join("-")} ${clock(p)}`),
      refused: /time is neither a number nor a date: "timestamp" is "2023-11-/,
    },
    {
      what: "15112023: not a number",
      files: dated((p) => `${p[2]}${p[1]}${p[0]}`),
      refused: /"timestamp" is "\d{8}", a date whose year comes last/,
    },
    {
      what: "11152023, in Parquet",
      files: parquet("strftime(to_timestamp(time), '%m%d%Y')::INTEGER"),
      refused: /a date whose year comes last/,
    },
    {
      what: "5112023, a zero lost",
      files: dated((p) => `${Number(p[2])}${p[1]}${p[0]}`),
      refused: /a date whose year comes last/,
    },
    { what: "nanoseconds in ISO 8601", files: dated((_, t) => iso(t).replace("000Z", "000000000Z")), times: first },
    {
      what: "half a format among others costs its own row",
      files: table(csv((r, n) => ({ time: n === 50 ? "2023-11-15T" : iso(r.time) }))),
      sequences: without(50),
      dropped: { malformed: 1 },
    },
    {
      what: "a month without a day",
      files: dated((p) => `${p[0]}-${p[1]}`),
      refused: /time is neither a number nor a date/,
    },
    {
      what: "a time of day alone",
      files: dated((p) => p.slice(3).join(":")),
      refused: /time is neither a number nor a date/,
    },
    {
      what: "a time of day alone, in Parquet",
      files: parquet("make_timestamp(time * 1000000)::TIME"),
      refused: /type TIME.* not a time/,
    },
  ]);
});

describe("22: times that say no order", () => {
  const all = (time: (r: Row, n: number) => string, split: object): Input => ({
    what: "",
    files: table(csv((r, n) => ({ time: time(r, n) }))),
    settings: { split },
  });
  testInputs([
    {
      ...all(() => "2023-11-15", { kind: "leave-one-out" }),
      what: "one day for all, leave one out",
      refused: /All 120 interactions have the same time/,
    },
    {
      ...all((_, n) => (n === 0 ? "1700000000" : "1700086400"), { kind: "global-time" }),
      what: "all but one",
      refused: /segment|same time/,
    },
    {
      ...all(() => "1700000000000", { kind: "position" }),
      what: "milliseconds",
      refused: /All 120 interactions have the same time/,
    },
  ]);
});
