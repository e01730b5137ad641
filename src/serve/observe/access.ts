/** The lines of the access log. They hold nothing a caller wrote: no texts, no ids of items, no paths we do not know. */
import { randomUUID } from "node:crypto";
import type { ServeMode } from "../request/types.ts";

interface Access {
  /** The caller's own, if it is harmless, so that its log and ours can be put together. */
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
  /** Why not, as a code. */
  readonly problem?: string;
  /** Of a bug: its kind and where it happened. */
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
