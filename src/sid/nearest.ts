/** Nearest items in embedding space, by cosine, exhaustively: for reports and to show what a new item resembles. */

/** Row-major float32 [rows, cols]. */
interface Points {
  readonly rows: number;
  readonly cols: number;
  readonly data: Float32Array;
}

export interface Near {
  readonly row: number;
  /** Cosine, in [-1, 1]; 0 where an embedding is all zeros. */
  readonly similarity: number;
}

/**
 * The `count` rows of `points` nearest to each query, nearest first, ties to the lower row. Costs queries x rows x
 * cols.
 * @param itself per query, its own row in `points`, which is left out
 */
export function nearestRows(
  points: Points,
  queries: Points,
  count: number,
  itself?: readonly (number | undefined)[],
): Near[][] {
  if (points.cols !== queries.cols)
    throw new RangeError(`queries have ${queries.cols} dimensions, the points ${points.cols}`);
  const norms = Float64Array.from({ length: points.rows }, (_, row) => dot(points, row, points, row) ** 0.5);
  return Array.from({ length: queries.rows }, (_, query) => {
    const norm = dot(queries, query, queries, query) ** 0.5;
    const best: Near[] = [];
    for (let row = 0; row < points.rows; row++) {
      if (row === itself?.[query]) continue;
      const length = norm * (norms[row] as number);
      const similarity = length > 0 ? dot(queries, query, points, row) / length : 0;
      if (best.length === count && similarity <= (best[count - 1] as Near).similarity) continue;
      const index = best.findIndex((n) => similarity > n.similarity);
      best.splice(index < 0 ? best.length : index, 0, { row, similarity });
      if (best.length > count) best.pop();
    }
    return best;
  });
}

function dot(a: Points, i: number, b: Points, j: number): number {
  const { data: x, cols } = a;
  const y = b.data;
  const [p, q] = [i * cols, j * cols];
  let sum = 0;
  for (let d = 0; d < cols; d++) sum += (x[p + d] as number) * (y[q + d] as number);
  return sum;
}
