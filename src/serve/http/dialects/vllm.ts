/** vLLM's re-rank endpoint: POST /rerank, and /v1/rerank and /v2/rerank for bodies with fields that only vLLM has. */
import { z } from "zod";
import { callersId, readText, sharedBody, sharedNames, sharedResult, toRequest } from "../mapping.ts";
import { type ProblemCode, problemStatus } from "../problem.ts";
import { type Dialect, fallbackField, isObject, parseBody, renderFallback } from "./dialect.ts";

const body = sharedBody.extend({
  top_n: z.int().min(0).nullish().describe("0, the default: all."),
  truncate_prompt_tokens: z
    .int()
    .min(-1)
    .nullish()
    .describe("If given, texts that are too long are cut at the service's limit instead of refused."),
  priority: z.int().nullish().describe("Accepted and ignored."),
});

const answer = z.object({
  id: z.string(),
  model: z.string(),
  fallback: fallbackField,
  usage: z.object({ total_tokens: z.int() }),
  results: z.array(
    sharedResult.extend({
      document: z.object({ text: z.string() }),
    }),
  ),
});

const types: Readonly<Record<ProblemCode, string>> = {
  syntax: "BadRequestError",
  invalid: "BadRequestError",
  too_large: "BadRequestError",
  unauthenticated: "AuthenticationError",
  forbidden: "PermissionDeniedError",
  not_found: "NotFoundError",
  method_not_allowed: "MethodNotAllowedError",
  timeout: "APITimeoutError",
  unsupported_media: "UnsupportedMediaTypeError",
  rate_limited: "RateLimitError",
  overloaded: "RateLimitError",
  internal: "InternalServerError",
  unavailable: "ServiceUnavailableError",
};

/** Fields that no other dialect has. */
const ownFields = ["truncate_prompt_tokens", "softmax", "activation", "use_activation", "mm_processor_kwargs"];

export const looksLikeVllm = (raw: unknown): boolean => isObject(raw) && ownFields.some((field) => field in raw);

export const vllm: Dialect = {
  name: "vllm",
  body,
  answer,
  error: z.object({
    error: z.object({ message: z.string(), type: z.string(), param: z.null(), code: z.int() }),
  }),
  refuse(problem) {
    const status = problemStatus[problem.code];
    return {
      status,
      body: { error: { message: problem.message, type: types[problem.code], param: null, code: status } },
    };
  },
  read(raw, context) {
    const { query, documents, top_n, truncate_prompt_tokens } = parseBody(body, raw);
    const cut = truncate_prompt_tokens == null ? undefined : "right";
    const { request, numCut } = toRequest({ query, documents, topN: top_n ?? 0, cut }, context, sharedNames);
    return {
      request,
      numCut,
      stream: false,
      render: (answer, requestId) => ({
        id: `rerank-${requestId}`,
        model: context.model.name,
        ...renderFallback(answer),
        usage: { total_tokens: answer.tokens.prompt + answer.tokens.generated },
        results: answer.ranking.map(({ position, score }) => ({
          index: position,
          document: { text: readText(documents[position]) },
          relevance_score: score,
          ...callersId(documents[position]),
        })),
      }),
    };
  },
};
