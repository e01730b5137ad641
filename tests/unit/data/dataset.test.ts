import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { sha256File } from "../../../src/core/hash.ts";
import { itemId, userId } from "../../../src/core/ids.ts";
import { Rng } from "../../../src/core/rng.ts";
import { loadDataset, saveDataset } from "../../../src/data/cache.ts";
import { buildDataset, statistics } from "../../../src/data/dataset.ts";
import { openDuck } from "../../../src/data/duck.ts";
import type { PrepareOptions } from "../../../src/data/prepare.ts";
import type { Dataset } from "../../../src/data/types.ts";

const path = mkdtempSync(join(tmpdir(), "gr2-dataset-"));
afterAll(() => rmSync(path, { recursive: true, force: true }));

const keepAll: PrepareOptions = { minUserInteractions: 0, minItemInteractions: 0, repeats: "keep" };
type Row = readonly [user: string, item: string, time: number];
function build(rows: readonly Row[], prepare: Partial<PrepareOptions> = {}, extra = {}): Promise<Dataset> {
  writeFileSync(join(path, "a.csv"), `u,i,t\n${rows.map((r) => `${r.join(",")}\n`).join("")}`);
  return buildDataset({
    name: "t",
    source: { kind: "table", path, interactions: "a.csv", columns: { user: "u", item: "i", time: "t" } },
    prepare: { ...keepAll, ...prepare },
    neutralise: (s) => s,
    neutraliseId: "none",
    ...extra,
  });
}
const pairs = (d: Dataset): string[] =>
  d.sequences.flatMap((s) => Array.from(s.items, (i) => `${s.user}:${d.items[i]?.id}`)).sort();

/** The plain definition of an iterated k-core, to compare with. */
function kCore(rows: readonly Row[], k: number): string[] {
  let left = [...rows];
  for (;;) {
    const count = (key: 0 | 1, value: string) => left.filter((r) => r[key] === value).length;
    const next = left.filter((r) => count(0, r[0]) >= k && count(1, r[1]) >= k);
    if (next.length === left.length) return next.map((r) => `${r[0]}:${r[1]}`).sort();
    left = next;
  }
}

describe("cleaning", () => {
  it("iterates k-core to the same fixed point as the definition", async () => {
    const rng = Rng.of(5, "k-core");
    const rows: Row[] = [];
    const seen = new Set<string>();
    while (rows.length < 250) {
      const row: Row = [
        `u${Math.floor(40 * rng.uniform() ** 2)}`,
        `i${Math.floor(60 * rng.uniform() ** 2)}`,
        rows.length,
      ];
      if (!seen.has(row[0] + row[1])) rows.push(row);
      seen.add(row[0] + row[1]);
    }
    const expected = kCore(rows, 4);
    expect(expected.length).toBeGreaterThan(0);
    expect(expected.length).toBeLessThan(rows.length);
    const d = await build(rows, { minUserInteractions: 4, minItemInteractions: 4 });
    expect(pairs(d)).toEqual(expected);
    expect(d.stats.dropped).toEqual({ "below k-core": rows.length - expected.length });
  });

  it("applies each repeat policy", async () => {
    const rows: Row[] = [
      ["u", "a", 1],
      ["u", "a", 1],
      ["u", "a", 2],
      ["u", "b", 3],
      ["u", "a", 4],
    ];
    const ids = async (repeats: PrepareOptions["repeats"]) => {
      const d = await build(rows, { repeats });
      return Array.from(d.sequences[0]?.items ?? [], (i) => d.items[i]?.id).join("");
    };
    expect(await ids("keep")).toBe("aaba");
    expect(await ids("no-consecutive")).toBe("aba");
    expect(await ids("first")).toBe("ab");
    expect(await ids("last")).toBe("ba");
  });

  it("keeps the latest interactions under a cap and reports an empty result", async () => {
    const rows: Row[] = [
      ["u", "a", 1],
      ["u", "b", 2],
      ["u", "c", 3],
    ];
    expect(pairs(await build(rows, { maxPerUser: 2 }))).toEqual(["u:b", "u:c"]);
    await expect(build(rows, { minUserInteractions: 9 })).rejects.toThrow(/No interactions are left from 3 rows/);
  });
});

describe("rows and order", () => {
  const rows: Row[] = Array.from({ length: 60 }, (_, k) => [`u${k % 3}`, `i${k}`, Math.floor(k / 20)] as const);

  it("does not depend on the order of the file", async () => {
    const a = await build(rows);
    const b = await build([...rows].reverse());
    expect(a.items.map((i) => i.id)).toEqual(b.items.map((i) => i.id));
    expect(a.sequences).toEqual(b.sequences);
  });

  it("breaks ties by user and item: two users order the same tied items differently", async () => {
    const tied: Row[] = ["x", "y"].flatMap((u) => Array.from({ length: 12 }, (_, k): Row => [u, `i${k}`, 7]));
    const d = await build(tied);
    expect(d.stats.tieShare).toBe(1);
    expect(Array.from(d.sequences[0]?.items ?? [])).not.toEqual(Array.from(d.sequences[1]?.items ?? []));
  });

  it("numbers items without following the file, popularity or ids", async () => {
    const d = await build(rows);
    const numbers = d.items.map((i) => Number(String(i.id).slice(1)));
    const steps = numbers.filter((n, k) => n === (numbers[k - 1] ?? Number.NaN) + 1).length;
    expect(steps).toBeLessThan(8);
  });

  it("passes every text through the neutraliser and hashes its version", async () => {
    writeFileSync(join(path, "texts.jsonl"), JSON.stringify({ item_id: "i0", title: "<b>", categories: ["<c>", ""] }));
    const source = {
      kind: "table",
      path,
      interactions: "a.csv",
      items: "texts.jsonl",
      columns: { user: "u", item: "i", time: "t" },
    } as const;
    const safe = { source, neutralise: (s: string) => s.replaceAll("<", ""), neutraliseId: "v1" };
    const d = await build(rows, {}, safe);
    expect(d.items).toMatchObject([{ id: "i0", title: "b>", categories: ["c>"] }]);
    expect((await build(rows, {}, { ...safe, neutraliseId: "v2" })).hash).not.toBe(d.hash);
  });
});

describe("cache", () => {
  it("gives back what was saved, and refuses damage", async () => {
    const d = await build([
      ["u", "a", 1.5],
      ["u", "b", 2],
      ["v", "b", 1],
    ]);
    const folder = join(path, "cache", d.hash);
    const files = await saveDataset(d, folder);
    expect(await loadDataset(folder)).toEqual(d);
    expect(readdirSync(folder).sort()).toEqual(files.map((f) => basename(f)).sort()); // no impressions, nothing unfinished
    for (const file of files.filter((f) => f.endsWith(".parquet"))) {
      const bytes = readFileSync(file);
      const damaged = Buffer.from(bytes);
      damaged[9] = (damaged[9] ?? 0) ^ 1;
      writeFileSync(file, damaged);
      await expect(loadDataset(folder)).rejects.toMatchObject({
        message: expect.stringContaining(`${file} is damaged`),
        advice: expect.stringContaining("--fresh"),
      });
      rmSync(file);
      await expect(loadDataset(folder)).rejects.toThrow(`${file} cannot be read`);
      writeFileSync(file, bytes);
    }
    expect(await loadDataset(folder)).toEqual(d);
    writeFileSync(join(folder, "dataset.json"), '{"format": 1}');
    await expect(loadDataset(folder)).rejects.toThrow(/does not have format/);
    const none = join(path, "none");
    await expect(loadDataset(none)).rejects.toThrow(`${join(none, "dataset.json")} cannot be read`);
  });

  it("keeps every bit and character, and equal data are equal bytes", async () => {
    // 5,000 rows, three blocks; users without an interaction at the start, in the middle and at the end.
    const lengths = [0, 1, 2047, 0, 2952, 0];
    const odd = [-0, 0, 2 ** 53, -(2 ** 31), 0.1, 5e-324, Number.POSITIVE_INFINITY];
    let at = 0;
    const sequences = lengths.map((length, row) => ({
      user: userId(`u ${row}'"`),
      items: Int32Array.from({ length }, () => at++ % 3),
      times: Float64Array.from({ length }, (_, k) => odd[(k + row) % odd.length] as number),
    }));
    const texts = ["", "\u0000", "naïve 東京 \u{1f600}\n\t'\"", "x".repeat(100_000)];
    const items = texts.map((text, row) => ({
      id: itemId(`i${row}`),
      title: text,
      brand: text,
      categories: texts.slice(row),
      description: text,
    }));
    const d: Dataset = { name: "odd", hash: "h", items, sequences, stats: statistics(items, sequences, 5000, {}) };
    const [one, two] = [join(path, "one"), join(path, "two")];
    const files = await saveDataset(d, one);
    const loaded = await loadDataset(one);
    expect(loaded).toEqual(d);
    expect(new Set(loaded.sequences.map((s) => s.items.buffer)).size).toBe(1);
    expect(new Set(loaded.sequences.map((s) => s.times.buffer)).size).toBe(1);
    await saveDataset(loaded, two);
    for (const file of files) expect(await sha256File(join(two, basename(file)))).toBe(await sha256File(file));
  });

  it("is a table to anyone who reads Parquet", async () => {
    const d = await build([
      ["u", "a", 1.5],
      ["u", "b", 2],
      ["v", "b", 1],
    ]);
    const folder = join(path, "open");
    await saveDataset(d, folder);
    const duck = await openDuck();
    const rows = await duck.rows(`SELECT users.id AS u, items.id AS i, time FROM '${folder}/interactions.parquet' n
      JOIN '${folder}/users.parquet' users ON users.row = n.user JOIN '${folder}/items.parquet' items ON items.row = n.item
      ORDER BY u, time`);
    duck.close();
    expect(rows).toEqual([
      { u: "u", i: "a", time: 1.5 },
      { u: "u", i: "b", time: 2 },
      { u: "v", i: "b", time: 1 },
    ]);
  });
});
