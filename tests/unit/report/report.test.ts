import { readFileSync, statSync, utimesSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { readReportData } from "../../../src/report/data.ts";
import { escapeHtml, html } from "../../../src/report/html.ts";
import { judgeInterval, lines, listAdvantages } from "../../../src/report/plots.ts";
import { renderReport, writeReport } from "../../../src/report/report.ts";
import { fixtureRun, hostile } from "./fixture.ts";

const voidTags = new Set(["meta", "input", "link", "br", "hr", "img", "path", "rect", "circle", "line"]);

/** Every tag closed, in order. */
function unbalanced(page: string): string[] {
  const stack: string[] = [];
  const problems: string[] = [];
  for (const [, close, name = "", , selfClosed] of page.matchAll(
    /<(\/?)([a-zA-Z][\w-]*)((?:"[^"]*"|'[^']*'|[^>"'])*?)(\/?)>/g,
  )) {
    const tag = name.toLowerCase();
    if (close) {
      const open = stack.pop();
      if (open !== tag) problems.push(`</${tag}> closes <${open}>`);
    } else if (!selfClosed && !voidTags.has(tag)) stack.push(tag);
  }
  return [...problems, ...stack.map((t) => `<${t}> is never closed`)];
}

const renderPage = async (run: string) => readFileSync(await writeReport(run), "utf8");

describe("report of a finished run", async () => {
  const run = fixtureRun();
  const page = await renderPage(run);

  it("is one well-formed page with every section and plot", () => {
    expect(unbalanced(page.replace(/<style>.*?<\/style>/s, ""))).toEqual([]);
    const headings = [...page.matchAll(/<h2>([^<]*)/g)].map((m) => m[1]);
    expect(headings).toEqual([
      "Results",
      "Against the pre-rank",
      "Training",
      "Policy behaviour",
      "Reasoning traces",
      "Slates, before and after",
      "Data",
      "Semantic IDs and calibration",
      "Cost",
      "Provenance",
    ]);
    expect(page.match(/<svg/g)?.length).toBe(31);
    expect(page.match(/class="card slate"/g)?.length).toBe(12);
  });

  it("tells what became of the teacher's answers, the commonest reason first", () => {
    expect(page).toContain("answers to 120 slates; 90 became traces, after 1.50 answers each.");
    expect(page).toMatch(/<td>88 %<\/td><td>50 %<\/td>/);
    expect(page).toMatch(/<td>not json<\/td><td>1,204<\/td>.*<td>wrong first choice<\/td><td>41<\/td>/);
  });

  it("leads with what to deploy, three numbers and what it costs", () => {
    expect(page).toContain("Deploy rl_direct: the language model adds +0.0120 [+0.0045, +0.0195] N@5 over evidence.");
    for (const number of ["+0.0183", "+0.0120", "+0.0036"])
      expect(page).toContain(`<div class="big good">${number}</div>`);
    expect(page).toContain("N@5 [+0.0108, +0.0258]");
    expect(page).toContain("rl_direct: 82 tokens and 3.2 ms of the model per request.");
    expect(page).toContain("The run took 9.4 min, 6.8 min of it for training the language model.");
  });

  it("has N@5 first, end to end first, and differences to pre-rank and evidence", () => {
    const heads = [...page.matchAll(/<table class="results"><thead><tr>(.*?)<\/tr>/g)].map((m) =>
      [...(m[1] as string).matchAll(/<th>([^<]*)/g)].map((h) => h[1]),
    );
    const expected = ["system", "N@5", "Δ pre-rank", "Δ evidence", "R@1", "R@3", "R@5", "N@3", "MRR"];
    expect(heads).toEqual([expected, expected]);
    expect(page).toMatch(/id="slice-end_to_end" checked/);
    // A control's difference is coloured as any other.
    expect(page).toMatch(/<tr class=" control"><td>direct_other_history.*?<td class="bad">/);
  });

  it("shows slates of the recommended system that gained and that lost before the others", () => {
    expect(page).toMatch(/12 test slates of rl_direct, drawn at random before anything was evaluated/);
    const moves = [...page.matchAll(/class="move (\w*)"/g)].map((m) => m[1]);
    expect(moves.slice(0, 4)).toEqual(["good", "good", "bad", "bad"]);
    expect(page.indexOf('<details class="more">')).toBeGreaterThan(page.indexOf("Slate 4"));
  });

  it("asks nothing of the network and runs no script", () => {
    const outside = page.replaceAll(escapeHtml(hostile), "").replaceAll(/https:\/\/evil\.example[^<]*/g, "");
    expect(outside).not.toMatch(/https?:\/\/|\/\/[a-z]+\.|@import|url\((?!#)/i);
    expect(page).not.toMatch(/<script|<img|<iframe|<link|<object|\son\w+\s*=\s*["']/i);
    expect(page).toContain("default-src 'none'");
  });

  it("shows hostile text as text", () => {
    expect(page).toContain("&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;&amp;&#39;&lt;img src=");
    expect(page.includes("\u202e") || page.includes("\u0007")).toBe(false);
  });

  it("gives every clip path its own id", () => {
    const ids = [...page.matchAll(/ id="([^"]+)"/g)].map((m) => m[1]);
    expect(new Set(ids).size).toBe(ids.length);
  });

  it("names where it came from", () => {
    for (const fact of [
      "768c32499031a0ca",
      "35cbb596e181928be6d6a6d205d497ffc3a83c7f",
      "5efe7c56d55154ad",
      "AMD EPYC",
    ]) {
      expect(page).toContain(fact);
    }
  });

  it("is left alone while the data is the same, and drawn again when it changes", async () => {
    const path = join(run, "report.html");
    utimesSync(path, 1, 1);
    await writeReport(run);
    expect(statSync(path).mtimeMs).toBe(1000);
    await writeReport(run, { force: true });
    expect(statSync(path).mtimeMs).toBeGreaterThan(1000);
    expect(readFileSync(path, "utf8") === page, "drawn the same again").toBe(true); // no diff of a whole page
  });
});

describe("curves", () => {
  const points = [0, 3, 6].map((value, step) => ({ step, value, series: "s" }));
  const means = (smooth: boolean) => lines(points, { y: "y", smooth }).data.values.map((v) => v.mean);
  it("are drawn through their own points, unless a moving average is asked for", () => {
    expect(means(false)).toEqual([0, 3, 6]);
    expect(means(true)).toEqual([1.5, 3, 4.5]); // of a point and its neighbours
  });
});

describe("report of an incomplete or failed run", () => {
  it("leaves out what is not there", async () => {
    const empty = {
      schema: 1,
      run: "r",
      config_hash: "c",
      seed: 1,
      rows: [],
      comparisons: [],
      health: {},
      timings: {},
    };
    const data = {
      metrics: empty,
      manifest: undefined,
      records: [],
      rewardGroups: [],
      examples: [],
      statistics: undefined,
      sid: undefined,
      prior: undefined,
      targetPositions: [],
      summaries: {},
    };
    const page = await renderReport(data);
    expect(unbalanced(page.replace(/<style>.*?<\/style>/s, ""))).toEqual([]);
    expect(page).toContain("No system of this run could be compared");
    expect(page).not.toContain("NaN");
  });

  it("says plainly that a system of an earlier version's run is worse than the pre-rank, or not distinguishable from it", async () => {
    const read = readReportData(fixtureRun());
    if (!read) throw new Error("no data");
    const { recommendation: _, systems: __, request_ms: ___, ...metrics } = read.metrics;
    const data = { ...read, metrics };
    const withLift = (ci_low: number, ci_high: number) =>
      renderReport({
        ...data,
        records: [],
        metrics: {
          ...data.metrics,
          comparisons: data.metrics.comparisons.map((c) => ({ ...c, delta: (ci_low + ci_high) / 2, ci_low, ci_high })),
        },
      });
    expect(await withLift(-0.02, -0.01)).toContain("is worse than the pre-rank");
    expect(await withLift(-0.01, 0.02)).toContain("is not distinguishable from the pre-rank");
  });

  it("asks for the evaluation when there is none", async () => {
    await expect(writeReport(join(fixtureRun(), "nowhere"))).rejects.toThrow("has no metrics.json yet");
  });
});

describe("pieces", () => {
  it("escapes everything that is not markup of its own", () => {
    expect(html`<b title="${'"'}">${"<i>"}${html`<i>${1}</i>`}${false}${undefined}${["a", "&"]}</b>`.markup).toBe(
      '<b title="&quot;">&lt;i&gt;<i>1</i>a&amp;</b>',
    );
  });

  it("computes advantages within the group", () => {
    // mean 1, std sqrt(2/3): (0-1)/0.8165 = -1.2247
    const [a, b, c, ...equal] = listAdvantages([
      { step: 0, rewards: [0, 1, 2] },
      { step: 0, rewards: [3, 3] },
    ]);
    expect([a, b, c].map((x) => x?.toFixed(4))).toEqual(["-1.2247", "0.0000", "1.2247"]);
    expect(equal).toEqual([0, 0]);
  });

  it("reads intervals", () => {
    expect([
      judgeInterval({ ci_low: 0.1, ci_high: 0.2 }),
      judgeInterval({ ci_low: 0, ci_high: 0.2 }),
      judgeInterval({ ci_low: -2, ci_high: -1 }),
    ]).toEqual(["better", "not distinguishable", "worse"]);
  });
});
