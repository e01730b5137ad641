/** `gr2 data show`: statistics of a run's data, from stages/data/statistics.json. */
import pc from "picocolors";
import { RunError } from "../core/errors.ts";
import { dateText } from "../data/clock.ts";
import type { DataStatistics } from "../data/statistics.ts";
import { tryReadJson } from "../run/files.ts";
import { RunFolder } from "../run/run-folder.ts";
import { bar, columns, number } from "./format.ts";

export function showData(name: string, { root, json }: { root: string; json?: boolean }): string {
  const file = RunFolder.view(root, name).file("stages", "data", "statistics.json");
  const statistics = tryReadJson(file) as DataStatistics | undefined;
  if (!statistics) throw new RunError(`run ${name} has no data yet`, { advice: "Run the data stage first." });
  return json ? JSON.stringify(statistics) : renderData(statistics);
}

const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;

export function renderData(s: DataStatistics): string {
  const [, q25, median, q75, q90, max] = s.lengths.quantiles;
  const mostUsers = Math.max(1, ...s.lengths.histogram.map((b) => b.users));
  const dropped = Object.entries(s.dropped);
  const parts = [
    `${pc.bold(s.name)}: ${s.users} users, ${s.items} items, ` +
      `${s.interactions} interactions from ${s.rowsRead} rows read`,
    s.time ? `from ${dateText(s.time.first)} to ${dateText(s.time.last)}` : "no timestamps: times are positions",
    ...s.notes,
    ...(dropped.length > 0 ? ["", columns([["dropped", "rows"], ...dropped.map(([why, n]) => [why, String(n)])])] : []),
    "",
    columns([
      ["segment", "interactions", "users", "items", "cold items", "cold interactions"],
      ...s.segments.map((g) => [
        g.segment,
        String(g.interactions),
        String(g.users),
        String(g.items),
        g.segment === "midtrain" ? "" : String(g.coldItems),
        g.segment === "midtrain"
          ? ""
          : `${g.coldInteractions} (${percent(g.coldInteractions / Math.max(1, g.interactions))})`,
      ]),
    ]),
    "cold: not in the training data of that segment's pre-ranker",
    "",
    `sequence length: mean ${number(s.lengths.mean)}, quartiles ${q25} / ${median} / ${q75}, 90 % below ${q90}, ` +
      `longest ${max}`,
    ...s.lengths.histogram.map(
      (b) =>
        `  ${(b.from === b.to ? `${b.from}` : `${b.from}-${b.to}`).padStart(11)}  ${bar(b.users / mostUsers, 30)} ` +
        `${b.users}`,
    ),
    "",
    `popularity: the most popular 10 % of the items have ` +
      `${percent(s.popularity.topTenth)} of the interactions (Gini ${s.popularity.gini.toFixed(3)})`,
    ...(s.popularity.unused > 0 ? [`${s.popularity.unused} items without an interaction`] : []),
    `repeats: ${percent(s.repeatShare)} of the interactions; ties: ${percent(s.tieShare)} of steps have equal times`,
    `items without a title: ${s.itemsWithoutTitle}, without any text: ${s.itemsWithoutText}`,
  ];
  return parts.join("\n");
}
