/**
 * A run's test slates and its systems' orders in the formats of trec_eval, which ranx, pytrec_eval and ir-measures read
 * too:
 *   qrels.txt               SLATE 0 ITEM LABEL for all test slates, including the true items of missed slates
 *   qrels.conditional.txt   only slates that hold their true item
 *   SYSTEM.run.txt          SLATE Q0 ITEM RANK SCORE SYSTEM; a slate without a valid answer has no line and counts 0
 * One file is written at a time, slate by slate.
 */
import { join } from "node:path";
import { readTestAnswers } from "../artifacts/orders.ts";
import { DataError } from "../core/errors.ts";
import { loadDataset } from "../data/cache.ts";
import { type Slate, slateLabels } from "../prerank/types.ts";
import { makeFolder, writeAtomic } from "../run/files.ts";
import type { RunFolder } from "../run/run-folder.ts";

export interface TrecFiles {
  /** File names within the folder. */
  readonly qrels: readonly string[];
  readonly runs: readonly string[];
  readonly slates: number;
}

/** Throws RunError unless the run's evaluation is finished. */
export async function writeTrec(run: RunFolder, out: string): Promise<TrecFiles> {
  const { slates, missed, systems } = readTestAnswers(run);
  const { items } = await loadDataset(run.file("stages", "data"));
  const nameItem = (row: number): string => toToken(items[row]?.id ?? "");
  makeFolder(out);
  const held = slates.flatMap((s) => judgements(s, nameItem));
  const lost = missed.map((s) => `${s.id} 0 ${nameItem(s.target)} 1`);
  const qrels = { "qrels.txt": [...held, ...lost], "qrels.conditional.txt": held };
  for (const [name, lines] of Object.entries(qrels)) writeText(join(out, name), lines);
  const runs = Object.entries(systems).map(([system, orders]) => {
    const name = `${system}.run.txt`;
    const lines = slates.flatMap((slate, i) => {
      const order = orders[i] ?? [];
      return order.map(
        (c, rank) =>
          `${slate.id} Q0 ${nameItem(slate.candidates[c] ?? -1)} ${rank + 1} ${order.length - rank} ${system}`,
      );
    });
    writeText(join(out, name), lines);
    return name;
  });
  return { qrels: Object.keys(qrels), runs, slates: slates.length + missed.length };
}

const judgements = (slate: Slate, nameItem: (row: number) => string): string[] =>
  slateLabels(slate).flatMap((label, i) =>
    label > 0 ? [`${slate.id} 0 ${nameItem(slate.candidates[i] ?? -1)} ${whole(label)}`] : [],
  );

function whole(label: number): number {
  if (Number.isInteger(label)) return label;
  throw new DataError(`a candidate has the label ${label}; the labels of qrels are whole numbers`, {
    advice: "Scale the labels of the log to whole numbers.",
  });
}

/** The formats separate fields by blanks, so blanks within ids are written as %20 and the like. */
const toToken = (id: string): string => id.replace(/[\s%]/gu, (c) => encodeURIComponent(c));

const writeText = (path: string, lines: readonly string[]): void =>
  writeAtomic(path, lines.map((line) => `${line}\n`).join(""));
