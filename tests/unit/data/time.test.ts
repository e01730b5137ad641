/**
 * Times as files have them. The cases 02 to 05, 07 and 22 of public bug reports, variants of each, and ways that public
 * data sets and tools write a moment. Every one gives the shop's sequences, or says what it cannot read.
 */
import { describe } from "vitest";
import {
  csv,
  type Input,
  items,
  jsonl,
  Parquet,
  type Row,
  record,
  sequencesIn,
  shop,
  start,
  testInputs,
} from "./shop.ts";

const file = (time: (t: number, row: Row, n: number) => string): Input["files"] => ({
  "interactions.csv": csv((r, n) => ({ time: time(r.time, r, n) })),
});
const iso = (t: number): string => new Date(1000 * t).toISOString();
const parts = (t: number) => iso(t).match(/\d+/g) as [string, string, string, string, string, string];
/** u3's first two times. */
const own = [start + 183, start + 183 + 86_400];
const first = (times: (t: number) => number = (t) => t) => ({ u3: expectTimes(times) });
const expectTimes = (times: (t: number) => number): number[] =>
  Array.from({ length: 10 }, (_, k) => times((own[0] as number) + 86_400 * k));
const months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const month = (t: number): string => months[Number(parts(t)[1]) - 1] as string;
const parquet = (time: string): Input["files"] => ({
  "interactions.parquet": new Parquet(`"user" AS user_id, item AS item_id, ${time} AS timestamp`),
});

describe("units", () => {
  testInputs([
    { what: "seconds", files: file(String), times: first(), says: /times in seconds/ },
    { what: "milliseconds", files: file((t) => `${t}123`), times: first((t) => t + 0.123), says: /in milliseconds/ },
    { what: "case 03: microseconds", files: file((t) => `${t}000000`), times: first(), says: /in microseconds/ },
    { what: "nanoseconds", files: file((t) => `${t}000000000`), times: first(), says: /in nanoseconds/ },
    {
      what: "case 04: milliseconds of 12 digits, before September 2001",
      files: file((t) => `${t - 820_000_000}000`),
      times: first((t) => t - 820_000_000),
      says: /in milliseconds/,
    },
    {
      what: "microseconds of 15 digits",
      files: file((t) => `${t - 820_000_000}000000`),
      times: first((t) => t - 820_000_000),
    },
    {
      what: "case 02: older rows in milliseconds, newer in seconds",
      files: file((t) => (t < start + 5 * 86_400 ? `${t}000` : String(t))),
      times: first(),
      says: /several units, each read by its own magnitude: \d+ in seconds, \d+ in milliseconds/,
    },
    {
      // google/timesketch#3463: seconds, milliseconds and microseconds in one file
      what: "three units, row by row",
      files: file((t, _, n) => `${t}${["", "000", "000000"][n % 3]}`),
      times: first(),
      says: /40 in seconds, 40 in milliseconds, 40 in microseconds|several units/,
    },
    {
      what: "two units in JSON",
      files: { "interactions.jsonl": jsonl((r, n) => ({ ...record(r), timestamp: n % 2 ? r.time : 1000 * r.time })) },
      times: first(),
      says: /several units/,
    },
    {
      what: "two units in Parquet",
      files: parquet("CASE WHEN n % 2 = 0 THEN 1000 * time ELSE time END"),
      times: first(),
      says: /several units/,
    },
    { what: "seconds with a fraction", files: file((t) => `${t}.250`), times: first((t) => t + 0.25) },
    { what: "milliseconds with a fraction", files: file((t) => `${t}250.0`), times: first((t) => t + 0.25) },
    // pandas writes floats so
    { what: "scientific notation", files: file((t) => `${t / 1e9}e+09`), times: first() },
    { what: "milliseconds as DOUBLE in Parquet", files: parquet("(time * 1000)::DOUBLE"), times: first() },
    {
      what: "seconds as text in JSON",
      files: { "interactions.jsonl": jsonl((r) => ({ ...record(r), timestamp: ` ${r.time} ` })) },
      times: first(),
    },
    {
      what: "a unit that is given holds for every row",
      files: file((t) => String(t - start)),
      settings: { timeUnit: "milliseconds" },
      times: first((t) => (t - start) / 1000),
    },
    {
      what: "a wrong unit that is given stops the run with what it would mean",
      files: file((t) => `${t}000`),
      settings: { timeUnit: "seconds" },
      refused: /120 of 120 rows are malformed.*"timestamp" is "\d{13}", which would be in \+\d+-/,
    },
    {
      what: "a unit far too large has no date, and crashes nothing",
      files: file((t) => `${t}000000000`),
      settings: { timeUnit: "seconds" },
      refused: /120 of 120 rows are malformed.*s, not a date/,
    },
    { what: "times of a session, from 0", files: file((t) => String(t - start)), times: first((t) => t - start) },
    {
      what: "days of a log, 1 to 10",
      files: file((t) => String(1 + Math.floor((t - start) / 86_400))),
      times: { u3: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10] },
    },
  ]);
});

describe("which rows say it", () => {
  const quoted = csv((r, n) => ({ time: `${r.time}000`, more: [n === 0 ? '"first line\nsecond, line"' : "fine"] }), {
    header: ["user_id", "item_id", "timestamp", "review"],
  });
  const without = (n: number) => sequencesIn(shop.filter((_, k) => k !== n));
  testInputs([
    {
      what: "case 05: a line break in the first review",
      files: { "interactions.csv": quoted },
      times: first(),
      says: /in milliseconds/,
    },
    {
      what: "case 05: the first row has no time, in Parquet",
      files: parquet("CASE WHEN n = 0 THEN NULL ELSE 1000 * time END"),
      sequences: without(0),
      dropped: { malformed: 1 },
      says: /in milliseconds/,
    },
    {
      what: "the first row has no time, in CSV",
      files: file((t, _, n) => (n === 0 ? "" : `${t}000`)),
      sequences: without(0),
      dropped: { malformed: 1 },
      bad: ['2: time is neither a number nor a date: "timestamp" is empty'],
    },
    {
      what: "the first row's time is a word, and null in JSON",
      files: {
        "interactions.jsonl": jsonl((r, n) => ({ ...record(r), timestamp: n === 0 ? "unknown" : `${iso(r.time)}` })),
      },
      sequences: without(0),
      dropped: { malformed: 1 },
    },
    {
      what: "gaps written as 0, -1 or a far future are no times",
      files: file((t, _, n) => (n === 7 ? "0" : String(t))),
      sequences: without(7),
      dropped: { malformed: 1 },
      bad: [/^9: "timestamp" is "0", which would be in 1970-01-01$/],
    },
    {
      what: "minus one",
      files: file((t, _, n) => (n === 7 ? "-1" : String(t))),
      sequences: without(7),
      dropped: { malformed: 1 },
    },
    {
      what: "the year 9999",
      files: file((t, _, n) => (n === 7 ? "253402300799" : `${t}`)),
      sequences: without(7),
      dropped: { malformed: 1 },
    },
    {
      what: "the largest integer",
      files: file((t, _, n) => (n === 7 ? "9223372036854775807" : `${t}`)),
      sequences: without(7),
      dropped: { malformed: 1 },
    },
    {
      what: "nan",
      files: file((t, _, n) => (n === 7 ? "nan" : `${t}`)),
      sequences: without(7),
      dropped: { malformed: 1 },
    },
    {
      what: "1900-01-01 in a column of dates",
      files: file((t, _, n) => (n === 7 ? "1900-01-01T00:00:00Z" : iso(t))),
      sequences: without(7),
      dropped: { malformed: 1 },
    },
  ]);
});

describe("dates", () => {
  const withTime = (format: (p: ReturnType<typeof parts>, t: number) => string): Input["files"] =>
    file((t) => format(parts(t), t));
  testInputs([
    { what: "ISO 8601 in UTC", files: file(iso), times: first(), says: /in dates/ },
    { what: "ISO 8601 with an offset", files: file((t) => iso(t + 7200).replace(".000Z", "+02:00")), times: first() },
    { what: "a space, no zone", files: file((t) => iso(t).replace("T", " ").slice(0, 19)), times: first() },
    {
      what: "fractions of a second",
      files: file((t) => iso(t).replace("000Z", "500000")),
      times: first((t) => t + 0.5),
    },
    {
      what: "+00 and UTC, as databases print it",
      files: file((t, _, n) =>
        iso(t)
          .replace("T", " ")
          .replace(".000Z", n % 2 ? "+00" : " UTC"),
      ),
      times: first(),
    },
    {
      what: "an offset without a colon",
      files: file((t) => iso(t - 18_000).replace(".000Z", "-0500")),
      times: first(),
    },
    { what: "YYYYMMDDHHMMSS", files: withTime((p) => p.slice(0, 6).join("")), times: first() },
    { what: "YYYYMMDDHHMM", files: withTime((p) => p.slice(0, 5).join("")) },
    { what: "YYYYMMDD as a number in Parquet", files: parquet("strftime(to_timestamp(time), '%Y%m%d')::INTEGER") },
    { what: "YYYYMMDD as a float", files: withTime((p) => `${p.slice(0, 3).join("")}.0`) },
    { what: "days", files: withTime((p) => p.slice(0, 3).join("-")), times: first((t) => t - (t % 86_400)) },
    { what: "day first, told by a day above 12", files: withTime((p) => `${p[2]}/${p[1]}/${p[0]}`) },
    { what: "month first, told by a day above 12", files: withTime((p) => `${Number(p[1])}/${Number(p[2])}/${p[0]}`) },
    // save_excel_csv of rOstluft: "%d.%m.%Y %H:%M:%S"
    { what: "German dates", files: withTime((p) => `${p[2]}.${p[1]}.${p[0]} ${p[3]}:${p[4]}:${p[5]}`), times: first() },
    {
      what: "a day or a month, nobody can tell: refused",
      files: file((_, r) => `0${1 + (r.rating % 5)}/0${1 + (r.rating % 7)}/2023`),
      refused: /in which day and month are ambiguous; write it as ISO 8601/,
    },
    // MIND: 11/15/2019 8:55:22 AM
    {
      what: "twelve hours",
      files: withTime(
        (p) => `${p[1]}/${p[2]}/${p[0]} ${Number(p[3]) % 12 || 12}:${p[4]}:${p[5]} ${Number(p[3]) < 12 ? "AM" : "PM"}`,
      ),
      times: first(),
    },
    // Twitter's created_at
    {
      what: "as Twitter writes it",
      files: withTime(
        (p, t) =>
          `${new Date(1000 * t).toUTCString().slice(0, 3)} ${month(t)} ${p[2]} ${p[3]}:${p[4]}:${p[5]} +0000 ${p[0]}`,
      ),
      times: first(),
    },
    // Common Log Format
    {
      what: "as web servers log it",
      files: withTime((p, t) => `${p[2]}/${month(t)}/${p[0]}:${p[3]}:${p[4]}:${p[5]} +0000`),
      times: first(),
    },
    {
      what: "RFC 2822",
      files: withTime((p, t) => `"${new Date(1000 * t).toUTCString().replace("GMT", "+0000")}"${p.slice(9).join("")}`),
      times: first(),
    },
    // Yelp and Amazon's reviewTime: "05 14, 2014"
    { what: "Amazon's reviewTime", files: withTime((p) => `"${p[1]} ${Number(p[2])}, ${p[0]}"`) },
    { what: "November 14, 2023", files: withTime((p, t) => `"${month(t)} ${Number(p[2])}, ${p[0]}"`) },
    { what: "15-Nov-23", files: withTime((p, t) => `${p[2]}-${month(t)}-${p[0].slice(2)}`) },
    {
      what: "Parquet TIMESTAMP in nanoseconds",
      files: parquet("make_timestamp_ns(time * 1000000000)"),
      times: first(),
    },
    { what: "Parquet TIMESTAMP with a zone", files: parquet("to_timestamp(time)"), times: first() },
    { what: "Parquet TIMESTAMP in milliseconds", files: parquet("make_timestamp_ms(time * 1000)"), times: first() },
    { what: "Parquet DATE", files: parquet("to_timestamp(time)::DATE") },
    { what: "Parquet text", files: parquet("to_timestamp(time)::VARCHAR"), times: first() },
    {
      what: "MongoDB's $date",
      files: {
        "interactions.jsonl": jsonl((r, n) => ({
          ...record(r),
          timestamp: { $date: n % 2 ? iso(r.time) : { $numberLong: `${r.time}000` } },
        })),
      },
      times: first(),
    },
    {
      what: "a field within a field",
      files: { "interactions.jsonl": jsonl((r) => ({ ...record(r), at: { ms: 1000 * r.time } })) },
      settings: { columns: { time: "at.ms" } },
      times: first(),
    },
  ]);
});

describe("two clocks", () => {
  const requests = shop.filter((r) => r.time >= start + 5 * 86_400 && r.time % 5 === 0);
  /** u0's slates show what it takes next and two others. */
  const slates = (time: (t: number) => string) =>
    `user_id,timestamp,slate,item_id,position,label\n${requests
      .flatMap((r, n) =>
        [r.item, "100", "105"]
          .filter((x, k, all) => all.indexOf(x) === k)
          .map((item, k) => [r.user, time(r.time), n, item, k, item === r.item ? 1 : 0].join(",")),
      )
      .join("\n")}\n`;
  const settings = {
    adapter: "impressions",
    columns: { time: "timestamp", slate: "slate", position: "position", label: "label" },
    files: { interactions: "interactions.csv", impressions: "slates.csv", items: "items.jsonl" },
  };
  const logged = (interactions: (t: number) => string, log: (t: number) => string): Input["files"] => ({
    "interactions.csv": csv((r) => ({ time: interactions(r.time) })),
    "slates.csv": slates(log),
    "items.jsonl": items(),
  });
  const hour = (t: number): number => t - (t % 3600) + 3600 * (Math.floor(t / 86_400) % 3);
  const late = (size: number) => ({
    u0: Array.from({ length: 10 }, (_, k) => Math.floor((start + k * 86_400) / size) * size + size - 0.001),
  });
  testInputs([
    {
      what: "case 07: interactions by the day, slates to the second",
      files: logged((t) => iso(t).slice(0, 10), String),
      settings,
      times: late(86_400),
      says: /timed to the day, slates to the second: an interaction counts from the end of its day/,
    },
    {
      what: "interactions by the minute, slates to the second",
      files: logged((t) => iso(t).slice(0, 16), String),
      settings,
      times: late(60),
      says: /timed to the minute/,
    },
    {
      what: "interactions by the hour",
      files: logged((t) => String(hour(t)), String),
      settings,
      times: { u0: expectTimes((t) => hour(t - 183) + 3599.999) },
      says: /timed to the hour/,
    },
    {
      what: "a few interactions have a time of day, and the others none",
      files: logged((t) => (t % 86_400 === 0 || t - start === 61 ? iso(t) : iso(t).slice(0, 10)), String),
      settings,
      says: /timed to the day, slates to the second/,
    },
    {
      what: "both to the second",
      files: logged(String, (t) => `${t}000`),
      settings,
      times: { u0: expectTimes((t) => t - 183) },
    },
  ]);
});

describe("no order", () => {
  testInputs([
    {
      what: "case 22: all times equal",
      files: file(() => String(start)),
      refused: /All 120 interactions have the same time/,
    },
    {
      what: "case 22: so few times that segments are empty",
      files: file((t) => String(t < start + 86_400 ? start : start + 86_400)),
      settings: { split: { kind: "global-time" } },
      refused: /segment|same time/,
    },
    {
      what: "no time column: the order of the file",
      files: { "interactions.csv": csv(undefined, { rows: [...shop].sort((a, b) => a.time - b.time) }) },
      settings: { columns: {} },
      says: /no time column: file order is time order/,
    },
    {
      what: "a name that is no time",
      files: file(() => "yes"),
      refused: /120 of 120 rows.*time is neither a number nor a date/,
    },
  ]);
});
