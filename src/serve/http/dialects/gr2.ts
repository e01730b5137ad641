/** Our own endpoint, POST /gr2/v1/rerank: every field of request and answer, and streamed reasoning. */
import { z } from "zod";
import { checkRequest } from "../../request/check.ts";
import type { RerankAnswer } from "../../request/types.ts";
import { historyEntry, toItem } from "../mapping.ts";
import { problemStatus } from "../problem.ts";
import { type Dialect, ownError, parseBody } from "./dialect.ts";

const id = z.union([z.string(), z.int().transform(String)]);

const body = z.strictObject({
  history: z.array(historyEntry).default([]).describe("Oldest first: item ids, or {item_id?, text?}."),
  candidates: z
    .array(
      z.strictObject({
        id: id.describe("Your id of the candidate, unique; returned unchanged."),
        item_id: id.optional().describe("The id of an item the model knows."),
        text: z.string().optional().describe("Title, or title and more."),
        score: z
          .number()
          .optional()
          .describe("Your ranker's score; larger is better. All candidates have one, or none."),
      }),
    )
    .describe("Their order (by score, else as listed) is returned if anything goes wrong."),
  top_n: z.int().min(0).default(0).describe("0 = all."),
  mode: z
    .enum(["think", "direct"])
    .default("direct")
    .describe("think: visible reasoning first; direct: one forward pass."),
  deadline_ms: z
    .number()
    .min(0)
    .default(0)
    .describe("Milliseconds until the answer is due; 0 = the service's default."),
  on_fallback: z
    .enum(["own-order", "error"])
    .optional()
    .describe(
      "Response if the model gives no answer: your own order, flagged, or 503. Default: the service's setting.",
    ),
  candidate_order: z
    .enum(["ranked", "arbitrary"])
    .optional()
    .describe(
      "What the order of candidates without scores means. ranked: your ranker's order, best first, is used; " +
        "arbitrary: it is ignored. Default: the service's setting.",
    ),
  stream: z
    .boolean()
    .default(false)
    .describe(
      'Answer as server-sent events: "thought" events {text} as they are generated, then one "answer" event; ' +
        'or one "error" event.',
    ),
});

const answer = z.object({
  ranking: z
    .array(z.object({ place: z.int().describe("In your order, from 0."), id: z.string(), score: z.number() }))
    .describe("Best first. Scores: probability of being the first choice."),
  thought: z.string(),
  fallback: z
    .enum(["invalid_answer", "deadline", "worker_lost", "overload", "shutting_down"])
    .nullable()
    .describe("Why your own order was returned; null if the model answered."),
  timings_ms: z.object({ queue: z.number(), encode: z.number(), model: z.number(), total: z.number() }),
  tokens: z.object({ prompt: z.int(), generated: z.int() }),
  model_version: z.string(),
  request_id: z.string(),
});

export const renderAnswer = (from: RerankAnswer, requestId: string): z.output<typeof answer> => ({
  ranking: from.ranking.map(({ position, id, score }) => ({ place: position, id, score })),
  thought: from.reasoning,
  fallback: from.fallback ?? null,
  timings_ms: {
    queue: rounded(from.timings.queue),
    encode: rounded(from.timings.encode),
    model: rounded(from.timings.model),
    total: rounded(from.timings.total),
  },
  tokens: from.tokens,
  model_version: from.modelVersion,
  request_id: requestId,
});

export const gr2: Dialect = {
  name: "gr2",
  body,
  answer,
  error: ownError,
  refuse: (problem, requestId) => ({
    status: problemStatus[problem.code],
    body: { error: { code: problem.code, message: problem.message, request_id: requestId } },
  }),
  read(raw, context) {
    const parsed = parseBody(body, raw);
    const candidateOrder = parsed.candidate_order ?? context.candidateOrder;
    const onFallback = parsed.on_fallback ?? context.onFallback;
    const request = {
      history: parsed.history.map(toItem),
      candidates: parsed.candidates.map((c) => ({
        ...toItem({ item_id: c.item_id, text: c.text }),
        id: c.id,
        ...(c.score === undefined ? {} : { score: c.score }),
      })),
      topN: Math.min(parsed.top_n, parsed.candidates.length),
      mode: parsed.mode,
      deadlineMs: parsed.deadline_ms,
      ...(onFallback ? { onFallback } : {}),
      ...(candidateOrder ? { candidateOrder } : {}),
    };
    checkRequest(request, context.model);
    return { request, numCut: 0, stream: parsed.stream, render: renderAnswer };
  },
};

/** To the microsecond. */
const rounded = (ms: number): number => Math.round(ms * 1000) / 1000;
