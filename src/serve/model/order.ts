/**
 * The model's answer to a question as an order of the request's candidates. Reads it as evaluation does (policy/ask.ts);
 * owns what only a service needs of it: a score per candidate, and the candidates that share a semantic ID, which follow
 * each other in the caller's order with the score of the one item they are to the model.
 *
 *   direct   likelihood * log p(item | history) + prior, one forward pass (the run's `direct`, `sft_direct`, `rl_direct`)
 *   direct   the prior alone where the system has no language model (the run's `prior`, `evidence`)
 *   think    reasoning, then a permutation under the constraint with the prior (the run's `sft`, `rl`), greedy
 */
import { softmax } from "../../eval/choice-model.ts";
import { type AskOptions, decodeResponse, findTokens, findTrigger, readResponse } from "../../policy/ask.ts";
import { addLikelihood, orderBy, type Prior } from "../../policy/prior.ts";
import type { Completion, TokenIds } from "../../worker/types.ts";
import type { PreparedRequest } from "./prepared-request.ts";

/** Best first, every candidate once. */
export interface Order {
  readonly ranking: readonly { readonly position: number; readonly score: number }[];
  /** Tokens of the reasoning, mode think. */
  readonly reasoning: readonly number[];
  /** Tokens written. */
  readonly generated: number;
}

/** @param logLikelihood of every sequence of the question */
export const directOrder = (q: PreparedRequest, prior: Prior, logLikelihood: readonly number[]): Order =>
  orderByScores(q, addLikelihood(prior, q.prior, logLikelihood));

/** Without a language model: the prior is the whole score. */
export const priorOrder = (q: PreparedRequest): Order => orderByScores(q, q.prior);

function orderByScores(q: PreparedRequest, scores: readonly number[]): Order {
  const chances = softmax(scores);
  return { ranking: spread(q, orderBy(scores), (j) => chances[j] as number), reasoning: [], generated: 0 };
}

/** Candidates the model is asked to write for a batch of questions; 0 = all. */
export const countWanted = (requests: readonly PreparedRequest[]): number =>
  requests.some((q) => q.topN === 0) ? 0 : Math.max(...requests.map((q) => Math.min(q.topN, q.sequences.length)));

/**
 * Undefined where the answer is none to evaluation either. What the model was not asked to write follows in the caller's
 * order.
 * @param wanted as the batch was asked
 */
export function thinkOrder(
  ask: AskOptions,
  q: PreparedRequest,
  completion: Completion,
  wanted: number,
  decode: (ids: TokenIds) => string,
): Order | undefined {
  const { tokens } = completion;
  const text = decodeResponse(ask.encoder, tokens, decode);
  const parsed = readResponse(ask, text, q.spellings, "think", wanted);
  if (parsed.kind !== "ranking") return undefined;
  const opens = findTrigger(ask, tokens);
  const chances = firstChoiceChances(q, parsed.order, completion, opens);
  const unwritten = q.sequences.map((_, j) => j).filter((j) => !chances.has(j));
  return {
    ranking: spread(q, [...parsed.order, ...unwritten], (j) => chances.get(j) ?? 0),
    reasoning: Array.from(tokens.subarray(0, Math.max(0, opens))),
    generated: tokens.length,
  };
}

/**
 * Per candidate written: the probability that it is the first choice, from that of each choice among those left. Never
 * rises. An item the model spelled in other tokens than its own (free decoding) has none, nor has what follows it: 0.
 */
function firstChoiceChances(
  q: PreparedRequest,
  order: readonly number[],
  { tokens, logprobs }: Completion,
  opens: number,
): ReadonlyMap<number, number> {
  const chances = new Map<number, number>();
  let left = 1; // probability that none of those before is the first choice
  let most = 1;
  let from = opens;
  for (const j of order) {
    const sequence = q.sequences[j] as TokenIds;
    const at = opens < 0 ? -1 : findTokens(tokens, sequence, from);
    const logprob =
      at < 0
        ? Number.NEGATIVE_INFINITY
        : logprobs.subarray(at, at + sequence.length).reduce((sum, value) => sum + value, 0);
    most = Math.min(most, left * Math.exp(logprob));
    chances.set(j, most);
    left *= Math.max(0, -Math.expm1(logprob));
    if (at >= 0) from = at + sequence.length;
  }
  return chances;
}

/** What the model was not asked about comes last: to it, none of that is the first choice. */
const spread = (q: PreparedRequest, order: readonly number[], scoreAt: (j: number) => number): Order["ranking"] => [
  ...order.flatMap((j) => (q.positions[j] as readonly number[]).map((position) => ({ position, score: scoreAt(j) }))),
  ...q.tail.flat().map((position) => ({ position, score: 0 })),
];
