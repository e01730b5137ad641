/**
 * Logs of slates next to a table of interactions, as two systems write them. The case 07 of public bug reports and
 * variants: whatever the clocks are like, no slate sees a click that came after it;
 * and ids are one and the same in both.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { readSequences, runDataStage } from "./layouts.ts";
import { type Input, Parquet, type Row, shop, writeFiles } from "./shop.ts";

const root = mkdtempSync(join(tmpdir(), "gr2-logs-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

/** Of every interaction a slate, half a minute before the click: three items, the clicked one second. */
const shown = (r: Row): string[] => [
  String(100 + ((Number(r.item) + 1) % 10)),
  r.item,
  String(100 + ((Number(r.item) + 3) % 10)),
];
const slateTime = (r: Row): number => r.time - 30;

interface Case {
  readonly what: string;
  /** A click's time as the interactions have it; default: in seconds. */
  readonly click?: (r: Row, n: number) => string;
  /** A slate's. */
  readonly slate?: (r: Row, n: number) => string;
  readonly says?: RegExp;
  /** How many of the slates see each earlier click of their user, 45 per user in all; default: all that are there. */
  readonly seen?: (share: number) => boolean;
  readonly item?: (id: string) => string;
  readonly shownItem?: (id: string) => string;
  readonly user?: (id: string) => string;
  readonly slateUser?: (id: string) => string;
  readonly files?: Input["files"];
  readonly settings?: Readonly<Record<string, unknown>>;
  readonly refused?: RegExp;
}

const same = (text: string): string => text;

function filesFor(c: Case): Input["files"] {
  const { click = (r) => String(r.time), slate = (r) => String(slateTime(r)) } = c;
  const { item = same, shownItem = same, user = same, slateUser = same } = c;
  const rows = shop.map((r, n) => `${user(r.user)},${item(r.item)},${click(r, n)}\n`).join("");
  const log = shop.flatMap((r, n) =>
    shown(r).map((i, k) => `s${n},${slateUser(r.user)},${shownItem(i)},${slate(r, n)},${k},${k === 1 ? 1 : 0}\n`),
  );
  return {
    "interactions.csv": `user_id,item_id,timestamp\n${rows}`,
    "impressions.csv": `slate_id,user_id,item_id,timestamp,position,label\n${log.join("")}`,
    "items.csv": `item_id,title\n${Array.from({ length: 10 }, (_, k) => `${item(String(100 + k))},Item ${k}\n`).join("")}`,
    ...c.files,
  };
}

async function check(c: Case): Promise<void> {
  const path = join(mkdtempSync(join(root, "log-")), "data");
  await writeFiles(path, filesFor(c));
  const work = runDataStage(root, {
    ...{ adapter: "impressions", path, repeats: "keep" },
    columns: { time: "timestamp", position: "position" },
    files: { interactions: "interactions.csv", items: "items.csv" },
    ...c.settings,
  });
  if (c.refused) {
    const error = await work.then(
      () => undefined,
      (e: unknown) => e as Error & { advice?: string },
    );
    expect(`${error?.message} ${error?.advice ?? ""}`).toMatch(c.refused);
    return;
  }
  const { dataset } = await work;
  const log = dataset.impressions;
  expect(log?.users.length).toBe(shop.length);
  const truth = new Map(shop.map((r) => [`${(c.user ?? same)(r.user)} ${(c.item ?? same)(r.item)}`, r]));
  let [seen, there] = [0, 0];
  for (const [k, row] of (log?.users ?? new Int32Array()).entries()) {
    const { user, items, times } = dataset.sequences[row] as (typeof dataset.sequences)[number];
    const clicked = (log?.items ?? []).slice(log?.starts[k], log?.starts[k + 1]);
    const target = clicked[1] as number; // in second position
    const own = truth.get(`${user} ${dataset.items[target]?.id}`) as Row;
    for (const [at, item] of items.entries()) {
      const other = truth.get(`${user} ${dataset.items[item]?.id}`) as Row;
      const visible = (times[at] as number) < (log?.times[k] as number);
      const earlier = other.time < slateTime(own);
      expect(visible && !earlier, `slate ${k} of ${user} sees ${dataset.items[item]?.id}`).toBe(false);
      if (earlier) there++;
      if (visible) seen++;
    }
  }
  expect(there).toBe(45 * 12);
  expect(c.seen?.(seen / there) ?? seen === there, `${seen} of ${there} seen`).toBe(true);
  if (c.says) expect(dataset.stats.notes?.join("\n")).toMatch(c.says);
  else expect(dataset.stats.notes?.join("\n")).not.toMatch(/timed to/);
}

const iso = (t: number): string => new Date(1000 * t).toISOString();
const floor = (t: number, step: number, offset = 0): string => String(Math.floor((t - offset) / step) * step + offset);
const almost = (share: number): boolean => share > 0.9;

describe("clocks", () => {
  const cases: readonly Case[] = [
    { what: "seconds on both sides" },
    {
      what: "case 07: days as dates, slates in seconds",
      click: (r) => iso(r.time).slice(0, 10),
      says: /timed to the day, slates to the second/,
      seen: almost,
    },
    {
      what: "case 07: days as numbers YYYYMMDD",
      click: (r) => iso(r.time).slice(0, 10).replaceAll("-", ""),
      says: /timed to the day/,
      seen: almost,
    },
    {
      what: "days as seconds at midnight",
      click: (r) => floor(r.time, 86_400),
      says: /timed to the day/,
      seen: almost,
    },
    {
      what: "days that begin at five in the morning UTC",
      click: (r) => floor(r.time, 86_400, 18_000),
      says: /timed to the day/,
      seen: almost,
    },
    {
      what: "days of a zone with summer time",
      click: (r, n) => floor(r.time, 86_400, n % 20 < 10 ? -7200 : -3600),
      says: /timed to the day/,
      seen: almost,
    },
    { what: "hours, all of them the same", click: (r) => floor(r.time, 3600), says: /timed to the day/, seen: almost },
    { what: "minutes", click: (r) => iso(r.time).slice(0, 16), says: /timed to the minute/ },
    { what: "minutes, rounded", click: (r) => String(Math.round(r.time / 60) * 60), says: /timed to the minute/ },
    {
      what: "seconds, slates in milliseconds",
      slate: (r) => `${slateTime(r)}${500 + r.rating * 83}`,
      says: /timed to the second, slates to fractions/,
    },
    { what: "milliseconds, slates in seconds", click: (r) => `${r.time}250`, slate: (r) => String(slateTime(r)) },
    {
      what: "days for purchases in shops, seconds for those online",
      click: (r, n) => (n % 2 ? floor(r.time, 86_400) : String(r.time)),
      says: /5\d % of the interactions are timed to the day/,
      seen: almost,
    },
    {
      what: "one in five with days",
      click: (r, n) => (n % 5 ? String(r.time) : floor(r.time, 86_400)),
      says: /2\d % of the interactions are timed to the day/,
      seen: almost,
    },
    {
      what: "days on both sides: nothing of the day itself is seen",
      click: (r) => floor(r.time, 86_400),
      slate: (r) => floor(slateTime(r), 86_400),
      seen: almost,
    },
    {
      what: "seconds, slates with days: nothing of the day is seen",
      slate: (r) => floor(slateTime(r), 86_400),
      seen: almost,
    },
    {
      what: "a date without a time next to ISO 8601 with one",
      click: (r) => iso(r.time).slice(0, 10),
      slate: (r) => iso(slateTime(r)),
      says: /timed to the day/,
      seen: almost,
    },
    {
      what: "milliseconds for clicks, dates in words for slates",
      click: (r) => `${r.time}000`,
      slate: (r) => iso(slateTime(r)).replace("T", " ").slice(0, 19),
    },
  ];
  it.each(cases.map((c) => [c.what, c] as const))("%s", (_, c) => check(c));
});

describe("clocks that cannot be put together, and rows that are no slate", () => {
  const unlike = /it is unknown which interactions came before a slate/;
  const first = shop.reduce((t, r) => Math.min(t, r.time), Number.POSITIVE_INFINITY);
  const wide = (row: (r: Row, n: number) => string, columns: object): Case => ({
    what: "",
    files: {
      "impressions.csv": `user_id,timestamp,shown,more\n${shop.map((r, n) => `${r.user},${slateTime(r)},${row(r, n)}\n`).join("")}`,
    },
    settings: { columns: { time: "timestamp", candidates: "shown", ...columns }, maxBadShare: 0 },
  });
  const cases: readonly Case[] = [
    { what: "weeks", click: (r) => iso(Number(floor(r.time, 604_800))).slice(0, 10), refused: unlike },
    {
      what: "weeks that begin on Monday, in seconds",
      click: (r) => floor(r.time, 604_800, 4 * 86_400),
      refused: unlike,
    },
    { what: "months", click: (_, n) => (n % 2 ? "2023-10-01" : "2023-11-01"), refused: unlike },
    { what: "one month for all", click: () => "2023-11-01", refused: /same time|it is unknown/ },
    { what: "days from 0", click: (r) => floor((r.time - first) / 86_400, 1), refused: unlike },
    { what: "days as Excel counts them", click: (r) => (r.time / 86_400 + 25_569).toFixed(6), refused: unlike },
    { what: "slates in seconds from the beginning", slate: (r) => String(slateTime(r) - first + 60), refused: unlike },
    {
      what: "days as floats YYYYMMDD",
      click: (r) => `${iso(r.time).slice(0, 10).replaceAll("-", "")}.0`,
      says: /timed to the day/,
      seen: almost,
    },
    {
      what: "days, day first",
      click: (r) => iso(r.time).slice(0, 10).split("-").reverse().join("/"),
      says: /timed to the day/,
      seen: almost,
    },
    {
      ...wide((r, n) => `${shown(r)[0]}|${n === 9 ? "nan" : r.item},${r.item}`, { positives: "more" }),
      what: "a candidate without an id",
      refused: /:11: a candidate without an id/,
    },
    {
      ...wide((r, n) => `${shown(r).join("|")},${n === 9 ? "nan" : "0"}|1|0`, { labels: "more" }),
      what: "a label that is none",
      refused: /"more" is not a list of numbers/,
    },
    {
      ...wide((r, n) => `${shown(r).join("|")},0|1|${n === 9 ? "-inf" : "0"}`, { scores: "more", positives: "shown" }),
      what: "a score of minus infinity",
      refused: /"more" is not a list of numbers/,
    },
  ];
  it.each(cases.map((c) => [c.what, c] as const))("%s", (_, c) => check(c));
});

describe("ids", () => {
  const wide = (items: (ids: string[]) => string, name = "impressions.csv"): Input["files"] => ({
    [name]: `user_id,timestamp,shown,clicked\n${shop.map((r) => `${r.user},${slateTime(r)},"${items(shown(r))}","${items([r.item])}"\n`).join("")}`,
  });
  const asWide = { columns: { time: "timestamp", candidates: "shown", positives: "clicked" } };
  const json = (list: unknown): string => JSON.stringify(list).replaceAll('"', '""');
  const big = (i: string): string => `91000000000000${i.slice(1)}`;
  const huge = (i: string): string => `123456789012345678901${i}`;
  const cases: readonly Case[] = [
    { what: "floats in the log", shownItem: (i) => `${i}.0` },
    {
      what: "floats in the interactions",
      item: same,
      files: {
        "interactions.csv": `user_id,item_id,timestamp\n${shop.map((r) => `${r.user},${r.item}.0,${r.time}\n`).join("")}`,
      },
    },
    { what: "users as floats in the log", user: (u) => u.slice(1), slateUser: (u) => `${u.slice(1)}.0`, item: same },
    {
      what: "users that the interactions do not know: both are shown",
      slateUser: (u) => `user:${u}`,
      refused: /the user is not in the interactions table.*"user:u0".*"u0"/s,
    },
    { what: "wide, JSON", files: wide(json), settings: asWide },
    { what: "wide, numbers", files: wide((l) => `[${l.join(", ")}]`), settings: asWide },
    { what: "wide, floats", files: wide((l) => `[${l.map((i) => `${i}.0`).join(", ")}]`), settings: asWide },
    { what: "wide, Python", files: wide((l) => `[${l.map((i) => `'${i}'`).join(", ")}]`), settings: asWide },
    { what: "wide, NumPy", files: wide((l) => `[${l.map((i) => `'${i}'`).join(" ")}]`), settings: asWide },
    { what: "wide, Postgres", files: wide((l) => `{${l.join(",")}}`), settings: asWide },
    { what: "wide, blanks in between", files: wide((l) => l.join(" ")), settings: asWide },
    { what: "wide, bars in between", files: wide((l) => l.join("|")), settings: asWide },
    { what: "wide, numbers above 2^53", item: big, files: wide((l) => `[${l.map(big).join(", ")}]`), settings: asWide },
    {
      what: "wide, numbers above 2^64",
      item: huge,
      files: wide((l) => `[${l.map(huge).join(", ")}]`),
      settings: asWide,
    },
  ];
  it.each(cases.map((c) => [c.what, c] as const))("%s", (_, c) => check(c));

  const inParquet = (list: string): Case => ({
    what: list,
    files: {
      "impressions.parquet": new Parquet(`"user" AS user_id, time - 30 AS timestamp,
      [100 + (item::INTEGER + 1) % 10, item::INTEGER, 100 + (item::INTEGER + 3) % 10]::${list} AS shown, [item]::${list} AS clicked`),
    },
    settings: {
      ...asWide,
      files: { interactions: "interactions.csv", items: "items.csv", impressions: "impressions.parquet" },
    },
  });
  it.each(["BIGINT[]", "VARCHAR[]", "DOUBLE[]", "INTEGER[]"].map((l) => [l, inParquet(l)] as const))(
    "Parquet, %s",
    (_, c) => check(c),
  );

  it("histories are what the interactions say", async () => {
    const path = join(mkdtempSync(join(root, "log-")), "data");
    await writeFiles(path, filesFor({ what: "" }));
    const files = { interactions: "interactions.csv", items: "items.csv" };
    const { dataset } = await runDataStage(root, {
      adapter: "impressions",
      path,
      files,
      columns: { position: "position" },
    });
    expect(Object.keys(readSequences(dataset))).toHaveLength(12);
  });
});
