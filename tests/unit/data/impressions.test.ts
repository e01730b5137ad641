import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterAll, describe, expect, it } from "vitest";
import type { ImpressionColumns, ImpressionsOptions } from "../../../src/data/adapters/impressions.ts";
import { loadDataset, saveDataset } from "../../../src/data/cache.ts";
import { type BuildOptions, buildDataset } from "../../../src/data/dataset.ts";
import { openDuck } from "../../../src/data/duck.ts";
import type { Dataset } from "../../../src/data/types.ts";

const root = mkdtempSync(join(tmpdir(), "gr2-impressions-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

let folders = 0;
function folder(files: Record<string, string | Uint8Array>): string {
  const path = join(root, String(folders++));
  mkdirSync(path);
  for (const [name, data] of Object.entries(files)) writeFileSync(join(path, name), data);
  return path;
}

const long = { slate: "req", user: "u", item: "i", time: "t", position: "p", label: "y" };
const wide = { user: "u", time: "t", candidates: "c", labels: "y" };

function build(
  path: string,
  impressions: string,
  columns: ImpressionColumns,
  more: Partial<ImpressionsOptions> = {},
  options: Partial<BuildOptions> = {},
): Promise<Dataset> {
  return buildDataset({
    name: "log",
    source: { kind: "impressions", path, impressions, columns, ...more },
    prepare: { minUserInteractions: 0, minItemInteractions: 0, repeats: "first" },
    neutralise: (s) => s,
    neutraliseId: "none",
    ...options,
  });
}

/** Slates in words: user @time: item:label/score ... */
function listWords(d: Dataset): string[] {
  const log = d.impressions;
  if (log === undefined) return [];
  return Array.from(log.users, (user, k) => {
    const shown = Array.from({ length: (log.starts[k + 1] ?? 0) - (log.starts[k] ?? 0) }, (_, j) => {
      const at = (log.starts[k] ?? 0) + j;
      return `${d.items[log.items[at] ?? -1]?.id}:${log.labels[at]}/${log.scores[at]}`;
    });
    return `${d.sequences[user]?.user} @${log.times[k]}: ${shown.join(" ")}`;
  }).sort();
}
const histories = (d: Dataset): Record<string, string> =>
  Object.fromEntries(d.sequences.map((s) => [s.user, Array.from(s.items, (i) => d.items[i]?.id).join(" ")]));

// Request 7 is out of order in the file; its order is that of the positions.
const longCsv = `req,u,i,t,p,y
7,ann,b,200,2,0
7,ann,a,200,1,0
7,ann,c,200,3,2
5,ann,a,100,1,1
5,ann,b,100,2,0
9,bob,c,150,1,1
9,bob,d,150,2,1
9,bob,a,150,3,0
`;
const expected = ["ann @100: a:1/-1 b:0/-2", "ann @200: a:0/-1 b:0/-2 c:2/-3", "bob @150: c:1/-1 d:1/-2 a:0/-3"];

describe("a log of impressions", () => {
  it("long: one row per shown item, histories from its own positives", async () => {
    const d = await build(folder({ "log.csv": longCsv }), "log.csv", long);
    expect(listWords(d)).toEqual(expected);
    expect(histories(d).ann).toBe("a c");
    expect(d.stats.impressions).toEqual({ read: 3, slates: 3, candidates: 8, dropped: {}, unknownCandidates: 0 });
    expect(d.items.map((i) => i.id).sort()).toEqual(["a", "b", "c", "d"]); // b was never clicked
    expect(d.stats.notes).toEqual([expect.stringContaining("no interactions table")]);
  });

  it("wide: one row per request, whatever the format", async () => {
    const rows = [
      { u: "ann", t: 200, c: ["a", "b", "c"], y: [0, 0, 2] },
      { u: "ann", t: 100, c: ["a", "b"], y: [1, 0] },
      { u: "bob", t: 150, c: ["c", "d", "a"], y: [1, 1, 0] },
    ];
    const quoted = (v: unknown): string => `"${JSON.stringify(v).replaceAll('"', '""')}"`;
    const jsonl = rows.map((r) => `${JSON.stringify(r)}\n`).join("");
    const path = folder({
      "log.jsonl": jsonl,
      "log.jsonl.gz": gzipSync(jsonl),
      "log.csv": `u,t,c,y\n${rows.map((r) => `${r.u},${r.t},${quoted(r.c)},${quoted(r.y)}\n`).join("")}`,
      "clicks.tsv": `u\tt\tc\tp\n${rows.map((r) => `${r.u}\t${r.t}\t${quoted(r.c)}\t${quoted(r.c.filter((_, k) => (r.y[k] ?? 0) > 0))}\n`).join("")}`,
    });
    const duck = await openDuck();
    await duck.run(
      `COPY (SELECT * FROM read_json('${join(path, "log.jsonl")}')) TO '${join(path, "log.parquet")}' (FORMAT parquet)`,
    );
    duck.close();
    for (const file of ["log.jsonl", "log.jsonl.gz", "log.csv", "log.parquet"])
      expect(listWords(await build(path, file, wide)), file).toEqual(expected);
    const clicks = await build(path, "clicks.tsv", { user: "u", time: "t", candidates: "c", positives: "p" });
    expect(listWords(clicks)).toEqual(expected.map((line) => line.replace("c:2", "c:1")));
    await expect(build(path, "log.csv", { user: "u", time: "t", candidates: "c" })).rejects.toThrow(
      /either.*labels or/,
    );
    await expect(build(path, "log.csv", { ...wide, scores: "s" })).rejects.toThrow(/log\.csv:1 has no column "s"/);
  });

  it("takes the order from a score where there is no position, keeps scores, and reads times as people write them", async () => {
    const path = folder({
      "log.csv":
        "req,u,i,t,s,y\n1,ann,a,2024-01-01T00:00:10,0.5,0\n1,ann,b,2024-01-01T00:00:10,0.9,1\n1,ann,c,2024-01-01T00:00:10,0.7,0\n",
    });
    const { position: _, ...columns } = { ...long, score: "s" };
    expect(listWords(await build(path, "log.csv", columns))).toEqual(["ann @1704067210: b:1/0.9 c:0/0.7 a:0/0.5"]);
  });

  it("sets aside what cannot be used, with file and line", async () => {
    const bad = `${longCsv}1,ann
1,ann,a,300,1,yes
1,ann,b,300,2,1
1,ann,c,300,3,0
1,ann,b,300,4,0
2,ann,a,400,1,1
3,bob,a,500,1,-1
3,bob,b,,2,0
3,bob,c,500,x,0
1,bob,d,300,5,0
`;
    const path = folder({ "log.csv": bad });
    const quarantineFile = join(path, "bad.jsonl");
    const d = await build(path, "log.csv", long, {}, { maxBadShare: 0.9, quarantineFile });
    expect(listWords(d)).toEqual([...expected, "ann @300: b:1/-1 c:0/-2"].sort());
    const found = readFileSync(quarantineFile, "utf8")
      .trim()
      .split("\n")
      .map((l) => JSON.parse(l) as { line: number; reason: string })
      .map((b) => `${b.line} ${b.reason}`);
    expect(found).toEqual([
      "10 2 columns, expected 6",
      '11 "y" is not a number >= 0',
      "14 the item is in its slate twice",
      "15 a slate of fewer than 2 candidates",
      '16 "y" is not a number >= 0',
      '17 "t" is not a time',
      '18 "p" is not a number',
      "19 the slate has rows of another user",
    ]);
    await expect(build(path, "log.csv", long)).rejects.toThrow(/8 of 18 rows are malformed.*log\.csv:10/);
  });

  it("sets aside wide rows, with file and line", async () => {
    const good = '{"u":"ann","t":1,"c":["a","b"],"y":[1,0]}\n';
    const rows: [string, string][] = [
      ["not JSON", "{"],
      ['"c" is not a list', '{"u":"ann","t":1,"c":"a","y":[1]}'],
      ["a slate of fewer than 2 candidates", '{"u":"ann","t":1,"c":["a"],"y":[1]}'],
      ["an item is in the slate twice", '{"u":"ann","t":1,"c":["a","a"],"y":[1,0]}'],
      ['"y" is not a list of numbers', '{"u":"ann","t":1,"c":["a","b"],"y":["yes",0]}'],
      ['"y" is not a list of numbers', '{"u":"ann","t":1,"c":["a","b"],"y":[null,0]}'],
      ['"y" and "c" differ in length', '{"u":"ann","t":1,"c":["a","b"],"y":[1,0,0]}'],
      ['"y" contains a negative number', '{"u":"ann","t":1,"c":["a","b"],"y":[1,-1]}'],
      ['no "u"', '{"t":1,"c":["a","b"],"y":[1,0]}'],
      ['"t" is not a time', '{"u":"ann","t":"soon","c":["a","b"],"y":[1,0]}'],
    ];
    const path = folder({ "log.jsonl": good + rows.map(([, line]) => `${line}\n`).join("") });
    const quarantineFile = join(path, "bad.jsonl");
    await build(path, "log.jsonl", wide, {}, { maxBadShare: 1, quarantineFile });
    const found = readFileSync(quarantineFile, "utf8")
      .trim()
      .split("\n")
      .map((l) => JSON.parse(l) as { line: number; reason: string });
    expect(found.map((b) => [b.line, b.reason])).toEqual(rows.map(([reason], k) => [k + 2, reason]));
    const clicked = folder({ "log.jsonl": `${good}{"u":"ann","t":1,"c":["a","b"],"p":["z"]}\n` });
    await expect(
      build(clicked, "log.jsonl", { user: "u", time: "t", candidates: "c", positives: "p" }),
    ).rejects.toThrow(/2 of 2 rows.*log\.jsonl:1: "p" is not a list/);
  });

  it("takes histories from an interactions table, and sets aside users it does not know", async () => {
    const path = folder({
      "log.csv": `${longCsv}4,eve,a,300,1,1\n4,eve,b,300,2,0\n`,
      "seen.csv": "u,i,t\nann,d,10\nann,x,20\nbob,a,30\n",
    });
    const o = { interactions: "seen.csv", interactionColumns: { user: "u", item: "i", time: "t" } };
    const quarantineFile = join(path, "bad.jsonl");
    const d = await build(path, "log.csv", long, o, { maxBadShare: 0.5, quarantineFile });
    expect(histories(d)).toEqual({ ann: "d x", bob: "a" });
    expect(listWords(d)).toEqual(expected);
    expect(readFileSync(quarantineFile, "utf8")).toContain("the user is not in the interactions table");
  });

  it("drops unknown items from slates, and slates that have nothing to order any more", async () => {
    const items = "item_id,title\na,A\nb,B\nc,C\n";
    const log = `${longCsv}1,cat,a,10,1,1
1,cat,d,10,2,0
2,cat,a,20,1,0
2,cat,b,20,2,0
3,cat,a,30,1,1
3,cat,b,30,2,1
6,cat,a,40,1,0
6,cat,b,40,2,0
6,cat,d,40,3,1
8,dan,a,50,1,0
8,dan,b,50,2,0
`;
    const path = folder({ "log.csv": log, "items.csv": items });
    const d = await build(path, "log.csv", long, {
      items: "items.csv",
      itemColumns: { id: "item_id", title: "title" },
    });
    // d is unknown: bob's slate loses it; of cat's, slate 1 has one candidate left, 6 no positive.
    expect(listWords(d)).toEqual([...expected.slice(0, 2), "bob @150: c:1/-1 a:0/-3"]);
    expect(d.stats.impressions).toEqual({
      read: 8,
      slates: 3,
      candidates: 7,
      dropped: {
        "all labels are equal": 1,
        "fewer than 2 known candidates": 1,
        "no positive": 2,
        "user without interactions": 1,
      },
      unknownCandidates: 3,
    });
  });

  it("comes back from the cache, and is part of the hash", async () => {
    const path = folder({ "log.csv": longCsv, "other.csv": longCsv.replace("200,3,2", "200,3,1") });
    const d = await build(path, "log.csv", long);
    const saved = join(path, "dataset");
    await saveDataset(d, saved);
    expect(await loadDataset(saved)).toEqual(d);
    const file = join(saved, "impressions.parquet");
    writeFileSync(file, readFileSync(file).fill(1, 0, 1));
    await expect(loadDataset(saved)).rejects.toThrow(`${file} is damaged`);
    expect((await build(path, "other.csv", long)).hash).not.toBe(d.hash);
    expect((await build(path, "log.csv", long)).hash).toBe(d.hash);
  });
});
