/** The lines of the access log. They contain nothing a caller wrote: no texts, no item ids, no unknown paths. */
import { randomUUID } from "node:crypto";
import type { ServeMode } from "../request/types.ts";

interface Access {
  /** The caller's own, if harmless, so that both logs can be correlated. */
  readonly requestId: string;
  readonly route: string;
  /** Of the token or certificate; "" before the caller is known. */
  readonly client: string;
  readonly ms: number;
  readonly numHistory: number;
  readonly numCandidates: number;
  /** How it was to be answered; absent before that is known. */
  readonly mode?: ServeMode;
  readonly fallback?: string;
  /** The error code. */
  readonly problem?: string;
  /** For a bug: its kind and place in the code. */
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
  /** The status by its name. */
  readonly status: string;
  /** Of a batch; else 1. */
  readonly numRequests: number;
}

export type AccessRecord = HttpAccess | GrpcAccess;

/** @param given "x-request-id", as it came */
export const readRequestId = (given: unknown): string =>
  typeof given === "string" && /^[A-Za-z0-9._-]{1,64}$/.test(given) ? given : randomUUID();

/** A bug's kind and place in the code, without its message. */
export function stackTrace(error: unknown): string {
  const frames = error instanceof Error ? (error.stack ?? "").split("\n").filter((line) => /^\s+at /.test(line)) : [];
  return [error instanceof Error ? error.name : typeof error, ...frames.slice(0, 6).map((f) => f.trim())].join(" | ");
}
