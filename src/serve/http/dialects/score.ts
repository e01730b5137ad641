/** vLLM's scores: POST /score and /v1/score. One history and a score for every text, in the order of the texts. */
import { z } from "zod";
import { Refusal } from "../../request/types.ts";
import { document, query, toRequest } from "../mapping.ts";
import { type Dialect, fallbackField, parseBody, renderFallback } from "./dialect.ts";
import { vllm } from "./vllm.ts";

const histories = z.union([query, z.array(query)]);
const texts = z.union([document, z.array(document)]);

const body = z.object({
  model: z.string().nullish().describe("Accepted and ignored: the service has one model."),
  text_1: histories.optional().describe("The user's history; exactly one."),
  queries: histories.optional().describe("Same as text_1."),
  text_2: texts.optional().describe("Candidates in the order of your ranker."),
  documents: texts.optional().describe("Same as text_2."),
  items: texts.optional().describe("Same as text_2."),
  truncate_prompt_tokens: z
    .int()
    .min(-1)
    .nullish()
    .describe("If given, texts that are too long are cut at the service's limit instead of refused."),
});

const answer = z.object({
  object: z.literal("list"),
  id: z.string(),
  model: z.string(),
  created: z.int().describe("Seconds since 1970."),
  fallback: fallbackField,
  usage: z.object({ prompt_tokens: z.int(), total_tokens: z.int() }),
  data: z
    .array(
      z.object({
        index: z.int(),
        object: z.literal("score"),
        score: z.number().describe("Probability of being the first choice."),
      }),
    )
    .describe("In the order of the request's texts."),
});

const listed = <T extends string | object>(value: T | T[]): T[] => (Array.isArray(value) ? value : [value]);

export const score: Dialect = {
  ...{ name: "vllm score", body, answer },
  ...{ error: vllm.error, refuse: vllm.refuse },
  read(raw, context) {
    const { text_1, queries, text_2, documents, items, truncate_prompt_tokens } = parseBody(body, raw);
    const [first = "text_1"] = Object.entries({ text_1, queries }).flatMap(([name, v]) =>
      v === undefined ? [] : name,
    );
    const [second = "text_2"] = Object.entries({ text_2, documents, items }).flatMap(([name, v]) =>
      v === undefined ? [] : name,
    );
    const history = text_1 ?? queries;
    const candidates = text_2 ?? documents ?? items;
    if (history === undefined) throw new Refusal("invalid", "text_1 is missing: the user's history.");
    if (candidates === undefined) throw new Refusal("invalid", "text_2 is missing: the candidates.");
    const [only, ...others] = listed(history);
    if (only === undefined || others.length > 0)
      throw new Refusal("invalid", `${first} must be one history: candidates are compared with each other.`);
    const names = { candidates: second, history: `${first}.history` };
    const generic = {
      query: only,
      documents: listed(candidates),
      topN: 0,
      cut: truncate_prompt_tokens == null ? undefined : ("right" as const),
    };
    const { request, numCut } = toRequest(generic, context, names);
    return {
      request,
      numCut,
      stream: false,
      render: (answer, requestId) => ({
        object: "list",
        id: `score-${requestId}`,
        model: context.model.name,
        created: Math.floor(Date.now() / 1000),
        ...renderFallback(answer),
        usage: { prompt_tokens: answer.tokens.prompt, total_tokens: answer.tokens.prompt + answer.tokens.generated },
        data: [...answer.ranking]
          .sort((a, b) => a.position - b.position)
          .map(({ position, score }) => ({ index: position, object: "score", score })),
      }),
    };
  },
};
