/** The page's text and tables. Every statement follows from the numbers, good or bad. */
import {
  describeCosts,
  formatGain,
  type HeadlineNumber,
  headlineNumbers,
  type Recommendation,
} from "../eval/recommend.ts";
import { findSystem, isPolicy } from "../eval/systems.ts";
import type { ComparisonRow, MetricRow, Slice } from "../eval/table.ts";
import type { Example, ReportData } from "./data.ts";
import { type Html, html } from "./html.ts";
import { judgeInterval } from "./plots.ts";

/** N@5 first: systems are chosen by it, and a narrow screen has room only for it. */
const metricOrder = ["N@5", "R@1", "R@3", "R@5", "N@3", "MRR", "AUC"] as const;

const signed = (x: number, digits = 4): string => `${x < 0 ? "−" : "+"}${Math.abs(x).toFixed(digits)}`;
const percent = (x: number, digits = 1): string => `${(100 * x).toFixed(digits)} %`;

/** The difference between a system and a baseline in one metric. */
const computeLift = (
  data: ReportData,
  system: string,
  metric: string,
  slice: Slice = "conditional",
  baseline = "prerank",
): ComparisonRow | undefined =>
  data.metrics.comparisons.find(
    (c) => c.system === system && c.baseline === baseline && c.slice === slice && c.metric === metric,
  );

/** The system chosen on validation; without a choice, the one with the highest lower bound among GR2's. */
function headlineSystem(data: ReportData): string | undefined {
  if (data.metrics.selected) return data.metrics.selected.system;
  const lifts = data.metrics.comparisons.filter(
    (c) =>
      c.baseline === "prerank" &&
      c.slice === "conditional" &&
      c.metric === "N@5" &&
      isPolicy(c.system, data.metrics.systems),
  );
  return lifts.sort((a, b) => b.ci_low - a.ci_low)[0]?.system;
}

/** What to deploy, its three main numbers, and its cost. */
export function hero(data: ReportData): Html {
  const { recommendation: r, health } = data.metrics;
  const seconds = Object.values(data.metrics.timings).reduce((a, b) => a + b, 0);
  const tiles: [string | undefined, string][] = [
    [r?.over_ranker.n.toLocaleString("en"), "test slates"],
    [health.sid_uniqueness === undefined ? undefined : percent(health.sid_uniqueness), "unique semantic IDs"],
    [health.valid_rate === undefined ? undefined : percent(health.valid_rate), "valid answers (lowest system)"],
    [health.identity_rate === undefined ? undefined : percent(health.identity_rate), "input order copied"],
    [minutes(seconds), "all stages"],
  ];
  const alarms = data.metrics.alarms ?? [];
  const warned = alarms.length > 0 && html`<ul class="bad">${alarms.map((text) => html`<li>${text}</li>`)}</ul>`;
  return html`<section class="card hero">${r ? recommended(data, r) : earlier(data)}${warned}<div class="tiles">${tiles
    .filter(([value]) => value !== undefined)
    .map(([value, label]) => html`<div class="tile"><b>${value}</b><span>${label}</span></div>`)}</div></section>`;
}

function recommended(data: ReportData, r: Recommendation): Html {
  const chosen =
    r.leader === r.system
      ? html`It was the best on validation.`
      : html`On validation ${r.leader} was ahead by ${formatGain(r.margin)}, which is not above zero for certain, and ${r.system} is cheaper.`;
  const number = ({ label, what, row }: HeadlineNumber): Html => {
    const verdict = judgeInterval(row);
    return html`<div><span class="unit">${label}</span><div class="big ${verdict === "better" ? "good" : verdict === "worse" ? "bad" : ""}">${signed(row.delta)}</div><div class="ci">N@5 [${signed(row.ci_low)}, ${signed(row.ci_high)}]</div><small>${what}, ${signed(100 * row.relative, 1)} %</small></div>`;
  };
  return html`<p class="verdict">${r.sentence}</p>
    <div class="numbers">${headlineNumbers(r).map(number)}</div>
    <p>${chosen} Numbers are on test, with paired 95 % intervals over users. ${describeCosts(data.metrics).join(" ")}</p>`;
}

/** For a run evaluated by an earlier version: its chosen system against the pre-rank. */
function earlier(data: ReportData): Html {
  const system = headlineSystem(data);
  const lift = system === undefined ? undefined : computeLift(data, system, "N@5");
  if (!lift) return html`<div class="big">—</div><p>No system of this run could be compared with the pre-rank.</p>`;
  const verdict = judgeInterval(lift);
  return html`<div class="big ${verdict === "better" ? "good" : verdict === "worse" ? "bad" : ""}">${signed(lift.delta)}<span class="unit">N@5 over the pre-rank</span></div>
      <div class="ci">95 % interval [${signed(lift.ci_low)}, ${signed(lift.ci_high)}] · ${signed(100 * lift.relative, 1)} % relative · p ${pValue(lift.p)}</div>
      <p>${verdictText(system as string, verdict, Boolean(data.metrics.selected))} Rerun the evaluation for a recommendation.</p>`;
}

function verdictText(system: string, verdict: string, selected: boolean): Html {
  const who = html`<strong>${system}</strong>${selected ? ", the system chosen on validation," : ""}`;
  if (verdict === "better")
    return html`${who} puts the true next item higher than the pre-rank does; the paired interval over users is above zero.`;
  if (verdict === "worse")
    return html`${who} is worse than the pre-rank: its paired interval over users is below zero.`;
  return html`${who} is not distinguishable from the pre-rank: the paired interval over users contains zero.`;
}

const pValue = (p: number): string => (p < 0.001 ? "< 0.001" : `= ${p.toFixed(3)}`);
const minutes = (s: number): string => (s < 90 ? `${Math.round(s)} s` : `${(s / 60).toFixed(1)} min`);

const sliceText: Readonly<Record<Slice, [title: string, text: string]>> = {
  conditional: ["True item among the candidates", "what re-ranking can change"],
  end_to_end: ["All slates", "every system scores 0 where the pre-ranker missed the true item"],
};

/** Systems by metrics with intervals, one tab per slice. */
export function resultTables(data: ReportData): Html {
  const slices = (["end_to_end", "conditional"] as const).filter((s) => data.metrics.rows.some((r) => r.slice === s));
  return html`<section><h2>Results</h2>
    <p class="lead">Test slates, evaluated once. Small print: 95 % bootstrap intervals over users; differences in N@5 are paired.</p>
    <div class="card tabs">${slices.map(
      (s, i) =>
        html`<input type="radio" name="slice" id="slice-${s}" ${i === 0 ? "checked" : ""}><label for="slice-${s}">${sliceText[s][0]}</label>`,
    )}${slices.map((s) => html`<div class="panel">${resultTable(data, s)}</div>`)}</div></section>`;
}

/** The baselines for N@5 that the run has: the input order, the best pre-ranker, evidence alone. */
function differences(data: ReportData): { readonly baseline: string; readonly title: string }[] {
  const preranker = data.metrics.best_preranker;
  return [
    { baseline: "prerank", title: "Δ pre-rank" },
    ...(preranker ? [{ baseline: preranker, title: `Δ ${preranker}` }] : []),
    { baseline: "evidence", title: "Δ evidence" },
  ].filter(({ baseline }) => data.metrics.comparisons.some((c) => c.baseline === baseline));
}

function resultTable(data: ReportData, slice: Slice): Html {
  const rows = data.metrics.rows.filter((r) => r.slice === slice);
  const systems = [...new Set(rows.map((r) => r.system))];
  const chosen = headlineSystem(data);
  const theirs = [...new Set(rows.map((r) => r.metric))].filter((m) => !metricOrder.some((ours) => ours === m));
  const metrics = [...metricOrder.filter((m) => rows.some((r) => r.metric === m)), ...theirs];
  const isControl = (system: string): boolean => findKind(data, system) === "control";
  const best = new Map(
    metrics.map((m) => [
      m,
      Math.max(...rows.filter((r) => r.metric === m && !isControl(r.system)).map((r) => r.value)),
    ]),
  );
  const cell = (r: MetricRow | undefined): Html =>
    r
      ? html`<td class="${!isControl(r.system) && r.value === best.get(r.metric) ? "best" : ""}">${r.value.toFixed(4)}<small>${r.ci_low.toFixed(3)}–${r.ci_high.toFixed(3)}</small></td>`
      : html`<td>–</td>`;
  const compared = differences(data);
  const [first, ...others] = metrics;
  const valueCell = (system: string, metric: string): Html =>
    cell(rows.find((r) => r.system === system && r.metric === metric));
  const line = (system: string): Html =>
    html`<tr class="${system === chosen ? "chosen" : ""} ${isControl(system) ? "control" : ""}"><td>${system}${system === chosen && html`<span class="tag">${data.metrics.recommendation ? "recommended" : "chosen"}</span>`}<small>${describeSystem(data, system)}</small></td>${first && valueCell(system, first)}${compared.map(({ baseline }) => liftCell(computeLift(data, system, "N@5", slice, baseline)))}${others.map((m) => valueCell(system, m))}</tr>`;
  return html`<p class="lead">${(rows[0]?.n ?? 0).toLocaleString("en")} slates; ${sliceText[slice][1]}.</p><div class="scroll"><table class="results"><thead><tr><th>system</th><th>${first ?? ""}</th>${compared.map(({ title }) => html`<th>${title}</th>`)}${others.map((m) => html`<th>${m}</th>`)}</tr></thead><tbody>${systems.map(line)}</tbody></table></div>`;
}

function liftCell(c: ComparisonRow | undefined): Html {
  if (!c) return html`<td>–</td>`;
  const verdict = judgeInterval(c);
  return html`<td class="${verdict === "better" ? "good" : verdict === "worse" ? "bad" : ""}">${signed(c.delta)}<small>${signed(c.ci_low, 3)} … ${signed(c.ci_high, 3)}</small></td>`;
}

/** Slates of each kind shown directly; the others are folded away. */
const shownSlates = 2;

const findMove = (e: Example): { readonly from: number; readonly to: number } => ({
  from: e.before.indexOf(e.target) + 1,
  to: e.after.indexOf(e.target) + 1,
});

/** Slates before and after, with the answer's reasoning if there is one: gained and lost side by side. */
export function slates(examples: readonly Example[]): Html {
  if (examples.length === 0) return html``;
  const isGain = (e: Example): boolean => findMove(e).to > 0 && findMove(e).to < findMove(e).from;
  const gained = examples.filter(isGain);
  const kept = examples.filter((e) => findMove(e).to === findMove(e).from);
  const lost = examples.filter((e) => !isGain(e) && !kept.includes(e));
  const first = [...gained.slice(0, shownSlates), ...lost.slice(0, shownSlates)];
  const rest = examples.filter((e) => !first.includes(e));
  return html`<section><h2>Slates, before and after</h2>
    <p class="lead">${examples.length} test slates of ${examples[0]?.system ?? ""}, drawn at random before anything was evaluated: the true item gained in ${gained.length}, lost in ${lost.length}, stayed in ${kept.length}. It is marked; arrows count the positions an item moved.</p>
    ${first.map(slate)}
    ${rest.length > 0 && html`<details class="more"><summary>${rest.length} more slates</summary>${rest.map((e, i) => slate(e, i + first.length))}</details>`}</section>`;
}

function slate(e: Example, index: number): Html {
  const isTrue = (i: number): boolean => (e.labels ? (e.labels[i] ?? 0) > 0 : i === e.target);
  const { from, to } = findMove(e);
  const move = to === 0 ? "left out" : to === from ? `stays at ${to}` : `${from} → ${to}`;
  const tone = to === 0 || to > from ? "bad" : to < from ? "good" : "";
  const order = (indices: readonly number[], showMoves: boolean): Html =>
    html`<ol>${indices.map((i) => {
      const c = e.candidates[i];
      const up = e.before.indexOf(i) - e.after.indexOf(i);
      return html`<li class="${isTrue(i) ? "target" : ""}"><span class="t" title="${c?.sid ?? ""}">${c?.title ?? "?"}</span>${showMoves && up !== 0 && html`<span class="d ${!isTrue(i) ? "" : up > 0 ? "good" : "bad"}">${up > 0 ? "▲" : "▼"} ${Math.abs(up)}</span>`}</li>`;
    })}</ol>`;
  const reasoning = e.reasoning.trim();
  return html`<article class="card slate"><header><h3>Slate ${index + 1} <span class="tag">${e.system}</span></h3><span class="move ${tone}">true item ${move}</span></header>
    <p class="history">History, latest last: ${e.history.map((t) => html`<span>${t}</span>`)}</p>
    <div class="orders"><div><h4>Pre-rank</h4>${order(e.before, false)}</div><div><h4>Re-ranked</h4>${order(e.after, true)}</div></div>
    ${reasoning !== "" && html`<div class="reasoning">${reasoning}</div>`}</article>`;
}

/** The run's health numbers as a table, one row per system. */
export function healthTable(data: ReportData): Html {
  const kinds = ["valid_rate", "fault_rate", "identity_rate", "kendall_tau", "tokens"] as const;
  const { health } = data.metrics;
  const systems = [...new Set(data.metrics.rows.map((r) => r.system))].filter((s) => `${s}_valid_rate` in health);
  if (systems.length === 0) return html``;
  const show = (value: number | undefined, kind: string): string =>
    value === undefined
      ? "–"
      : kind.endsWith("rate")
        ? percent(value)
        : kind === "tokens"
          ? value.toFixed(0)
          : value.toFixed(3);
  return html`<figure class="card"><h3>Answers on test</h3><div class="scroll"><table><thead><tr><th>system</th><th>valid</th><th>bad reasoning</th><th>copied</th><th>Kendall τ</th><th>tokens</th></tr></thead><tbody>${systems.map(
    (s) => html`<tr><td>${s}</td>${kinds.map((k) => html`<td>${show(health[`${s}_${k}`], k)}</td>`)}</tr>`,
  )}</tbody></table></div><figcaption>Valid: a complete permutation of the slate, after sound reasoning where there is any. Bad reasoning: it repeats itself, hits its limit, contains special tokens or copies the prompt. Copied: the answer is the input order (Kendall τ 1).</figcaption></figure>`;
}

/** Steps of a run whose gain can be measured: the N@5 of a system minus that of the system before it. */
const steps = [
  { name: "evidence", stages: ["candidates", "slates", "evidence"], system: "evidence", baseline: "prerank" },
  { name: "mid-training", stages: ["embed", "sid", "midtrain"], system: "direct", baseline: "prior" },
  { name: "SFT", stages: ["traces", "calibrate", "sft"], system: "sft_direct", baseline: "direct" },
  { name: "RL", stages: ["rl"], system: "rl_direct", baseline: "sft_direct" },
  { name: "RL, with reasoning", stages: ["rl"], system: "rl", baseline: "sft" },
] as const;

/** Minutes and test gain of each step. */
export function worthTable(data: ReportData): Html {
  const { timings } = data.metrics;
  const rows = steps.flatMap(({ name, stages, system, baseline }) => {
    const lift = computeLift(data, system, "N@5", "conditional", baseline);
    const seconds = stages.reduce((sum, stage) => sum + (timings[stage] ?? 0), 0);
    return lift && seconds > 0
      ? [
          html`<tr><td>${name}<small>${stages.join(", ")}</small></td><td>${minutes(seconds)}</td>${liftCell(lift)}<td>${system} over ${baseline}</td></tr>`,
        ]
      : [];
  });
  if (rows.length === 0) return html``;
  return html`<figure class="card"><h3>Time and gain of each step</h3><div class="scroll"><table><thead><tr><th>step</th><th>time</th><th>Δ N@5</th><th>on test</th></tr></thead><tbody>${rows}</tbody></table></div><figcaption>On slates that contain the true item; paired, with 95 % intervals.</figcaption></figure>`;
}

/** Provenance of the page's numbers. */
export function provenance(data: ReportData): Html {
  const { manifest: m, metrics } = data;
  const hardware = m?.hardware ?? {};
  const memory =
    hardware.memory_bytes === undefined ? "" : `, ${(Number(hardware.memory_bytes) / 2 ** 30).toFixed(1)} GiB`;
  const facts: [string, string | undefined][] = [
    ["run", `${metrics.run}${m ? `, ${m.updated}` : ""}`],
    ["config", metrics.config_hash],
    ["seed", String(metrics.seed)],
    ["code", m?.code.revision ? `${m.code.revision}${m.code.dirty ? " with uncommitted changes" : ""}` : undefined],
    ["data", joined(m?.data)],
    [
      "hardware",
      m &&
        `${hardware.cpu}, ${hardware.cores} cores${memory}` +
          `${hardware.device ? `, ${hardware.device}` : ""}; ${hardware.platform}`,
    ],
    ["versions", joined(m?.versions)],
  ];
  const stages = Object.entries(m?.stages ?? {});
  return html`<footer><h2>Provenance</h2><dl>${facts
    .filter(([, value]) => value)
    .map(([name, value]) => html`<dt>${name}</dt><dd class="mono">${value}</dd>`)}</dl>
    ${stages.length > 0 && html`<details><summary>Stage keys</summary><dl>${stages.map(([name, s]) => html`<dt>${name}</dt><dd class="mono">${s.key}</dd>`)}</dl></details>`}</footer>`;
}

const joined = (record: Readonly<Record<string, string>> | undefined): string =>
  Object.entries(record ?? {})
    .map(([name, value]) => `${name} ${value}`)
    .join(" · ");

const findKnown = (data: ReportData, name: string) =>
  data.metrics.systems?.find((s) => s.name === name) ?? findSystem(name);

const findKind = (data: ReportData, name: string): string => findKnown(data, name)?.kind ?? "control";

/** What a system is, and the cost of a request if known. */
function describeSystem(data: ReportData, name: string): string {
  const tokens = data.metrics.systems?.find((s) => s.name === name);
  const ms = data.metrics.request_ms?.[name];
  const cost = [
    ...(tokens && tokens.prompt_tokens > 0
      ? [`${Math.round(tokens.prompt_tokens + tokens.answer_tokens)} tokens`]
      : []),
    ...(ms === undefined ? [] : [`${ms.toFixed(1)} ms`]),
  ];
  return [findKnown(data, name)?.description ?? "", ...cost].filter(Boolean).join(", ");
}
