/**
 * One small shop in many forms: whoever reads a form right finds these 120 interactions, or those
 * that an input says. What an input is like after the data stage is compared as a whole:
 * sequences, rows left out, items, what was said.
 */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, expect, it } from "vitest";
import { openDuck } from "../../../src/data/duck.ts";
import { readSequences, runDataStage } from "./layouts.ts";

export interface Row {
  readonly user: string;
  readonly item: string;
  /** Seconds; whole days after the first for one user, and no two alike for one user. */
  readonly time: number;
  readonly rating: number;
}

export const start = 1_700_000_000;
const day = 86_400;

/**
 * Twelve users, ten items each: user by user, a user's latest first, so that the order of the file is not that of time.
 */
export const shop: readonly Row[] = Array.from({ length: 120 }, (_, n) => {
  const [u, k] = [Math.floor(n / 10), 9 - (n % 10)];
  const item = String(100 + ((3 * u + 7 * k) % 10));
  return { user: `u${u}`, item, time: start + k * day + 61 * u, rating: 1 + ((u + k) % 5) };
});

export const ids: readonly string[] = Array.from({ length: 10 }, (_, k) => String(100 + k));

/** user -> items in the order of time. */
export function sequencesIn(rows: readonly Row[]): Record<string, string[]> {
  const sorted = [...rows].sort((a, b) => a.time - b.time);
  const sequences: Record<string, string[]> = {};
  for (const { user, item } of sorted) {
    const own = sequences[user] ?? [];
    sequences[user] = own;
    own.push(item);
  }
  return sequences;
}

/** A delimited text: a header of user_id, item_id, timestamp and, with `more`, others; then a line a row. */
export function csv(
  cell: (row: Row, n: number) => { user?: string; item?: string; time?: string; more?: readonly string[] } = () => ({}),
  { delimiter = ",", end = "\n", header = ["user_id", "item_id", "timestamp"], rows = shop } = {},
): string {
  const line = (row: Row, n: number): string => {
    const { user = row.user, item = row.item, time = String(row.time), more = [] } = cell(row, n);
    return [user, item, time, ...more].join(delimiter);
  };
  const head = header.length === 0 ? [] : [header.join(delimiter)];
  return [...head, ...rows.map(line)].map((l) => l + end).join("");
}

/** A JSON record a line. */
export const jsonl = (record: (row: Row, n: number) => object | string, rows: readonly Row[] = shop): string =>
  rows
    .map((r, n) => record(r, n))
    .map((r) => `${typeof r === "string" ? r : JSON.stringify(r)}\n`)
    .join("");

export const record = ({ user, item, time }: Row) => ({ user_id: user, item_id: item, timestamp: time });

/** An item file: a JSON record an item. */
export const items = (change: (id: string, n: number) => object = () => ({})): string =>
  ids.map((id, n) => `${JSON.stringify({ item_id: id, title: `Item ${id}`, ...change(id, n) })}\n`).join("");

/** A Parquet file of `SELECT columns FROM shop`, where shop(n, user, item, time, rating) is the shop. */
export class Parquet {
  readonly select: string;
  constructor(columns: string) {
    this.select = columns;
  }
}

export interface Input {
  readonly what: string;
  readonly files: Readonly<Record<string, string | Uint8Array | Parquet>>;
  /** Under `data`, beside adapter: table, path and no filter. */
  readonly settings?: Readonly<Record<string, unknown>>;
  /** Default: the whole shop's. */
  readonly sequences?: Readonly<Record<string, readonly string[]>>;
  readonly dropped?: Readonly<Record<string, number>>;
  /** Some fields of some items. */
  readonly items?: Readonly<Record<string, object>>;
  /** Times of one user, in seconds. */
  readonly times?: Readonly<Record<string, readonly number[]>>;
  /** Something that the log says. */
  readonly says?: RegExp;
  /** What the quarantine says: `LINE: REASON` of each row. */
  readonly bad?: readonly (string | RegExp)[];
  /** The run stops with these words, message and advice together. */
  readonly refused?: RegExp;
}

/** The inputs as tests. */
export function testInputs(inputs: readonly Input[]): void {
  const root = mkdtempSync(join(tmpdir(), "gr2-shop-"));
  afterAll(() => rmSync(root, { recursive: true, force: true }));
  it.each(inputs.map((input, n) => [input.what, input, n] as const))("%s", (_, input, n) =>
    checkInput(join(root, String(n)), input),
  );
}

export async function writeFiles(path: string, files: Input["files"]): Promise<void> {
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(dirname(join(path, name)), { recursive: true });
    if (content instanceof Parquet) await writeParquet(join(path, name), content.select);
    else writeFileSync(join(path, name), content);
  }
}

async function writeParquet(file: string, columns: string): Promise<void> {
  const duck = await openDuck();
  const values = shop.map((r, n) => `(${n}, '${r.user}', '${r.item}', ${r.time}::BIGINT, ${r.rating}::DOUBLE)`);
  try {
    await duck.run(`CREATE TABLE shop AS SELECT * FROM (VALUES ${values.join(", ")}) AS t(n, "user", item, "time", rating);
      COPY (SELECT ${columns} FROM shop ORDER BY n) TO '${file}' (FORMAT parquet)`);
  } finally {
    duck.close();
  }
}

async function checkInput(folder: string, input: Input): Promise<void> {
  const path = join(folder, "data");
  await writeFiles(path, input.files);
  const usual = { adapter: "table", minInteractions: 0, repeats: "keep", columns: { time: "timestamp" } };
  const settings = { ...usual, path, ...input.settings };
  const work = runDataStage(folder, settings);
  if (input.refused !== undefined) {
    const error = await work.then(
      () => undefined,
      (e: unknown) => e as Error & { advice?: string },
    );
    expect(`${error?.message} ${error?.advice ?? ""}`).toMatch(input.refused);
    expect(error).toMatchObject({ code: expect.stringMatching(/DATA|CONFIG/) });
    return;
  }
  const { dataset, dir } = await work;
  expect(readSequences(dataset)).toEqual(input.sequences ?? sequencesIn(shop));
  expect(dataset.stats.dropped).toEqual(input.dropped ?? {});
  for (const [id, fields] of Object.entries(input.items ?? {}))
    expect(dataset.items.find((i) => i.id === id)).toMatchObject(fields);
  for (const [user, times] of Object.entries(input.times ?? {}))
    expect(Array.from(dataset.sequences.find((s) => s.user === user)?.times ?? [])).toEqual(times);
  if (input.says !== undefined) expect(dataset.stats.notes?.join("\n")).toMatch(input.says);
  if (input.bad !== undefined) {
    const rows = readFileSync(join(dir, "quarantine.jsonl"), "utf8").trim().split("\n");
    const said = rows
      .map((r) => JSON.parse(r) as { line: number; reason: string })
      .map((r) => `${r.line}: ${r.reason}`);
    expect(said).toEqual(input.bad.map((b) => (typeof b === "string" ? b : (expect.stringMatching(b) as unknown))));
  }
}

/** The shop's sequences without its n-th rows. */
export const without = (...n: number[]) => sequencesIn(shop.filter((_, k) => !n.includes(k)));
export const table = (content: string | Uint8Array, name = "interactions.csv"): Input["files"] => ({ [name]: content });
/** A JSON array of records that are text. */
export const numbers = (records: readonly string[]): string => `[${records.join(",\n")}]`;
export const array = (make: (r: Row, n: number) => object | string): string => numbers(jsonl(make).trim().split("\n"));
export const parquet = (time: string, item = "item", user = '"user"'): Input["files"] => ({
  "interactions.parquet": new Parquet(`${user} AS user_id, ${item} AS item_id, ${time} AS timestamp`),
});
/** A RecBole file. */
export const recbole = (
  line: (r: Row, n: number) => string,
  header = "user_id:token\titem_id:token\ttimestamp:float",
): Input => ({
  what: "",
  files: { "x.inter": `${header}\n${shop.map((r, n) => `${line(r, n)}\n`).join("")}` },
  settings: { adapter: "recbole", columns: {} },
});
export const iso = (t: number): string => new Date(1000 * t).toISOString();
/** Times of a user: its rows are a day apart. */
export const first = { u3: Array.from({ length: 10 }, (_, k) => 1_700_000_183 + 86_400 * k) };
