/** Cohere's re-rank API: POST /v2/rerank, and the older POST /v1/rerank. */
import { z } from "zod";
import type { RerankAnswer } from "../../request/types.ts";
import { callersId, type Document, readText, sharedBody, sharedNames, sharedResult, toRequest } from "../mapping.ts";
import { type Problem, problemStatus } from "../problem.ts";
import { type Dialect, parseBody } from "./dialect.ts";

const body = sharedBody.extend({
  top_n: z.int().min(1).nullish().describe("Default: all."),
});

const v2Body = body.extend({
  max_tokens_per_doc: z
    .int()
    .min(1)
    .nullish()
    .describe("If given, texts that are too long are cut at the service's limit instead of refused."),
  priority: z.int().nullish().describe("Accepted and ignored."),
});

const v1Body = body.extend({
  rank_fields: z.array(z.string()).min(1).max(32).nullish().describe("Fields of a document that make up its text."),
  return_documents: z.boolean().nullish().describe("Default false."),
  max_chunks_per_doc: z.int().min(1).nullish().describe("Like max_tokens_per_doc in v2."),
});

const meta = z.object({
  api_version: z.object({ version: z.string(), is_experimental: z.boolean() }),
  billed_units: z.object({ search_units: z.int() }),
  warnings: z
    .array(z.string())
    .optional()
    .describe("Present if the caller's own order was returned or texts were cut."),
});

const answerSchema = (item: z.ZodType) => z.object({ id: z.string(), results: z.array(item), meta });

const error = z.object({ id: z.string(), message: z.string() });

const refuse = (problem: Problem, requestId: string) => ({
  status: problemStatus[problem.code],
  body: { id: requestId, message: problem.message },
});

/** Cohere counts one search unit per hundred documents, rounded up. */
const renderMeta = (
  version: string,
  numDocuments: number,
  answer: RerankAnswer,
  numCut: number,
): z.output<typeof meta> => {
  const warnings = [
    ...(answer.fallback === undefined ? [] : [`fallback: ${answer.fallback}; the order is the request's`]),
    ...(numCut === 0 ? [] : [`${numCut} texts were cut`]),
  ];
  return {
    api_version: { version, is_experimental: false },
    billed_units: { search_units: Math.ceil(numDocuments / 100) },
    ...(warnings.length === 0 ? {} : { warnings }),
  };
};

/** @param more fields of a result besides index, score and the caller's id */
const renderBody = (
  version: string,
  id: string,
  documents: readonly Document[],
  numCut: number,
  answer: RerankAnswer,
  more: (document: Document | undefined) => object,
): object => ({
  id,
  results: answer.ranking.map(({ position, score }) => ({
    index: position,
    relevance_score: score,
    ...callersId(documents[position]),
    ...more(documents[position]),
  })),
  meta: renderMeta(version, documents.length, answer, numCut),
});

export const cohereV2: Dialect = {
  name: "cohere v2",
  body: v2Body,
  answer: answerSchema(sharedResult),
  error,
  refuse,
  read(raw, context) {
    const { query, documents, top_n, max_tokens_per_doc } = parseBody(v2Body, raw);
    const cut = max_tokens_per_doc == null ? undefined : "right";
    const { request, numCut } = toRequest({ query, documents, topN: top_n ?? 0, cut }, context, sharedNames);
    return {
      request,
      numCut,
      stream: false,
      render: (answer, id) => renderBody("2", id, documents, numCut, answer, () => ({})),
    };
  },
};

export const cohereV1: Dialect = {
  name: "cohere v1",
  body: v1Body,
  answer: answerSchema(sharedResult.extend({ document: z.looseObject({ text: z.string() }).optional() })),
  error,
  refuse,
  read(raw, context) {
    const { query, documents, top_n, rank_fields, return_documents, max_chunks_per_doc } = parseBody(v1Body, raw);
    const generic = {
      query,
      documents,
      topN: top_n ?? 0,
      cut: max_chunks_per_doc == null ? undefined : ("right" as const),
      textFields: rank_fields ?? undefined,
    };
    const { request, numCut } = toRequest(generic, context, sharedNames);
    return {
      request,
      numCut,
      stream: false,
      render: (answer, id) =>
        renderBody("1", id, documents, numCut, answer, (d) => (return_documents ? { document: echo(d) } : {})),
    };
  },
};

/** Cohere returns a document with all its fields. */
const echo = (from: Document | undefined): object => ({
  ...(typeof from === "object" ? from : {}),
  text: readText(from),
});
