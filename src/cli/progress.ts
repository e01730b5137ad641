/**
 * Draws the pipeline's progress from the telemetry bus: on a terminal a bar with the time left, elsewhere plain lines
 * (one when a stage starts and ends, and one every ten seconds in between).
 */
import pc from "picocolors";
import type { TelemetryBus, TelemetryMessage } from "../worker/telemetry.ts";
import { bar, duration, plain } from "./format.ts";
import { LiveState, type StageView } from "./live-state.ts";

export interface Output {
  write(text: string): unknown;
  readonly isTTY?: boolean;
  readonly columns?: number;
}

const plainIntervalSeconds = 10;
const redrawIntervalMs = 80;

/** Draws until the returned function is called. */
export function drawProgress(bus: TelemetryBus, out: Output): () => void {
  const state = new LiveState();
  const draw = out.isTTY ? new TerminalProgress(out, state) : new PlainProgress(out, state);
  const stop = bus.on((message) => {
    state.apply(message);
    draw.event(message);
  });
  return () => {
    stop();
    draw.stop();
  };
}

const stageNumber = (s: StageView): string => (s.index ? `[${String(s.index).padStart(2)}/${s.total ?? "?"}]` : "");

/** "[ 4/10] midtrain   done in 2m05s", or undefined for a state that prints no line of its own. */
function stageLine(s: StageView): string | undefined {
  const head = `${stageNumber(s)} ${s.stage.padEnd(10)}`;
  const time = duration(s.seconds ?? 0);
  if (s.state === "finished") return `${head} ${pc.green("done")} in ${time}`;
  if (s.state === "cached") return `${head} ${pc.dim(`unchanged (took ${time})`)}`;
  if (s.state === "failed") return `${head} ${pc.red("stopped")} after ${time}`;
  return undefined;
}

class PlainProgress {
  private readonly out: Output;
  private readonly state: LiveState;
  private lastLine = 0;

  constructor(out: Output, state: LiveState) {
    this.out = out;
    this.state = state;
  }

  event(m: TelemetryMessage): void {
    if (m.kind === "stage") {
      const line = stageLine(m) ?? `${stageNumber(m)} ${m.stage.padEnd(10)} ${m.state}`;
      this.out.write(`${line}\n`);
      this.lastLine = m.time;
    } else if (m.kind === "log") {
      this.out.write(`        ${m.level === "warn" ? "warning: " : ""}${plain(m.text, 300)}\n`);
    } else if (m.kind === "progress" && m.time - this.lastLine >= plainIntervalSeconds) {
      this.lastLine = m.time;
      this.out.write(`        ${progressText(this.state)}\n`);
    }
  }

  stop(): void {}
}

class TerminalProgress {
  private readonly out: Output;
  private readonly state: LiveState;
  private drawn = false;
  private lastDraw = 0;

  constructor(out: Output, state: LiveState) {
    this.out = out;
    this.state = state;
  }

  event(m: TelemetryMessage): void {
    if (m.kind === "stage") {
      const line = stageLine(m);
      if (line) this.print(line);
      this.redraw(true);
    } else if (m.kind === "log") {
      this.print(pc.dim(`        ${m.level === "warn" ? "warning: " : ""}${plain(m.text, 300)}`));
      this.redraw(true);
    } else if (m.kind === "progress") this.redraw(false);
  }

  stop(): void {
    this.erase();
  }

  private print(line: string): void {
    this.erase();
    this.out.write(`${line}\n`);
  }

  private erase(): void {
    if (this.drawn) this.out.write("\r\x1b[2K");
    this.drawn = false;
  }

  private redraw(now: boolean): void {
    const time = performance.now();
    if (!this.state.current || (!now && time - this.lastDraw < redrawIntervalMs)) return;
    this.lastDraw = time;
    const stage = this.state.stages.get(this.state.current);
    const head = `${stage ? stageNumber(stage) : ""} ${this.state.current.padEnd(10)} `;
    const { progress } = this.state;
    const room = Math.max(20, (this.out.columns ?? 80) - 1);
    const width = Math.max(8, Math.min(28, room - head.length - 45));
    const rest = progress ? progressText(this.state) : "…";
    const text = plain(rest, room - head.length - width - 1);
    this.erase();
    this.out.write(`${head}${pc.cyan(bar(progress ? progress.done / Math.max(1, progress.total) : 0, width))} ${text}`);
    this.drawn = true;
  }
}

/** " 38%  57/150  loss 4.213  1m20s left". */
export function progressText(state: LiveState): string {
  const p = state.progress;
  if (!p) return "";
  const percent = `${Math.floor((100 * p.done) / Math.max(1, p.total))}%`.padStart(4);
  const eta = state.eta();
  return [
    percent,
    `${p.done}/${p.total}${p.unit ? ` ${p.unit}` : ""}`,
    p.note,
    eta === undefined ? "" : `${duration(eta)} left`,
  ]
    .filter(Boolean)
    .join("  ");
}
