import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { nearestRows } from "../../../src/sid/nearest.ts";

const points = (...rows: number[][]) => ({
  rows: rows.length,
  cols: rows[0]?.length ?? 0,
  data: Float32Array.from(rows.flat()),
});

describe("nearestRows", () => {
  it("goes by angle, not by length, and leaves out the query itself", () => {
    const all = points([1, 0], [5, 5], [0, 2], [-1, 0]);
    // From (1, 0): 45 degrees to (5, 5), 90 to (0, 2), 180 to (-1, 0).
    const [found] = nearestRows(all, points([1, 0]), 3, [0]);
    expect(found?.map((n) => n.row)).toEqual([1, 2, 3]);
    expect(found?.[0]?.similarity).toBeCloseTo(Math.SQRT1_2);
    expect(nearestRows(all, points([1, 0]), 1)).toEqual([[{ row: 0, similarity: 1 }]]);
    expect(nearestRows(all, points([0, 0]), 2)[0]).toEqual([
      { row: 0, similarity: 0 },
      { row: 1, similarity: 0 },
    ]);
    expect(() => nearestRows(all, points([1, 0, 0]), 1)).toThrow("3 dimensions, the points 2");
  });

  it("equals sorting everything", () => {
    const vector = fc.array(fc.integer({ min: -3, max: 3 }), { minLength: 2, maxLength: 2 });
    const several = fc.array(vector, { minLength: 1, maxLength: 12 });
    fc.assert(
      fc.property(several, vector, fc.integer({ min: 1, max: 5 }), (rows, query, count) => {
        const cosine = (row: number[]): number => {
          const [x, y, p, q] = [...row, ...query] as [number, number, number, number];
          const length = Math.sqrt(p * p + q * q) * Math.sqrt(x * x + y * y);
          return length > 0 ? (0 + p * x + q * y) / length : 0; // never -0
        };
        const sorted = rows
          .map((row, i) => ({ row: i, similarity: cosine(row) }))
          .sort((a, b) => b.similarity - a.similarity || a.row - b.row);
        const [found] = nearestRows(points(...rows), points(query), count);
        expect(found).toEqual(sorted.slice(0, count));
      }),
    );
  });
});
