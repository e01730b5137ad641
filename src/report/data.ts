/**
 * Reads a run's files into one object for the report. Everything except metrics.json may be missing (a skipped stage,
 * an old run); the page omits the parts that need it.
 */
import { join } from "node:path";
import type { DataStatistics } from "../data/statistics.ts";
import type { Recommendation } from "../eval/recommend.ts";
import type { SystemEntry } from "../eval/systems.ts";
import type { ComparisonRow, MetricRow } from "../eval/table.ts";
import { tryReadJson } from "../run/files.ts";
import { type Manifest, readManifest } from "../run/manifest.ts";
import { type MetricsRecord, readRecords } from "../run/record-log.ts";

/** metrics.json. */
export interface MetricsFile {
  readonly schema: string | number;
  readonly run: string;
  readonly config_hash: string;
  readonly seed: number;
  readonly rows: readonly MetricRow[];
  readonly comparisons: readonly ComparisonRow[];
  readonly health: Readonly<Record<string, number>>;
  readonly alarms?: readonly string[];
  readonly timings: Readonly<Record<string, number>>;
  /** Absent from runs of earlier versions, like the next three. */
  readonly recommendation?: Recommendation;
  readonly systems?: readonly SystemEntry[];
  readonly best_preranker?: string;
  /** Model milliseconds per test slate. */
  readonly request_ms?: Readonly<Record<string, number>>;
  /** The system chosen on validation. */
  readonly selected?: { readonly system: string; readonly validation: Readonly<Record<string, number>> };
}

/** One slate before and after. Orders are indices into `candidates`. */
export interface Example {
  readonly slate: string;
  readonly system: string;
  readonly history: readonly string[];
  readonly candidates: readonly { readonly title: string; readonly sid: string; readonly prerank: number }[];
  /** Index of the true item; of the best one if there are several. */
  readonly target: number;
  /** Relevance of every candidate, if logged. */
  readonly labels?: readonly number[];
  readonly before: readonly number[];
  readonly after: readonly number[];
  readonly reasoning: string;
}

/** The part of stages/sid/report.json that is shown. */
export interface SidUsage {
  readonly numItems: number;
  readonly levels: number;
  readonly codes: number;
  readonly uniqueness: number;
  readonly perLevel: readonly {
    readonly level: number;
    readonly numUsed: number;
    readonly usage: number;
    readonly perplexity: number;
    /** Most used code first. */
    readonly itemsPerCode?: readonly number[];
  }[];
  readonly neighbourSharing?: readonly { readonly depth: number; readonly shared: number; readonly chance: number }[];
}

/** The prior for generation, from stages/calibrate/prior.json. */
export interface CalibratedPrior {
  readonly likelihood: number;
  readonly place: readonly number[];
  readonly preRank: number;
  readonly evidence: number;
}

/** The rewards of one group of rollouts: a slate, a step, a mode. */
export interface RewardGroup {
  readonly step: number;
  readonly rewards: readonly number[];
}

export interface ReportData {
  readonly metrics: MetricsFile;
  readonly manifest: Manifest | undefined;
  readonly records: readonly MetricsRecord[];
  readonly rewardGroups: readonly RewardGroup[];
  readonly examples: readonly Example[];
  /** stages/data/statistics.json. */
  readonly statistics: DataStatistics | undefined;
  readonly sid: SidUsage | undefined;
  readonly prior: CalibratedPrior | undefined;
  /** How often the pre-rank put the true item at each position, on test. */
  readonly targetPositions: readonly number[];
  /** stages/STAGE/summary.json by stage. */
  readonly summaries: Readonly<Record<string, Readonly<Record<string, number>>>>;
}

/** undefined if the run has no metrics.json yet. */
export function readReportData(run: string): ReportData | undefined {
  const json = <T>(...parts: string[]): T | undefined => tryReadJson(join(run, ...parts)) as T | undefined;
  const metrics = json<MetricsFile>("metrics.json");
  if (!metrics) return undefined;
  const manifest = readManifest(run);
  const stages = Object.keys(manifest?.stages ?? {});
  const summaries = stages.flatMap((s) => {
    const summary = json<Record<string, number>>("stages", s, "summary.json");
    return summary ? [[s, summary] as const] : [];
  });
  return {
    metrics,
    manifest,
    records: [...readRecords<MetricsRecord>(join(run, "metrics.jsonl"))],
    rewardGroups: rewardGroups(join(run, "rollouts.jsonl")),
    examples: json<Example[]>("examples.json") ?? [],
    statistics: json<DataStatistics>("stages", "data", "statistics.json"),
    sid: json<SidUsage>("stages", "sid", "report.json"),
    prior: json<{ withLikelihood: CalibratedPrior }>("stages", "calibrate", "prior.json")?.withLikelihood,
    targetPositions: json<{ targetPositions?: number[] }>("stages", "slates", "test.stats.json")?.targetPositions ?? [],
    summaries: Object.fromEntries(summaries),
  };
}

function rewardGroups(path: string): RewardGroup[] {
  const groups = new Map<string, { step: number; rewards: number[] }>();
  for (const r of readRecords(path)) {
    const { slate, mode, reward } = r as unknown as { slate?: string; mode?: string; reward?: number };
    if (typeof reward !== "number" || !Number.isFinite(reward)) continue;
    const key = `${r.step}/${slate}/${mode}`;
    let group = groups.get(key);
    if (!group) {
      group = { step: r.step, rewards: [] };
      groups.set(key, group);
    }
    group.rewards.push(reward);
  }
  return [...groups.values()];
}
