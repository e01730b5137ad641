/** Every layout through the configuration: settings -> data stage -> data set. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { inspect } from "../../../src/commands/inspect.ts";
import { compileConfig } from "../../../src/config/load.ts";
import { sourceHash } from "../../../src/data/source.ts";
import { layouts, readSequences, runDataStage, writeLayout, writeParquetLayout } from "./layouts.ts";
import { publicLayouts } from "./public-layouts.ts";

const root = mkdtempSync(join(tmpdir(), "gr2-layouts-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

const makeRows = (n: number): string => Array.from({ length: n }, (_, k) => `u${k % 7},i${k % 5},${k}\n`).join("");

describe("layouts, through the configuration", () => {
  it.each([...layouts, ...publicLayouts])("$name", async (layout) => {
    const path = writeLayout(root, layout);
    const { dataset } = await runDataStage(root, { ...layout.settings, path });
    expect(readSequences(dataset)).toEqual(layout.sequences);
    for (const [id, fields] of Object.entries(layout.items))
      expect(dataset.items.find((i) => i.id === id)).toMatchObject(fields);
    expect(dataset.stats.dropped).toEqual(layout.dropped ?? {});
  });

  it("says how many rows data.keep leaves out", async () => {
    const kuaiRand = publicLayouts.find((l) => l.name === "KuaiRand") as (typeof publicLayouts)[number];
    const path = writeLayout(root, kuaiRand);
    const { dataset } = await runDataStage(root, { ...kuaiRand.settings, path });
    expect(dataset.stats.notes).toContain("1 of 4 rows were dropped by data.keep");
    await expect(runDataStage(root, { ...kuaiRand.settings, path, keep: { clicked: [1] } })).rejects.toThrow(
      /log_standard_4_08_to_4_21_pure\.csv:1 has no column "clicked"/,
    );
  });

  it("malformed Python literals cost their own line, which is named", async () => {
    const lines = ["{'u': 'a', 'i': 'x'}", "", "{'u': 'a', 'i': }", "{'u': 'b', 'i': 'x'}"];
    const path = writeLayout(root, { files: { "interactions.jsonl": lines.join("\n") } });
    const settings = { adapter: "table", path, columns: { user: "u", item: "i" }, maxBadShare: 0.5 };
    const { dataset, dir } = await runDataStage(root, settings);
    expect(readSequences(dataset)).toEqual({ a: ["x"], b: ["x"] });
    expect(JSON.parse(readFileSync(join(dir, "quarantine.jsonl"), "utf8"))).toMatchObject({
      ...{ file: join(path, "interactions.jsonl"), line: 3, reason: "not JSON", text: "{'u': 'a', 'i': }" },
    });
  });

  const history = { "1": "N1 N2", "2": "", "3": "N3" };
  const shown = (id: keyof typeof history, user: string, time: string, news: string): string =>
    `${id}\t${user}\t${time}\t${history[id]}\t${news}\n`;
  const article = (id: string, title: string): string =>
    `${id}\tsports\tgolf\t${title}\tAbout it.\thttps://news.example/${id}.html\t[{"Label": "PGA"}]\t[]\n`;
  const mind = {
    "behaviors.tsv":
      shown("1", "U1", "11/15/2019 8:55:22 AM", "N4-0 N5-1 N6-0") +
      shown("2", "U2", "11/11/2019 1:00:00 PM", "N4-1 N6-0") +
      shown("3", "U1", "11/11/2019 12:00:00 AM", "N6-1 N7-0"),
    "news.tsv": ["N1", "N2", "N3", "N4", "N5", "N6", "N7"].map((n) => article(n, `The "title of ${n}`)).join(""),
    "entity_embedding.vec": "Q41\t-0.063388\t-0.181451\n",
  };

  it("MIND, whose proposal reads it too", async () => {
    const path = writeLayout(root, { files: mind });
    const { recipe, measured, fault } = await inspect(path);
    expect(fault).toBeUndefined();
    expect(recipe).toMatchObject({ data: { adapter: "mind" }, prerank: { kind: "logged" } });
    expect(measured).toMatchObject({
      users: 2,
      malformed: 0,
      time: { last: Date.UTC(2019, 10, 15, 8, 55, 22) / 1000 },
    });
    const { dataset } = await runDataStage(root, { adapter: "mind", path });
    // U1's first impression is the third row, with N3 clicked before the log; it clicked N6 and then N5.
    expect(readSequences(dataset)).toEqual({ U1: ["N3", "N6", "N5"], U2: ["N4"] });
    const start = Date.UTC(2019, 10, 11) / 1000;
    const u1 = dataset.sequences.find((s) => s.user === "U1");
    expect(Array.from(u1?.times ?? [])).toEqual([start - 1, start, Date.UTC(2019, 10, 15, 8, 55, 22) / 1000]);
    const log = dataset.impressions;
    const first = Array.from(log?.items.subarray(0, 2) ?? [], (i) => dataset.items[i]?.id);
    expect([log?.users.length, log?.items.length]).toEqual([3, 7]);
    expect([
      ["N6", "N7"],
      ["N4", "N6"],
    ]).toContainEqual(first);
    expect(dataset.items.find((i) => i.id === "N5")).toMatchObject({
      ...{ title: 'The "title of N5', categories: ["sports", "golf"], description: "About it." },
    });
  });

  it("MIND's test split, whose labels are not published, is refused by name", async () => {
    const path = writeLayout(root, {
      files: { ...mind, "behaviors.tsv": shown("1", "U1", "11/15/2019 8:55:22 AM", "N4 N5") },
    });
    await expect(runDataStage(root, { adapter: "mind", path })).rejects.toThrow(/behaviors.tsv:1 has no click labels/);
  });

  it("rows of a history and its next item that do not fit together are malformed", async () => {
    const header = "user_id:token\titem_id_list:token_seq\titem_id:token\n";
    const path = writeLayout(root, { files: { "x.train.inter": `${header}1\ta b\tc\n1\ta x\tc\n1\ta b\tc\n` } });
    const { dataset, dir } = await runDataStage(root, { adapter: "next-item", path, maxBadShare: 0.5 });
    expect(readSequences(dataset)).toEqual({ 1: ["a", "b", "c"] }); // the third row says what is known
    expect(JSON.parse(readFileSync(join(dir, "quarantine.jsonl"), "utf8"))).toMatchObject({
      ...{ line: 3, reason: "its history does not continue the user's earlier rows" },
    });
  });

  it("an archive's folders within are looked at", async () => {
    const kuaiRec = publicLayouts.find((l) => l.name === "KuaiRec") as (typeof publicLayouts)[number];
    const files = Object.fromEntries(Object.entries(kuaiRec.files).map(([n, f]) => [`KuaiRec 2.0/data/${n}`, f]));
    const path = writeLayout(root, { files: { ...files, "KuaiRec 2.0/LICENSE": "free\n" } });
    const { recipe } = await inspect(path);
    expect(recipe).toMatchObject({ data: { path: join(path, "KuaiRec 2.0/data"), name: "data" } });
  });

  it("columns that an adapter does not follow are refused", () => {
    const check = (adapter: string) => compileConfig({ data: { adapter, path: "x", columns: { user: "u" } } }, "test");
    for (const adapter of ["movielens", "sequences"])
      expect(() => check(adapter)).toThrow(new RegExp(`data.columns.user: data.adapter = ${adapter} has`));
    for (const adapter of ["table", "recbole", "amazon2023", "impressions"]) check(adapter);
  });

  it("RecBole: a column that is not there is named, with those that are", async () => {
    const path = writeLayout(root, { files: { "x.inter": "session_id:token\titem_id:token\n1\ta\n" } });
    await expect(runDataStage(root, { adapter: "recbole", path })).rejects.toThrow(
      /x\.inter:1 has no column "user_id"; it has "session_id", "item_id"/,
    );
    await expect(runDataStage(root, { adapter: "recbole", path, columns: { user: "who" } })).rejects.toThrow(/"who"/);
  });

  it("Parquet, and a path that names the file of interactions", async () => {
    const path = await writeParquetLayout(root);
    const columns = { time: "ts", rating: "stars" };
    const { dataset, dir } = await runDataStage(root, { adapter: "table", path, columns });
    expect(readSequences(dataset)).toEqual({ x: ["p2", "p1"], y: ["p1"] });
    expect(JSON.parse(readFileSync(join(dir, "statistics.json"), "utf8"))).toMatchObject({
      ...{ users: 2, items: 2, interactions: 3, itemsWithoutTitle: 0 },
      time: { first: Date.UTC(2024, 2, 1, 10) / 1000, last: Date.UTC(2024, 3, 1, 10) / 1000 },
    });
    expect(dataset.items.find((i) => i.id === "p1")).toMatchObject({ title: "One", categories: ["A", "B"] });
    expect(dataset.stats.hasClock).toBe(true);
    const file = join(path, "interactions.parquet");
    const again = await runDataStage(root, { adapter: "table", path: file, columns, minRating: 3 });
    expect(readSequences(again.dataset)).toEqual({ x: ["p1"], y: ["p1"] });
  });

  it("reads times with offsets, a byte-order mark, quoted names and line breaks within quotes", async () => {
    const rows = [
      'a,2024-03-02T10:00:00+02:00,"two\r\nlines"',
      "b,2024-03-02T09:00:00Z,",
      'c,2024-03-02 08:30:00,"a ""b"", c"',
    ];
    const csv = `\ufeff"user_id","item_id","ts","note"\r\n${rows.map((r) => `u,${r}\r\n`).join("")}`;
    const path = writeLayout(root, { files: { "interactions.csv": csv } });
    const { dataset } = await runDataStage(root, { adapter: "table", path, columns: { time: "ts" } });
    expect(readSequences(dataset)).toEqual({ u: ["a", "c", "b"] }); // 08:00, 08:30 and 09:00 UTC
    expect(dataset.sequences[0]?.times[0]).toBe(Date.UTC(2024, 2, 2, 8) / 1000);
  });

  it("reads item texts with line breaks within quotes; a quote that never ends costs its own line alone", async () => {
    const items = ['a,"first\nsecond, ""third"""', 'b,"never ends', "c,plain", 'd,"broken again\n\nand whole"'];
    const files = {
      "interactions.csv": `user_id,item_id\n${["a", "b", "c", "d"].map((i) => `u,${i}\n`).join("")}`,
      "items.csv": `item_id,title\n${items.join("\n")}\n`,
    };
    const path = writeLayout(root, { files });
    const { dataset, dir } = await runDataStage(root, { adapter: "table", path, maxBadShare: 0.5 });
    const titles = Object.fromEntries(dataset.items.map((i) => [i.id, i.title]));
    expect(titles).toEqual({ a: 'first second, "third"', c: "plain", d: "broken again and whole" });
    const [bad, ...more] = readFileSync(join(dir, "quarantine.jsonl"), "utf8").trim().split("\n");
    expect(JSON.parse(bad ?? "")).toMatchObject({
      line: 4,
      reason: "a quote opens and never closes",
      text: 'b,"never ends',
    });
    expect(more).toEqual([]);
  });

  it("keeps the whole item file, or what people used", async () => {
    const path = writeLayout(root, layouts[0] as (typeof layouts)[number]);
    const items = async (catalogue: string) =>
      (await runDataStage(root, { adapter: "amazon2014", path, catalogue })).dataset.items.map((i) => i.id).sort();
    expect(await items("interacted")).toEqual(["B01", "B02", "B03"]);
    expect(await items("all")).toEqual(["B01", "B02", "B03", "B99"]);
  });

  it("follows data.repeats", async () => {
    const path = writeLayout(root, { files: { "sequential_data.txt": "1 a a b a\n" } });
    const sequence = async (repeats: string) =>
      readSequences((await runDataStage(root, { adapter: "sequences", path, repeats })).dataset)["1"]?.join("");
    expect(await sequence("first")).toBe("ab");
    expect(await sequence("last")).toBe("ba");
    expect(await sequence("keep")).toBe("aaba");
    expect(await sequence("no-consecutive")).toBe("aba");
  });
});

describe("what is said when a file or column cannot be found", () => {
  const files = { "interactions.csv": "user_id,item_id,when\nu,i,1\n", "items.csv": "item_id,name\ni,I\n" };
  it.each([
    [
      { "notes.md": "" },
      { adapter: "amazon2014" },
      /no file with the reviews; looked for reviews_\*_5\.json\.gz, reviews_\*\.json\.gz, but it has notes\.md/,
    ],
    [{}, { adapter: "amazon2023" }, /looked for \*\.jsonl\.gz, \*\.csv\.gz, but it is empty/],
    [
      { "A_5.json": "{}", "B_5.json": "{}" },
      { adapter: "amazon2018" },
      /2 files that could contain the reviews \(\*_5\.json\.gz\): A_5\.json, B_5\.json/,
    ],
    [{ "a.csv": "x" }, { adapter: "table" }, /no file with the interactions; looked for interactions\.csv, \.tsv/],
    [{ "a.txt": "1 2", "b.txt": "1 2" }, { adapter: "sequences" }, /2 files that could contain the sequences/],
    [files, { adapter: "table", columns: { time: "wen" } }, /interactions\.csv:1 has no column "wen"; it has .*"when"/],
    [
      files,
      { adapter: "table", columns: { title: "nmae" } },
      /items\.csv has no column "nmae" \(data\.columns\.title\); it has "item_id", "name"/,
    ],
  ])("%j with %j", async (content, settings, message) => {
    const path = writeLayout(root, { files: content as Record<string, string> });
    await expect(runDataStage(root, { ...settings, path })).rejects.toThrow(message);
  });

  it("names the nearest known key of data.columns", async () => {
    await expect(runDataStage(root, { adapter: "table", path: root, columns: { titles: "name" } })).rejects.toThrow(
      /unknown setting data\.columns\.titles; did you mean data\.columns\.title\?/,
    );
  });
});

describe("the identity of the source", () => {
  it("changes with any file of the folder, also when the path names one of them", async () => {
    const path = writeLayout(root, { files: { "a.csv": "user_id,item_id\nu,i\n", "items.csv": "item_id\ni\n" } });
    const both = () => Promise.all([sourceHash({ path }), sourceHash({ path: join(path, "a.csv") })]);
    const before = await both();
    expect(await both()).toEqual(before);
    writeFileSync(join(path, "items.csv"), "item_id\ni\nj\n");
    const after = await both();
    expect(after[0]).not.toBe(before[0]);
    expect(after[1]).not.toBe(before[1]);
  });

  it("changes with the files that are named, wherever they are", async () => {
    const path = writeLayout(root, { files: {} });
    mkdirSync(join(path, "day=1"));
    writeFileSync(join(path, "day=1", "part-0.csv"), "user_id,item_id\nu,i\n");
    writeFileSync(join(path, "..", "elsewhere.csv"), "item_id\ni\n");
    const named = { path, files: { interactions: "day=*", items: "../elsewhere.csv", impressions: "none.csv" } };
    const before = await sourceHash(named);
    writeFileSync(join(path, "day=1", "part-0.csv"), "user_id,item_id\nu,j\n");
    const after = await sourceHash(named);
    expect(after).not.toBe(before);
    writeFileSync(join(path, "..", "elsewhere.csv"), "item_id\nj\n");
    expect(await sourceHash(named)).not.toBe(after);
  });
});

describe("bad rows, through the configuration", () => {
  it("are set aside with file and line, and above data.maxBadShare stop the run", async () => {
    const path = writeLayout(root, { files: {} });
    writeFileSync(
      join(path, "interactions.csv"),
      `user_id,item_id,t\n${makeRows(150)}u1,i1,soon\n${makeRows(150)}u2\n`,
    );
    const settings = { adapter: "table", path, columns: { time: "t" } };
    const { dir, logs } = await runDataStage(root, settings);
    const kept = readFileSync(join(dir, "quarantine.jsonl"), "utf8").trim().split("\n");
    const bad = kept.map((l) => JSON.parse(l) as { line: number }).sort((a, b) => a.line - b.line);
    expect(bad).toMatchObject([
      { line: 152, file: join(path, "interactions.csv"), reason: 'time is neither a number nor a date: "t" is "soon"' },
      { line: 303, file: join(path, "interactions.csv") },
    ]);
    expect(logs).toContain("dropped: 2 rows (malformed)");
    await expect(runDataStage(root, { ...settings, maxBadShare: 0.001 })).rejects.toMatchObject({
      message: expect.stringMatching(/2 of 302 rows are malformed \(0\.66 %, allowed 0\.10 %\).*interactions\.csv:152/),
      advice: expect.stringMatching(/All of them are in .*quarantine\.jsonl.*data\.maxBadShare/),
    });
  });
});
