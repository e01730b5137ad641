/**
 * What happened to the teacher's answers: kept by difficulty, and why others were rejected. From stage traces' summary.
 */
import type { ReportData } from "./data.ts";
import { type Html, html } from "./html.ts";

const positionPrefix = "acceptance_place_";
const reasonPrefix = "rejected_";

export function teacherTables(data: ReportData): Html {
  const summary = data.summaries.traces ?? {};
  const entries = (prefix: string): [string, number][] =>
    Object.entries(summary).flatMap(([k, v]) => (k.startsWith(prefix) ? [[k.slice(prefix.length), v]] : []));
  const positions = entries(positionPrefix);
  const reasons = entries(reasonPrefix).sort((a, b) => b[1] - a[1]);
  const { offered = 0, accepted = 0, meanTries = 0 } = summary;
  if (offered === 0 || positions.length === 0) return html``;
  return html`<section><h2>Reasoning traces</h2>
    <p class="lead">The teacher's answers to ${offered.toLocaleString("en")} slates; ${accepted.toLocaleString("en")} became traces, after ${meanTries.toFixed(2)} answers each.</p>
    <figure class="card"><h3>Kept, by the true item's position in the pre-rank</h3><div class="scroll"><table><thead><tr>${positions.map(([position]) => html`<th>${position}</th>`)}</tr></thead><tbody><tr>${positions.map(([, share]) => html`<td>${(100 * share).toFixed(0)} %</td>`)}</tr></tbody></table></div></figure>
    ${reasons.length > 0 && html`<figure class="card"><h3>Not kept</h3><div class="scroll"><table><thead><tr><th>reason</th><th>answers</th></tr></thead><tbody>${reasons.map(([reason, n]) => html`<tr><td>${reason.replaceAll("_", " ")}</td><td>${n.toLocaleString("en")}</td></tr>`)}</tbody></table></div></figure>`}</section>`;
}
