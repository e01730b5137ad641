/**
 * W3C trace context (https://www.w3.org/TR/trace-context/): reads the caller's `traceparent`, and makes the service's
 * own, which is returned to the caller and passed to the worker.
 *
 *   00-<trace id, 32 hex>-<span id, 16 hex>-<flags, 2 hex>
 */
import { randomBytes } from "node:crypto";

export interface TraceContext {
  readonly traceId: string;
  readonly spanId: string;
  /** Bit 0: the caller records this trace. */
  readonly flags: number;
}

const pattern = /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$/;

/** @param header as received @returns undefined for one that must be ignored by the standard */
export function readTraceparent(header: unknown): TraceContext | undefined {
  const [, version, traceId = "", spanId = "", flags = "", more] = pattern.exec(String(header ?? "")) ?? [];
  if (version === undefined || version === "ff" || (version === "00" && more !== undefined)) return undefined;
  if (/^0+$/.test(traceId) || /^0+$/.test(spanId)) return undefined;
  return { traceId, spanId, flags: Number.parseInt(flags, 16) };
}

export const formatTraceparent = ({ traceId, spanId, flags }: TraceContext): string =>
  `00-${traceId}-${spanId}-${flags.toString(16).padStart(2, "0")}`;

/** The trace of a request in progress. */
export interface RequestTrace {
  readonly context: TraceContext;
  /** Called once, when the answer is sent. */
  end(result: TraceResult): void;
}

/** What a span contains about a finished request: nothing that a caller wrote. */
export interface TraceResult {
  /** Under OpenTelemetry's names where they exist. */
  readonly attributes: Readonly<Record<string, string | number>>;
  /** Milliseconds per stage, in order. */
  readonly stages: Readonly<Record<string, number>>;
  /** The error; undefined if there is none. */
  readonly problem: string | undefined;
}

export interface Tracing {
  /** Undefined if the caller sent no trace and none is recorded. @param header `traceparent`, as received */
  begin(name: string, header: unknown): RequestTrace | undefined;
  /** Sends recorded spans. Never throws. */
  close(): Promise<void>;
}

/** Forwards traces and records none. */
export const passOn: Tracing = {
  begin(_, header) {
    const parent = readTraceparent(header);
    if (!parent) return undefined;
    return { context: { ...parent, spanId: randomBytes(8).toString("hex") }, end: () => {} };
  },
  close: async () => {},
};
