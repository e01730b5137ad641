/** `gr2 sid report`: the quality of a run's semantic IDs, from stages/sid/report.json. */
import pc from "picocolors";
import { RunError } from "../core/errors.ts";
import { tryReadJson } from "../run/files.ts";
import { RunFolder } from "../run/run-folder.ts";
import type { SidReport } from "../sid/report.ts";
import { columns, number, plain } from "./format.ts";

export function showSidReport(name: string, { root, json }: { root: string; json?: boolean }): string {
  const report = tryReadJson(RunFolder.view(root, name).file("stages", "sid", "report.json")) as SidReport | undefined;
  if (!report) throw new RunError(`run ${name} has no semantic IDs yet`, { advice: "Run the sid stage first." });
  if (json) return JSON.stringify(report);
  return renderSidReport({ ...report, examples: report.examples ?? [], fit: report.fit ?? {} }); // missing in older runs
}

export function renderSidReport(r: SidReport): string {
  const percent = (share: number): string => `${(100 * share).toFixed(2)} %`;
  const parts = [
    `${pc.bold(percent(r.uniqueness))} of ${r.numItems} items have a unique semantic ID`,
    `${r.levels} levels of ${r.codes} codes: ${r.capacity} possible IDs; ` +
      `at most ${r.largestBucket.numItems} items share all codes but the last`,
    "",
    columns([
      ["level", "codes used", "usage", "perplexity", "most used"],
      ...r.perLevel.map((l) => [
        String(l.level + 1),
        `${l.numUsed} of ${r.codes}`,
        percent(l.usage),
        number(l.perplexity),
        `${l.mostUsed.code} (${l.mostUsed.numItems} items)`,
      ]),
    ]),
  ];
  const shared = r.prefixPurity.filter((p) => p.numShared > 0); // none without categories
  if (shared.length > 0)
    parts.push(
      "",
      "items with the same first codes: do they belong to the same category?",
      columns([
        ["codes shared", "prefixes", "items", "purity", "same category", "by chance"],
        ...shared.map((p) => [
          String(p.depth),
          String(p.numPrefixes),
          String(p.numShared),
          percent(p.purity),
          percent(p.agreement),
          percent(p.chance),
        ]),
      ]),
    );
  const lost = (name: string): string => percent(r.fit[name] ?? Number.NaN);
  if (r.fit.reconstruction !== undefined)
    parts.push(
      "",
      `reconstruction error: ${lost("reconstruction")} of the embeddings' variance lost by the nearest codes` +
        (r.fit.reconstruction_assigned === undefined
          ? ""
          : `, ${lost("reconstruction_assigned")} by the assigned codes`),
    );
  if (r.fit.uniqueness_nearest !== undefined)
    parts.push(
      `nearest codes alone: ${lost("uniqueness_nearest")} unique, ` +
        `at most ${number(r.fit.largest_bucket ?? 0)} items under one prefix; ` +
        `${number(r.fit.moved_items ?? 0)} items moved out of a full one`,
    );
  if (r.neighbourSharing.length > 0)
    parts.push(
      "",
      "items with similar embeddings: do they share their first codes?",
      columns([
        ["codes shared", "with neighbours", "by chance"],
        ...r.neighbourSharing.map((n) => [String(n.depth), percent(n.shared), percent(n.chance)]),
      ]),
    );
  if (r.examples.length > 0)
    parts.push(
      "",
      "some items and their nearest neighbours (codes shared, cosine):",
      ...r.examples.flatMap((e) => [
        `  [${e.codes.join(", ")}]  ${plain(e.title, 60)}`,
        ...e.nearest.map(
          (n) => `      ${n.sharedCodes}  ${n.similarity.toFixed(2)}  [${n.codes.join(", ")}]  ${plain(n.title, 60)}`,
        ),
      ]),
    );
  if (r.numCollisions === 0) parts.push("", "no two items share an ID");
  else {
    const more = r.numCollisions - r.collisions.length;
    parts.push(
      "",
      `${r.numCollidingItems} items share ${r.numCollisions} ID${r.numCollisions === 1 ? "" : "s"}:`,
      ...r.collisions.map((c) => `  [${c.codes.join(", ")}]  ${c.titles.map((t) => plain(t, 60)).join(" | ")}`),
      ...(more > 0 ? [`  and ${more} more`] : []),
    );
  }
  return parts.join("\n");
}
