/**
 * report.html: one self-contained page about a run. No scripts, no external requests; every text from data
 * or from a model is escaped.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { RunError } from "../core/errors.ts";
import { hashJson } from "../core/hash.ts";
import { writeAtomic } from "../run/files.ts";
import { type ReportData, readReportData } from "./data.ts";
import { dataFigures } from "./data-figures.ts";
import { behaviourFigures, comparisonFigure, costFigures, identifierFigures, trainingFigures } from "./figures.ts";
import { escapeHtml, type Html, html, raw } from "./html.ts";
import { hero, provenance, resultTables, slates } from "./sections.ts";
import { style } from "./style.ts";
import { teacherTables } from "./teacher.ts";

/** Increase when the page changes: reports of older code are then redrawn. */
const layout = 5;

/**
 * Writes `run`/report.html and returns its path. Keeps it if it already shows exactly this data, unless forced.
 * Throws RunError if the run has no metrics.json yet.
 */
export async function writeReport(run: string, options: { force?: boolean } = {}): Promise<string> {
  const data = readReportData(run);
  if (!data) {
    throw new RunError(`${run} has no metrics.json yet: there is nothing to report`, {
      advice: "Run the pipeline through stage evaluate first.",
    });
  }
  const path = join(run, "report.html");
  const fingerprint = computeFingerprint(data);
  if (options.force || !isCurrent(path, fingerprint)) writeAtomic(path, await renderReport(data, fingerprint));
  return path;
}

/** The whole page. */
export async function renderReport(data: ReportData, fingerprint = computeFingerprint(data)): Promise<string> {
  const body: Html[] = [
    hero(data),
    resultTables(data),
    await comparisonFigure(data),
    await trainingFigures(data),
    await behaviourFigures(data),
    teacherTables(data),
    slates(data.examples),
    await dataFigures(data),
    await identifierFigures(data),
    await costFigures(data),
    provenance(data),
  ];
  const { run } = data.metrics;
  return html`${raw("<!doctype html>")}
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<meta name="gr2-fingerprint" content="${fingerprint}">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>GR2 · ${run}</title><style>${raw(style)}</style></head>
<body><main><header class="top"><h1>Generative Reasoning Re-ranker</h1><span class="run">run ${run} · seed ${data.metrics.seed}</span></header>
${body}</main></body></html>
`.markup;
}

/** Fingerprint of what the page shows, without times that change at every rerun. */
function computeFingerprint(data: ReportData): string {
  const { manifest, ...rest } = data;
  const stable = manifest && {
    code: manifest.code,
    data: manifest.data,
    stages: Object.entries(manifest.stages).map(([name, s]) => [name, s.key, s.seconds]),
  };
  return hashJson(JSON.parse(JSON.stringify([layout, stable ?? null, rest])));
}

function isCurrent(path: string, fingerprint: string): boolean {
  try {
    return readFileSync(path, "utf8").includes(`name="gr2-fingerprint" content="${escapeHtml(fingerprint)}"`);
  } catch {
    return false;
  }
}
