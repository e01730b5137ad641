/** Voyage's re-rank API: POST /v1/rerank with `top_k` or `truncation`, or one of Voyage's models. */
import { z } from "zod";
import { callersId, readText, sharedBody, sharedNames, sharedResult, toRequest } from "../mapping.ts";
import { type Dialect, fallbackField, isObject, parseBody, renderFallback } from "./dialect.ts";
import { jina } from "./jina.ts";

const body = sharedBody.extend({
  top_k: z.int().min(1).nullish().describe("Default: all."),
  return_documents: z.boolean().nullish().describe("Default false."),
  truncation: z
    .boolean()
    .nullish()
    .describe("true: texts that are too long are cut at the service's limit instead of refused. Default false."),
});

const answer = z.object({
  object: z.literal("list"),
  model: z.string(),
  fallback: fallbackField,
  usage: z.object({ total_tokens: z.int() }),
  data: z.array(
    sharedResult.extend({
      document: z.string().optional(),
    }),
  ),
});

/** Voyage's models are rerank-2.5, rerank-2-lite, rerank-lite-1; Cohere's are rerank-v3.5, rerank-english-v3.0. */
export const looksLikeVoyage = (raw: unknown): boolean =>
  isObject(raw) &&
  ("top_k" in raw || "truncation" in raw || (typeof raw.model === "string" && /^rerank-(lite-)?\d/.test(raw.model)));

export const voyage: Dialect = {
  ...{ name: "voyage", body, answer },
  // Both report errors with a detail.
  ...{ error: jina.error },
  refuse: (problem, requestId) => {
    const { status, body } = jina.refuse(problem, requestId);
    return { status: problem.code === "invalid" ? 400 : status, body };
  },
  read(raw, context) {
    const { query, documents, top_k, return_documents, truncation } = parseBody(body, raw);
    const cut = truncation === true ? "right" : undefined;
    const { request, numCut } = toRequest({ query, documents, topN: top_k ?? 0, cut }, context, sharedNames);
    return {
      request,
      numCut,
      stream: false,
      render: (answer) => ({
        object: "list",
        model: context.model.name,
        ...renderFallback(answer),
        usage: { total_tokens: answer.tokens.prompt + answer.tokens.generated },
        data: answer.ranking.map(({ position, score }) => ({
          index: position,
          relevance_score: score,
          ...(return_documents === true ? { document: readText(documents[position]) } : {}),
          ...callersId(documents[position]),
        })),
      }),
    };
  },
};
