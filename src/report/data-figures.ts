/** The page's section on the data: rows read and dropped, segments, lengths, popularity. */
import { dateText } from "../data/clock.ts";
import type { DataStatistics } from "../data/statistics.ts";
import type { ReportData } from "./data.ts";
import { figure, section } from "./figures.ts";
import { type Html, html } from "./html.ts";
import * as plots from "./plots.ts";

const count = (n: number): string => n.toLocaleString("en");
const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;

export async function dataFigures({ statistics: s }: ReportData): Promise<Html> {
  if (!s) return html``;
  const lengths = s.lengths.histogram.map((b) => ({
    name: b.from === b.to ? String(b.from) : `${b.from}–${b.to}`,
    value: b.users,
    label: count(b.users),
  }));
  const [, q25, median, q75] = s.lengths.quantiles;
  const when = s.time ? `, ${dateText(s.time.first)} to ${dateText(s.time.last)}` : ", without times";
  return section(
    "Data",
    `${count(s.users)} users, ${count(s.items)} items, ${count(s.interactions)} interactions${when}.`,
    [
      segmentTable(s),
      await figure(
        "Sequence lengths",
        lengths.length > 0 ? plots.bars(lengths, { x: "users", color: plots.palette.indigo }) : undefined,
        `Interactions per user: mean ${s.lengths.mean.toFixed(1)}, quartiles ${q25}, ${median}, ${q75}.`,
      ),
      await figure(
        "Popularity",
        plots.concentration(s.popularity.curve.map((p) => ({ x: p.items, y: p.interactions }))),
        `The most popular 10 % of the items have ${percent(s.popularity.topTenth)} of the interactions; ` +
          `Gini ${s.popularity.gini.toFixed(3)}. Dashed: all items equally popular.`,
      ),
      factTable(s),
    ],
  );
}

function segmentTable(s: DataStatistics): Html {
  return html`<figure class="card wide"><h3>Segments</h3><div class="scroll"><table><thead><tr><th>segment</th><th>interactions</th><th>users</th><th>items</th><th>cold items</th><th>cold interactions</th></tr></thead><tbody>${s.segments.map(
    (g) =>
      html`<tr><td>${g.segment}</td><td>${count(g.interactions)}</td><td>${count(g.users)}</td><td>${count(g.items)}</td>${
        g.segment === "midtrain"
          ? html`<td>–</td><td>–</td>`
          : html`<td>${count(g.coldItems)}</td><td>${count(g.coldInteractions)}<small>${percent(g.coldInteractions / Math.max(1, g.interactions))}</small></td>`
      }</tr>`,
  )}</tbody></table></div><figcaption>Cold: not in the training data of that segment's pre-ranker, which therefore cannot propose them.</figcaption></figure>`;
}

function factTable(s: DataStatistics): Html {
  const facts: [string, string][] = [
    ["rows read", count(s.rowsRead)],
    ...Object.entries(s.dropped).map(([why, n]): [string, string] => [`dropped: ${why}`, count(n)]),
    ["repeats, of interactions", percent(s.repeatShare)],
    ["equal times, of steps", percent(s.tieShare)],
    ["items without a title", count(s.itemsWithoutTitle)],
    ["items without any text", count(s.itemsWithoutText)],
    ...(s.popularity.unused > 0
      ? [["items without an interaction", count(s.popularity.unused)] as [string, string]]
      : []),
  ];
  return html`<figure class="card wide"><h3>Rows read</h3><div class="scroll"><table><tbody>${facts.map(
    ([name, value]) => html`<tr><td>${name}</td><td>${value}</td></tr>`,
  )}</tbody></table></div>${s.notes.length > 0 && html`<figcaption>${s.notes.join("; ")}</figcaption>`}</figure>`;
}
