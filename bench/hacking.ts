/**
 * The hacking experiment (GR2 v1 §5; docs/rl.md): one SFT policy per seed, and from it one RL run per reward. Owns the
 * list of runs, the table and the pictures; the recipes are in configs/ablations/hacking*.yaml.
 *   npm run bench -- hacking [--variants unconditional,conditional,dehacked] [--seeds 0,1,2] [--root runs]
 *     [--run hacking]
 *     [--set path=value] [--pictures FOLDER]
 * Everything up to SFT is made once per seed, in ROOT/RUN-SEED, and reused for each reward. Finished runs are reused,
 * and an interrupted one resumes.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { runPipeline } from "../src/cli/pipeline.ts";
import { ConfigError } from "../src/core/errors.ts";
import { lines, type Point, palette, plot } from "../src/report/plots.ts";
import { type MetricsRecord, readRecords } from "../src/run/record-log.ts";
import type { Benchmark } from "./claim.ts";

const base = "configs/ablations/hacking.yaml";
const recipePath = (variant: string): string => base.replace(".yaml", `-${variant}.yaml`);

/** The metrics to plot, and the labels of their axes. */
const pictures = [
  { metric: "copied", y: "answers that copy the input", percent: true },
  { metric: "valid_rate", y: "answers that are valid", percent: true },
  { metric: "identity_rate", y: "valid answers that copy the input", percent: true },
  { metric: "kendall_tau", y: "Kendall τ to the input order", percent: false },
  { metric: "validation_valid_rate", y: "greedy answers that are valid", percent: true },
  { metric: "validation_ndcg5", y: "validation N@5, greedy", percent: false },
] as const;

/** The input order's own N@5, plotted next to the policies'. */
const prerank = "input";

/** One run's value of a metric at a step. */
interface Observed {
  readonly variant: string;
  readonly seed: string;
  readonly step: number;
  readonly metric: string;
  readonly value: number;
}

export const bench: Benchmark = async (emit, args) => {
  const { values: o } = parseArgs({
    args: [...args],
    options: {
      variants: { type: "string", default: "unconditional,conditional,dehacked" },
      seeds: { type: "string", default: "0,1,2" },
      root: { type: "string", default: "runs" },
      run: { type: "string", default: "hacking" },
      set: { type: "string", multiple: true, default: [] },
      pictures: { type: "string", default: "" },
    },
  });
  const variants = o.variants.split(",");
  const missing = variants.find((v) => !existsSync(recipePath(v)));
  if (missing) throw new ConfigError(`--variants ${missing}: there is no ${recipePath(missing)}`);
  const seeds = o.seeds.split(",");
  const observed: Observed[] = [];
  for (const seed of seeds) {
    const common = `${o.run}-${seed}`;
    const shared = { root: o.root, share: true, set: [...o.set, `seed=${seed}`] };
    await runPipeline({ ...shared, config: base, run: common, until: "sft" }, process.stderr);
    for (const variant of variants) {
      const run = `${common}-${variant}`;
      const folder = join(o.root, run);
      await runPipeline({ ...shared, config: recipePath(variant), run, until: "rl" }, process.stderr);
      observed.push(...observe(folder, variant, seed));
    }
  }
  for (const variant of variants)
    for (const { metric } of pictures) {
      const own = observed.filter((v) => v.variant === variant && v.metric === metric);
      const value = mean(ends(own).map((end) => end.last));
      emit({ claim: `hacking/${metric} at the end, ${variant}`, value, unit: metric, n: seeds.length });
    }
  process.stderr.write(`\n${table(observed, variants, seeds)}\n`);
  if (o.pictures) await draw(observed, o.pictures);
};

export function observe(folder: string, variant: string, seed: string): Observed[] {
  return [...readRecords<MetricsRecord>(join(folder, "metrics.jsonl"))].flatMap(({ stage, step, values }) => {
    if (stage !== "rl") return [];
    const { valid_rate: valid, identity_rate: identity } = values;
    const copied = valid === undefined || identity === undefined ? undefined : valid * identity;
    const own = pictures.map(({ metric }) => {
      const value = metric === "copied" ? copied : values[metric];
      return { variant, seed, step, metric, value };
    });
    const input = {
      variant: prerank,
      seed,
      step,
      metric: "validation_ndcg5",
      value: values.validation_ndcg5_prerank,
    };
    return [...own, input].flatMap((v) => (v.value === undefined ? [] : [{ ...v, value: v.value }]));
  });
}

const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / Math.max(1, values.length);

/** For every seed, the mean of the first and of the last tenth of the steps: one sampled step is noise. */
function ends(own: readonly Observed[]): { seed: string; first: number; last: number }[] {
  return [...new Set(own.map((v) => v.seed))].map((seed) => {
    const values = own.filter((v) => v.seed === seed).map((v) => v.value);
    const n = values.length < 20 ? 1 : Math.ceil(values.length / 10);
    return { seed, first: mean(values.slice(0, n)), last: mean(values.slice(-n)) };
  });
}

/** Markdown: one row per variant and metric, one column per seed. */
export function table(observed: readonly Observed[], variants: readonly string[], seeds: readonly string[]): string {
  const rows = pictures.flatMap(({ metric, y }) =>
    variants.map((variant) => {
      const own = ends(observed.filter((v) => v.variant === variant && v.metric === metric));
      const cells = seeds.map((seed) => {
        const end = own.find((e) => e.seed === seed);
        return end ? `${end.first.toFixed(3)} → ${end.last.toFixed(3)}` : "";
      });
      return `| ${y} | ${variant} | ${cells.join(" | ")} |`;
    }),
  );
  const head = `| | reward | ${seeds.map((s) => `seed ${s}`).join(" | ")} |`;
  return [head, `|---|---|${seeds.map(() => "---|").join("")}`, ...rows].join("\n");
}

/** One SVG per metric: the mean over seeds, one line per reward, in colours that work on light and dark pages. */
async function draw(observed: readonly Observed[], folder: string): Promise<void> {
  mkdirSync(folder, { recursive: true });
  const variants = [...new Set(observed.map((v) => v.variant))].filter((v) => v !== prerank);
  const short = variants.map((v) => v.split("-")[0] as string);
  const distinct = new Set(short).size === variants.length;
  const shortName = (variant: string): string => (distinct ? (short[variants.indexOf(variant)] ?? variant) : variant);
  for (const { metric, y, percent } of pictures) {
    const at = new Map<string, number[]>();
    const own = observed.filter((v) => v.metric === metric);
    for (const v of [...own.filter((v) => v.variant !== prerank), ...own.filter((v) => v.variant === prerank)]) {
      const key = `${shortName(v.variant)}\t${v.step}`;
      at.set(key, [...(at.get(key) ?? []), v.value]);
    }
    const points = [...at].map(([key, values]): Point => {
      const [series = "", step] = key.split("\t");
      return { series, step: Number(step), value: mean(values) };
    });
    const { markup } = await plot(
      lines(points, { x: "RL step", y, percent, smooth: !metric.startsWith("validation_") }),
      y,
    );
    const svg = markup
      .replace(/^<svg/, '<svg xmlns="http://www.w3.org/2000/svg"')
      .replaceAll("currentColor", palette.grey)
      .replace(/(\d+\.\d{2})\d+/g, "$1");
    const path = join(folder, `hacking-${metric.replaceAll("_", "-")}.svg`);
    if (!existsSync(path) || readFileSync(path, "utf8") !== `${svg}\n`) writeFileSync(path, `${svg}\n`);
  }
}
