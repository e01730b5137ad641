/** A run's state from its telemetry so far, shown by progress bars and `watch`. Draws nothing. */
import { type Alarm, alarmWindow, raiseAlarms } from "../rl/health.ts";
import type { TelemetryEvent, TelemetryMessage } from "../worker/telemetry.ts";

export type StageView = Extract<TelemetryEvent, { kind: "stage" }>;
export type ProgressView = Extract<TelemetryEvent, { kind: "progress" }>;

export interface StepMetrics {
  readonly stage: string;
  readonly step: number;
  readonly values: Readonly<Record<string, number>>;
}

export class LiveState {
  /** Stages by name, in the order in which they began. */
  readonly stages = new Map<string, StageView>();
  current: string | undefined;
  progress: ProgressView | undefined;
  /** Latest metrics, and the stage that reported them. */
  metrics: StepMetrics | undefined;
  /** RL's alarms by name, in the order in which they were first raised; `step` counts from 0. */
  readonly alarms = new Map<string, Alarm & { readonly step: number }>();
  private recent: Readonly<Record<string, number>>[] = [];
  sample: { stage: string; step: number; text: string; reward?: number } | undefined;
  note: string | undefined;
  end: Extract<TelemetryEvent, { kind: "end" }> | undefined;
  private since: { time: number; done: number } | undefined;
  private now = 0;

  apply(m: TelemetryMessage): void {
    this.now = m.time;
    switch (m.kind) {
      case "stage":
        this.stages.set(m.stage, m);
        this.progress = undefined;
        this.since = undefined;
        this.current = m.state === "started" || m.state === "resumed" ? m.stage : undefined;
        return;
      case "progress":
        if (!this.progress || m.done < this.progress.done || m.total !== this.progress.total) {
          this.since = { time: m.time, done: m.done };
        }
        this.progress = m;
        this.current = m.stage;
        return;
      case "metrics":
        this.saw(m);
        return;
      case "sample":
        this.sample = m;
        return;
      case "log":
        this.note = m.text;
        return;
      case "end":
        this.end = m;
        this.current = undefined;
    }
  }

  /** Applies a step's metrics, from the bus or, for a watcher that started late, from metrics.jsonl. */
  saw(m: StepMetrics): void {
    this.metrics = m;
    if (m.stage !== "rl" || m.values.valid_rate === undefined) return;
    if (m.step === 0) {
      this.alarms.clear(); // the stage restarted
      this.recent = [];
    }
    this.recent = [...this.recent, m.values].slice(-alarmWindow);
    for (const alarm of raiseAlarms(this.recent))
      if (!this.alarms.has(alarm.name)) this.alarms.set(alarm.name, { ...alarm, step: m.step });
  }

  /** Estimated seconds until the current count is complete; undefined while unknown. */
  eta(): number | undefined {
    const { progress, since } = this;
    if (!progress || !since || progress.done <= since.done || this.now <= since.time) return undefined;
    return ((progress.total - progress.done) * (this.now - since.time)) / (progress.done - since.done);
  }
}
