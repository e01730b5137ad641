/**
 * Plots as SVG strings, rendered by vega in Node. Text takes the page's colour (currentColor) and backgrounds are
 * transparent: one plot serves both the light and the dark page.
 */
import type { TopLevelSpec } from "vega-lite";
import type { ComparisonRow } from "../eval/table.ts";
import type { RewardGroup } from "./data.ts";
import type { Html } from "./html.ts";
import { raw } from "./html.ts";

/** Colour-blind safe, readable on white and on near-black. */
export const palette = {
  indigo: "#5b6ee1",
  teal: "#12a594",
  amber: "#e2900a",
  rose: "#e5566d",
  violet: "#a06bd6",
  grey: "#8b8f9a",
} as const;

const series = [palette.indigo, palette.teal, palette.amber, palette.rose, palette.violet, palette.grey];

const config = {
  background: "transparent",
  font: "system-ui, sans-serif",
  view: { stroke: null },
  axis: {
    labelColor: "currentColor",
    titleColor: "currentColor",
    labelOpacity: 0.75,
    titleOpacity: 0.75,
    titleFontWeight: "normal",
    titleFontSize: 11,
    labelFontSize: 11,
    gridColor: "#8b8f9a",
    gridOpacity: 0.18,
    domain: false,
    tickColor: "#8b8f9a",
    tickOpacity: 0.4,
    tickSize: 4,
  },
  legend: {
    labelColor: "currentColor",
    titleColor: "currentColor",
    labelFontSize: 11,
    orient: "top",
    title: null,
    symbolType: "stroke",
    symbolStrokeWidth: 3,
    symbolOpacity: 1,
    labelLimit: 300,
    offset: 6,
  },
  header: { labelColor: "currentColor", titleColor: "currentColor", labelFontSize: 12, labelFontWeight: 600 },
  range: { category: series },
  line: { strokeWidth: 2 },
  bar: { cornerRadiusEnd: 3 },
} as const;

/** Outer size of a figure that fills half the page, axes and legend included. */
const width = 470;
const height = 260;

const half = { width, height, autosize: { type: "fit", contains: "padding" } };

/** Renders one vega-lite specification; the heavy imports happen on first use. */
export async function plot(spec: Record<string, unknown>, label: string): Promise<Html> {
  const [vega, vegaLite] = await Promise.all([import("vega"), import("vega-lite")]);
  const full = { ...(spec.facet ? {} : half), padding: 4, ...spec, config } as unknown as TopLevelSpec;
  const view = new vega.View(vega.parse(vegaLite.compile(full).spec), { renderer: "none" });
  try {
    const svg = await view.toSVG();
    return raw(tidy(svg, label));
  } finally {
    view.finalize();
  }
}

/**
 * Adapts a figure to the page: one label replaces vega's aria labels (which may contain item text), and ids numbered
 * from 0 replace vega's, which keep counting across the whole process.
 */
function tidy(svg: string, label: string): string {
  const prefix = label.toLowerCase().replace(/\W+/g, "-");
  const names = new Map<string, string>();
  const rename = (id: string): string => {
    const name = names.get(id) ?? `${prefix}-${names.size}`;
    names.set(id, name);
    return name;
  };
  return svg
    .replace(/ id="([^"]+)"/g, (_, id: string) => ` id="${rename(id)}"`)
    .replace(/url\(#([^)]+)\)/g, (_, id: string) => `url(#${rename(id)})`)
    .replace(/ (xmlns(:\w+)?|aria-\w+|role)="[^"]*"/g, "")
    .replace(/^<svg/, `<svg role="img" aria-label="${label.replace(/[&<>"]/g, "")}"`);
}

export interface Point {
  readonly step: number;
  readonly value: number;
  readonly series: string;
}

/** Lines over steps: raw values faint, a moving average (of a twentieth of the steps) on top. */
export function lines(
  points: readonly Point[],
  options: { y: string; x?: string; smooth?: boolean; percent?: boolean; zero?: boolean },
) {
  const names = [...new Set(points.map((p) => p.series))];
  const data = names.flatMap((name) => {
    const own = points.filter((p) => p.series === name);
    const window = options.smooth ? Math.max(1, Math.floor(own.length / 20)) : 0;
    return thin(own, 600).map((p) => ({ ...p, mean: meanAround(own, own.indexOf(p), window) }));
  });
  const x = {
    field: "step",
    type: "quantitative",
    title: options.x ?? "step",
    axis: { tickMinStep: 1, grid: false, format: "d" },
  };
  const color = {
    field: "series",
    type: "nominal",
    sort: names,
    scale: { domain: names, range: series.slice(0, names.length) },
    legend: names.length > 1 ? { columns: legendColumns(names) } : null,
  };
  const y = (field: string) => ({
    field,
    type: "quantitative",
    title: options.y,
    scale: { zero: options.zero ?? false, ...(options.percent ? { domain: [0, 1] } : {}) },
    axis: { format: options.percent ? ".0%" : "~g", tickCount: 5 },
  });
  const few = data.length / Math.max(1, names.length) < 12;
  const curve = {
    mark: { type: "line", point: few ? { size: 28, filled: true } : false },
    encoding: { x, y: y("mean"), color },
  };
  const faint = { mark: { type: "line", opacity: 0.22, strokeWidth: 1 }, encoding: { x, y: y("value"), color } };
  return { data: { values: data }, layer: options.smooth ? [faint, curve] : [curve] };
}

/** As many columns as fit the width of a figure; a single-row legend would be cut off. */
const legendColumns = (names: readonly string[]): number =>
  Math.max(1, Math.floor((width - 40) / (34 + 6.2 * Math.max(...names.map((n) => n.length)))));

/** A distribution as bars. */
export function histogram(values: readonly number[], options: { x: string; color: string }) {
  return {
    data: { values: values.map((value) => ({ value })) },
    mark: { type: "bar", color: options.color, opacity: 0.85, binSpacing: 1 },
    encoding: {
      x: {
        bin: { maxbins: 30 },
        field: "value",
        type: "quantitative",
        title: options.x,
        axis: { grid: false, format: "~g", tickCount: 8 },
      },
      y: { aggregate: "count", type: "quantitative", title: "rollouts", axis: { tickCount: 5, format: "~s" } },
    },
  };
}

/** Differences from the pre-rank with their intervals, coloured by verdict. */
export function forest(comparisons: readonly ComparisonRow[], order: readonly string[]) {
  const values = comparisons.map((c) => ({ ...c, verdict: judgeInterval(c) }));
  const domain = ["better", "not distinguishable", "worse"];
  const color = {
    field: "verdict",
    type: "nominal",
    scale: { domain, range: [palette.teal, palette.grey, palette.rose] },
    legend: null,
  };
  const y = {
    field: "system",
    type: "nominal",
    title: null,
    sort: order,
    axis: { grid: true, labelLimit: 0, labelFontSize: 11, labelPadding: 6 },
  };
  const x = {
    field: "ci_low",
    type: "quantitative",
    title: "Δ from the pre-rank",
    axis: { format: "+.3~f", tickCount: 4 },
  };
  return {
    data: { values },
    height: 80 + 22 * order.length,
    layer: [
      { mark: { type: "rule", strokeDash: [3, 3], color: palette.grey }, encoding: { x: { datum: 0 } } },
      { mark: { type: "rule", strokeWidth: 2 }, encoding: { y, x, x2: { field: "ci_high" }, color } },
      {
        mark: { type: "point", filled: true, size: 70, opacity: 1 },
        encoding: { y, x: { field: "delta", type: "quantitative" }, color },
      },
    ],
  };
}

/** The verdict of an interval. */
export const judgeInterval = (c: { ci_low: number; ci_high: number }): "better" | "worse" | "not distinguishable" =>
  c.ci_low > 0 ? "better" : c.ci_high < 0 ? "worse" : "not distinguishable";

/** One horizontal bar per name, in the order given, with its value written after it. */
export function bars(
  values: readonly { name: string; value: number; label: string }[],
  options: { x: string; color: string },
) {
  const y = { field: "name", type: "nominal", sort: null, title: null, axis: { labelLimit: 0, labelFontSize: 12 } };
  const domain = { domain: [0, 1.4 * Math.max(1e-9, ...values.map((v) => v.value))], nice: false }; // room for the text
  const x = {
    field: "value",
    type: "quantitative",
    title: options.x,
    axis: { tickCount: 5, format: "~s" },
    scale: domain,
  };
  return {
    data: { values },
    height: 64 + 24 * values.length,
    encoding: { y, x },
    layer: [
      { mark: { type: "bar", color: options.color, opacity: 0.85, height: 15 } },
      {
        mark: { type: "text", align: "left", dx: 5, color: "currentColor", fontSize: 11, opacity: 0.8 },
        encoding: { text: { field: "label" } },
      },
    ],
  };
}

/** One upright bar per position (1, 2, …). */
export function positions(values: readonly number[], options: { y: string; color: string; format: string }) {
  return {
    data: { values: values.map((value, i) => ({ position: i + 1, value })) },
    mark: { type: "bar", color: options.color, opacity: 0.85, width: { band: 0.75 } },
    encoding: {
      x: { field: "position", type: "ordinal", title: "position in the pre-rank", axis: { labelAngle: 0 } },
      y: { field: "value", type: "quantitative", title: options.y, axis: { tickCount: 5, format: options.format } },
    },
  };
}

/** A curve from (0, 0) to (1, 1) over the diagonal: the share of the total held by the most popular share of items. */
export function concentration(points: readonly { readonly x: number; readonly y: number }[]) {
  const axis = { format: ".0%", tickCount: 5 };
  const x = { field: "x", type: "quantitative", title: "share of items, most popular first", axis };
  const y = { field: "y", type: "quantitative", title: "share of interactions", axis };
  const even = [0, 1].map((v) => ({ x: v, y: v }));
  return {
    layer: [
      {
        data: { values: even },
        mark: { type: "line", strokeDash: [3, 3], color: palette.grey, strokeWidth: 1 },
        encoding: { x, y },
      },
      { data: { values: points }, mark: { type: "line", color: palette.teal }, encoding: { x, y } },
    ],
  };
}

/** (R − mean) / std within each group, as used in the policy gradient; groups of equal rewards give zeros. */
export function listAdvantages(groups: readonly RewardGroup[]): number[] {
  return groups.flatMap(({ rewards }) => {
    const mean = rewards.reduce((a, b) => a + b, 0) / rewards.length;
    const std = Math.sqrt(rewards.reduce((a, r) => a + (r - mean) ** 2, 0) / rewards.length);
    return rewards.map((r) => (std < 1e-9 ? 0 : (r - mean) / std));
  });
}

function meanAround(points: readonly Point[], at: number, window: number): number {
  const near = points.slice(Math.max(0, at - window), at + window + 1);
  return near.reduce((sum, p) => sum + p.value, 0) / near.length;
}

/** At most `n` of the points, evenly spaced, always including the last. */
function thin<T>(points: readonly T[], n: number): T[] {
  if (points.length <= n) return [...points];
  const step = (points.length - 1) / (n - 1);
  return Array.from({ length: n }, (_, i) => points[Math.round(i * step)] as T);
}
