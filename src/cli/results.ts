/** metrics.json as a table for the terminal. */
import pc from "picocolors";
import { describeCosts, formatGain, type HeadlineSource, headlineNumbers } from "../eval/recommend.ts";
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

/** The part of metrics.json that is shown. */
export interface ResultsFile extends HeadlineSource {
  readonly rows: readonly (Row & { readonly n: number })[];
  readonly comparisons: readonly Comparison[];
  readonly health?: Readonly<Record<string, number>>;
  readonly alarms?: readonly string[];
  readonly selected?: { readonly system: string };
}

/**
 * The recommendation with its numbers and costs, then systems by metric: N@5 on all slates first, then on those that
 * contain the true item, with the paired difference from the pre-rank.
 */
export function resultsTable(results: ResultsFile): string {
  const rows = results.rows.filter((r) => r.slice === "conditional");
  const all = results.rows.filter((r) => r.slice === "end_to_end");
  const systems = [...new Set(rows.map((r) => r.system))];
  const metrics = [...new Set(rows.map((r) => r.metric))];
  const valueIn = (of: readonly Row[], system: string, metric: string): string =>
    of.find((r) => r.system === system && r.metric === metric)?.value.toFixed(4) ?? "";
  const lift = (system: string, baseline = "prerank") => {
    const c = results.comparisons.find(
      (x) => x.system === system && x.baseline === baseline && x.slice === "conditional" && x.metric === "N@5",
    );
    return c ? `${signed(c.delta)} [${signed(c.ci_low)}, ${signed(c.ci_high)}]` : "";
  };
  const table = columns([
    ["system", ...(all.length > 0 ? ["N@5 all"] : []), ...metrics, "ΔN@5 vs pre-rank [95 %]"],
    ...systems.map((s) => [
      s === results.selected?.system ? `${s} *` : s,
      ...(all.length > 0 ? [valueIn(all, s, "N@5")] : []),
      ...metrics.map((m) => valueIn(rows, s, m)),
      lift(s),
    ]),
  ]);
  const [head = "", ...body] = table.split("\n");
  const legend = [
    all.length > 0 ? `N@5 all: on all ${all[0]?.n} test slates, misses included.` : "",
    `${all.length > 0 ? "The others: " : ""}${rows[0]?.n ?? 0} ${metrics.includes("AUC") ? "logged test slates" : "test slates whose true item is among the candidates"}; paired bootstrap over users.`,
    results.selected ? "* recommended." : "",
  ];
  const added = systems
    .flatMap((s) => (findSystem(s)?.comparedWith ?? []).map((sft) => [s, sft] as const))
    .filter(([s, sft]) => lift(s, sft) !== "")
    .map(([s, sft]) => `${s} over ${sft} ${lift(s, sft)}`);
  if (added.length > 0) legend.push(`ΔN@5 by training: ${added.join("; ")}.`);
  const alarms = (results.alarms ?? []).map((text) => pc.red(`! ${text}`));
  return [...headline(results), pc.bold(head), ...body, pc.dim(legend.filter(Boolean).join(" ")), ...alarms].join("\n");
}

/** What to deploy, its gain and its cost; empty for a run of an earlier version. */
function headline(results: HeadlineSource): string[] {
  const { recommendation: r } = results;
  if (!r) return [];
  const shown = headlineNumbers(r);
  const width = Math.max(...shown.map(({ label }) => label.length));
  const numbers = shown.map(({ label, what, row }) => `${label.padEnd(width)}  ${formatGain(row)}  ${pc.dim(what)}`);
  return [pc.bold(r.sentence), ...numbers, pc.dim(describeCosts(results).join(" ")), ""];
}

const signed = (x: number): string => `${x < 0 ? "−" : "+"}${Math.abs(x).toFixed(4)}`;
