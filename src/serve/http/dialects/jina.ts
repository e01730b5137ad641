/** Jina's re-rank API: POST /v1/rerank. */
import { z } from "zod";
import { callersId, readText, sharedBody, sharedNames, sharedResult, toRequest } from "../mapping.ts";
import { type ProblemCode, problemStatus } from "../problem.ts";
import { type Dialect, fallbackField, parseBody, renderFallback } from "./dialect.ts";

const body = sharedBody.extend({
  top_n: z.int().min(1).nullish().describe("Default: all."),
  return_documents: z.boolean().nullish().describe("Default true."),
});

const answer = z.object({
  model: z.string(),
  fallback: fallbackField,
  usage: z.object({ total_tokens: z.int() }),
  results: z.array(
    sharedResult.extend({
      document: z.object({ text: z.string() }).optional(),
    }),
  ),
});

const status: Readonly<Record<ProblemCode, number>> = { ...problemStatus, invalid: 422 };

export const jina: Dialect = {
  name: "jina",
  body,
  answer,
  error: z.object({ detail: z.string() }),
  refuse: (problem) => ({ status: status[problem.code], body: { detail: problem.message } }),
  read(raw, context) {
    const { query, documents, top_n, return_documents } = parseBody(body, raw);
    const { request, numCut } = toRequest({ query, documents, topN: top_n ?? 0 }, context, sharedNames);
    return {
      request,
      numCut,
      stream: false,
      render: (answer) => ({
        model: context.model.name,
        ...renderFallback(answer),
        usage: { total_tokens: answer.tokens.prompt + answer.tokens.generated },
        results: answer.ranking.map(({ position, score }) => ({
          index: position,
          relevance_score: score,
          ...callersId(documents[position]),
          ...(return_documents === false ? {} : { document: { text: readText(documents[position]) } }),
        })),
      }),
    };
  },
};
