/** The uniqueness gate (GR2 v1: at least 99 % of items have an ID of their own): what caused a failure, with advice. */
import { RunError } from "../core/errors.ts";
import type { SidReport } from "./report.ts";

export interface GateSettings {
  readonly minUniqueness: number;
  readonly randomLastLevel: boolean;
  readonly method: "rqvae" | "rqkmeans";
  readonly kmeansInit: boolean;
  readonly emaDecay: number;
  readonly deadCodeResetEpochs: number;
}

/** Below this share of codes in use, collisions are blamed on unused codes. */
const lowUsage = 0.5;

/** Throws RunError if too many items share their ID. */
export function checkUniqueness(report: SidReport, settings: GateSettings): void {
  if (report.uniqueness >= settings.minUniqueness) return;
  const groups = report.collisions.slice(0, 3).map(({ titles }) => {
    const named = titles.slice(0, 3).map((title) => `"${title.slice(0, 60) || "untitled"}"`);
    return named.join(" and ") + (titles.length > named.length ? ` and ${titles.length - named.length} more` : "");
  });
  throw new RunError(
    `only ${(100 * report.uniqueness).toFixed(2)} % of items have a semantic ID of their own, sid.minUniqueness requires ` +
      `${100 * settings.minUniqueness} %; ${report.numCollidingItems} items share ${report.numCollisions} IDs, for example ${groups.join("; ")}`,
    { advice: `${explainCollisions(report, settings)} All collisions: gr2 sid report NAME.` },
  );
}

/** What to change, given what went wrong. */
export function explainCollisions(report: SidReport, settings: GateSettings): string {
  const { numItems, capacity, codes, levels, largestBucket } = report;
  if (capacity < numItems)
    return `${codes} codes on ${levels} levels give ${capacity} IDs for ${numItems} items: raise sid.codes or sid.levels.`;
  if (settings.randomLastLevel)
    return `There are ${capacity} IDs for ${numItems} items, yet some collide: raise sid.codes or sid.levels.`;
  const random = "switch on sid.randomLastLevel (GR2 v1: +28.7 points)";
  const unused = report.perLevel.filter((l) => l.usage < lowUsage);
  if (settings.method === "rqvae" && unused.length > 0) {
    const remedies = [
      ...(settings.kmeansInit ? [] : ["switch on sid.kmeansInit"]),
      ...(settings.emaDecay > 0 ? [] : ["set sid.emaDecay to 0.95"]),
      ...(settings.deadCodeResetEpochs > 0 ? [] : ["set sid.deadCodeResetEpochs to 5"]),
      random,
    ];
    const which = unused.map((l) => `level ${l.level + 1} uses ${l.numUsed} of ${codes} codes`).join(", ");
    return `Codes are unused (${which}): ${remedies.join(", ")}.`;
  }
  if (largestBucket.numItems > codes)
    return (
      `${largestBucket.numItems} items share all codes but the last, which has ${codes}: ${random}, ` +
      "which moves items that do not fit to the nearest prefix, or raise sid.codes or sid.levels."
    );
  return `The last code is the nearest one, so similar items collide: ${random}.`;
}
