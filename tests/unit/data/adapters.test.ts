import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterAll, describe, expect, it } from "vitest";
import type { AdapterOptions } from "../../../src/data/adapters/index.ts";
import { type BuildOptions, buildDataset } from "../../../src/data/dataset.ts";
import { openDuck } from "../../../src/data/duck.ts";
import type { Dataset } from "../../../src/data/types.ts";

const root = mkdtempSync(join(tmpdir(), "gr2-adapters-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

let folders = 0;
function folder(files: Record<string, string | Uint8Array>): string {
  const path = join(root, String(folders++));
  mkdirSync(path);
  for (const [name, data] of Object.entries(files)) writeFileSync(join(path, name), data);
  return path;
}

const build = (source: AdapterOptions, more: Partial<BuildOptions> = {}): Promise<Dataset> =>
  buildDataset({
    name: "t",
    source,
    prepare: { minUserInteractions: 0, minItemInteractions: 0, repeats: "keep" },
    neutralise: (s) => s,
    neutraliseId: "none",
    ...more,
  });

/** user → item ids in order. */
const readSequences = (d: Dataset): Record<string, string[]> =>
  Object.fromEntries(d.sequences.map((s) => [s.user, Array.from(s.items, (i) => String(d.items[i]?.id))]));
const item = (d: Dataset, id: string) => d.items.find((i) => i.id === id);

describe("recbole", () => {
  const inter = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\ta\t5\t20\n1\tb\t3\t10\n2\ta\t1\t5\n";
  it("reads atomic files, joins year to title and splits token sequences", async () => {
    const path = folder({
      "x.inter": inter,
      "x.item":
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\na\tToy Story\t1995\tComedy Children's\nb\t\t1990\t\n",
    });
    const d = await build({ kind: "recbole", path });
    expect(readSequences(d)).toEqual({ 1: ["b", "a"], 2: ["a"] });
    expect(item(d, "a")).toMatchObject({ title: "Toy Story (1995)", categories: ["Comedy", "Children's"] });
    expect(item(d, "b")).toMatchObject({ title: "", categories: [] });
    expect(d.stats).toMatchObject({ users: 2, items: 2, interactions: 3, itemsWithoutText: 1, hasClock: true });
  });

  it("quarantines a malformed row with file and line, and stops above the allowed share", async () => {
    const path = folder({ "x.inter": `${inter}1\tc\tgreat\t30\n1\td\n\te\t1\t4\n` });
    const quarantineFile = join(path, "bad.jsonl");
    const d = await build({ kind: "recbole", path }, { maxBadShare: 0.5, quarantineFile });
    expect(d.stats).toMatchObject({ interactions: 3, rowsRead: 6, dropped: { malformed: 3 } });
    const bad = readFileSync(quarantineFile, "utf8")
      .trim()
      .split("\n")
      .map((l) => JSON.parse(l) as { line: number; file: string });
    expect(bad.map((b) => b.line).sort()).toEqual([5, 6, 7]);
    await expect(build({ kind: "recbole", path })).rejects.toThrow(
      /3 of 6 rows are malformed.*x\.inter:5: rating is not a number/,
    );
  });

  it("judges the item file on its own, however many interactions there are", async () => {
    const many = Array.from({ length: 500 }, (_, k) => `1\ta\t5\t${k}\n`).join("");
    const path = folder({ "x.inter": inter + many, "x.item": "item_id:token\ttitle:token_seq\na\tA\nb\tB\textra\n" });
    await expect(build({ kind: "recbole", path })).rejects.toThrow(/1 of 2 rows are malformed.*x\.item:3: 3 columns/);
  });

  it("says what is missing", async () => {
    await expect(build({ kind: "recbole", path: join(root, "nowhere") })).rejects.toThrow(/there is no such folder/);
    await expect(build({ kind: "recbole", path: folder({}) })).rejects.toThrow(
      /no file with the interactions; looked for \*\.inter/,
    );
    await expect(build({ kind: "recbole", path: folder({ "x.inter": "" }) })).rejects.toThrow(/is empty/);
    await expect(build({ kind: "recbole", path: folder({ "x.inter": "a:token\tb:token\n1\t2\n" }) })).rejects.toThrow(
      /x\.inter:1 has no column "user_id"/,
    );
  });
});

describe("movielens", () => {
  const check = (d: Dataset): void => {
    expect(readSequences(d)).toEqual({ 1: ["10", "11"], 2: ["11"] });
    expect(item(d, "10")?.title).toBe("Misérables, Les (1995)");
    expect(item(d, "10")?.categories).toEqual(["Drama", "Musical"]);
  };
  it("reads the 100K layout in Latin-1", async () => {
    const flags = (on: number[]) => Array.from({ length: 19 }, (_, k) => (on.includes(k) ? "1" : "0")).join("|");
    const line = (id: string, title: string, on: number[]) => `${id}|${title}|01-Jan-1995||http://x|${flags(on)}\n`;
    const items = line("10", "Misérables, Les (1995)", [8, 12]) + line("11", "Heat (1995)", [1]);
    const path = folder({
      "u.data": "1\t10\t5\t100\n1\t11\t4\t200\n2\t11\t3\t50\n",
      "u.item": Buffer.from(items, "latin1"),
    });
    check(await build({ kind: "movielens", path }));
  });
  it("reads the :: layout", async () => {
    const movies = "10::Misérables, Les (1995)::Drama|Musical\n11::Heat (1995)::Action\n";
    const path = folder({
      "ratings.dat": "1::10::5::100\n1::11::4::200\n2::11::3::50\n",
      "movies.dat": Buffer.from(movies, "latin1"),
    });
    check(await build({ kind: "movielens", path }));
  });
  it("reads CSV with quotes and CRLF, and filters by rating", async () => {
    const path = folder({
      "ratings.csv": "userId,movieId,rating,timestamp\r\n1,10,5.0,100\r\n1,11,4.0,200\r\n2,11,3.0,50\r\n",
      "movies.csv":
        'movieId,title,genres\r\n10,"Misérables, Les (1995)",Drama|Musical\r\n11,Heat (1995),(no genres listed)\r\n',
    });
    const d = await build({ kind: "movielens", path });
    check(d);
    expect(item(d, "11")?.categories).toEqual([]);
    const liked = await build(
      { kind: "movielens", path },
      { prepare: { minRating: 3.5, minUserInteractions: 0, minItemInteractions: 0, repeats: "keep" } },
    );
    expect(liked.stats.dropped).toEqual({ "below minimum rating": 1 });
    expect(liked.hash).not.toBe(d.hash);
  });
});

it("sequences: order is time, a doubled user is malformed", async () => {
  const path = folder({
    "sequential_data.txt": "1 b a c\n2 a\n",
    "items.jsonl": ["a", "b", "c"].map((id) => JSON.stringify({ item_id: id, title: `T${id}` })).join("\n"),
  });
  const d = await build({ kind: "sequences", path });
  expect(readSequences(d)).toEqual({ 1: ["b", "a", "c"], 2: ["a"] });
  expect(d.stats.hasClock).toBe(false);
  writeFileSync(join(path, "sequential_data.txt"), "1 b a\n1 c\n");
  await expect(build({ kind: "sequences", path })).rejects.toThrow(/sequential_data\.txt:2: user 1 already has a line/);
});

describe("table", () => {
  const columns = { user: "u", item: "i", time: "t" };
  it("reads CSV, JSONL.gz and Parquet alike", async () => {
    const csv = "u,i,t\nx,a,2024-01-02T00:00:00\nx,b,2024-01-01T00:00:00\ny,a,2024-01-01T12:00:00\n";
    const jsonl = csv
      .trim()
      .split("\n")
      .slice(1)
      .map((l) => l.split(","))
      .map(([u, i, t]) => JSON.stringify({ u, i, t }));
    const path = folder({ "a.csv": csv, "a.jsonl.gz": gzipSync(jsonl.join("\n")) });
    const duck = await openDuck();
    await duck.run(`COPY (SELECT u, i, t::TIMESTAMP AS t FROM read_csv('${path}/a.csv', header=true, all_varchar=true))
      TO '${path}/a.parquet' (FORMAT parquet)`);
    duck.close();
    const results = [];
    for (const interactions of ["a.csv", "a.jsonl.gz", "a.parquet"])
      results.push(await build({ kind: "table", path, interactions, columns }));
    for (const d of results) {
      expect(readSequences(d)).toEqual({ x: ["b", "a"], y: ["a"] });
      expect(d.sequences.map((s) => Array.from(s.times))).toEqual(
        results[0]?.sequences.map((s) => Array.from(s.times)),
      );
    }
  });
  it("drops and counts interactions of unknown items, and lists bad JSON by line", async () => {
    const path = folder({
      "a.jsonl": '{"u":"x","i":"a","t":1}\n{oops\n{"u":"x","i":"z","t":2}\n',
      "items.csv": 'id,name\na,"Say ""hi"", please"\n',
    });
    const source = {
      kind: "table",
      path,
      interactions: "a.jsonl",
      items: "items.csv",
      columns,
      itemColumns: { id: "id", title: "name" },
    } as const;
    const d = await build(source, { maxBadShare: 0.5 });
    expect(d.stats.dropped).toEqual({ malformed: 1, "unknown item": 1 });
    expect(d.items[0]?.title).toBe('Say "hi", please');
    await expect(build(source)).rejects.toThrow(/a\.jsonl:2: not JSON/);
  });
  it("quarantines a line that is not UTF-8, whatever the format, and keeps counting lines", async () => {
    const bad = Buffer.from([0x7b, 0x22, 0xff, 0xfe, 0x22, 0x0a]);
    const path = folder({
      "a.jsonl": Buffer.concat([Buffer.from('{"u":"x","i":"a","t":1}\n'), bad, Buffer.from("{oops\n")]),
      "a.csv": Buffer.concat([Buffer.from("u,i,t\nx,a,1\nx,"), Buffer.from([0xff, 0xfe]), Buffer.from(",2\nx,c,\n")]),
    });
    for (const [interactions, lines] of [
      ["a.jsonl", [2, 3]],
      ["a.csv", [3, 4]],
    ] as const) {
      const quarantineFile = join(path, "bad.jsonl");
      const d = await build({ kind: "table", path, interactions, columns }, { maxBadShare: 1, quarantineFile });
      expect(d.stats).toMatchObject({ interactions: 1, rowsRead: 3, dropped: { malformed: 2 } });
      const bad = readFileSync(quarantineFile, "utf8").trim().split("\n");
      expect(bad.map((l) => (JSON.parse(l) as { line: number }).line)).toEqual(lines);
    }
  });
  it("refuses a corrupt Parquet or gzip file", async () => {
    const path = folder({ "a.parquet": "not parquet", "a.csv.gz": "not gzip" });
    for (const interactions of ["a.parquet", "a.csv.gz"])
      await expect(build({ kind: "table", path, interactions, columns })).rejects.toThrow(/not a/);
  });
});

describe("amazon", () => {
  const review = (user: string, asin: string, t: number) =>
    JSON.stringify({ reviewerID: user, asin, overall: 5, unixReviewTime: t, reviewText: "a 'quoted' text" });
  it("2014: Python literals, nested categories", async () => {
    const path = folder({
      "r.json.gz": gzipSync(`${review("A", "p1", 20)}\n${review("A", "p2", 10)}\n`),
      "m.json.gz": gzipSync(
        `{'asin': 'p1', 'title': "Dr. Bronner's \\'Soap\\'", 'categories': [['Beauty', 'Soap'], ['Beauty']], 'price': 9.9, 'x': None, 'ok': True}\n{'asin': 'p2', 'brand': u'Ol\\xe9', 'related': {'also': ('a', 1)}}\n`,
      ),
    });
    const d = await build({ kind: "amazon2014", path, reviews: "r.json.gz", metadata: "m.json.gz" });
    expect(readSequences(d)).toEqual({ A: ["p2", "p1"] });
    expect(item(d, "p1")).toMatchObject({ title: "Dr. Bronner's 'Soap'", categories: ["Beauty", "Soap"] });
    expect(item(d, "p2")?.brand).toBe("Olé");
  });
  it("2018 and 2023: JSON, other names, milliseconds", async () => {
    const path = folder({
      "r18.json": `${review("A", "p1", 20)}\n`,
      "m18.json": JSON.stringify({ asin: "p1", title: "T", category: ["X", "Y"], description: ["one", "two"] }),
      "r23.jsonl": JSON.stringify({ user_id: "A", parent_asin: "p1", rating: 4, timestamp: 1700000000000 }),
      "m23.jsonl": JSON.stringify({ parent_asin: "p1", title: "T", store: "S", categories: ["X"], description: [] }),
    });
    const d18 = await build({ kind: "amazon2018", path, reviews: "r18.json", metadata: "m18.json" });
    expect(d18.items[0]).toMatchObject({ title: "T", categories: ["X", "Y"], description: "one two" });
    const d23 = await build({ kind: "amazon2023", path, reviews: "r23.jsonl", metadata: "m23.jsonl" });
    expect(d23.items[0]).toMatchObject({ brand: "S", categories: ["X"], description: "" });
    expect(d23.sequences[0]?.times[0]).toBe(1_700_000_000);
  });
});
