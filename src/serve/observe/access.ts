/** The lines of the access log. They contain nothing that a caller wrote: no texts, item ids or unknown paths. */
import { randomUUID } from "node:crypto";
import type { RerankAnswer, ServeMode } from "../request/types.ts";
import type { RequestTrace } from "./trace.ts";

interface Access {
  /** When it was finished, ISO 8601. */
  readonly time: string;
  /** error: a bug; warn: refused, or the caller's own order was returned. */
  readonly level: "info" | "warn" | "error";
  /** The caller's address. */
  readonly peer: string;
  /** From the caller's `traceparent`, if sent, or if traces are recorded; the span is the service's own. */
  readonly traceId?: string;
  readonly spanId?: string;
  /**
   * Milliseconds for parsing the request, for unknown texts and the prompt, waiting for a worker, and in the worker.
   */
  readonly stages?: Readonly<Record<"parse" | "encode" | "queue" | "model", number>>;
  /** The caller's own, if harmless: both logs can then be correlated. */
  readonly requestId: string;
  readonly route: string;
  /** Name of the token or certificate; "" before the caller is known. */
  readonly client: string;
  readonly ms: number;
  readonly numHistory: number;
  readonly numCandidates: number;
  /** The requested mode; absent before it is known. */
  readonly mode?: ServeMode;
  readonly fallback?: string;
  /** The error code. */
  readonly problem?: string;
  /** For a bug: its kind and location in the code. */
  readonly trace?: string;
}

export interface HttpAccess extends Access {
  readonly transport: "http";
  readonly method: string;
  readonly dialect: string;
  /** 499: the client went away. */
  readonly status: number;
  readonly bytesIn: number;
  readonly bytesOut: number;
}

export interface GrpcAccess extends Access {
  readonly transport: "grpc";
  /** The name of the status. */
  readonly status: string;
  /** Requests in a batch; else 1. */
  readonly numRequests: number;
}

export type AccessRecord = HttpAccess | GrpcAccess;

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/** The fields of a record before anything is known about its request. */
export const beginRecord = (peer: string | undefined, trace: RequestTrace | undefined) => ({
  ...{ time: "", level: "info" as const, peer: peer ?? "", client: "", ms: 0, numHistory: 0, numCandidates: 0 },
  ...(trace ? { traceId: trace.context.traceId, spanId: trace.context.spanId } : {}),
});

/** Completes the record of a finished request and ends its trace. @param parseMs time to parse the request */
export function finishRecord(
  record: Mutable<AccessRecord>,
  { ms, parseMs, answer }: { readonly ms: number; readonly parseMs: number; readonly answer: RerankAnswer | undefined },
  trace: RequestTrace | undefined,
): void {
  record.ms = rounded(ms);
  record.time = new Date().toISOString();
  if (answer?.fallback) record.fallback = answer.fallback;
  const isBug = record.problem === "internal";
  record.level = isBug ? "error" : record.problem !== undefined || record.fallback !== undefined ? "warn" : "info";
  const { encode, queue, model } = answer?.timings ?? { encode: 0, queue: 0, model: 0 };
  const stages = { parse: rounded(parseMs), encode: rounded(encode), queue: rounded(queue), model: rounded(model) };
  if (answer) record.stages = stages;
  trace?.end({
    attributes: {
      "gr2.request_id": record.requestId,
      "gr2.transport": record.transport,
      "gr2.client": record.client,
      "gr2.candidates": record.numCandidates,
      "client.address": record.peer,
      ...(record.transport === "http"
        ? { "http.route": record.route, "http.response.status_code": record.status }
        : { "rpc.method": record.route, "gr2.status": record.status }),
      ...(record.mode ? { "gr2.mode": record.mode } : {}),
      ...(record.fallback ? { "gr2.fallback": record.fallback } : {}),
    },
    stages: answer ? stages : {},
    problem: record.problem,
  });
}

const rounded = (ms: number): number => Math.round(ms * 10) / 10;

/** @param given "x-request-id", as received */
export const readRequestId = (given: unknown): string =>
  typeof given === "string" && /^[A-Za-z0-9._-]{1,64}$/.test(given) ? given : randomUUID();

/** A bug's kind and location in the code, without its message. */
export function stackTrace(error: unknown): string {
  const frames = error instanceof Error ? (error.stack ?? "").split("\n").filter((line) => /^\s+at /.test(line)) : [];
  return [error instanceof Error ? error.name : typeof error, ...frames.slice(0, 6).map((f) => f.trim())].join(" | ");
}
