/**
 * The telemetry bus: what a run reports while it works. Listeners in this process (progress bars) get every event at
 * once; other processes get them over zeromq PUB/SUB, where a slow reader loses messages and sees the gap in `seq`.
 * Nothing here may block or fail a run, and nothing that must arrive is sent here: the record is metrics.jsonl.
 */
import { readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

export type TelemetryEvent =
  | {
      readonly kind: "stage";
      readonly stage: string;
      readonly state: "started" | "resumed" | "cached" | "finished" | "failed";
      /** Position among the run's stages, from 1. */
      readonly index?: number;
      readonly total?: number;
      readonly seconds?: number;
      /** One short line to display. */
      readonly note?: string;
    }
  | {
      readonly kind: "progress";
      readonly stage: string;
      readonly done: number;
      readonly total: number;
      /** What is counted: "steps", "slates". */
      readonly unit?: string;
      readonly note?: string;
    }
  | {
      readonly kind: "metrics";
      readonly stage: string;
      readonly step: number;
      readonly values: Readonly<Record<string, number>>;
    }
  | {
      readonly kind: "sample";
      readonly stage: string;
      readonly step: number;
      readonly text: string;
      readonly reward?: number;
    }
  | { readonly kind: "log"; readonly level: "info" | "warn"; readonly text: string }
  | { readonly kind: "end"; readonly status: "finished" | "failed" | "interrupted"; readonly note?: string };

/** An event as sent: with a number, a time (seconds since the Unix epoch) and its run. */
export type TelemetryMessage = TelemetryEvent & { readonly seq: number; readonly time: number; readonly run: string };

/** runs/NAME/telemetry.json: where to subscribe, and who publishes. */
export interface TelemetryAddress {
  readonly address: string;
  readonly run: string;
  readonly pid: number;
  readonly startTime: string | undefined;
}

type Listener = (message: TelemetryMessage) => void;

/** Messages waiting for the socket; beyond this the oldest are dropped. */
const maxQueued = 1000;
const maxTextLength = 4000;

export class TelemetryBus {
  readonly run: string;
  private readonly listeners = new Set<Listener>();
  private publisher: Publisher | undefined;
  private seq = 0;

  constructor(run: string) {
    this.run = run;
  }

  /** Calls the listener with every later event; returns a function that stops it. A listener that throws is dropped. */
  on(listener: Listener): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  emit(event: TelemetryEvent): void {
    const clipped = event.kind === "sample" ? { ...event, text: event.text.slice(0, maxTextLength) } : event;
    const message: TelemetryMessage = { seq: ++this.seq, time: Date.now() / 1000, run: this.run, ...clipped };
    for (const listener of this.listeners) {
      try {
        listener(message);
      } catch {
        this.listeners.delete(listener);
      }
    }
    this.publisher?.publish(message);
  }

  /** Opens a PUB socket on a free loopback port and writes its address to `folder`/telemetry.json. Never fails. */
  async publish(folder: string, startTime: string | undefined): Promise<void> {
    this.publisher = await Publisher.open();
    if (!this.publisher) return;
    const entry: TelemetryAddress = { address: this.publisher.address, run: this.run, pid: process.pid, startTime };
    const path = join(folder, "telemetry.json");
    try {
      writeFileSync(`${path}.tmp`, `${JSON.stringify(entry)}\n`);
      renameSync(`${path}.tmp`, path);
      this.publisher.addressFile = path;
    } catch {
      await this.publisher.close();
      this.publisher = undefined;
    }
  }

  /** Sends what is queued (briefly), closes the socket and removes the address file. Never fails. */
  async close(): Promise<void> {
    await this.publisher?.close();
    this.publisher = undefined;
    this.listeners.clear();
  }
}

type Zmq = typeof import("zeromq");

class Publisher {
  readonly address: string;
  addressFile: string | undefined;
  private readonly socket: InstanceType<Zmq["Publisher"]>;
  private readonly queue: string[] = [];
  private pumping: Promise<void> | undefined;

  private constructor(socket: InstanceType<Zmq["Publisher"]>, address: string) {
    this.socket = socket;
    this.address = address;
  }

  static async open(): Promise<Publisher | undefined> {
    try {
      const zmq = await import("zeromq");
      const socket = new zmq.Publisher({ linger: 0, sendHighWaterMark: maxQueued });
      await socket.bind("tcp://127.0.0.1:*");
      return new Publisher(socket, socket.lastEndpoint as string);
    } catch {
      return undefined; // no native module or no loopback: a run works without it
    }
  }

  publish(message: TelemetryMessage): void {
    if (this.queue.length >= maxQueued) this.queue.shift();
    this.queue.push(JSON.stringify(message));
    this.pumping ??= this.pump();
  }

  async close(): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const limit = new Promise<void>((done) => {
      timer = setTimeout(done, 200);
    });
    // linger 0 discards what zeromq still holds: give its I/O thread a moment for the last message.
    await Promise.race([
      limit,
      (this.pumping ?? Promise.resolve()).then(() => new Promise((done) => setTimeout(done, 50))),
    ]);
    clearTimeout(timer);
    this.socket.close();
    if (this.addressFile) rmSync(this.addressFile, { force: true });
  }

  /** One send at a time, as zeromq requires. */
  private async pump(): Promise<void> {
    try {
      for (let next = this.queue.shift(); next !== undefined; next = this.queue.shift()) await this.socket.send(next);
    } catch {
      this.queue.length = 0; // closed
    } finally {
      this.pumping = undefined;
    }
  }
}

export interface AttachOptions {
  /** True while the publishing process is running; called once a second. */
  readonly isAlive: (pid: number, startTime: string | undefined) => boolean;
  readonly signal?: AbortSignal;
  /** Called with the number of messages that were lost between two that arrived. */
  readonly onGap?: (lost: number) => void;
}

/** Where a run publishes; undefined if it does not (not started, finished, or killed too early). */
export function telemetryAddress(folder: string): TelemetryAddress | undefined {
  try {
    return JSON.parse(readFileSync(join(folder, "telemetry.json"), "utf8")) as TelemetryAddress;
  } catch {
    return undefined;
  }
}

/**
 * Messages of a run, from now on. Ends after its "end" message, when its process has ended or the signal is aborted; at
 * once if nothing publishes.
 */
export async function* attach(folder: string, options: AttachOptions): AsyncGenerator<TelemetryMessage> {
  const target = telemetryAddress(folder);
  if (!target || !options.isAlive(target.pid, target.startTime)) return;
  const zmq = await import("zeromq");
  const socket = new zmq.Subscriber({ linger: 0, receiveHighWaterMark: 10_000 });
  socket.connect(target.address);
  socket.subscribe();
  const close = () => {
    if (!socket.closed) socket.close(); // ends the loop below
  };
  const watchdog = setInterval(() => {
    if (!options.isAlive(target.pid, target.startTime)) close();
  }, 1000);
  options.signal?.addEventListener("abort", close, { once: true });
  let last: number | undefined;
  try {
    if (options.signal?.aborted) return;
    for await (const [frame] of socket) {
      const message = JSON.parse(String(frame)) as TelemetryMessage;
      if (last !== undefined && message.seq > last + 1) options.onGap?.(message.seq - last - 1);
      last = message.seq;
      yield message;
      if (message.kind === "end") return;
    }
  } finally {
    clearInterval(watchdog);
    options.signal?.removeEventListener("abort", close);
    close();
  }
}
