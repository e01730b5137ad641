/** The table of a semantic-ID ablation: cells (row x seed) -> mean and spread per row -> Markdown. Pure. */

/** One measured cell, as stored in its file. */
export interface AblationCell {
  readonly row: string;
  readonly seed: number;
  /** Settings the row changes. */
  readonly changes: Readonly<Record<string, unknown>>;
  readonly metrics: Readonly<Record<string, number>>;
  /** Wall-clock seconds by part. */
  readonly seconds: Readonly<Record<string, number>>;
}

export interface Spread {
  readonly mean: number;
  /** Sample standard deviation; 0 for one seed. */
  readonly sd: number;
  readonly min: number;
  readonly max: number;
  readonly n: number;
}

export interface AblationRow {
  readonly row: string;
  readonly changes: AblationCell["changes"];
  readonly seeds: readonly number[];
  readonly metrics: Readonly<Record<string, Spread>>;
}

export function measureSpread(values: readonly number[]): Spread {
  const n = values.length;
  const mean = values.reduce((a, b) => a + b, 0) / n;
  const squares = values.reduce((a, v) => a + (v - mean) ** 2, 0);
  return { mean, sd: n > 1 ? Math.sqrt(squares / (n - 1)) : 0, min: Math.min(...values), max: Math.max(...values), n };
}

/** Rows in the given order; a metric counts if every seed of the row has it. Adds `usage` and `seconds`. */
export function summariseAblation(cells: readonly AblationCell[], order: readonly string[]): AblationRow[] {
  return order.flatMap((row) => {
    const own = cells.filter((c) => c.row === row).sort((a, b) => a.seed - b.seed);
    const first = own[0];
    if (first === undefined) return [];
    const numbers = own.map(allNumbers);
    const names = Object.keys(numbers[0] ?? {}).filter((name) => numbers.every((m) => name in m));
    const metrics = Object.fromEntries(
      names.map((name) => [name, measureSpread(numbers.map((m) => m[name] as number))]),
    );
    return [{ row, changes: first.changes, seeds: own.map((c) => c.seed), metrics }];
  });
}

/** `usage`: mean over levels of the share of codes in use; `seconds`: of the whole cell. */
function allNumbers(cell: AblationCell): Record<string, number> {
  const levels = Object.entries(cell.metrics).filter(([name]) => /^usage_\d+$/.test(name));
  const usage = levels.reduce((sum, [, value]) => sum + value, 0) / levels.length;
  const seconds = Object.values(cell.seconds).reduce((a, b) => a + b, 0);
  return { ...cell.metrics, ...(levels.length > 0 ? { usage } : {}), seconds };
}

const columns: readonly { head: string; metric: string; scale: number; digits: number }[] = [
  { head: "unique, %", metric: "uniqueness", scale: 100, digits: 2 },
  { head: "unique by nearest codes, %", metric: "uniqueness_nearest", scale: 100, digits: 2 },
  { head: "items in collisions", metric: "colliding_items", scale: 1, digits: 0 },
  { head: "variance lost, %", metric: "reconstruction", scale: 100, digits: 1 },
  { head: "codes in use, %", metric: "usage", scale: 100, digits: 1 },
  { head: "R@10", metric: "recall_at_10", scale: 1, digits: 4 },
  { head: "N@10", metric: "ndcg_at_10", scale: 1, digits: 4 },
];

/** A Markdown table, mean ± standard deviation over seeds; "–" where nothing was measured. */
export function ablationMarkdown(rows: readonly AblationRow[]): string {
  const number = (spread: Spread | undefined, scale: number, digits: number): string => {
    if (spread === undefined) return "–";
    const text = (value: number): string => (scale * value).toFixed(digits);
    return spread.n > 1 ? `${text(spread.mean)} ± ${text(spread.sd)}` : text(spread.mean);
  };
  const lines = [
    ["row", "changes", "seeds", ...columns.map((c) => c.head)],
    ["---", "---", "---:", ...columns.map(() => "---:")],
    ...rows.map((r) => [
      r.row,
      Object.entries(r.changes)
        .map(([key, value]) => `\`${key.replace(/^sid\./, "")}=${String(value)}\``)
        .join(" ") || "–",
      String(r.seeds.length),
      ...columns.map((c) => number(r.metrics[c.metric], c.scale, c.digits)),
    ]),
  ];
  return `${lines.map((cells) => `| ${cells.join(" | ")} |`).join("\n")}\n`;
}
