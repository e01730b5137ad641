/** `gr2 data inspect` on every layout: what it says, and that the recipe it proposes reads the data. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterAll, describe, expect, it } from "vitest";
import { dataInspect, renderInspection } from "../../../src/cli/data-inspect.ts";
import { inspect } from "../../../src/commands/inspect.ts";
import { loadConfig } from "../../../src/config/load.ts";
import { columnViews } from "../../../src/data/inspect/look.ts";
import type { Measured } from "../../../src/data/inspect/measure.ts";
import { guessOutcome } from "../../../src/data/inspect/outcomes.ts";
import { advise } from "../../../src/data/inspect/propose.ts";
import { interactionRoles, itemRoles } from "../../../src/data/inspect/roles.ts";
import { rawZstd } from "../../table-forms.ts";
import { layouts, readSequences, runDataStage, unsplit, writeLayout, writeParquetLayout } from "./layouts.ts";
import { publicLayouts } from "./public-layouts.ts";

const root = mkdtempSync(join(tmpdir(), "gr2-inspect-test-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

const readData = (recipe: unknown): Record<string, unknown> => (recipe as { data: Record<string, unknown> }).data;

describe("the proposed recipe", () => {
  it.each([...layouts, ...publicLayouts])("reads $name", async (layout) => {
    const path = writeLayout(root, layout);
    const { recipe, measured, fault } = await inspect(path);
    expect(fault).toBeUndefined();
    const settings = readData(recipe);
    expect(settings.adapter).toBe(layout.settings.adapter);
    expect(measured).toMatchObject({ whole: true, malformed: 0, users: Object.keys(layout.sequences).length });
    const { dataset } = await runDataStage(root, { ...settings, minInteractions: 0, repeats: "keep", split: unsplit });
    expect(readSequences(dataset)).toEqual(layout.sequences);
    for (const [id, fields] of Object.entries(layout.items))
      expect(dataset.items.find((i) => i.id === id)).toMatchObject(fields);
  });

  it("reads Parquet, and is a file that config check accepts", async () => {
    const path = await writeParquetLayout(root);
    const output = join(path, "recipe.yaml");
    const text = await dataInspect(path, { output });
    expect(text).toContain("a table of interactions and a table of items");
    const { data } = loadConfig(output);
    expect(data.columns).toMatchObject({ user: "user_id", item: "item_id", time: "ts", rating: "stars" });
    const { dataset } = await runDataStage(
      root,
      JSON.parse(JSON.stringify({ ...data, minInteractions: 0, split: unsplit })),
    );
    expect(readSequences(dataset)).toEqual({ x: ["p2", "p1"], y: ["p1"] });
  });

  it("says what it would cost, and why; the file holds the reasons too", async () => {
    const path = writeLayout(root, layouts[0] as (typeof layouts)[number]);
    const output = join(path, "recipe.yaml");
    const text = await dataInspect(path, { output });
    expect(text).toMatch(/Estimated cost on this machine, with \d+ idle cores: about \d+ (s|min) and \d\.\d GiB/);
    expect(text).toMatch(/extends: base-sparse.yaml - sparse: 1.0 interactions per item/);
    expect(readFileSync(output, "utf8")).toMatch(
      /^# extends: sparse: 1.0 interactions per item[\s\S]*\nextends: base-sparse.yaml\n/,
    );
    expect(loadConfig(output).rl.steps).toBe(0);
  });

  it("is about the file that was pointed at", async () => {
    const rows = "user_id,item_id,timestamp\nu1,i1,1500000000\nu1,i2,1500000001\nu2,i1,1500000002\n";
    const path = writeLayout(root, { files: { "interactions.csv": rows + rows, "returns.csv": rows } });
    const { found } = await inspect(join(path, "returns.csv"));
    expect(found).toMatchObject({ interactions: "returns.csv", settings: { files: { interactions: "returns.csv" } } });
  });

  it("of files above the limit rests on their first part, and says so", async () => {
    const lines = Array.from({ length: 4000 }, (_, k) => `u${k % 100},i${(k * 7) % 90},${1_500_000_000 + 3600 * k}`);
    const csv = `user_id,item_id,timestamp\n${lines.join("\n")}\n`;
    const path = writeLayout(root, { files: { "a.csv.gz": gzipSync(csv) } });
    const o = await inspect(path, { plainBytes: 1, gzipBytes: 1, cutBytes: 10_000 });
    expect(o.measured?.whole).toBe(false);
    expect(o.measured?.rowsRead).toBeGreaterThan(300);
    expect(renderInspection(o)).toContain("these numbers describe only their first part");
    expect((await inspect(path)).measured).toMatchObject({ whole: true, rowsRead: 4000, users: 100, items: 90 });
  });
});

describe("what it says", () => {
  it("as JSON without the sampled records", async () => {
    const path = writeLayout(root, layouts[0] as (typeof layouts)[number]);
    const told = JSON.parse(await dataInspect(path, { json: true }));
    expect(told.found.layout).toBe("Amazon Reviews 2014");
    expect(told.recipe.data.files).toEqual({ interactions: "reviews_Soap_5.json.gz", items: "meta_Soap.json.gz" });
    expect(JSON.stringify(told)).not.toContain("records");
  });

  it("of an unknown layout: what was seen, and what the table adapter needs", async () => {
    const path = writeLayout(root, { files: { "notes.txt": "hello there, world!\n", "inner/x.csv": "a\n" } });
    const text = await dataInspect(path, {});
    expect(text).toMatch(
      /does not recognise this layout[\s\S]*notes\.txt: hello there[\s\S]*inner[\s\S]*The table adapter reads/,
    );
    await expect(dataInspect(join(root, "nowhere"), {})).rejects.toThrow(/there is no such file or folder/);
  });

  it("of tables that cannot be read as they are: why", async () => {
    const path = writeLayout(root, {
      files: {
        "one.csv": "user_id item_id|x\n",
        "a.zip": "PK",
      },
    });
    const text = await dataInspect(path, {});
    expect(text).toMatch(/one\.csv .*a header without rows/);
    expect(text).toMatch(/a\.zip .*unpack it first/);
  });

  it("of tables in parts: a pattern, which reads them all", async () => {
    const header = "user_id,video_id,date,hourmin,time_ms,is_click\n";
    const rows = (day: number): string =>
      Array.from(
        { length: 30 },
        (_, k) =>
          `${k % 6},${k % 5},2022040${day},900,${1_649_000_000_000 + day * 86_400_000 + k * 1000},${k % 3 ? 1 : 0}\n`,
      ).join("");
    const path = writeLayout(root, {
      files: {
        "log_standard_4_08_to_4_21_1k.csv": header + rows(1),
        "log_standard_4_22_to_5_08_1k.csv": header + rows(2),
        "log_random_4_22_to_5_08_1k.csv": header + rows(3),
        "video_features_basic_1k.csv": "video_id,author_id,tag\n0,1,39\n1,1,3\n2,4,5\n3,2,1\n4,4,7\n",
      },
    });
    const { recipe, measured, found } = await inspect(path);
    expect(readData(recipe).files).toMatchObject({ interactions: "log_standard_4_*_1k.csv" });
    expect(measured).toMatchObject({ whole: true, interactions: 40, malformed: 0 }); // clicks of both parts
    expect(found?.notes.join("\n")).toMatch(
      /are parts of one table[\s\S]*log_random_4_22_to_5_08_1k\.csv contain interactions too/,
    );
    const { dataset } = await runDataStage(root, {
      ...readData(recipe),
      minInteractions: 0,
      repeats: "keep",
      split: unsplit,
    });
    expect(dataset.stats.interactions).toBe(40);
  });

  it("of semicolons, zstd and parts in a folder of exports", async () => {
    const part = (from: number): string =>
      `user_id;item_id;at\n${Array.from({ length: 20 }, (_, k) => `u${k % 4};p${k % 5};${1_700_000_000 + 86_400 * (from + k)}\n`).join("")}`;
    const path = writeLayout(root, {
      files: {
        "orders-2.csv.zst": rawZstd(Buffer.from(part(20))),
        "orders-10.csv.zst": rawZstd(Buffer.from(part(40))),
        "products.csv": `item_id;title\n${[0, 1, 2, 3, 4].map((k) => `p${k};Product ${k}\n`).join("")}`,
      },
    });
    const { recipe, measured, fault } = await inspect(path);
    expect(fault).toBeUndefined();
    expect(readData(recipe)).toMatchObject({ files: { interactions: "orders-*.csv.zst", items: "products.csv" } });
    expect(measured).toMatchObject({ interactions: 40, users: 4, catalogue: 5, unknownItems: 0 });
  });

  it.each([
    ["commas", "ratings.csv", (cells: readonly unknown[]) => cells.join(",")],
    ["tabs", "ratings.tsv", (cells: readonly unknown[]) => cells.join("\t")],
    ["semicolons, compressed", "ratings.csv.gz", (cells: readonly unknown[]) => cells.join(";")],
  ] as const)("of files without a header, %s: columns by number, which read them", async (_, name, line) => {
    const rows = Array.from({ length: 60 }, (_, k) =>
      line([`A${k % 6}`, `B${(k * k + 3 * k) % 10}`, `${1 + (k % 5)}.0`, 1_400_000_000 + 90_000 * k]),
    );
    const goods = Array.from({ length: 10 }, (_, k) => line([`B${k}`, 7 * k, `Thing no. ${k}`, "Home|Lamp"]));
    const text = (lines: readonly string[]): string => lines.map((l) => `${l}\n`).join("");
    const items = name.replace("ratings", "goods");
    const pack = (t: string): string | Uint8Array => (name.endsWith(".gz") ? gzipSync(t) : t);
    const path = writeLayout(root, { files: { [name]: pack(text(rows)), [items]: pack(text(goods)) } });
    const { recipe, measured, found, fault } = await inspect(path);
    expect(fault).toBeUndefined();
    expect(readData(recipe)).toMatchObject({
      files: { interactions: name, items },
      columns: { user: 0, item: 1, time: 3, id: 0, title: 2, categories: 3 },
    });
    expect(found?.notes.join("\n")).toMatch(/has no header line: columns are named by number, from 0/);
    expect(measured).toMatchObject({ interactions: 60, users: 6, catalogue: 10, unknownItems: 0, malformed: 0 });
    const { dataset } = await runDataStage(root, { ...readData(recipe), minInteractions: 0, split: unsplit });
    expect(dataset.items.find((i) => i.id === "B4")).toMatchObject({
      title: "Thing no. 4",
      categories: ["Home", "Lamp"],
    });
  });

  it("of bad rows and unknown items: how many, and where", async () => {
    const rows = Array.from({ length: 30 }, (_, k) => `u${k % 3},i${k % 10},${1_500_000_000 + k}\n`).join("");
    const path = writeLayout(root, {
      files: {
        "interactions.csv": `user_id,item_id,timestamp\n${rows}u1,i1,never\n`,
        "items.csv": "item_id,title\ni0,Zero\ni1,One\ni2,\n",
      },
    });
    const text = await dataInspect(path, {});
    expect(text).toContain("1 malformed rows; the first is interactions.csv:32: time is neither a number");
    expect(text).toContain("70.0 % of the interactions have items missing from the item file"); // i3 .. i9 of i0 .. i9
    expect(text).toContain("items without a title: 33.3 %, without any text: 33.3 %");
  });

  it("recognises logged slates, lists in JSON and lists as text alike", async () => {
    const line = JSON.stringify({ user_id: "u", ts: 1_700_000_000, shown: ["a", "b"], labels: [0, 1] });
    const log = { "log.jsonl": `${line}\n${line}\n` };
    const text = { "log.csv": 'user_id,ts,shown,labels\nu,1700000000,"[""a"", ""b""]","[0, 1]"\n' };
    for (const files of [log, text] as Record<string, string>[]) {
      const { found } = await inspect(
        writeLayout(root, { files: { ...files, "items.csv": "item_id,title\na,A\nb,B\n" } }),
      );
      expect(found?.settings).toEqual({
        adapter: "impressions",
        files: { impressions: Object.keys(files)[0], items: "items.csv" },
        columns: { candidates: "shown", labels: "labels", user: "user_id", time: "ts", id: "item_id", title: "title" },
      });
      expect(found?.more).toEqual({ prerank: { kind: "logged" } });
    }
  });
});

describe("a log with one row per shown item", () => {
  const rows = Array.from({ length: 60 }, (_, k) => {
    const [request, place] = [Math.floor(k / 3), k % 3];
    return `r${request},u${request % 5},${1_700_000_000 + 600 * request},i${(2 * request + place) % 9},${place + 1},${Number(place === request % 3)}\n`;
  });
  const header = "request_id,user_id,ts,item_id,pos,clicked\n";

  it("is told from a table of interactions by requests that several rows share, and what came of each item", async () => {
    const { found } = await inspect(writeLayout(root, { files: { "log.csv": header + rows.join("") } }));
    expect(found?.settings).toEqual({
      adapter: "impressions",
      files: { impressions: "log.csv" },
      columns: { slate: "request_id", label: "clicked", position: "pos", user: "user_id", item: "item_id", time: "ts" },
    });
  });

  it("is a table of interactions when every row is a separate request", async () => {
    const single = rows.map((r, k) => r.replace(/^r\d+/, `r${k}`)).join("");
    const { found } = await inspect(writeLayout(root, { files: { "log.csv": header + single } }));
    expect(found?.settings.adapter).toBe("table");
  });
});

describe("roles", () => {
  const views = (rows: Record<string, unknown>[]) => columnViews(rows);
  it("follow names first, values second, and say which", () => {
    const rows = Array.from({ length: 20 }, (_, k) => ({
      row: k,
      who: `w${k % 3}`,
      what: `x${k % 6}`,
      at: 1_600_000_000 + k,
      stars: 1 + (k % 5),
    }));
    const roles = interactionRoles(views(rows), rows.length);
    expect(roles.user).toMatchObject({ column: "who", byName: false, why: expect.stringContaining("a guess") });
    expect(roles).toMatchObject({
      item: { column: "what" },
      time: { column: "at" },
      rating: { column: "stars", byName: true },
    });
  });

  it("do not take a measure for an ID, nor a price for a time", () => {
    const rows = Array.from({ length: 20 }, (_, k) => ({
      user_id: k % 4,
      price: 9.5 + k,
      product_id: k % 7,
      time: "n/a",
    }));
    expect(interactionRoles(views(rows), rows.length)).toEqual({
      user: { column: "user_id", why: "by its name", byName: true },
      item: { column: "product_id", why: "by its name", byName: true },
    });
  });

  it.each([
    "15/11/2023 10:00",
    "11/15/2023 3:04 PM",
    "15.11.2023",
    "15-Nov-23",
    "Nov 15, 2023",
    "Wed Nov 15 10:00:00 +0000 2023",
    "2023-11-15",
  ])("take %s for a time", (at) => {
    const rows = Array.from({ length: 20 }, (_, k) => ({
      user_id: k % 4,
      item_id: k % 7,
      note: "May be",
      bought_at: at,
    }));
    expect(interactionRoles(views(rows), rows.length).time).toMatchObject({ column: "bought_at" });
  });

  it("match items by what the interactions name", () => {
    const rows = Array.from({ length: 9 }, (_, k) => ({ id: 100 + k, code: `s-${k}`, name: `Thing ${k}`, genre: "x" }));
    const roles = itemRoles(views(rows), rows, "sku", new Set(["s-1", "s-4"]));
    expect(roles).toMatchObject({ id: { column: "code" }, title: { column: "name" }, categories: { column: "genre" } });
  });
});

describe("what came of a row", () => {
  const file = (column: string, values: readonly unknown[]) => {
    const records = values.map((v, k) => ({ user_id: `u${k % 3}`, item_id: `i${k}`, [column]: v }));
    return { name: "x.csv", bytes: 1, format: "csv" as const, lines: [], records, columns: columnViews(records) };
  };
  const of = (column: string, values: readonly unknown[]) => guessOutcome(file(column, values), new Set(["user_id"]));
  it.each([
    ["is_click", ["0", "1", "1", "0"], ["1"]],
    ["clicked", [true, false, true], ["true"]],
    ["label:float", ["1.0", "0.0"], ["1.0"]],
    ["event", ["impression", "click", "impression"], ["click"]],
  ])("%s %j: keep %j", (column, values, keep) => {
    expect(of(column, values)).toMatchObject({ column, keep });
  });
  it("asks where a yes or no of an unknown name may be one", () => {
    expect(of("long_view", ["0", "1", "0"])).toMatchObject({
      note: expect.stringMatching(/long_view = 0 in 67 %.*data\.keep: \{ long_view: \[1\] \}/),
    });
    expect(of("long_view", ["0", "1", "0"])?.keep).toBeUndefined();
    expect(of("verified", ["1", "1", "1", "1", "0"])).toBeUndefined();
  });

  it("asks where kinds of events are all something that people did", () => {
    const told = of("event", ["view", "view", "view", "transaction"]);
    expect(told?.keep).toBeUndefined();
    expect(told?.note).toBe(
      "event contains view (75 %), transaction (25 %): all count as interactions; data.keep: { event: [transaction] } would keep only one kind",
    );
  });
  it.each([
    ["is_click", ["1", "1"]],
    ["rating", ["0", "1"]],
    ["label", ["3", "7"]],
    ["event", Array.from({ length: 30 }, (_, k) => `e${k}`)],
  ])("%s %j: no outcome", (column, values) => {
    expect(of(column, values)).toBeUndefined();
  });
});

describe("advice", () => {
  const core = (shares: Readonly<Record<5 | 3 | 2, number>>, items = 300): Measured["left"] => {
    const of = (share: number) => ({ users: 100, items: Math.round(share * items), interactions: 1000 * share });
    return { 5: of(shares[5]), 3: of(shares[3]), 2: of(shares[2]), 0: of(1) };
  };
  const m: Measured = {
    ...{
      whole: true,
      rowsRead: 1000,
      interactions: 1000,
      malformed: 0,
      users: 100,
      items: 300,
      unknownItems: 0,
      withoutTitle: 0,
      withoutText: 0,
    },
    ...{ positions: false, lengthMean: 10, lengthMedian: 12, lengthMax: 40, repeats: 0, ties: 0, reach: 0.8 },
    left: core({ 5: 0.9, 3: 0.95, 2: 1 }),
    textLength: 60,
    time: { first: 0, last: 100 * 86_400 },
  };
  const chosen = (change: Partial<Measured>, setting: string) =>
    advise({ ...m, ...change }, "table").find((a) => a.setting === setting)?.value;
  const { time: _time, ...clockless } = m;
  it.each([
    ["a clock, and users who come back", {}, "data.split.kind", "global-time"],
    ["a clock over three days", { time: { first: 0, last: 3 * 86_400 } }, "data.split.kind", "position"],
    ["everybody comes once, in one sitting", { reach: 0.1 }, "data.split.kind", "position"],
    ["short sequences", { reach: 0.1, lengthMedian: 6 }, "data.split.kind", "leave-one-out"],
    ["a 5-core", {}, "data.minInteractions", 5],
    ["sparse items", { left: core({ 5: 0.1, 3: 0.72, 2: 0.9 }) }, "data.minInteractions", 3],
    ["nothing left", { left: core({ 5: 0, 3: 0, 2: 0.1 }) }, "data.minInteractions", 0],
    ["many items", { left: core({ 5: 1, 3: 1, 2: 1 }, 12_000) }, "sid.levels", 3],
    ["few items", {}, "sid.codes", 64],
    ["short sequences of many items", {}, "extends", "base-sparse.yaml"],
    ["long sequences of few items", { items: 50, lengthMedian: 30 }, "extends", "base-small.yaml"],
    ["files too large to be read whole", { whole: false }, "extends", "base-large.yaml"],
    ["little to learn from", {}, "midtrain.epochs", 8],
    ["positions instead of times", { positions: true }, "data.clock", false],
  ] as const)("%s: %j -> %s = %s", (_what, change, setting, value) => {
    expect(chosen(change as Partial<Measured>, setting)).toBe(value);
  });
  it("without a clock never asks for a split by time", () => {
    expect(advise(clockless as Measured, "sequences").find((a) => a.setting === "data.split.kind")?.value).toBe(
      "position",
    );
  });
});
