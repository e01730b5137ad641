/**
 * Infinity's re-rank endpoint: POST /infinity/rerank, and /rerank and /v1/rerank with a field that only Infinity has.
 * litellm sends the same body to Infinity and to vLLM, whose answers differ: then only the path distinguishes them.
 */
import { z } from "zod";
import { callersId, readText, sharedBody, sharedNames, sharedResult, toRequest } from "../mapping.ts";
import { type Dialect, fallbackField, isObject, parseBody, renderFallback } from "./dialect.ts";
import { vllm } from "./vllm.ts";

const body = sharedBody.extend({
  top_n: z.int().min(1).nullish().describe("Default: all."),
  return_documents: z.boolean().nullish().describe("Default false."),
  raw_scores: z.boolean().nullish().describe("Default false. true: the natural logarithm of the score."),
});

const answer = z.object({
  object: z.literal("rerank"),
  id: z.string(),
  model: z.string(),
  created: z.int().describe("Seconds since 1970."),
  fallback: fallbackField,
  usage: z.object({ prompt_tokens: z.int(), total_tokens: z.int() }),
  results: z.array(
    sharedResult.extend({
      document: z.string().nullable(),
    }),
  ),
});

export const looksLikeInfinity = (raw: unknown): boolean => isObject(raw) && "documents" in raw && "raw_scores" in raw;

export const infinity: Dialect = {
  ...{ name: "infinity", body, answer },
  // Both use OpenAI's errors.
  ...{ error: vllm.error, refuse: vllm.refuse },
  read(raw, context) {
    const { query, documents, top_n, return_documents, raw_scores } = parseBody(body, raw);
    const { request, numCut } = toRequest({ query, documents, topN: top_n ?? 0 }, context, sharedNames);
    return {
      request,
      numCut,
      stream: false,
      render: (answer, requestId) => ({
        object: "rerank",
        id: `infinity-${requestId}`,
        model: context.model.name,
        created: Math.floor(Date.now() / 1000),
        ...renderFallback(answer),
        usage: { prompt_tokens: answer.tokens.prompt, total_tokens: answer.tokens.prompt + answer.tokens.generated },
        results: answer.ranking.map(({ position, score }) => ({
          index: position,
          relevance_score: raw_scores === true ? Math.max(Math.log(score), -Number.MAX_VALUE) : score,
          document: return_documents === true ? readText(documents[position]) : null,
          ...callersId(documents[position]),
        })),
      }),
    };
  },
};
