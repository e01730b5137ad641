/**
 * The service's metrics, for both transports, in Prometheus' text format 0.0.4 or as OpenMetrics 1.0. Owns names,
 * labels and the format; labels take values only from short fixed lists: no caller can make the page grow.
 */
import { readdirSync } from "node:fs";
import { monitorEventLoopDelay } from "node:perf_hooks";
import type { PromptTokens, RerankAnswer, Reranker, ServeMode } from "../request/types.ts";

/** Upper bounds of the histograms, seconds. */
const bounds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30] as const;

interface Histogram {
  readonly counts: number[];
  sum: number;
  count: number;
}

type Series<T> = Readonly<Record<string, Readonly<Record<string, T>>>>;

/** The metrics of one process: by name, by labels as the page writes them. */
export interface MetricsSnapshot {
  readonly counters: Series<number>;
  readonly histograms: Series<Histogram>;
  readonly gauges: Series<number>;
}

/** What of several processes is not the sum. */
const combined: Readonly<Record<string, (a: number, b: number) => number>> = {
  gr2_ready: Math.min,
  gr2_model_info: Math.max,
  process_start_time_seconds: Math.min,
  nodejs_eventloop_delay_p99_seconds: Math.max,
};

const sum = (a: number, b: number): number => a + b;

function addSnapshots(a: MetricsSnapshot, b: MetricsSnapshot): MetricsSnapshot {
  const merge = <T>(x: Series<T>, y: Series<T>, add: (name: string) => (a: T, b: T) => T): Series<T> => {
    const out: Record<string, Record<string, T>> = {};
    for (const [name, series] of [...Object.entries(x), ...Object.entries(y)])
      for (const [labels, value] of Object.entries(series)) {
        out[name] ??= {};
        const of = out[name];
        const before = of[labels];
        of[labels] = before === undefined ? value : add(name)(before, value);
      }
    return out;
  };
  const addHistograms = (h: Histogram, i: Histogram): Histogram => ({
    counts: h.counts.map((n, k) => n + (i.counts[k] ?? 0)),
    sum: h.sum + i.sum,
    count: h.count + i.count,
  });
  return {
    counters: merge(a.counters, b.counters, () => sum),
    histograms: merge(a.histograms, b.histograms, () => addHistograms),
    gauges: merge(a.gauges, b.gauges, (name) => combined[name] ?? sum),
  };
}

/** One finished call. */
export interface Observation {
  readonly transport: "http" | "grpc";
  /** From the list of routes or methods, never the caller's string. */
  readonly route: string;
  /** HTTP status or gRPC code. */
  readonly status: string;
  readonly seconds: number;
  readonly mode?: ServeMode;
  readonly answer?: RerankAnswer;
  /** Code of the reason why there is no answer. */
  readonly problem?: string;
}

/** The formats of the page; OpenMetrics if a scraper asks for it. */
export const metricsTypes = {
  prometheus: "text/plain; version=0.0.4; charset=utf-8",
  openMetrics: "application/openmetrics-text; version=1.0.0; charset=utf-8",
} as const;
export type MetricsFormat = keyof typeof metricsTypes;

/** @param accept the header, as received */
export const chooseFormat = (accept: string | undefined): MetricsFormat =>
  accept?.includes("application/openmetrics-text") ? "openMetrics" : "prometheus";

export class Metrics {
  private readonly counters = new Map<string, Map<string, number>>();
  private readonly histograms = new Map<string, Map<string, Histogram>>();
  private readonly loopDelay = monitorEventLoopDelay({ resolution: 20 });

  constructor() {
    this.loopDelay.enable();
  }

  observe({ transport, route, status, seconds, mode = "direct", answer, problem }: Observation): void {
    this.add("gr2_requests_total", { transport, route, status });
    this.time("gr2_request_seconds", { transport, route }, seconds);
    if (problem !== undefined) this.add("gr2_refusals_total", { transport, route, reason: problem });
    if (!answer) return;
    this.add("gr2_answers_total", { transport, route, mode, fallback: answer.fallback ?? "none" });
    if (!answer.fallback) this.add("gr2_answer_cache_total", { mode, result: answer.cached ? "hit" : "miss" });
    for (const stage of ["queue", "encode", "model"] as const)
      this.time("gr2_stage_seconds", { mode, stage }, answer.timings[stage] / 1000);
    for (const kind of ["prompt", "generated"] as const) this.add("gr2_tokens_total", { kind }, answer.tokens[kind]);
  }

  /** Records a batch that a worker has answered. */
  prompts(tokens: PromptTokens): void {
    for (const how of ["computed", "reused"] as const) this.add("gr2_prompt_tokens_total", { how }, tokens[how]);
  }

  /** What there is to say now, for a page that may speak of several processes. */
  snapshot(reranker: Reranker): MetricsSnapshot {
    const plain = <T>(all: ReadonlyMap<string, ReadonlyMap<string, T>>) =>
      Object.fromEntries([...all].map(([name, series]) => [name, Object.fromEntries(series)]));
    const gauges: Record<string, Record<string, number>> = {};
    for (const [name, value, labels = {}] of this.gauges(reranker)) gauges[name] = { [braces(labels)]: value };
    return { counters: plain(this.counters), histograms: plain(this.histograms), gauges };
  }

  /** The whole page. @param others of the service's other processes */
  render(reranker: Reranker, format: MetricsFormat = "prometheus", others: readonly MetricsSnapshot[] = []): string {
    const { counters, histograms, gauges } = others.reduce(addSnapshots, this.snapshot(reranker));
    const lineFor =
      (name: string) =>
      ([labels, value]: [string, number]): string =>
        `${name}${labels} ${value}`;
    const families: readonly Family[] = [
      ...Object.entries(counters).map(([name, series]): Family => {
        return { name, type: "counter", lines: Object.entries(series).map(lineFor(name)) };
      }),
      ...Object.entries(histograms).map(([name, series]): Family => {
        const lines = Object.entries(series).flatMap(([labels, histogram]) => histogramLines(name, labels, histogram));
        return { name, type: "histogram", lines };
      }),
      ...Object.entries(gauges).map(([name, series]): Family => {
        const type = name.endsWith("_total") ? "counter" : "gauge";
        return { name, type, lines: Object.entries(series).map(lineFor(name)) };
      }),
    ];
    const lines = families.flatMap(({ name, type, lines }) => {
      // OpenMetrics names a counter without the suffix of its samples.
      const named = format === "openMetrics" && type === "counter" ? name.replace(/_total$/, "") : name;
      return [`# HELP ${named} ${help[name] ?? name}`, `# TYPE ${named} ${type}`, ...lines];
    });
    return `${[...lines, ...(format === "openMetrics" ? ["# EOF"] : [])].join("\n")}\n`;
  }

  private gauges(reranker: Reranker): readonly (readonly [name: string, value: number, labels?: Labels])[] {
    const { queued, running, workers, workersReady } = reranker.load();
    const model = reranker.model();
    const memory = process.memoryUsage();
    const cpu = process.cpuUsage();
    const openFiles = countOpenFiles();
    return [
      ["gr2_ready", reranker.ready() ? 1 : 0],
      ["gr2_queued", queued],
      ["gr2_running", running],
      ["gr2_workers", workers],
      ["gr2_workers_ready", workersReady],
      ...(model ? [["gr2_model_info", 1, { name: model.name, version: model.version }] as const] : []),
      ["process_cpu_seconds_total", (cpu.user + cpu.system) / 1e6],
      ["process_resident_memory_bytes", memory.rss],
      ["process_start_time_seconds", performance.timeOrigin / 1000],
      ...(openFiles === undefined ? [] : [["process_open_fds", openFiles] as const]),
      ["nodejs_heap_used_bytes", memory.heapUsed],
      ["nodejs_external_memory_bytes", memory.external],
      ["nodejs_eventloop_delay_p99_seconds", finite(this.loopDelay.percentile(99) / 1e9)],
    ];
  }

  close(): void {
    this.loopDelay.disable();
  }

  private add(name: string, labels: Labels, by = 1): void {
    const series = this.counters.get(name) ?? new Map<string, number>();
    this.counters.set(name, series);
    const key = braces(labels);
    series.set(key, (series.get(key) ?? 0) + by);
  }

  private time(name: string, labels: Labels, seconds: number): void {
    const series = this.histograms.get(name) ?? new Map<string, Histogram>();
    this.histograms.set(name, series);
    const key = braces(labels);
    const histogram = series.get(key) ?? { counts: bounds.map(() => 0), sum: 0, count: 0 };
    series.set(key, histogram);
    bounds.forEach((bound, i) => {
      if (seconds <= bound) histogram.counts[i] = (histogram.counts[i] ?? 0) + 1;
    });
    histogram.sum += seconds;
    histogram.count++;
  }
}

type Labels = Readonly<Record<string, string>>;

interface Family {
  readonly name: string;
  readonly type: "counter" | "histogram" | "gauge";
  readonly lines: readonly string[];
}

const help: Readonly<Record<string, string>> = {
  gr2_requests_total: "Finished calls.",
  gr2_request_seconds: "From arrival to the last byte of the answer.",
  gr2_refusals_total: "Calls without an answer, by reason: rate_limited and overloaded are the 429.",
  gr2_answers_total: "Rankings returned; fallback says why it is the caller's own order.",
  gr2_answer_cache_total: "Model answers: from the cache of equal requests, or computed.",
  gr2_stage_seconds: "Where an answer's time went.",
  gr2_tokens_total: "Tokens read and written.",
  gr2_prompt_tokens_total: "Prompt tokens in workers: computed, or reused from the prefix cache.",
  gr2_ready: "1: a model answers.",
  gr2_queued: "Requests waiting for a model.",
  gr2_running: "Requests being computed by a model.",
  gr2_workers: "Workers.",
  gr2_workers_ready: "Workers that answer.",
  gr2_model_info: "The model that answers.",
  process_cpu_seconds_total: "CPU time of the service, without its workers.",
  process_resident_memory_bytes: "Memory of the service, without its workers.",
  process_start_time_seconds: "When the service started, since 1970.",
  process_open_fds: "Open files and sockets.",
  nodejs_heap_used_bytes: "Used part of the JavaScript heap.",
  nodejs_external_memory_bytes: "Memory of objects outside the heap.",
  nodejs_eventloop_delay_p99_seconds: "Event loop delay since the start, 99th percentile.",
};

function histogramLines(name: string, labels: string, { counts, sum, count }: Histogram): string[] {
  const withBound = (le: string) => (labels === "" ? `{le="${le}"}` : `${labels.slice(0, -1)},le="${le}"}`);
  return [
    ...bounds.map((bound, i) => `${name}_bucket${withBound(floatText(bound))} ${counts[i] ?? 0}`),
    `${name}_bucket${withBound("+Inf")} ${count}`,
    `${name}_sum${labels} ${sum}`,
    `${name}_count${labels} ${count}`,
  ];
}

/** OpenMetrics writes bucket bound 1 as 1.0. */
const floatText = (x: number): string => (Number.isInteger(x) ? `${x}.0` : String(x));

const braces = (labels: Labels): string => {
  const pairs = Object.entries(labels).map(([key, value]) => `${key}="${escaped(value)}"`);
  return pairs.length === 0 ? "" : `{${pairs.join(",")}}`;
};

const escaped = (value: string): string => value.replace(/\\/g, "\\\\").replace(/"/g, '\\"').replace(/\n/g, "\\n");

/** Undefined on systems without /proc. */
function countOpenFiles(): number | undefined {
  try {
    return readdirSync("/proc/self/fd").length;
  } catch {
    return undefined;
  }
}

const finite = (x: number): number => (Number.isFinite(x) ? x : 0);
