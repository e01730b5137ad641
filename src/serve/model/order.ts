/**
 * The model's answer to a question as an order of the request's candidates. Reads it as evaluation does
 * (policy/ask.ts); owns what only the service needs: a score per candidate. Candidates that share a semantic ID are one
 * item to the model and split its score evenly; scores add up to 1 over the candidates that the model ranks, and never
 * rise.
 *
 *   direct   likelihood * log p(item | history) + prior, one forward pass (the run's `direct`, `sft_direct`,
 *            `rl_direct`)
 *   direct   the prior alone if the system has no language model (the run's `prior`, `evidence`)
 *   direct   a permutation at once, as in mode think (the run's `sft_nothink`, `rl_nothink`)
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

/** @param logLikelihood one per sequence of the question */
export const directOrder = (q: PreparedRequest, prior: Prior, logLikelihood: readonly number[]): Order =>
  orderByScores(q, addLikelihood(prior, q.prior, logLikelihood));

/** Without a language model: the prior is the whole score. */
export const priorOrder = (q: PreparedRequest): Order => orderByScores(q, q.prior);

function orderByScores(q: PreparedRequest, scores: readonly number[]): Order {
  const chances = softmax(scores);
  return { ranking: spread(q, orderBy(scores), (j) => chances[j] as number), reasoning: [], generated: 0 };
}

/** How many candidates the model writes for a batch of questions; 0 = all. */
export const countWanted = (requests: readonly PreparedRequest[]): number =>
  requests.some((q) => q.topN === 0) ? 0 : Math.max(...requests.map((q) => Math.min(q.topN, q.sequences.length)));

/**
 * Undefined if evaluation rejects the answer too, for worthless reasoning as well. Candidates that the model was not
 * asked to write follow in the caller's order, with a score of 0, as do those written only because another question of
 * the batch asked for more.
 * @param writes think: reasoning comes first
 * @param wanted how many candidates the batch was asked to write
 * @param note receives the reason why an answer is invalid; undefined if it is valid
 */
export function writtenOrder(
  ask: AskOptions,
  q: PreparedRequest,
  completion: Completion,
  writes: "think" | "answer",
  wanted: number,
  decode: (ids: TokenIds) => string,
  note: (reason: string | undefined) => void = () => {},
): Order | undefined {
  const { tokens } = completion;
  const text = decodeResponse(ask.encoder, tokens, decode);
  const parsed = readResponse(ask, { prompt: q.prompt, tokens, text }, q.spellings, writes, wanted);
  note(parsed.kind === "ranking" ? undefined : parsed.reason);
  if (parsed.kind !== "ranking") return undefined;
  const opens = writes === "think" ? findTrigger(ask, tokens) : 0;
  const own = parsed.order.slice(0, countWanted([q]) || undefined);
  const chances = firstChoiceChances(q, own, completion, opens);
  const scores = new Map(own.map((j, k) => [j, chances[k] as number]));
  const unwritten = q.sequences.map((_, j) => j).filter((j) => !scores.has(j));
  return {
    ranking: spread(q, [...own, ...unwritten], (j) => scores.get(j) ?? 0),
    reasoning: Array.from(tokens.subarray(0, Math.max(0, opens))),
    generated: tokens.length,
  };
}

/**
 * For each written candidate: the probability that it is the first choice, from the probability of each choice among
 * the remaining ones. Where the sequence would rise, neighbours share their mean. An item spelled with non-canonical
 * tokens (free decoding) has no probability, nor have later ones: 0.
 */
function firstChoiceChances(
  q: PreparedRequest,
  order: readonly number[],
  { tokens, logprobs }: Completion,
  opens: number,
): number[] {
  let left = 1; // probability that none of the earlier ones is the first choice
  let from = opens;
  const chances = order.map((j) => {
    const sequence = q.sequences[j] as TokenIds;
    const at = opens < 0 || from < 0 ? -1 : findTokens(tokens, sequence, from);
    from = at < 0 ? -1 : at + sequence.length;
    if (at < 0) return 0;
    const logprob = logprobs.subarray(at, from).reduce((sum, value) => sum + value, 0);
    const chance = left * Math.exp(logprob);
    left *= Math.max(0, -Math.expm1(logprob));
    return chance;
  });
  return poolRises(chances);
}

/**
 * The closest numbers that never rise, with the same sum (pool adjacent violators; Ayer et al. 1955).
 */
export function poolRises(values: readonly number[]): number[] {
  const pools: { sum: number; n: number }[] = [];
  for (const value of values) {
    let pool = { sum: value, n: 1 };
    for (;;) {
      const before = pools.at(-1);
      if (!before || before.sum / before.n >= pool.sum / pool.n) break;
      pool = { sum: before.sum + pool.sum, n: before.n + pool.n };
      pools.pop();
    }
    pools.push(pool);
  }
  return pools.flatMap(({ sum, n }) => Array.from({ length: n }, () => sum / n));
}

/** @param scoreAt by semantic ID; candidates that share one split its score, so it can be lower than the next score */
function spread(q: PreparedRequest, order: readonly number[], scoreAt: (j: number) => number): Order["ranking"] {
  const ranking = order.flatMap((j) => {
    const positions = q.positions[j] as readonly number[];
    return positions.map((position) => ({ position, score: scoreAt(j) / positions.length }));
  });
  // Candidates outside the head come last, with a score of 0.
  const rest = q.tail.flat().map((position) => ({ position, score: 0 }));
  return [...ranking.sort((a, b) => b.score - a.score), ...rest]; // a stable sort
}
