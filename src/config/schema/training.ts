/** Settings of what trains and what judges: mid-training, teacher, SFT, RL, evaluation. */
import { z } from "zod";
import { count, countOrZero, positive, share } from "./numbers.ts";

const optimizer = {
  weightDecay: z.number().nonnegative().default(0.01).describe("Decoupled (AdamW); not on norms, biases, embeddings."),
  maxGradNorm: z.number().nonnegative().default(1).describe("Gradient clipping by global norm; 0 = off."),
  warmupSteps: countOrZero.default(20).describe("Linear warm-up."),
  schedule: z.enum(["constant", "linear", "cosine"]).default("linear").describe("Decay to zero after warm-up."),
};

export const midtrain = z
  .strictObject({
    epochs: positive.default(10).describe("Passes over the sequential-preference data."),
    learningRate: positive.default(3e-3).describe("Peak step size (from scratch; use about 1e-5 for an 8B)."),
    batchTokens: count.default(4096).describe("Tokens per optimizer step."),
    windowItems: count.default(30).describe("Items per training window."),
    shuffleTies: z
      .boolean()
      .default(true)
      .describe("Permute interactions of one user with equal times anew every epoch: their order means nothing."),
    windowStride: count.default(20).describe("Items between the starts of two windows."),
    mixture: z
      .strictObject({
        sequential: z.number().nonnegative().default(0.8).describe("History of SIDs -> next SID."),
        captioning: z.number().nonnegative().default(0.08).describe("SID -> title, categories, description, and back."),
        persona: z.number().nonnegative().default(0.07).describe("SIDs and words mixed in one history."),
        language: z.number().nonnegative().default(0.05).describe("Plain text, so that language is not forgotten."),
      })
      .prefault({})
      .describe("Shares of training tokens (after OneRec-Think)."),
    languageFile: z
      .string()
      .default("")
      .describe(
        "Plain text for the language task; empty = the prose of Python's own language reference, present on every machine.",
      ),
    checkpointSteps: count.default(200).describe("Steps between checkpoints a killed run resumes from."),
    ...optimizer,
  })
  .prefault({});

export const teacher = z
  .strictObject({
    kind: z
      .enum(["statistical"])
      .default("statistical")
      .describe(
        "Who writes the traces: the offline statistical teacher (co-occurrence, categories, recency), cross-fitted over users.",
      ),
    sampling: z
      .enum(["rejection", "targeted"])
      .default("rejection")
      .describe(
        "rejection: kept only if the teacher's own first choice is the true item; targeted: it is shown the answer (GR2 v1: rejection is better).",
      ),
    maxTries: count.default(8).describe("Bound on tries per slate."),
    temperature: positive.default(0.7).describe("Of the teacher's choice."),
    rest: z
      .enum(["score", "input"])
      .default("score")
      .describe(
        "What follows the first choice of a trace: the others by the teacher's score, or as the pre-rank had them, which a small model that is shown them can learn to copy.",
      ),
    stateChoice: z
      .boolean()
      .default(true)
      .describe("Traces end with the chosen item; false leaves the choice to the ranking that follows."),
    patternCategories: countOrZero.default(3).describe("Dominant categories of the history named in a trace."),
    recapItems: countOrZero
      .default(0)
      .describe("Latest history items repeated at the end of a trace: a small model ranks best right behind them."),
    supportItems: countOrZero.default(3).describe("History items cited as evidence in a trace."),
  })
  .prefault({});

export const sft = z
  .strictObject({
    target: z
      .enum(["order", "belief"])
      .default("order")
      .describe(
        "order: cross-entropy on the order of kept traces (GR2 v1); belief: listwise distillation, on every re-rank slate of SFT's users, hit or miss, of what the teacher's evidence and the mid-trained LM together hold likely, mixed with the true item where it is a candidate. For models too small to learn from a thousand traces.",
      ),
    truthShare: share
      .default(0.2)
      .describe("belief: weight of the true item against that belief, where it is a candidate."),
    epochs: positive.default(3).describe("Passes over the traces or slates."),
    learningRate: positive.default(5e-4).describe("Peak step size."),
    batchSlates: count.default(32).describe("Slates per optimizer step."),
    lambdaReasoning: z
      .number()
      .nonnegative()
      .default(0.2)
      .describe("Weight of reasoning tokens; smaller than lambdaRanking (GR2 v1)."),
    lambdaRanking: positive.default(1).describe("Weight of ranking tokens."),
    rankDecay: share
      .default(0.5)
      .describe(
        "Weight of the k-th item of the answer is rankDecay^(k-1): the first choice counts most. 0 = the first alone.",
      ),
    noThinkShare: share
      .default(0.5)
      .describe("Share of examples trained without visible reasoning, so that one model serves both modes."),
    userShare: share
      .default(0.6)
      .describe("Share of users whose re-rank slates go to SFT; the others' are kept for RL."),
    replayShare: z
      .number()
      .nonnegative()
      .default(1)
      .describe(
        "Next-item tokens replayed per SFT token, over mid-training and SFT users' re-rank segments, so that the LM keeps and refreshes what it knows.",
      ),
    checkpointSteps: count.default(50).describe("Steps between checkpoints a killed run resumes from."),
    ...optimizer,
  })
  .prefault({});

export const rl = z
  .strictObject({
    steps: count.default(40).describe("Optimizer batches: sample, verify, update (Diffusion-GR2: 600)."),
    prompts: count.default(32).describe("Slates per step that reach the update."),
    group: z.int().min(2).default(8).describe("G, responses per prompt (Diffusion-GR2: 8)."),
    learningRate: positive.default(2e-5).describe("Step size (Diffusion-GR2: 5e-7 for an 8B)."),
    temperature: positive.default(1).describe("Of sampling; the trainer uses the same distribution."),
    clipLow: positive.default(0.2).describe("epsilon_low (DAPO)."),
    clipHigh: positive.default(0.28).describe("epsilon_high (DAPO)."),
    klCoef: z.number().nonnegative().default(0).describe("Weight of the KL to the SFT policy (DAPO: none)."),
    klEstimator: z
      .enum(["k3", "k1"])
      .default("k3")
      .describe("k3: a term of the loss (GRPO); k1: log-ratio off the advantage of each token (PPO)."),
    importanceCap: z
      .number()
      .nonnegative()
      .default(0)
      .describe(
        "Truncated importance sampling: weigh a token by min(p_trainer / p_sampler, cap), for samplers whose log-probs differ from the trainer's; costs one more forward pass. 0 = off.",
      ),
    curriculum: z
      .enum(["none", "near-first", "far-first"])
      .default("none")
      .describe(
        "Which slates come first, by the true item's place in the pre-rank; all of them from half-way on. Ours.",
      ),
    normaliseStd: z
      .boolean()
      .default(true)
      .describe("Divide advantages by the group's standard deviation (GRPO); false = centred only."),
    lossAggregation: z
      .enum(["token", "sequence"])
      .default("token")
      .describe("token: one mean over all tokens of the batch (DAPO); sequence: mean of each response's mean (GRPO)."),
    dynamicSampling: z.boolean().default(true).describe("Drop groups whose rewards are all equal and refill (DAPO)."),
    maxRefillRounds: countOrZero.default(2).describe("Bound on refilling; then the step goes on with what there is."),
    overlongBuffer: countOrZero
      .default(16)
      .describe("Soft length penalty over the last so many tokens of the budget; 0 = off (DAPO)."),
    maskTruncated: z
      .boolean()
      .default(true)
      .describe("Responses cut off by the length limit do not enter the loss (DAPO)."),
    epochs: count.default(1).describe("Passes over one batch of rollouts."),
    minibatches: count.default(1).describe("Optimizer steps per pass."),
    thinkShare: share
      .default(0.5)
      .describe("Share of prompts answered with visible reasoning; the others answer at once."),
    reward: z
      .strictObject({
        kind: z
          .enum(["rank-promotion", "ndcg", "auc"])
          .default("rank-promotion")
          .describe(
            "rank-promotion: (rank_pre - rank_re) / N (GR2 v1), the mean over the positives of a logged slate; ndcg, auc: (graded) NDCG@k, or the share of rightly ordered pairs, of the answer minus that of the input order (TR).",
          ),
        ndcgK: count.default(5).describe("k of the ndcg reward."),
        format: z
          .enum(["conditional", "unconditional", "none"])
          .default("conditional")
          .describe("When the format bonus is paid (GR2 v1: conditional; unconditional teaches copying)."),
        formatBonus: z.number().nonnegative().default(0.2).describe("alpha (Diffusion-GR2: .2)."),
        dehacked: z
          .boolean()
          .default(false)
          .describe(
            "TR's gated reward, for ndcg and auc: the answer's own value, not what it gains over the input order, and nothing for an incomplete permutation or a re-emitted sub-optimal input order.",
          ),
        invalid: z
          .number()
          .default(-1)
          .describe("Reward of an unparseable answer, kept in its group (Diffusion-GR2: -1)."),
      })
      .prefault({}),
    evalSteps: count.default(10).describe("Steps between evaluations on validation slates."),
    evalSlates: count.default(400).describe("Validation slates used there."),
    keepBest: z.boolean().default(true).describe("Keep the weights of the best evaluation, the SFT policy included."),
    checkpointSteps: count.default(10).describe("Steps between checkpoints a killed run resumes from."),
    weightDecay: z.number().nonnegative().default(0).describe("Decoupled (AdamW)."),
    maxGradNorm: z.number().nonnegative().default(1).describe("Gradient clipping by global norm; 0 = off."),
    warmupSteps: countOrZero.default(3).describe("Linear warm-up."),
    schedule: z.enum(["constant", "linear", "cosine"]).default("constant").describe("Decay to zero after warm-up."),
  })
  .prefault({});

export const evaluation = z
  .strictObject({
    maxSlates: countOrZero.default(0).describe("Cap on test slates (whole users are drawn); 0 = all."),
    validationSlates: countOrZero.default(1000).describe("Validation slates that systems are chosen on; 0 = all."),
    controls: z
      .boolean()
      .default(true)
      .describe(
        "Also evaluate the controls: another user's history, another slate's thought and, where the prompt lists candidates, another order of them.",
      ),
    bootstrap: count.default(10_000).describe("Paired bootstrap resamples over users."),
    examples: countOrZero.default(12).describe("Slates shown before and after in the report."),
  })
  .prefault({});
