/** Items that come after a run are the same items as if they had been in its own file, whatever the adapter. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterAll, expect, it } from "vitest";
import type { AdapterOptions } from "../../../src/data/adapters/index.ts";
import { readLaterItems } from "../../../src/data/adapters/later-items.ts";
import type { RawItem } from "../../../src/data/adapters/readers.ts";
import { openDuck, Quarantine } from "../../../src/data/duck.ts";

const root = mkdtempSync(join(tmpdir(), "gr2-later-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

let count = 0;
async function read(source: AdapterOptions, name: string, data: string | Uint8Array, named = {}) {
  const file = join(root, `${count++}-${name}`);
  // Layouts are told by whole names: these files need their own.
  const path = /^(movies|u\.|news)/.test(name) ? join(root, name) : file;
  writeFileSync(path, data);
  const duck = await openDuck();
  try {
    const quarantine = new Quarantine();
    const later = await readLaterItems(duck, path, source, named, quarantine);
    const items: RawItem[] = [];
    for await (const item of later.items) items.push(item);
    return { items, notes: later.notes, bad: quarantine.kept.map((r) => `${r.line}: ${r.reason}`) };
  } finally {
    duck.close();
  }
}

const columns = { user: "user_id", item: "item_id" };
const path = root;
const lamp = { id: "N1", title: "Red lamp", brand: "B", categories: ["Home & Garden", "Lamp"], description: "A lamp." };
const plain = { brand: "", description: "" };

const separated = { kind: "table", path, columns, categorySeparator: ">" } as const;
const renamed = { ...separated, itemColumns: { id: "sku", title: "name", categories: ["a", "b"] } } as const;
const csv = "item_id,title,brand,categories,description\nN1,Red lamp,B,Home & Garden > Lamp,A lamp.\n";
const semicolons = {
  kind: "impressions",
  path,
  impressions: "x.csv",
  columns: { user: "u", time: "t", item: "article" },
  categorySeparator: ";",
} as const;

const cases: readonly (readonly [what: string, AdapterOptions, name: string, data: string | Uint8Array, RawItem])[] = [
  ["the recipe's separator", separated, "new.csv", csv, lamp],
  ["lists need none", separated, "new.jsonl", JSON.stringify({ item_id: "N1", ...lamp }), lamp],
  ["tabs, gzip", separated, "new.tsv.gz", gzipSync(csv.replaceAll(",", "\t")), lamp],
  [
    "the recipe's columns, several of them",
    renamed,
    "new.csv",
    "sku,name,brand,a,b,description\nN1,Red lamp,B,Home & Garden,Lamp,A lamp.\n",
    lamp,
  ],
  ["usual names where the file has those", renamed, "new.csv", csv, lamp],
  [
    "columns by number in a file without a header",
    { ...separated, itemColumns: { id: "#0", title: "#1", categories: "#2" } },
    "new.csv",
    "N1,Red lamp,Home & Garden>Lamp\n",
    { ...lamp, ...plain },
  ],
  [
    "the recipe's encoding",
    { ...separated, encoding: "latin1" },
    "new.csv",
    Buffer.from(csv.replace("Red lamp", "Café lamp"), "latin1"),
    { ...lamp, title: "Café lamp" },
  ],
  [
    "a log of slates: its item column and separator",
    semicolons,
    "new.csv",
    "article,title,categories\nN1,Red lamp,Home & Garden;Lamp\n",
    { ...lamp, ...plain },
  ],
  [
    "amazon2014: Python literals, nested categories, and no separator",
    { kind: "amazon2014", path },
    "meta.json.gz",
    gzipSync("{'asin': 'N1', 'title': 'Red | lamp', 'categories': [['Home & Garden', 'A|B']]}\n"),
    { ...lamp, ...plain, title: "Red | lamp", categories: ["Home & Garden", "A|B"] },
  ],
  [
    "amazon2023: store is the brand",
    { kind: "amazon2023", path },
    "meta_X.jsonl",
    '{"parent_asin": "N1", "title": "Red lamp", "store": "B", "categories": ["Home & Garden", "Lamp"], "description": ["A", "lamp."]}',
    lamp,
  ],
  [
    "recbole: token sequences, the year in the title, the user's item column",
    { kind: "recbole", path, columns: { item: "artist_id" } },
    "new.item",
    "artist_id:token\tname:token_seq\trelease_year:token\tgenre:token_seq\nN1\tRed lamp\t1995\tRock Pop\n",
    { ...lamp, ...plain, title: "Red lamp (1995)", categories: ["Rock", "Pop"] },
  ],
  [
    "movielens: its own bars and flags, in Latin-1",
    { kind: "movielens", path },
    "u.item",
    Buffer.from(`N1|Misérables|01-Jan-1995||x|${"0|".repeat(8)}1|${"0|".repeat(9)}0\n`, "latin1"),
    { ...lamp, ...plain, title: "Misérables", categories: ["Drama"] },
  ],
  [
    "movielens: movies.csv",
    { kind: "movielens", path },
    "movies.csv",
    'movieId,title,genres\nN1,"Lamp, The (1995)",Drama|War\n',
    { ...lamp, ...plain, title: "Lamp, The (1995)", categories: ["Drama", "War"] },
  ],
  [
    "mind: news.tsv without a header",
    { kind: "mind", path },
    "news.tsv",
    "N1\tsports\tgolf\tRed lamp\tA lamp.\thttp://x\t[]\t[]\n",
    { ...lamp, brand: "", categories: ["sports", "golf"] },
  ],
  [
    "sequences: one object, id to record, categories as a path",
    { kind: "sequences", path },
    "x.item.json",
    JSON.stringify({ N1: { title: "Red lamp", brand: "B", categories: "Home & Garden > Lamp", description: "A lamp." } }),
    lamp,
  ],
  ["sequences: plain text", { kind: "sequences", path }, "x.txt", "N1 Red lamp\n", { ...lamp, ...plain, categories: [] }],
  [
    "next-item: MiniOneRec's index",
    { kind: "next-item", path },
    "x.item.json",
    JSON.stringify({ N1: { title: "Red lamp", brand: "B", description: "A lamp.", categories: "Home & Garden > Lamp" } }),
    lamp,
  ],
  ["any adapter reads a plain table", { kind: "mind", path }, "new.jsonl", JSON.stringify({ item_id: "N1", ...lamp }), lamp],
]; // biome-ignore format: a table

it.each(cases)("%s", async (_, source, name, data, expected) => {
  const { items, bad } = await read(source, name, data);
  expect(bad).toEqual([]);
  expect(items).toEqual([expected]);
});

it("retailrocket: latest properties, with the run's category tree", async () => {
  const folder = mkdtempSync(join(root, "rr-"));
  writeFileSync(join(folder, "category_tree.csv"), "categoryid,parentid\n7,3\n3,\n");
  const { items } = await read(
    { kind: "retailrocket", path: folder },
    "properties.csv",
    "timestamp,itemid,property,value\n1,N1,categoryid,3\n2,N1,categoryid,7\n1,N1,888,hash n12.000\n",
  );
  expect(items).toEqual([
    { id: "N1", title: "", brand: "", categories: ["category 3", "category 7"], description: "hash" },
  ]);
});

it("says which of the run's columns the file lacks; one that is named must be there", async () => {
  const { notes } = await read(renamed, "new.csv", "item_id,title\nN1,Red lamp\n");
  expect(notes.map((n) => n.replace(/.*new\.csv/, ""))).toEqual([
    " has no column a, b (categories of the run's items)",
  ]);
  await expect(read(renamed, "new.csv", csv, { title: "nmae" })).rejects.toThrow(
    /has no column "nmae"; it has "item_id", "title"/,
  );
});
