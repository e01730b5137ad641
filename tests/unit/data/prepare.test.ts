/** Cleaning in DuckDB against the same cleaning written plainly, on small random tables full of ties and repeats. */
import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { DataError } from "../../../src/core/errors.ts";
import { type BuildOptions, buildDataset } from "../../../src/data/dataset.ts";
import { openDuck } from "../../../src/data/duck.ts";
import type { PrepareOptions } from "../../../src/data/prepare.ts";
import type { Dataset } from "../../../src/data/types.ts";

const path = mkdtempSync(join(tmpdir(), "gr2-prepare-"));
afterAll(() => rmSync(path, { recursive: true, force: true }));

type Row = readonly [user: string, item: string, time: number, rating: number];

const source: BuildOptions["source"] = {
  kind: "table",
  path,
  interactions: "a.csv",
  columns: { user: "u", item: "i", time: "t", rating: "r" },
};

function build(rows: readonly Row[], prepare: PrepareOptions, more: Partial<BuildOptions> = {}): Promise<Dataset> {
  writeFileSync(join(path, "a.csv"), `u,i,t,r\n${rows.map((r) => `${r.join(",")}\n`).join("")}`);
  return buildDataset({ name: "t", source, prepare, neutralise: (s) => s, neutraliseId: "none", ...more });
}

const readSequences = (d: Dataset): Record<string, string[]> =>
  Object.fromEntries(
    d.sequences.map((s) => [s.user, Array.from(s.items, (i, k) => `${d.items[i]?.id}@${s.times[k]}`)]),
  );

const tie = ([u, i]: Row): string => createHash("md5").update(`${u}\u001f${i}`).digest("hex");
const inOrder = (rows: readonly Row[]): Row[] =>
  [...rows].sort((a, b) => a[2] - b[2] || (tie(a) < tie(b) ? -1 : tie(a) > tie(b) ? 1 : 0));
const perUser = (rows: readonly Row[], f: (own: Row[]) => Row[]): Row[] =>
  [...new Set(rows.map((r) => r[0]))].flatMap((u) => f(inOrder(rows.filter((r) => r[0] === u))));
const onceEach = (rows: readonly Row[], key: (r: Row) => string): Row[] => [
  ...new Map([...rows].reverse().map((r) => [key(r), r])).values(),
];

/** Definition of the cleaning, one rule after the other; rows dropped by reason. */
function plainly(rows: readonly Row[], o: PrepareOptions): { rows: Row[]; dropped: Record<string, number> } {
  const dropped: Record<string, number> = {};
  let left = [...rows];
  const leave = (reason: string, next: Row[]): boolean => {
    const gone = left.length - next.length;
    if (gone > 0) dropped[reason] = (dropped[reason] ?? 0) + gone;
    left = next;
    return gone > 0;
  };
  leave(
    "below minimum rating",
    left.filter((r) => o.minRating === undefined || r[3] >= o.minRating),
  );
  leave(
    "duplicate",
    onceEach(left, (r) => r.slice(0, 3).join()),
  );
  if (o.repeats === "first" || o.repeats === "last") {
    const sorted = inOrder(left);
    leave(
      "repeat",
      onceEach(o.repeats === "first" ? sorted : sorted.reverse(), (r) => `${r[0]} ${r[1]}`),
    );
  }
  if (o.repeats === "no-consecutive")
    leave(
      "consecutive repeat",
      perUser(left, (own) => own.filter((r, k) => r[1] !== own[k - 1]?.[1])),
    );
  const { maxPerUser } = o;
  if (maxPerUser !== undefined)
    leave(
      "beyond the cap per user",
      perUser(left, (own) => own.slice(-maxPerUser)),
    );
  const atLeast = (key: 0 | 1, k: number): Row[] =>
    left.filter((r) => left.filter((other) => other[key] === r[key]).length >= k);
  while (
    leave("below k-core", atLeast(1, o.minItemInteractions)) ||
    leave("below k-core", atLeast(0, o.minUserInteractions))
  );
  return { rows: left, dropped };
}

const someRows = fc.array(
  fc.tuple(
    fc.nat(5).map((n) => `u${n}`),
    fc.nat(6).map((n) => (n === 6 ? "i,6" : `i${n}`)),
    fc.nat(4),
    fc.nat(4),
  ),
  { minLength: 20, maxLength: 60, size: "max" },
);
const someOptions: fc.Arbitrary<PrepareOptions> = fc.record(
  {
    minRating: fc.nat(2),
    minUserInteractions: fc.nat(4),
    minItemInteractions: fc.nat(4),
    repeats: fc.constantFrom("keep", "first", "last", "no-consecutive"),
    maxPerUser: fc.integer({ min: 1, max: 8 }),
  },
  { requiredKeys: ["minUserInteractions", "minItemInteractions", "repeats"] },
);

/** Items of which nothing is left keep their rows. */
const whole: Partial<BuildOptions> = { catalogue: "all", source: { ...source, items: "catalogue.csv" } };

describe("cleaning", () => {
  it("gives the rows, their order and the counts of the plain definition", async () => {
    let kept = 0;
    writeFileSync(
      join(path, "catalogue.csv"),
      `i,title\n${[0, 1, 2, 3, 4, 5].map((n) => `i${n},T\n`).join("")}"i,6",T\n`,
    );
    await fc.assert(
      fc.asyncProperty(someRows, someOptions, fc.boolean(), async (rows, options, all) => {
        const quoted = rows.map(([u, i, t, r]): Row => [u, i === "i,6" ? '"i,6"' : i, t, r]);
        const expected = plainly(rows, options);
        if (expected.rows.length === 0) {
          await expect(build(quoted, options, all ? whole : {})).rejects.toThrow(/No interactions are left from/);
          return;
        }
        kept++;
        const d = await build(quoted, options, all ? whole : {});
        expect(d.items.length).toBe(all ? 7 : new Set(expected.rows.map((r) => r[1])).size);
        const sequences: Record<string, string[]> = {};
        for (const [u, i, t] of inOrder(expected.rows)) sequences[u] = [...(sequences[u] ?? []), `${i}@${t}`];
        expect(readSequences(d)).toEqual(sequences);
        expect(d.stats.dropped).toEqual(expected.dropped);
        expect(d.stats.interactions).toBe(expected.rows.length);
      }),
      { numRuns: 30, seed: 7 },
    );
    expect(kept).toBeGreaterThan(15);
  });
});

describe("little memory", () => {
  // 150,000 rows with two ids of a hundred letters: 30 MB, beside the 30 MB that reading CSV takes.
  const long = "x".repeat(90);
  const rows = Array.from(
    { length: 150_000 },
    (_, k): Row => [`${long}${(k * 7919) % 10_007}`, `${long}${(k * 104_729) % 5003}`, k % 50, 1],
  );
  const duck = { memoryMb: 40, threads: 1 };
  const options: PrepareOptions = { minUserInteractions: 5, minItemInteractions: 5, repeats: "first" };
  const ofThisProcess = () => readdirSync(tmpdir()).filter((name) => name.startsWith(`gr2-duckdb-${process.pid}-`));

  it("gives the same data set, by way of the disk, and leaves nothing there", async () => {
    const roomy = await build(rows, options);
    const tight = await build(rows, options, { duck });
    expect(tight.stats).toEqual(roomy.stats);
    expect(readSequences(tight)).toEqual(readSequences(roomy));
    expect(ofThisProcess()).toEqual([]);
  });

  it("says what to do when the disk is full, and leaves nothing there", async () => {
    const small = await openDuck({ ...duck, spillMb: 1 });
    // 500,000 hashes take 16 MB or more: not all six tables fit.
    const fill = async () => {
      for (let n = 0; n < 6; n++)
        await small.run(`CREATE TEMP TABLE t${n} AS SELECT md5('${n} ' || k) AS s FROM range(500000) AS numbers(k)`);
    };
    const error = await fill().catch((e: unknown) => e);
    expect(error).toBeInstanceOf(DataError);
    expect(String(error)).toMatch(/The disk is full.*gr2-duckdb-/);
    expect((error as DataError).advice).toContain("TMPDIR");
    small.close();
    expect(ofThisProcess()).toEqual([]);
  });
});

describe("malformed rows", () => {
  it("are all counted, but only the first ten thousand are kept", async () => {
    const good = Array.from({ length: 15_000 }, (_, k) => `u${k % 7},i${k},${k},1\n`);
    // Every second line is broken, in turn: no time, a column too many.
    const lines = good.map((row, k) => row + (k % 2 ? `u,i,never,1\n` : `u,i,1,1,1\n`));
    writeFileSync(join(path, "a.csv"), `u,i,t,r\n${lines.join("")}`);
    const quarantineFile = join(path, "quarantine.jsonl");
    const prepare: PrepareOptions = { minUserInteractions: 0, minItemInteractions: 0, repeats: "keep" };
    const all = { name: "t", source, prepare, quarantineFile, neutralise: (s: string) => s, neutraliseId: "none" };
    const d = await buildDataset({ ...all, maxBadShare: 0.5 });
    expect(d.stats).toMatchObject({ rowsRead: 30_000, interactions: 15_000, dropped: { malformed: 15_000 } });
    const kept = readFileSync(quarantineFile, "utf8").trim().split("\n");
    // Line 1 is the header, 2 good, 3 broken, 4 good, 5 broken, ...
    expect(kept.map((l) => (JSON.parse(l) as { line: number }).line)).toEqual(kept.map((_, k) => 3 + 2 * k));
    expect(kept).toHaveLength(10_000);
    await expect(buildDataset(all)).rejects.toMatchObject({
      message: expect.stringMatching(/15000 of 30000 rows are malformed.*the first is .*a\.csv:3: /),
      advice: expect.stringContaining("The first 10000 are in"),
    });
  });
});
