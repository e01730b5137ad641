/** The interface of an HTTP dialect: a body, an answer and an error format for the same request and answer. */
import type { IncomingHttpHeaders } from "node:http";
import { z } from "zod";
import type {
  CandidateOrder,
  FallbackReason,
  OnFallback,
  RerankAnswer,
  RerankRequest,
  ServedModel,
  ServeMode,
} from "../../request/types.ts";
import { Refusal } from "../../request/types.ts";
import type { JsonLimits } from "../body.ts";
import type { Problem } from "../problem.ts";

/** Inputs of a dialect besides the body. */
export interface ReadContext {
  /** Effective limits: the model's or the service's, whichever is lower. */
  readonly model: ServedModel;
  readonly json: JsonLimits;
  /**
   * From the headers x-gr2-mode, x-gr2-deadline-ms, x-gr2-on-fallback and x-gr2-candidate-order; fields in the
   * body take precedence.
   */
  readonly mode: ServeMode;
  readonly deadlineMs: number;
  readonly onFallback: OnFallback | undefined;
  readonly candidateOrder: CandidateOrder | undefined;
}

/** A parsed body and how to answer it. */
export interface Reading {
  readonly request: RerankRequest;
  /** Number of texts cut, with the caller's permission. */
  readonly numCut: number;
  /** Answer as server-sent events. */
  readonly stream: boolean;
  readonly render: (answer: RerankAnswer, requestId: string) => unknown;
}

export interface Dialect {
  readonly name: string;
  /** For the OpenAPI document. */
  readonly body: z.ZodType;
  readonly answer: z.ZodType;
  readonly error: z.ZodType;
  /** @throws Refusal or Problem. */
  readonly read: (body: unknown, context: ReadContext) => Reading;
  readonly refuse: (problem: Problem, requestId: string) => { readonly status: number; readonly body: unknown };
}

/** Chooses a dialect by headers and body; `body` is undefined until it is read. */
export type Choose = (body: unknown, headers: IncomingHttpHeaders) => Dialect;

/** Parses the body with its schema. The refusal names the field and what was expected, never a value. */
export function parseBody<T extends z.ZodType>(schema: T, body: unknown): z.output<T> {
  const parsed = schema.safeParse(body);
  if (parsed.success) return parsed.data;
  const issue = deepest(parsed.error.issues);
  const path = issue.path.reduce<string>(
    (text, key) => text + (typeof key === "number" ? `[${key}]` : `.${String(key)}`),
    "",
  );
  const field = path.replace(/^\./, "").slice(0, 100) || "the body";
  throw new Refusal("invalid", `${field}: ${issue.message.slice(0, 200)}`);
}

/** For a union, the error of the alternative that matched furthest, which says more than "invalid input". */
function deepest(issues: readonly z.core.$ZodIssue[]): z.core.$ZodIssue {
  const issue = issues[0] as z.core.$ZodIssue;
  if (issue.code !== "invalid_union") return issue;
  const inner = issue.errors.map((branch) => deepest(branch)).sort((a, b) => b.path.length - a.path.length)[0];
  return inner !== undefined && inner.path.length > 0 ? { ...inner, path: [...issue.path, ...inner.path] } : issue;
}

export const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  value !== null && typeof value === "object" && !Array.isArray(value);

/** An extra field in a dialect's answer, present only if the answer is the caller's own order. */
export const fallbackField = z
  .enum(["invalid_answer", "deadline", "worker_lost", "overload", "shutting_down"])
  .optional()
  .describe("Why the order is the request's own and its scores are positions; absent if the model answered.");

export const renderFallback = (answer: RerankAnswer): { fallback?: FallbackReason } =>
  answer.fallback === undefined ? {} : { fallback: answer.fallback };

/** `{error: {code, message, request_id}}`: the errors of our own endpoints. */
export const ownError = z.object({
  error: z.object({
    code: z.string().describe("invalid, too_large, unauthenticated, rate_limited, overloaded, unavailable, ..."),
    message: z.string(),
    request_id: z.string(),
  }),
});
