/**
 * `gr2 watch`: follows a running pipeline from another terminal. Earlier events come from the run folder (manifest,
 * tail of metrics.jsonl), new ones over zeromq.
 */
import pc from "picocolors";
import { RunError } from "../core/errors.ts";
import { readManifest } from "../run/manifest.ts";
import { isAlive } from "../run/processes.ts";
import { type MetricsRecord, readRecords } from "../run/record-log.ts";
import { listRuns, RunFolder } from "../run/run-folder.ts";
import { attach, telemetryAddress } from "../worker/telemetry.ts";
import { bar, duration, number, plain } from "./format.ts";
import { LiveState } from "./live-state.ts";
import { type Output, progressText } from "./progress.ts";

export interface WatchOptions {
  readonly root: string;
  /** Default: the run in progress, else the newest. */
  readonly name?: string;
  readonly signal: AbortSignal;
}

const redrawMs = 100;
const plainIntervalSeconds = 2;

/** Follows until the run ends or the signal is aborted. Throws RunError if there is nothing to watch. */
export async function watch(options: WatchOptions, out: Output): Promise<void> {
  const folder = RunFolder.view(options.root, options.name ?? choose(options.root));
  const state = new LiveState();
  catchUp(folder, state);
  if (!folder.holder()) {
    out.write(`${folder.name} is not running; its last state:\n${screen(folder.name, state, 100)}\n`);
    return;
  }
  await untilPublished(folder, options.signal);
  const view = out.isTTY ? new Screen(out, folder.name, state) : new Lines(out, state);
  view.draw(true);
  let lost = 0;
  const onGap = (n: number) => {
    lost += n;
  };
  for await (const m of attach(folder.path, { isAlive, signal: options.signal, onGap })) {
    state.apply(m);
    view.draw(m.kind === "stage" || m.kind === "end");
  }
  view.draw(true);
  if (lost > 0) out.write(pc.dim(`${lost} messages were lost in transit; metrics.jsonl has all of them\n`));
  if (state.end) out.write(`the run ${state.end.status}${state.end.note ? `: ${plain(state.end.note, 300)}` : ""}\n`);
  else if (!options.signal.aborted)
    out.write("the run's process has ended; `gr2 pipeline` with the same --run resumes it\n");
}

function choose(root: string): string {
  const runs = listRuns(root);
  const [newest] = runs;
  if (!newest)
    throw new RunError(`there is no run under ${root} to watch`, { advice: "Start one with `make pipeline`." });
  return runs.find((name) => RunFolder.view(root, name).holder()) ?? newest;
}

/** A run that has just started publishes its address within moments. */
async function untilPublished(folder: RunFolder, signal: AbortSignal): Promise<void> {
  for (let i = 0; i < 50 && !telemetryAddress(folder.path) && !signal.aborted; i++) {
    await new Promise((done) => setTimeout(done, 100));
  }
}

/** Reads what a late watcher has missed: stages from the manifest, latest metrics from the log. */
function catchUp(folder: RunFolder, state: LiveState): void {
  const stages = Object.entries(readManifest(folder.path)?.stages ?? {});
  for (const [stage, s] of stages) {
    const known = {
      running: "started",
      finished: s.cached ? "cached" : "finished",
      failed: "failed",
      interrupted: "failed",
    } as const;
    state.stages.set(stage, { kind: "stage", stage, state: known[s.state], seconds: s.seconds });
    if (s.state === "running") state.current = stage;
  }
  for (const r of readRecords<MetricsRecord>(folder.file("metrics.jsonl"))) state.saw(r);
}

/** Metrics as words, including a histogram of first choices whose highest bar is the most common position. */
function words(values: Readonly<Record<string, number>>): string[] {
  const isFirstChoice = (name: string): boolean => name.startsWith("first_choice_");
  const firstChoices = Object.entries(values).flatMap(([name, v]) => (isFirstChoice(name) ? [v] : []));
  const highest = Math.max(...firstChoices, 1e-9);
  const heights = firstChoices.map((v) => "▁▂▃▄▅▆▇█"[Math.round((7 * v) / highest)] ?? "").join("");
  return [
    ...Object.entries(values).flatMap(([name, v]) => (isFirstChoice(name) ? [] : [`${name} ${number(v)}`])),
    ...(firstChoices.length > 0
      ? [`first choice by position ${heights}, position 1 ${number(firstChoices[0] as number)}`]
      : []),
  ];
}

/** The whole state in a few lines. */
export function screen(run: string, state: LiveState, width: number): string {
  const lines = [pc.bold(`GR2 run ${run}`), ""];
  for (const s of state.stages.values()) {
    const name = s.stage.padEnd(10);
    if (s.state === "finished") lines.push(`  ${pc.green("✓")} ${name} ${duration(s.seconds ?? 0)}`);
    else if (s.state === "cached")
      lines.push(`  ${pc.green("✓")} ${name} ${pc.dim(`unchanged (took ${duration(s.seconds ?? 0)})`)}`);
    else if (s.state === "failed") lines.push(`  ${pc.red("✗")} ${name} stopped after ${duration(s.seconds ?? 0)}`);
    else {
      const p = state.current === s.stage ? state.progress : undefined;
      const share = p ? p.done / Math.max(1, p.total) : 0;
      const text = p ? progressText(state) : "…";
      lines.push(`  ${pc.cyan("▸")} ${name} ${pc.cyan(bar(share, 24))} ${plain(text, width - 42)}`);
    }
  }
  if (state.metrics) {
    const values = words(state.metrics.values);
    lines.push(
      "",
      `${pc.bold(state.metrics.stage)} step ${state.metrics.step}`,
      ...wrap(values, width - 2).map((l) => `  ${l}`),
    );
  }
  if (state.alarms.size > 0) lines.push("");
  for (const { name, text, step } of state.alarms.values())
    lines.push(
      ...wrap(`! step ${step + 1}, ${name}: ${text}`.split(" "), width - 2, " ").map((l) => `  ${pc.yellow(l)}`),
    );
  if (state.sample) {
    const { stage, step, reward, text } = state.sample;
    lines.push(
      "",
      `${pc.bold("sample")} ${stage} step ${step}${reward === undefined ? "" : `, reward ${number(reward)}`}`,
    );
    lines.push(...wrap(plain(text, 4 * (width - 2)).split(" "), width - 2, " ").map((l) => `  ${pc.dim(l)}`));
  }
  if (state.note) lines.push("", pc.dim(plain(state.note, width)));
  return lines.join("\n");
}

function wrap(words: readonly string[], width: number, gap = "   "): string[] {
  const lines: string[] = [];
  for (const word of words) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + gap.length + word.length <= width)
      lines[lines.length - 1] = last + gap + word;
    else lines.push(word.slice(0, width));
  }
  return lines;
}

class Screen {
  private readonly out: Output;
  private readonly run: string;
  private readonly state: LiveState;
  private height = 0;
  private last = 0;

  constructor(out: Output, run: string, state: LiveState) {
    this.out = out;
    this.run = run;
    this.state = state;
  }

  draw(now: boolean): void {
    if (!now && performance.now() - this.last < redrawMs) return;
    this.last = performance.now();
    const text = screen(this.run, this.state, Math.max(40, (this.out.columns ?? 80) - 1));
    this.out.write(`${this.height > 0 ? `\x1b[${this.height}A` : ""}\x1b[0J${text}\n`);
    this.height = text.split("\n").length;
  }
}

/** For a pipe or a log: one line per stage event, and one every two seconds. */
class Lines {
  private readonly out: Output;
  private readonly state: LiveState;
  private last = 0;
  private readonly printed = new Set<string>();

  constructor(out: Output, state: LiveState) {
    this.out = out;
    this.state = state;
  }

  draw(now: boolean): void {
    for (const s of this.state.stages.values()) {
      const line = `${s.stage} ${s.state}${s.state === "finished" ? ` in ${duration(s.seconds ?? 0)}` : ""}`;
      if (!this.printed.has(line)) this.out.write(`${line}\n`);
      this.printed.add(line);
    }
    const time = performance.now() / 1000;
    if (now || time - this.last < plainIntervalSeconds || !this.state.progress) return;
    this.last = time;
    const { metrics } = this.state;
    const values = Object.entries(metrics?.values ?? {})
      .slice(0, 4)
      .map(([k, v]) => `${k} ${number(v)}`);
    this.out.write(`${this.state.current ?? ""} ${progressText(this.state)}   ${values.join("  ")}\n`);
  }
}
