/**
 * W3C trace context (https://www.w3.org/TR/trace-context/): reads the caller's `traceparent`, and makes the service's own,
 * which goes back to the caller and on to the worker.
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

/** @param header as it came @returns undefined for one that the standard says to ignore */
export function readTraceparent(header: unknown): TraceContext | undefined {
  const [, version, traceId = "", spanId = "", flags = "", more] = pattern.exec(String(header ?? "")) ?? [];
  if (version === undefined || version === "ff" || (version === "00" && more !== undefined)) return undefined;
  if (/^0+$/.test(traceId) || /^0+$/.test(spanId)) return undefined;
  return { traceId, spanId, flags: Number.parseInt(flags, 16) };
}

export const formatTraceparent = ({ traceId, spanId, flags }: TraceContext): string =>
  `00-${traceId}-${spanId}-${flags.toString(16).padStart(2, "0")}`;

/** A request under way, as tracing sees it. */
export interface RequestTrace {
  readonly context: TraceContext;
  /** Called once, when the answer is sent. */
  end(result: TraceResult): void;
}

/** What of a finished request its span says. Holds nothing that a caller wrote. */
export interface TraceResult {
  /** By OpenTelemetry's names where there are some. */
  readonly attributes: Readonly<Record<string, string | number>>;
  /** Milliseconds of its stages, in their order. */
  readonly stages: Readonly<Record<string, number>>;
  /** Why it is an error; undefined: it is none. */
  readonly problem: string | undefined;
}

export interface Tracing {
  /** Undefined where the caller sent no trace and none is recorded. @param header `traceparent`, as it came */
  begin(name: string, header: unknown): RequestTrace | undefined;
  /** Sends what is recorded. Never throws. */
  close(): Promise<void>;
}

/** Passes traces on and records none. */
export const passOn: Tracing = {
  begin(_, header) {
    const parent = readTraceparent(header);
    if (!parent) return undefined;
    return { context: { ...parent, spanId: randomBytes(8).toString("hex") }, end: () => {} };
  },
  close: async () => {},
};
