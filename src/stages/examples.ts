/** Token batches for training: supervised answers with their weights, and next-item replay. */
import type { Config } from "../config/schema.ts";
import { Rng } from "../core/rng.ts";
import type { Policy, SlateView } from "../policy/policy.ts";
import { type Mode, type Reasoning, renderResponse } from "../prompts/rerank.ts";
import { sequentialTask } from "../prompts/tasks.ts";
import type { ForwardBackwardRequest } from "../worker/types.ts";
import type { Corpus } from "./corpus.ts";
import { type Document, intoBatches, windows } from "./midtrain.ts";

/** A supervised answer: candidate rows best first, with the thought that led there. */
export interface Example {
  readonly slate: SlateView;
  readonly order: readonly number[];
  readonly reasoning: Reasoning;
  readonly mode: Mode;
}

/**
 * SFT's loss (GR2 v1 eq. for L): reasoning tokens weigh lambda_r, the tokens of the k-th ranked item lambda_o *
 * rankDecay^(k-1), all divided by the number of examples of the step.
 * @param examples all of one mode
 */
export function supervisedBatch(
  policy: Policy,
  examples: readonly Example[],
  numExamples: number,
  o: Config["sft"],
): Pick<ForwardBackwardRequest, "batch" | "weights" | "constraint"> {
  const weights: number[] = [];
  const groups = examples.map((e) => {
    const pieces = renderResponse(e.mode === "think" ? e.reasoning : null, e.order, policy.options.prompts);
    const tokens: number[] = [];
    for (const { piece, part, rank } of pieces) {
      const weight = part === "reasoning" ? o.lambdaReasoning : o.lambdaRanking * o.rankDecay ** rank;
      for (const id of policy.encoder.piece(piece)) {
        tokens.push(id);
        weights.push(weight / numExamples);
      }
    }
    return { prompt: policy.prompt(e.slate, e.mode), responses: [tokens] };
  });
  const constraint = policy.constraint(
    examples.map((e) => e.slate),
    (examples[0] as Example).mode,
  );
  return { batch: { groups }, weights: Float32Array.from(weights), ...(constraint ? { constraint } : {}) };
}

/**
 * Next-item documents for replay, endless and seeded: mid-training segments of everybody and the re-rank segments of
 * SFT's users, so that the LM refreshes what it knows without seeing RL's answers.
 */
export function* replayBatches(
  config: Config,
  corpus: Corpus,
  policy: Policy,
  mayLearn: (user: number) => boolean,
  batchTokens: number,
): Generator<readonly Document[]> {
  const { windowItems, windowStride } = config.midtrain;
  const sequences = corpus.split.dataset.sequences.map((s, user) => {
    const split = corpus.split.splits[user];
    return s.items.subarray(0, split ? (mayLearn(user) ? split.rerankEnd : split.midtrainEnd) : 0);
  });
  for (let epoch = 0; ; epoch++) {
    const rng = Rng.of(config.seed, "replay", epoch);
    const documents = sequences.flatMap((items) =>
      windows(items.length, windowItems, windowStride, rng.int(windowStride)).map(([start, end]) =>
        policy.encoder.encode(sequentialTask(items.subarray(start, end))),
      ),
    );
    yield* intoBatches(rng.shuffle(documents), batchTokens);
  }
}
