/**
 * The service's metrics for both transports, in Prometheus' text format 0.0.4. Owns names, labels and the format; label
 * values come from short fixed lists, so that no caller can make the page grow.
 */
import { monitorEventLoopDelay } from "node:perf_hooks";
import type { PromptTokens, RerankAnswer, Reranker } from "../request/types.ts";

/** Upper bounds of the histograms, seconds. */
const bounds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30] as const;

interface Histogram {
  readonly counts: number[];
  sum: number;
  count: number;
}

/** One finished call. */
export interface Observation {
  readonly transport: "http" | "grpc";
  /** From the list of routes or methods, never the caller's string. */
  readonly route: string;
  /** HTTP status or gRPC code. */
  readonly status: string;
  readonly seconds: number;
  readonly answer?: RerankAnswer;
}

export class Metrics {
  private readonly counters = new Map<string, Map<string, number>>();
  private readonly histograms = new Map<string, Map<string, Histogram>>();
  private readonly loopDelay = monitorEventLoopDelay({ resolution: 20 });

  constructor() {
    this.loopDelay.enable();
  }

  observe({ transport, route, status, seconds, answer }: Observation): void {
    this.add("gr2_requests_total", { transport, route, status });
    this.time("gr2_request_seconds", { transport, route }, seconds);
    if (!answer) return;
    this.add("gr2_answers_total", { fallback: answer.fallback ?? "none" });
    for (const stage of ["queue", "encode", "model"] as const)
      this.time("gr2_stage_seconds", { stage }, answer.timings[stage] / 1000);
    for (const kind of ["prompt", "generated"] as const) this.add("gr2_tokens_total", { kind }, answer.tokens[kind]);
  }

  /** Of a batch that a worker has answered. */
  prompts(tokens: PromptTokens): void {
    for (const how of ["computed", "reused"] as const) this.add("gr2_prompt_tokens_total", { how }, tokens[how]);
  }

  /** The whole page. */
  render(reranker: Reranker): string {
    const { queued, running, workers, workersReady } = reranker.load();
    const model = reranker.model();
    const memory = process.memoryUsage();
    const cpu = process.cpuUsage();
    const gauges: [name: string, value: number, labels?: Labels][] = [
      ["gr2_ready", reranker.ready() ? 1 : 0],
      ["gr2_queued", queued],
      ["gr2_running", running],
      ["gr2_workers", workers],
      ["gr2_workers_ready", workersReady],
      ...(model
        ? [["gr2_model_info", 1, { name: model.name, version: model.version }] as [string, number, Labels]]
        : []),
      ["process_resident_memory_bytes", memory.rss],
      ["nodejs_heap_used_bytes", memory.heapUsed],
      ["nodejs_eventloop_delay_p99_seconds", finite(this.loopDelay.percentile(99) / 1e9)],
    ];
    const lines = [
      ...[...this.counters].flatMap(([name, series]) => [
        ...head(name, "counter"),
        ...[...series].map(([labels, value]) => `${name}${labels} ${value}`),
      ]),
      ...head("process_cpu_seconds_total", "counter"),
      `process_cpu_seconds_total ${(cpu.user + cpu.system) / 1e6}`,
      ...[...this.histograms].flatMap(([name, series]) => [
        ...head(name, "histogram"),
        ...[...series].flatMap(([labels, histogram]) => histogramLines(name, labels, histogram)),
      ]),
      ...gauges.flatMap(([name, value, labels]) => [...head(name, "gauge"), `${name}${braces(labels ?? {})} ${value}`]),
    ];
    return `${lines.join("\n")}\n`;
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

const help: Readonly<Record<string, string>> = {
  gr2_requests_total: "Finished calls.",
  gr2_request_seconds: "From arrival to the last byte of the answer.",
  gr2_answers_total: "Rankings returned; fallback says why the caller's own order was returned.",
  gr2_stage_seconds: "Time per stage of an answer.",
  gr2_tokens_total: "Tokens read and written.",
  gr2_prompt_tokens_total: "Prompt tokens in workers: computed, or reused from the prefix cache.",
  gr2_ready: "1: a model answers.",
  gr2_queued: "Requests waiting for a model.",
  gr2_running: "Requests being computed by a model.",
  gr2_workers: "Workers.",
  gr2_workers_ready: "Workers that are ready.",
  gr2_model_info: "The model that is served.",
};

const head = (name: string, type: string): string[] => [
  ...(help[name] === undefined ? [] : [`# HELP ${name} ${help[name]}`]),
  `# TYPE ${name} ${type}`,
];

function histogramLines(name: string, labels: string, { counts, sum, count }: Histogram): string[] {
  const withBound = (le: string) => (labels === "" ? `{le="${le}"}` : `${labels.slice(0, -1)},le="${le}"}`);
  return [
    ...bounds.map((bound, i) => `${name}_bucket${withBound(String(bound))} ${counts[i] ?? 0}`),
    `${name}_bucket${withBound("+Inf")} ${count}`,
    `${name}_sum${labels} ${sum}`,
    `${name}_count${labels} ${count}`,
  ];
}

const braces = (labels: Labels): string => {
  const pairs = Object.entries(labels).map(([key, value]) => `${key}="${escaped(value)}"`);
  return pairs.length === 0 ? "" : `{${pairs.join(",")}}`;
};

const escaped = (value: string): string => value.replace(/\\/g, "\\\\").replace(/"/g, '\\"').replace(/\n/g, "\\n");
const finite = (x: number): number => (Number.isFinite(x) ? x : 0);
