/**
 * How finished runs differ: settings, data, code, versions; paired scores on the test slates they share; seconds and
 * tokens. A side is one run, or several that are averaged, such as the seeds of one recipe. Owns the facts
 * (gr2.compare/1); the command line prints them.
 */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parse } from "yaml";
import { readJson } from "../artifacts/files.ts";
import { ownListMetrics, readTestAnswers, slateMetrics, type TestAnswers } from "../artifacts/orders.ts";
import type { Metrics } from "../artifacts/results.ts";
import { ConfigError, RunError } from "../core/errors.ts";
import { RunStatistics, type RunValues, type Uncertain } from "../eval/across-runs.ts";
import { type MetricName, metricNames } from "../eval/metrics.ts";
import type { Slice } from "../eval/table.ts";
import { type Manifest, readManifest } from "../run/manifest.ts";
import { listRuns, RunFolder } from "../run/run-folder.ts";

export type SlateMetric = Exclude<MetricName, "AUC">;

export interface CompareOptions {
  /** Folder of all runs. */
  readonly root: string;
  /** One side each: a run, several joined by commas, or the common name of runs NAME-seedK. */
  readonly sides: readonly string[];
  readonly metric: SlateMetric;
}

export interface Side {
  readonly label: string;
  readonly runs: readonly string[];
  readonly seeds: readonly number[];
  /** Revisions of the code; "?" without git, a trailing "+" for uncommitted changes. */
  readonly code: readonly string[];
  /** Content hashes of the cleaned data. */
  readonly data: readonly string[];
  /** What each run recommends to deploy. */
  readonly recommended: readonly string[];
}

/** A value that differs between sides, by side; a side whose runs differ lists all of its values. */
export interface Difference {
  readonly name: string;
  readonly values: readonly (readonly unknown[])[];
}

export interface Outcome {
  readonly slice: Slice;
  /** By side and run. In slice conditional each run has its own: the slates that hold their true item. */
  readonly slates: readonly (readonly number[])[];
  /** Users of the slates that all runs share. */
  readonly users: number;
  readonly systems: readonly {
    readonly system: string;
    readonly sides: readonly Uncertain[];
    /** Each later side minus the first. */
    readonly deltas: readonly Uncertain[];
  }[];
}

export interface RunComparison {
  readonly schema: "gr2.compare/1";
  readonly metric: SlateMetric;
  readonly sides: readonly Side[];
  readonly settings: readonly Difference[];
  /** Stages whose code differs. */
  readonly code: readonly string[];
  /** Packages and hardware. */
  readonly machines: readonly Difference[];
  /** Empty if the sides share no test slate; `alone` then has each side's own values, slice conditional. */
  readonly outcomes: readonly Outcome[];
  readonly alone: Readonly<Record<string, readonly number[]>>;
  /** Mean seconds of each stage, by side. */
  readonly seconds: Readonly<Record<string, readonly number[]>>;
  /** Mean tokens read and written per request, by system and side. */
  readonly tokens: Readonly<Record<string, readonly number[]>>;
}

interface ReadRun {
  readonly name: string;
  readonly manifest: Manifest;
  readonly metrics: Metrics;
  readonly settings: ReadonlyMap<string, unknown>;
}

export function compareRuns(options: CompareOptions): RunComparison {
  const { root, metric } = options;
  const sides = options.sides.map((label) => ({
    label,
    runs: findRuns(root, label).map((name) => readRun(root, name)),
  }));
  const differing = (facts: (run: ReadRun) => ReadonlyMap<string, unknown>): Difference[] => {
    const bySide = sides.map((s) => s.runs.map(facts));
    const names = [...new Set(bySide.flat().flatMap((f) => [...f.keys()]))];
    return names.flatMap((name) => {
      const values = bySide.map((side) => distinct(side.map((f) => f.get(name) ?? null)));
      return distinct(values).length > 1 ? [{ name, values }] : [];
    });
  };
  const perSide = (of: (run: ReadRun) => Readonly<Record<string, number>>): Record<string, number[]> => {
    const bySide = sides.map((s) => s.runs.map(of));
    const names = [...new Set(bySide.flat().flatMap((values) => Object.keys(values)))];
    return Object.fromEntries(
      names.map((n) => [n, bySide.map((runs) => runs.reduce((sum, r) => sum + (r[n] ?? 0), 0) / runs.length)]),
    );
  };
  return {
    schema: "gr2.compare/1",
    metric,
    sides: sides.map(({ label, runs }) => ({
      label,
      runs: runs.map((r) => r.name),
      seeds: runs.map((r) => r.manifest.seed),
      code: distinct(
        runs.map(({ manifest: { code } }) => `${code.revision?.slice(0, 12) ?? "?"}${code.dirty ? "+" : ""}`),
      ),
      data: distinct(runs.flatMap((r) => Object.values(r.manifest.data).map((hash) => hash.slice(0, 12)))),
      recommended: runs.map((r) => r.metrics.recommendation.system),
    })),
    settings: differing((r) => r.settings),
    code: differing((r) => new Map(Object.entries(r.manifest.stages).map(([s, { code }]) => [s, code]))).map(
      (d) => d.name,
    ),
    machines: differing((r) => new Map(Object.entries({ ...r.manifest.versions, ...r.manifest.hardware }))),
    outcomes: compareOutcomes(
      options,
      sides.map((s) => s.runs),
    ),
    alone: perSide(({ metrics: { rows } }) =>
      Object.fromEntries(
        rows.filter((r) => r.slice === "conditional" && r.metric === metric).map((r) => [r.system, r.value]),
      ),
    ),
    seconds: perSide((r) => r.metrics.timings),
    tokens: perSide((r) =>
      Object.fromEntries(r.metrics.systems.map((s) => [s.name, s.prompt_tokens + s.answer_tokens])),
    ),
  };
}

/** The runs of a side: a run, a list, or the runs that `gr2 pipeline --seeds` left. */
function findRuns(root: string, label: string): string[] {
  const names = label.split(",").map((n) => n.trim());
  if (names.length > 1) return names;
  const family = listRuns(root)
    .flatMap((name) => {
      const seed = name.startsWith(`${label}-seed`) ? name.slice(label.length + 5) : "";
      return /^\d+$/.test(seed) ? [{ name, seed: Number(seed) }] : [];
    })
    .sort((a, b) => a.seed - b.seed);
  return existsSync(join(root, label)) || family.length === 0 ? names : family.map((f) => f.name);
}

function readRun(root: string, name: string): ReadRun {
  const folder = RunFolder.view(root, name);
  const manifest = readManifest(folder.path);
  const file = folder.file("metrics.json");
  if (!manifest || !existsSync(file))
    throw new RunError(`run ${name} has no results yet`, {
      advice: `Finish it: gr2 pipeline --run ${name} with its recipe.`,
    });
  const settings: unknown = parse(readFileSync(folder.file("config.resolved.yaml"), "utf8"));
  const metrics = readJson<Metrics>(file);
  if (metrics.schema !== "gr2.metrics/2") throw new RunError(`${file}: results of another version (${metrics.schema})`);
  return { name, manifest, metrics, settings: new Map(flatten(settings)) };
}

function flatten(tree: unknown, path = ""): [string, unknown][] {
  if (typeof tree !== "object" || tree === null || Array.isArray(tree)) return [[path, tree]];
  const entries = Object.entries(tree);
  return entries.flatMap(([key, value]) => flatten(value, path ? `${path}.${key}` : key));
}

function distinct<T>(values: readonly T[]): T[] {
  const seen = new Map(values.map((v) => [JSON.stringify(v), v] as const));
  return [...seen.values()];
}

const slices: readonly Slice[] = ["end_to_end", "conditional"];

function compareOutcomes({ root, metric }: CompareOptions, sides: readonly (readonly ReadRun[])[]): Outcome[] {
  const answers = sides.flat().map((r) => readTestAnswers(RunFolder.view(root, r.name)));
  const members = indexMembers(sides);
  const resamples = Number(sides[0]?.[0]?.settings.get("eval.bootstrap"));
  return summariseRuns(answers, metric, resamples).map(({ slice, slates, users, statistics }) => ({
    slice,
    slates: members.map((runs) => runs.map((run) => slates[run] ?? 0)),
    users,
    systems: statistics.commonSystems().map((system) => ({
      system,
      sides: members.map((runs) => statistics.estimate(runs, system)),
      deltas: members.slice(1).map((runs) => statistics.compare(runs, members[0] ?? [], system)),
    })),
  }));
}

/** For each side the indices of its runs, numbered across all sides. */
function indexMembers(sides: readonly (readonly unknown[])[]): number[][] {
  let next = 0;
  return sides.map((runs) => runs.map(() => next++));
}

export interface RunSummary {
  readonly slice: Slice;
  /** By run. */
  readonly slates: readonly number[];
  readonly users: number;
  readonly statistics: RunStatistics;
}

/** Statistics over the test slates that all runs share, both slices; empty if there are none. */
export function summariseRuns(answers: readonly TestAnswers[], metric: SlateMetric, resamples: number): RunSummary[] {
  const all = answers.map((a) => [...a.slates, ...a.missed]);
  const positions = all.map((slates) => new Map(slates.map((s, i) => [s.id, i])));
  const shared = (all[0] ?? []).filter((s) => positions.every((p) => p.has(s.id)));
  if (shared.length === 0) return [];
  const users = shared.map((s) => s.user);
  return slices.map((slice) => {
    const runs = answers.map((a, r): RunValues => {
      const rows = shared.map((s) => positions[r]?.get(s.id) ?? -1);
      const align = (values: Float64Array): Float64Array => Float64Array.from(rows, (row) => values[row] ?? 0);
      const value = (system: string): Float64Array =>
        (slice === "end_to_end" ? ownListMetrics(a, system, metric) : undefined) ?? slateMetrics(a, system, metric);
      return {
        holds: rows.map((row) => (row < a.slates.length ? 1 : 0)),
        systems: new Map(Object.keys(a.systems).map((system) => [system, align(value(system))])),
      };
    });
    const held = runs.map(({ holds }) => Array.from(holds).reduce((sum, h) => sum + h, 0));
    return {
      slice,
      slates: slice === "end_to_end" ? runs.map(() => shared.length) : held,
      users: new Set(users).size,
      statistics: new RunStatistics(users, runs, slice, { resamples }),
    };
  });
}

export function parseMetric(name: string): SlateMetric {
  const found = metricNames.find((m) => m === name);
  if (found === undefined) throw new ConfigError(`--metric ${name}: expected one of ${metricNames.join(", ")}`);
  return found;
}
