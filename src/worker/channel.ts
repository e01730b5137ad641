/**
 * One gRPC channel to a worker: deadlines, cancellation, retries with back-off, error mapping and cost accounting.
 * Knows nothing of what the verbs mean; client.ts does.
 */
import { Client, credentials, Metadata, type ServiceError, status } from "@grpc/grpc-js";
import { InterruptedError, WorkerError } from "../core/errors.ts";
import type { CallOptions, VerbStats } from "./types.ts";

/** Statuses after which the same request may succeed: the worker is starting or restarting, or the connection broke. */
const retryableCodes: ReadonlySet<number> = new Set([status.UNAVAILABLE, status.ABORTED]);

/** Waits before the second, third, ... attempt; ~3 s in all, longer than a worker's listen() takes. */
const backoffMs: readonly number[] = [50, 100, 200, 400, 800, 1500];

const channelOptions = {
  "grpc.max_send_message_length": 2 ** 30,
  "grpc.max_receive_message_length": 2 ** 30,
  "grpc.keepalive_time_ms": 10_000,
  "grpc.keepalive_timeout_ms": 5_000,
  "grpc.keepalive_permit_without_calls": 1,
  "grpc.initial_reconnect_backoff_ms": 100,
  "grpc.max_reconnect_backoff_ms": 1_000,
  "grpc.enable_http_proxy": 0,
} as const;

export interface MethodDefinition<Req, Res> {
  readonly path: string;
  readonly requestSerialize: (value: Req) => Buffer;
  readonly responseDeserialize: (value: Buffer) => Res;
}

export interface ChannelOptions {
  /** Secret sent with every call; from the worker's --token-file. */
  readonly token?: string | undefined;
  /** Aborts every call of this channel. */
  readonly signal?: AbortSignal;
  /** Why the worker cannot answer any more (its process died); undefined while it can. */
  readonly diagnose?: () => string | undefined;
}

/** Trailing metadata of every verb, as python_worker/gr2_worker/rpc/service.py writes it. */
const computeSeconds = "gr2-compute-seconds";

const seconds = (sinceMs: number): number => (performance.now() - sinceMs) / 1000;

const isServiceError = (e: unknown): e is ServiceError =>
  e instanceof Error && typeof (e as Partial<ServiceError>).code === "number";

export class Channel {
  readonly address: string;
  readonly stats: Record<string, VerbStats> = {};
  private readonly client: Client;
  private readonly options: ChannelOptions;
  private readonly metadata = new Metadata();

  constructor(address: string, options: ChannelOptions = {}) {
    this.address = address;
    this.options = options;
    if (options.token !== undefined) this.metadata.set("authorization", `Bearer ${options.token}`);
    this.client = new Client(address, credentials.createInsecure(), channelOptions);
  }

  close(): void {
    this.client.close();
  }

  /** Calls a method until it answers, fails for good, or the attempts run out. */
  async unary<Req, Res>(
    verb: string,
    method: MethodDefinition<Req, Res>,
    request: Req,
    call: CallOptions = {},
  ): Promise<Res> {
    return this.attempt(verb, call, () => this.unaryOnce(verb, this.metered(verb, method), request, call));
  }

  /**
   * Server streaming. A stream that breaks with a retryable status is reopened from the start: the caller must
   * recognise messages it has already seen.
   */
  async stream<Req, Res>(
    verb: string,
    method: MethodDefinition<Req, Res>,
    request: Req,
    onMessage: (message: Res) => void,
    call: CallOptions = {},
  ): Promise<void> {
    return this.attempt(verb, call, () => this.streamOnce(verb, this.metered(verb, method), request, onMessage, call));
  }

  getStats(verb: string): VerbStats {
    let s = this.stats[verb];
    if (!s) {
      s = { calls: 0, retries: 0, bytesSent: 0, bytesReceived: 0, wallSeconds: 0, packSeconds: 0, computeSeconds: 0 };
      this.stats[verb] = s;
    }
    return s;
  }

  private metered<Req, Res>(verb: string, method: MethodDefinition<Req, Res>): MethodDefinition<Req, Res> {
    const s = this.getStats(verb);
    return {
      path: method.path,
      requestSerialize: (value) => {
        const start = performance.now();
        const bytes = method.requestSerialize(value);
        s.bytesSent += bytes.byteLength;
        s.packSeconds += seconds(start);
        return bytes;
      },
      responseDeserialize: (bytes) => {
        const start = performance.now();
        s.bytesReceived += bytes.byteLength;
        const value = method.responseDeserialize(bytes);
        s.packSeconds += seconds(start);
        return value;
      },
    };
  }

  private async attempt<T>(verb: string, call: CallOptions, once: () => Promise<T>): Promise<T> {
    const s = this.getStats(verb);
    s.calls++;
    const start = performance.now();
    try {
      for (let i = 0; ; i++) {
        this.throwIfAborted(call);
        try {
          return await once();
        } catch (e) {
          this.throwIfAborted(call);
          if (!isServiceError(e)) throw e;
          const dead = this.options.diagnose?.();
          const wait = backoffMs[i];
          if (dead !== undefined || wait === undefined || !retryableCodes.has(e.code))
            throw this.translate(verb, e, call, dead);
          s.retries++;
          await this.sleep(wait, call);
        }
      }
    } finally {
      s.wallSeconds += seconds(start);
    }
  }

  private unaryOnce<Req, Res>(
    verb: string,
    method: MethodDefinition<Req, Res>,
    request: Req,
    call: CallOptions,
  ): Promise<Res> {
    return new Promise((resolve, reject) => {
      const onAbort = () => pending.cancel();
      const signals = this.signals(call);
      const pending = this.client.makeUnaryRequest(
        method.path,
        method.requestSerialize,
        method.responseDeserialize,
        request,
        this.metadataFor(call),
        this.deadline(call),
        (error: ServiceError | null, response?: Res) => {
          for (const s of signals) s.removeEventListener("abort", onAbort);
          if (error) reject(error);
          else resolve(response as Res);
        },
      );
      pending.on("status", (s) => this.noteCompute(verb, s));
      for (const s of signals) s.addEventListener("abort", onAbort);
    });
  }

  private async streamOnce<Req, Res>(
    verb: string,
    method: MethodDefinition<Req, Res>,
    request: Req,
    onMessage: (message: Res) => void,
    call: CallOptions,
  ): Promise<void> {
    const pending = this.client.makeServerStreamRequest(
      method.path,
      method.requestSerialize,
      method.responseDeserialize,
      request,
      this.metadataFor(call),
      this.deadline(call),
    );
    pending.on("status", (s) => this.noteCompute(verb, s));
    pending.on("error", () => {}); // reported through the iterator below; cancelling must not raise it twice
    const onAbort = () => pending.cancel();
    const signals = this.signals(call);
    for (const s of signals) s.addEventListener("abort", onAbort);
    try {
      for await (const message of pending) onMessage(message as Res);
    } finally {
      for (const s of signals) s.removeEventListener("abort", onAbort);
      pending.cancel();
    }
  }

  /** After every answer the worker reports how long it computed, time in the queue not included. */
  private noteCompute(verb: string, { metadata }: { metadata: Metadata }): void {
    this.getStats(verb).computeSeconds += Number(metadata.get(computeSeconds)[0] ?? 0);
  }

  private metadataFor({ traceparents = [] }: CallOptions): Metadata {
    if (traceparents.length === 0) return this.metadata;
    const metadata = this.metadata.clone();
    for (const traceparent of traceparents) metadata.add("traceparent", traceparent);
    return metadata;
  }

  private deadline(call: CallOptions): { deadline?: number } {
    return call.timeoutMs === undefined ? {} : { deadline: Date.now() + call.timeoutMs };
  }

  private signals(call: CallOptions): AbortSignal[] {
    return [this.options.signal, call.signal].filter((s) => s !== undefined);
  }

  private throwIfAborted(call: CallOptions): void {
    if (this.signals(call).some((s) => s.aborted)) throw new InterruptedError();
  }

  private sleep(ms: number, call: CallOptions): Promise<void> {
    return new Promise((resolve) => {
      const signals = this.signals(call);
      const done = () => {
        clearTimeout(timer);
        for (const s of signals) s.removeEventListener("abort", done);
        resolve();
      };
      const timer = setTimeout(done, ms);
      for (const s of signals) s.addEventListener("abort", done);
    });
  }

  private translate(verb: string, e: ServiceError, call: CallOptions, dead: string | undefined): WorkerError {
    const retryable = retryableCodes.has(e.code);
    if (dead !== undefined)
      return new WorkerError(`${verb} failed: ${dead}`, {
        cause: e,
        retryable: true,
        advice:
          "A rerun resumes where this one stopped. If memory ran out, lower runtime.microBatchTokens or runtime.sampleBatchTokens; the worker's output is in the run's worker.log.",
      });
    if (e.code === status.RESOURCE_EXHAUSTED) {
      return new WorkerError(`${verb} failed: ${e.details}`, {
        cause: e,
        retryable,
        advice:
          "Lower runtime.microBatchTokens (training, scoring) or runtime.sampleBatchTokens (sampling), or use a smaller model; a rerun resumes where this one stopped.",
      });
    }
    if (e.code === status.UNAVAILABLE) {
      return new WorkerError(`${verb} failed: the worker at ${this.address} does not answer (${e.details})`, {
        cause: e,
        retryable,
        advice: "Check that the worker runs and that the address is right; a rerun resumes where this one stopped.",
      });
    }
    if (e.code === status.DEADLINE_EXCEEDED) {
      return new WorkerError(`${verb} failed: no answer within ${call.timeoutMs} ms`, { cause: e, retryable: true });
    }
    if (e.code === status.UNAUTHENTICATED) {
      return new WorkerError(`${verb} failed: the worker at ${this.address} rejects this token`, {
        cause: e,
        retryable,
        advice: "Point runtime.tokenFile at a copy of the file the worker was started with (--token-file).",
      });
    }
    if (e.code === status.UNIMPLEMENTED) {
      return new WorkerError(`${verb} failed: the worker at ${this.address} does not know this verb`, {
        cause: e,
        retryable,
        advice: "Orchestrator and worker have different versions; run `make setup` on both sides.",
      });
    }
    const full = e.details || (status[e.code] ?? `status ${e.code}`);
    const detail = full.length > 400 ? `${full.slice(0, 400)}…` : full; // a library may list every name it knows
    const cannotWrite = /No space left|quota exceeded|Read-only file system|Permission denied/i.test(detail);
    const advice = cannotWrite
      ? "Free some space or check who owns the folder, or put the runs elsewhere with --root PATH. A rerun resumes where this one stopped."
      : undefined;
    return new WorkerError(`${verb} failed: ${detail}`, { cause: e, retryable, advice });
  }
}
