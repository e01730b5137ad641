/** Cleaning in DuckDB against the same cleaning written plainly, on small random tables full of ties and repeats. */
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { type BuildOptions, buildDataset } from "../../../src/data/dataset.ts";
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

const sequencesOf = (d: Dataset): Record<string, string[]> =>
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

describe("cleaning", () => {
  it("gives the rows, their order and the counts of the plain definition", async () => {
    let kept = 0;
    await fc.assert(
      fc.asyncProperty(someRows, someOptions, async (rows, options) => {
        const quoted = rows.map(([u, i, t, r]): Row => [u, i === "i,6" ? '"i,6"' : i, t, r]);
        const expected = plainly(rows, options);
        if (expected.rows.length === 0) {
          await expect(build(quoted, options)).rejects.toThrow(/No interaction is left of/);
          return;
        }
        kept++;
        const d = await build(quoted, options);
        const sequences: Record<string, string[]> = {};
        for (const [u, i, t] of inOrder(expected.rows)) sequences[u] = [...(sequences[u] ?? []), `${i}@${t}`];
        expect(sequencesOf(d)).toEqual(sequences);
        expect(d.stats.dropped).toEqual(expected.dropped);
        expect(d.stats.interactions).toBe(expected.rows.length);
      }),
      { numRuns: 30, seed: 7 },
    );
    expect(kept).toBeGreaterThan(15);
  });
});
