/** `gr2 compare`: differences between runs, as text, Markdown or JSON. */
import { compareRuns, type Difference, type Outcome, parseMetric, type RunComparison } from "../commands/compare.ts";
import { ConfigError } from "../core/errors.ts";
import { duration, plain } from "./format.ts";
import { type Format, renderTables, signed, signedInterval, type Table } from "./tables.ts";

export interface CompareArguments {
  readonly root: string;
  readonly metric: string;
  readonly json?: boolean;
  readonly markdown?: boolean;
}

export function compare(sides: readonly string[], args: CompareArguments): string {
  if (sides.length < 2)
    throw new ConfigError(`gr2 compare ${sides.join(" ")}: there is nothing to compare with`, {
      advice: "Name two or more runs; runs joined by commas are averaged.",
    });
  const comparison = compareRuns({ ...args, sides, metric: parseMetric(args.metric) });
  return args.json ? JSON.stringify(comparison) : renderComparison(comparison, args.markdown ? "markdown" : "text");
}

function renderComparison(c: RunComparison, format: Format): string {
  const labels = c.sides.map((s) => s.label);
  return renderTables(
    [
      about(c),
      differences("settings", labels, c.settings, "the settings are the same"),
      ...(c.machines.length > 0 ? [differences("packages and hardware", labels, c.machines, "")] : []),
      ...c.outcomes.map((o) => outcome(o, c)),
      ...(c.outcomes.length > 0 ? [] : [alone(c, labels)]),
      costs(c, labels),
    ],
    format,
  );
}

function about({ sides, code }: RunComparison): Table {
  const list = (values: readonly unknown[]): string => [...new Set(values.map(String))].join(", ");
  return {
    title: "runs",
    rows: [
      ["", ...sides.map((s) => s.label)],
      ...(sides.some((s) => s.runs.length > 1) ? [["runs", ...sides.map((s) => list(s.runs))]] : []),
      ["seed", ...sides.map((s) => list(s.seeds))],
      ["code", ...sides.map((s) => list(s.code))],
      ["data", ...sides.map((s) => list(s.data))],
      ["deploy", ...sides.map((s) => list(s.recommended))],
    ],
    note:
      code.length > 0 ? `the code of these stages differs: ${code.join(", ")}` : "the code of all stages is the same",
  };
}

function differences(title: string, labels: readonly string[], list: readonly Difference[], none: string): Table {
  const show = (value: unknown): string =>
    plain(value === null ? "–" : typeof value === "string" ? value : JSON.stringify(value), 60);
  return {
    title,
    rows: [["", ...labels], ...list.map((d) => [d.name, ...d.values.map((side) => side.map(show).join(", "))])],
    ...(list.length === 0 ? { note: none } : {}),
  };
}

function outcome(o: Outcome, { metric, sides }: RunComparison): Table {
  const [first = "", ...others] = sides.map((s) => s.label);
  const seeds = o.systems.some((s) => s.deltas.some((d) => d.both));
  const counts = [...new Set(o.slates.flat())].sort((a, b) => a - b);
  const n = [counts[0], ...(counts.length > 1 ? [counts.at(-1)] : [])].join(" to ");
  const what =
    o.slice === "end_to_end"
      ? `all ${n} test slates, misses count as 0`
      : `the ${n} test slates that contain their true item`;
  return {
    title: `${metric}, ${what}`,
    rows: [
      [
        "system",
        first,
        ...others.flatMap((label) => [label, "Δ", "95 % users", ...(seeds ? ["95 % users and seeds"] : [])]),
      ],
      ...o.systems.map((s) => [
        s.system,
        (s.sides[0]?.value ?? 0).toFixed(4),
        ...s.deltas.flatMap((d, i) => [
          (s.sides[i + 1]?.value ?? 0).toFixed(4),
          signed(d.value),
          signedInterval(d.users),
          ...(seeds ? [d.both ? signedInterval(d.both) : ""] : []),
        ]),
      ]),
    ],
    note: `Δ to ${first}, paired over ${o.users} users.`,
  };
}

function alone({ metric, alone }: RunComparison, labels: readonly string[]): Table {
  return {
    title: `${metric}, test slates that contain their true item`,
    rows: [
      ["system", ...labels],
      ...Object.entries(alone).map(([s, values]) => [s, ...values.map((v) => v.toFixed(4))]),
    ],
    note: "The runs have no test slate in common: differences have no intervals.",
  };
}

function costs({ seconds, tokens }: RunComparison, labels: readonly string[]): Table {
  const total = labels.map((_, i) => Object.values(seconds).reduce((sum, s) => sum + (s[i] ?? 0), 0));
  const read = Object.entries(tokens).filter(([, values]) => values.some((v) => v > 0));
  return {
    title: "costs",
    rows: [
      ["", ...labels],
      ...Object.entries(seconds).map(([stage, values]) => [stage, ...values.map(duration)]),
      ["all stages", ...total.map(duration)],
      ...read.map(([system, values]) => [`tokens per request, ${system}`, ...values.map((v) => v.toFixed(0))]),
    ],
  };
}
