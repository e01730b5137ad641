/** metrics.json as a table for the terminal. */
import pc from "picocolors";
import { findSystem } from "../eval/systems.ts";
import { columns } from "./format.ts";

interface Row {
  readonly system: string;
  readonly slice: string;
  readonly metric: string;
  readonly value: number;
}

interface Comparison extends Omit<Row, "value"> {
  readonly baseline: string;
  readonly delta: number;
  readonly ci_low: number;
  readonly ci_high: number;
}

/** The part of metrics.json shown here. */
export interface ResultsFile {
  readonly rows: readonly (Row & { readonly n: number })[];
  readonly comparisons: readonly Comparison[];
  readonly health?: Readonly<Record<string, number>>;
  readonly selected?: { readonly system: string };
}

/** Systems by metrics on conditional slates, with the paired N@5 difference to the pre-rank. */
export function resultsTable(results: ResultsFile): string {
  const rows = results.rows.filter((r) => r.slice === "conditional");
  const systems = [...new Set(rows.map((r) => r.system))];
  const metrics = [...new Set(rows.map((r) => r.metric))];
  const value = (system: string, metric: string) => rows.find((r) => r.system === system && r.metric === metric)?.value;
  const lift = (system: string, baseline = "prerank") => {
    const c = results.comparisons.find(
      (x) => x.system === system && x.baseline === baseline && x.slice === "conditional" && x.metric === "N@5",
    );
    return c ? `${signed(c.delta)} [${signed(c.ci_low)}, ${signed(c.ci_high)}]` : "";
  };
  const table = columns([
    ["system", ...metrics, "ΔN@5 vs pre-rank [95 %]"],
    ...systems.map((s) => [
      s === results.selected?.system ? `${s} *` : s,
      ...metrics.map((m) => value(s, m)?.toFixed(4) ?? ""),
      lift(s),
    ]),
  ]);
  const [head = "", ...body] = table.split("\n");
  const legend = [
    `${rows[0]?.n ?? 0} ${metrics.includes("AUC") ? "logged test slates" : "test slates whose true item is among the candidates"}; paired bootstrap over users.`,
    results.selected ? "* chosen on validation." : "",
  ];
  const added = systems
    .flatMap((s) => (findSystem(s)?.comparedWith ?? []).map((sft) => [s, sft] as const))
    .filter(([s, sft]) => lift(s, sft) !== "")
    .map(([s, sft]) => `${s} over ${sft} ${lift(s, sft)}`);
  if (added.length > 0) legend.push(`ΔN@5 by RL: ${added.join("; ")}.`);
  return [pc.bold(head), ...body, pc.dim(legend.filter(Boolean).join(" "))].join("\n");
}

const signed = (x: number): string => `${x < 0 ? "−" : "+"}${Math.abs(x).toFixed(4)}`;
