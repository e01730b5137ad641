/**
 * The re-rank endpoint of Hugging Face's Text Embeddings Inference: POST /rerank with `texts`. Its answer is a bare
 * list.
 */
import { z } from "zod";
import { callersId, document, query, readText, toRequest } from "../mapping.ts";
import { Problem, type ProblemCode } from "../problem.ts";
import { type Dialect, fallbackField, parseBody, renderFallback } from "./dialect.ts";

const names = { candidates: "texts", history: "query.history" };

const body = z.object({
  query,
  texts: z.array(document).describe("Candidates in the order of your ranker."),
  truncate: z.boolean().nullish().describe("Default false. true: texts that are too long are cut instead of refused."),
  truncation_direction: z
    .literal(["left", "right", "Left", "Right"])
    .nullish()
    .describe("Which end is cut; default right."),
  raw_scores: z.boolean().nullish().describe("Default false. true: the natural logarithm of the score."),
  return_text: z.boolean().nullish().describe("Default false."),
});

const answer = z.array(
  z.object({
    index: z.int().describe("Into the request's texts."),
    score: z.number().describe("Probability of being the first choice."),
    text: z.string().optional(),
    id: z.string().optional().describe("The text's id, if it came with one."),
    fallback: fallbackField,
  }),
);

/** TEI's status and error_type. Errors that TEI does not have become validation errors with the usual status. */
const statuses: Readonly<Record<ProblemCode, readonly [number, string]>> = {
  syntax: [400, "Validation"],
  invalid: [422, "Validation"],
  too_large: [413, "Validation"],
  unauthenticated: [401, "Validation"],
  forbidden: [403, "Validation"],
  not_found: [404, "Validation"],
  method_not_allowed: [405, "Validation"],
  timeout: [408, "Validation"],
  unsupported_media: [415, "Validation"],
  rate_limited: [429, "Overloaded"],
  overloaded: [429, "Overloaded"],
  internal: [424, "Backend"],
  unavailable: [503, "Unhealthy"],
};

/** Thrown for a request without texts, which TEI answers differently from other invalid ones. */
class EmptyProblem extends Problem {
  constructor() {
    super("invalid", "`texts` cannot be empty");
  }
}

export const tei: Dialect = {
  name: "tei",
  body,
  answer,
  error: z.object({
    error: z.string(),
    error_type: z.enum(["Unhealthy", "Backend", "Overloaded", "Validation", "Tokenizer", "Empty"]),
  }),
  refuse(problem) {
    const [status, type] = problem instanceof EmptyProblem ? [400, "Empty"] : statuses[problem.code];
    return { status: status as number, body: { error: problem.message, error_type: type } };
  },
  read(raw, context) {
    const { query, texts, truncate, truncation_direction, raw_scores, return_text } = parseBody(body, raw);
    if (texts.length === 0) throw new EmptyProblem();
    const side = truncation_direction?.toLowerCase() === "left" ? "left" : "right";
    const cut = truncate === true ? side : undefined;
    const { request, numCut } = toRequest({ query, documents: texts, topN: 0, cut }, context, names);
    return {
      request,
      numCut,
      stream: false,
      render: (answer) =>
        answer.ranking.map(({ position, score }) => ({
          index: position,
          ...(return_text === true ? { text: readText(texts[position]) } : {}),
          score: raw_scores === true ? Math.max(Math.log(score), -Number.MAX_VALUE) : score,
          ...callersId(texts[position]),
          ...renderFallback(answer), // a bare list has no other place for it
        })),
    };
  },
};
