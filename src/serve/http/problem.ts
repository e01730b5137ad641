/** All HTTP errors: refusals common to all transports, and those specific to HTTP. */
import { Refusal, type RefusalCode } from "../request/types.ts";

export type ProblemCode =
  | RefusalCode
  | "syntax" // the body is not JSON
  | "forbidden" // unknown host name
  | "not_found"
  | "method_not_allowed"
  | "timeout"
  | "unsupported_media"
  | "internal";

export const problemStatus: Readonly<Record<ProblemCode, number>> = {
  syntax: 400,
  invalid: 400,
  unauthenticated: 401,
  forbidden: 403,
  not_found: 404,
  method_not_allowed: 405,
  timeout: 408,
  too_large: 413,
  unsupported_media: 415,
  rate_limited: 429,
  overloaded: 429,
  internal: 500,
  unavailable: 503,
};

/** Default Retry-After, in seconds. */
const defaultRetryAfterMs: Partial<Record<ProblemCode, number>> = {
  rate_limited: 1000,
  overloaded: 1000,
  unavailable: 5000,
};

export class Problem extends Error {
  readonly code: ProblemCode;
  readonly retryAfterMs: number | undefined;
  /** Additional response headers. */
  readonly headers: Readonly<Record<string, string>>;

  constructor(
    code: ProblemCode,
    message: string,
    options: { retryAfterMs?: number | undefined; headers?: Readonly<Record<string, string>> } = {},
  ) {
    super(message);
    this.name = "Problem";
    this.code = code;
    this.retryAfterMs = options.retryAfterMs ?? defaultRetryAfterMs[code];
    this.headers = {
      ...(code === "unauthenticated" ? { "www-authenticate": 'Bearer realm="gr2"' } : {}),
      ...(this.retryAfterMs === undefined
        ? {}
        : { "retry-after": String(Math.max(1, Math.ceil(this.retryAfterMs / 1000))) }),
      ...options.headers,
    };
  }
}

/** Converts any error to a problem. Unexpected errors become "internal", without their message. */
export function toProblem(error: unknown): Problem {
  if (error instanceof Problem) return error;
  if (error instanceof Refusal) {
    const headers: Record<string, string> = error.fallback === undefined ? {} : { "x-gr2-fallback": error.fallback };
    return new Problem(error.code, error.message, { retryAfterMs: error.retryAfterMs, headers });
  }
  return new Problem("internal", "The service failed to answer; look up the request's id in its log.");
}
