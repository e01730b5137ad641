/** Token batches for training: supervised answers with their weights, and next-item replay. */

import type { Corpus } from "../artifacts/corpus.ts";
import type { Config } from "../config/schema.ts";
import { RunError } from "../core/errors.ts";
import { Rng } from "../core/rng.ts";
import { checkTrainingView } from "../data/leakage.ts";
import { trainingView } from "../data/split.ts";
import type { Policy, SlateInput } from "../policy/policy.ts";
import { type AnyReasoning, type PromptMode, renderResponse } from "../prompts/rerank.ts";
import type { ForwardBackwardRequest } from "../worker/types.ts";
import { type Document, intoBatches, sequentialDocuments } from "./documents.ts";

/** A supervised answer, with the reasoning that led there. */
export interface Example {
  readonly slate: SlateInput;
  readonly reasoning: AnyReasoning;
  readonly mode: PromptMode;
  /** What is learned: a full order (candidate indices, best first), or how likely each candidate is to be first. */
  readonly answer: { readonly order: readonly number[] } | { readonly first: readonly number[] };
}

type Batch = Pick<ForwardBackwardRequest, "batch" | "weights" | "constraint">;

/**
 * SFT's loss (GR2 v1 eq. for L): reasoning tokens weigh lambda_r; in an order, the tokens of the k-th ranked item weigh
 * lambda_o * rankDecay^(k-1); for a distribution over the first item, each candidate's tokens weigh lambda_o * p. All
 * are divided by the number of examples in the step.
 * @param examples all of one mode and one kind of answer
 */
export function supervisedBatch(
  policy: Policy,
  examples: readonly Example[],
  numExamples: number,
  o: Config["sft"],
): Batch {
  const weights: number[] = [];
  const budget = policy.options.decoding.maxReasoningTokens; // longer reasoning could not be sampled either
  const groups = examples.map((e) => {
    const { answer, slate } = e;
    const answers =
      "order" in answer
        ? [{ rows: answer.order.map((i) => slate.candidates[i] as number), weight: 1 }]
        : answer.first.map((weight, i) => ({ rows: [slate.candidates[i] as number], weight }));
    const responses = answers.map(({ rows, weight }, nth) => {
      const pieces = renderResponse(e.mode === "think" ? e.reasoning : null, rows, policy.options.prompts);
      const lastReasoningPiece = pieces.findLastIndex((p) => p.part === "reasoning"); // its closing marker: never cut
      const tokens: number[] = [];
      pieces.forEach(({ piece, part, rank }, i) => {
        // Answers of one slate share their reasoning, which is learned once.
        const shared = nth === 0 ? o.lambdaReasoning : 0;
        const own = part === "reasoning" ? shared : o.lambdaRanking * weight * o.rankDecay ** rank;
        const ids = policy.encoder.piece(piece);
        const room = part === "reasoning" && i < lastReasoningPiece ? Math.max(0, budget - tokens.length) : ids.length;
        for (const id of ids.slice(0, room)) {
          tokens.push(id);
          weights.push(own / numExamples);
        }
      });
      return tokens;
    });
    return { prompt: policy.prompt(slate, e.mode), responses };
  });
  const first = examples[0] as Example;
  const constraint = policy.constraint(
    examples.map((e) => e.slate),
    first.mode,
  );
  const maxSequences = "first" in first.answer ? 1 : 0;
  return {
    batch: { groups },
    weights: Float32Array.from(weights),
    ...(constraint ? { constraint: { ...constraint, maxSequences } } : {}),
  };
}

/**
 * Next-item documents for replay, endless and seeded: everybody's mid-training segments and the re-rank segments of
 * SFT's users, so the LM refreshes what it knows without seeing RL's answers.
 */
export function* replayBatches(
  config: Config,
  corpus: Corpus,
  policy: Policy,
  mayLearn: (user: number) => boolean,
  batchTokens: number,
): Generator<readonly Document[]> {
  const view = trainingView(corpus.split, "rerank");
  const learnable = view.sequences.map((s, user) =>
    mayLearn(user) ? s : s.subarray(0, corpus.split.splits[user]?.midtrainEnd ?? 0),
  );
  const allowed = (user: number) => (mayLearn(user) ? "rerank" : "midtrain");
  checkTrainingView(corpus.split, { sequences: learnable }, allowed, "replay in SFT");
  for (let epoch = 0; ; epoch++) {
    const documents = sequentialDocuments(config, { sequences: learnable, times: view.times }, policy.encoder, epoch);
    if (documents.length === 0)
      throw new RunError("no user has two interactions to replay", { advice: "Set sft.replayShare=0." });
    yield* intoBatches(Rng.of(config.seed, "replay", epoch).shuffle(documents), batchTokens);
  }
}
