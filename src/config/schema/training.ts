/** Settings of training: mid-training, teacher, SFT, RL. */
import { z } from "zod";
import { count, countOrZero, positive, share } from "./numbers.ts";
import { pluginKeys } from "./plugin.ts";

const optimizer = {
  weightDecay: z
    .number()
    .nonnegative()
    .default(0.01)
    .describe("Decoupled weight decay (AdamW); not applied to norms, biases and embeddings."),
  maxGradNorm: z.number().nonnegative().default(1).describe("Gradient clipping by global norm; 0 = off."),
  warmupSteps: countOrZero.default(20).describe("Steps of linear warm-up."),
  schedule: z
    .enum(["constant", "linear", "cosine"])
    .default("linear")
    .describe("Learning rate after warm-up; linear and cosine decay to zero."),
};

/** AdamW's other constants: not settings, the same in every recipe. */
export const adamW = { beta1: 0.9, beta2: 0.95, eps: 1e-8 } as const;

export const midtrain = z
  .strictObject({
    epochs: positive.default(10).describe("Passes over the sequential-preference data."),
    learningRate: positive
      .default(3e-3)
      .describe("Peak learning rate (for training from scratch; use about 1e-5 for an 8B model)."),
    batchTokens: count.default(4096).describe("Tokens per optimizer step."),
    windowItems: count.default(30).describe("Items per training window."),
    shuffleTies: z
      .boolean()
      .default(true)
      .describe(
        "Every epoch, shuffle each user's interactions with equal timestamps: their order carries no information.",
      ),
    windowStride: count.default(20).describe("Items between the starts of two windows."),
    mixture: z
      .strictObject({
        sequential: z.number().nonnegative().default(0.8).describe("Share of history of SIDs -> next SID."),
        captioning: z
          .number()
          .nonnegative()
          .default(0.08)
          .describe("Share of SID -> title, categories, description, and back."),
        persona: z.number().nonnegative().default(0.07).describe("Share of histories that mix SIDs and words."),
        language: z
          .number()
          .nonnegative()
          .default(0.05)
          .describe("Share of plain text, which preserves the model's language."),
      })
      .prefault({})
      .describe("Shares of training tokens (after OneRec-Think)."),
    languageFile: z
      .string()
      .default("")
      .describe(
        "File of plain text for the language task; " +
          "empty = the prose of Python's language reference, part of every Python installation.",
      ),
    checkpointSteps: count.default(200).describe("Steps between checkpoints; a killed run resumes from the last one."),
    refit: z
      .strictObject({
        epochs: z
          .number()
          .nonnegative()
          .default(1)
          .describe("Passes over the windows that contain new items; 0 = the language model is not refitted."),
        rate: share.default(0.3).describe("Peak step size, as a share of learningRate."),
      })
      .prefault({})
      .describe(
        "With refit: true, how the weights of direct mode are trained on what came before the evaluated position.",
      ),
    ...optimizer,
  })
  .prefault({});

const httpUrl = z.string().refine(
  (value) => {
    if (value === "") return true;
    const url = URL.canParse(value) ? new URL(value) : undefined;
    return url !== undefined && /^https?:$/.test(url.protocol) && url.username + url.password + url.search === "";
  },
  { error: "expected http(s)://HOST:PORT/v1, without credentials or query: put the key into an environment variable" },
);

const endpoint = z
  .strictObject({
    baseUrl: httpUrl
      .default("")
      .describe("Base URL of an OpenAI-compatible server, version included: http://127.0.0.1:8000/v1."),
    apiKeyEnv: z
      .string()
      .regex(/^([A-Za-z_][A-Za-z0-9_]*)?$/, "expected the NAME of an environment variable, never the key itself")
      .default("")
      .describe("Name of the environment variable that holds the API key; empty = the server requires none."),
    structured: z
      .enum(["none", "json_object", "json_schema"])
      .default("none")
      .describe(
        "Have the server enforce JSON, or the answer's exact schema (vLLM, SGLang, llama.cpp, many hosted services).",
      ),
    extraBody: z
      .record(z.string(), z.unknown())
      .default({})
      .describe(
        "Fields added to the body of every request, for example {chat_template_kwargs: {enable_thinking: false}}.",
      ),
    concurrency: count.default(8).describe("Maximum concurrent requests."),
    timeoutSeconds: positive.default(120).describe("Time limit per request."),
    maxRetries: countOrZero.default(4).describe("Retries after time-outs, 408, 429, 5xx and truncated answers."),
    backoffSeconds: positive.default(1).describe("Wait before the first retry; doubles each time, with ±50 % jitter."),
    maxWaitSeconds: positive
      .default(60)
      .describe("Longest wait between retries; if the server's Retry-After is longer, the request counts as failed."),
    maxFailures: count.default(3).describe("Stop the stage after this many consecutive requests have failed for good."),
    maxRequests: countOrZero.default(0).describe("Budget: requests, retries included; 0 = unlimited."),
    maxTokens: countOrZero.default(0).describe("Budget: input and output tokens; 0 = unlimited."),
    maxCost: z
      .number()
      .nonnegative()
      .default(0)
      .describe("Budget: cost, in the currency of the prices; 0 = unlimited."),
    inputPrice: z.number().nonnegative().default(0).describe("Price per million input tokens."),
    outputPrice: z.number().nonnegative().default(0).describe("Price per million output tokens."),
  })
  .prefault({});

const quality = z
  .strictObject({
    minWords: countOrZero.default(8).describe("Reject reasoning with fewer words."),
    maxWords: count.default(150).describe("Reject reasoning with more words; the prompt states this limit."),
    minCitations: countOrZero.default(1).describe("Minimum number of history or slate items that the reasoning cites."),
    language: z.enum(["en", "any"]).default("en").describe("Required language of the reasoning; any = not checked."),
  })
  .prefault({})
  .describe("Filters on the reasoning of LLM teachers.");

export const teacher = z
  .strictObject({
    kind: z
      .enum(["statistical", "openai", "worker", "module"])
      .default("statistical")
      .describe(
        "Source of the reasoning traces. " +
          "statistical: offline, from co-occurrence, categories, recency, cross-fitted over users; " +
          "openai: an LLM served by an OpenAI-compatible endpoint; worker: an LLM in the worker.",
      ),
    ...pluginKeys("Your own teacher, in place of kind"),
    model: z
      .string()
      .default("")
      .describe(
        "openai: the model's name at the endpoint; " +
          "worker: a local folder, a hub id, or smollm2-135m-instruct from a package registry.",
      ),
    ggufFile: z.string().default("").describe("worker: file within `model`, if the weights are GGUF."),
    endpoint,
    quality,
    maxSlates: countOrZero
      .default(0)
      .describe(
        "openai, worker: maximum number of slates to ask about, a seeded sample; 0 = all slates of SFT's users.",
      ),
    maxAnswerTokens: count.default(512).describe("openai, worker: maximum tokens per answer."),
    sampling: z
      .enum(["rejection", "targeted"])
      .default("rejection")
      .describe(
        "rejection: keep a trace only if the teacher's own first choice is the true item; " +
          "targeted: show the teacher the answer (GR2 v1: rejection is better).",
      ),
    maxTries: count.default(8).describe("Maximum attempts per slate."),
    temperature: positive.default(0.7).describe("Sampling temperature of the teacher."),
    rest: z
      .enum(["teacher", "input"])
      .default("teacher")
      .describe(
        "Order of a trace's ranking after the first choice: the teacher's, " +
          "or the pre-rank's, which a small model that sees it in its prompt can learn to copy.",
      ),
    stateChoice: z
      .boolean()
      .default(true)
      .describe("Traces end with the chosen item; false leaves the choice to the ranking that follows."),
    patternCategories: countOrZero
      .default(3)
      .describe("Number of the history's dominant categories that a trace names."),
    recapItems: countOrZero
      .default(0)
      .describe("Latest history items repeated at the end of a trace: a small model ranks best directly after them."),
    supportItems: countOrZero.default(3).describe("Number of history items that a trace cites as evidence."),
  })
  .prefault({});

export const sft = z
  .strictObject({
    target: z
      .enum(["order", "belief"])
      .default("order")
      .describe(
        "order: cross-entropy on the order of the kept traces (GR2 v1); " +
          "belief: listwise distillation, on every re-rank slate of SFT's users, of the probabilities that " +
          "the teacher's evidence and the mid-trained LM jointly assign, " +
          "mixed with the true item if it is a candidate. " +
          "For models too small to learn from a thousand traces.",
      ),
    truthShare: share.default(0.2).describe("belief: weight of the true item in that mixture, if it is a candidate."),
    epochs: positive.default(3).describe("Passes over the traces or slates."),
    learningRate: positive.default(5e-4).describe("Peak learning rate."),
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
        "The k-th item of the answer has weight rankDecay^(k-1): the first choice counts most. 0 = only the first.",
      ),
    noThinkShare: share
      .default(0.5)
      .describe("Share of examples trained without visible reasoning, which lets one model serve both modes."),
    userShare: share
      .default(0.6)
      .describe("Share of users whose re-rank slates go to SFT; those of the others go to RL."),
    replayShare: z
      .number()
      .nonnegative()
      .default(1)
      .describe(
        "Next-item tokens replayed per SFT token, from the mid-training segment and SFT users' re-rank segments, " +
          "to keep the LM from forgetting.",
      ),
    evalSteps: countOrZero
      .default(50)
      .describe("Steps between evaluations on validation slates; 0 = none, the last weights are kept."),
    evalSlates: count.default(400).describe("Validation slates per evaluation."),
    patience: countOrZero
      .default(2)
      .describe(
        "Stop after this many consecutive evaluations without an improvement; 0 = run all steps. " +
          "The best weights are kept.",
      ),
    checkpointSteps: count.default(50).describe("Steps between checkpoints; a killed run resumes from the last one."),
    ...optimizer,
  })
  .prefault({});

export const rl = z
  .strictObject({
    kind: z
      .enum(["dapo", "opd"])
      .default("dapo")
      .describe(
        "dapo: verified rewards; " +
          "opd: on-policy distillation, in which a teacher scores the student's own tokens (TR, Diffusion-GR2).",
      ),
    initial: z
      .string()
      .default("")
      .describe(
        "Folder of weights to start from instead of SFT's, saved by a run with the same data, " +
          "semantic IDs and model: " +
          "runs/NAME/stages/rl/state. For a second pass, for example one without visible reasoning.",
      ),
    opd: z
      .strictObject({
        teacher: z
          .string()
          .default("")
          .describe(
            "Folder of the teacher, from a run with the same semantic IDs and tokenizer: " +
              "saved weights (runs/NAME/stages/rl/state, LoRA included) or an exported model (gr2 export).",
          ),
        address: z
          .string()
          .default("")
          .describe(
            "host:port or unix:/path of a separate worker for the teacher; empty = it shares this run's worker.",
          ),
        loss: z
          .enum(["surrogate", "forward-kl"])
          .default("surrogate")
          .describe(
            "surrogate: clipped surrogate whose advantage is log p_teacher - log p_student of the sampled token " +
              "(reverse KL, TR); forward-kl: KL over the teacher's most likely alternatives " +
              "at every token that the student wrote (Diffusion-GR2).",
          ),
        topK: z
          .int()
          .min(1)
          .max(1000)
          .default(20)
          .describe("forward-kl: the teacher's alternatives per token; the rest of the vocabulary counts as one more."),
        anchor: z
          .number()
          .nonnegative()
          .default(0.1)
          .describe("surrogate: weight of the k3 term that pulls the student toward the teacher."),
        advantageCap: positive.default(5).describe("surrogate: bound on |log p_teacher - log p_student| per token."),
      })
      .prefault({}),
    steps: countOrZero
      .default(40)
      .describe(
        "Number of steps, each of which samples, verifies and updates (Diffusion-GR2: 600). 0 = no RL: " +
          "the policy stays SFT's.",
      ),
    prompts: count.default(32).describe("Slates per step that enter the update."),
    group: z.int().min(2).default(8).describe("G, responses per prompt (Diffusion-GR2: 8)."),
    learningRate: positive.default(2e-5).describe("Learning rate (Diffusion-GR2: 5e-7 for an 8B model)."),
    temperature: positive.default(1).describe("Sampling temperature; the trainer uses the same distribution."),
    clipLow: positive.default(0.2).describe("epsilon_low (DAPO)."),
    clipHigh: positive.default(0.28).describe("epsilon_high (DAPO)."),
    klCoef: z
      .number()
      .nonnegative()
      .default(0)
      .describe("Weight of the KL divergence from the SFT policy (DAPO: none)."),
    klEstimator: z
      .enum(["k3", "k1"])
      .default("k3")
      .describe("k3: a term of the loss (GRPO); k1: the log-ratio is subtracted from each token's advantage (PPO)."),
    importanceCap: z
      .number()
      .nonnegative()
      .default(0)
      .describe(
        "Truncated importance sampling: weight each token by min(p_trainer / p_sampler, cap), " +
          "for samplers whose log-probs differ from the trainer's; costs one more forward pass. 0 = off.",
      ),
    curriculum: z
      .enum(["none", "near-first", "far-first"])
      .default("none")
      .describe(
        "Which slates come first, by the true item's position in the pre-rank; from half-way on, all slates. " +
          "Not from the papers.",
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
    maxRefillRounds: countOrZero
      .default(2)
      .describe("Maximum refill rounds; after these the step continues with the groups it has."),
    overlongBuffer: countOrZero
      .default(16)
      .describe("Soft length penalty over this many last tokens of the budget; 0 = off (DAPO)."),
    maskTruncated: z
      .boolean()
      .default(true)
      .describe("Leave responses truncated by the length limit out of the loss (DAPO)."),
    epochs: count.default(1).describe("Passes over each batch of rollouts."),
    minibatches: count.default(1).describe("Optimizer steps per pass."),
    thinkShare: share
      .default(0.5)
      .describe("Share of prompts answered with visible reasoning; the others are answered without it."),
    reward: z
      .strictObject({
        kind: z
          .enum(["rank-promotion", "ndcg", "auc", "module"])
          .default("rank-promotion")
          .describe(
            "rank-promotion: (rank_pre - rank_re) / N (GR2 v1), averaged over the positives of a logged slate; " +
              "ndcg, auc: the answer's (graded) NDCG@k, or its share of correctly ordered pairs, " +
              "minus that of the input order (TR); module: your own (setting rl.reward.module selects it).",
          ),
        ...pluginKeys("Your own reward for parseable answers, in place of kind"),
        ndcgK: count.default(5).describe("k of the ndcg reward."),
        format: z
          .enum(["conditional", "unconditional", "none"])
          .default("conditional")
          .describe("When the format bonus is paid (GR2 v1: conditional; unconditional teaches copying)."),
        formatBonus: z
          .number()
          .nonnegative()
          .default(0.2)
          .describe("alpha, the size of the format bonus (Diffusion-GR2: 0.2)."),
        dehacked: z
          .boolean()
          .default(false)
          .describe(
            "TR's gated reward, for ndcg and auc: the answer's own value instead of its gain over the input order, " +
              "and nothing for an incomplete permutation or a copy of a sub-optimal input order.",
          ),
        invalid: z
          .number()
          .default(-1)
          .describe("Reward of an unparseable answer, kept in its group (Diffusion-GR2: -1)."),
      })
      .prefault({}),
    evalSteps: count.default(10).describe("Steps between evaluations on validation slates."),
    evalSlates: count.default(400).describe("Validation slates per evaluation."),
    keepBest: z
      .boolean()
      .default(true)
      .describe("Keep the weights of the best evaluation, including that of the initial SFT policy."),
    patience: countOrZero
      .default(2)
      .describe(
        "Stop after this many consecutive evaluations without an improvement; 0 = run all steps. " +
          "Ignored unless keepBest is set.",
      ),
    checkpointSteps: count.default(10).describe("Steps between checkpoints; a killed run resumes from the last one."),
    weightDecay: z.number().nonnegative().default(0).describe("Decoupled weight decay (AdamW)."),
    maxGradNorm: z.number().nonnegative().default(1).describe("Gradient clipping by global norm; 0 = off."),
    warmupSteps: countOrZero.default(3).describe("Steps of linear warm-up."),
    schedule: z
      .enum(["constant", "linear", "cosine"])
      .default("constant")
      .describe("Learning rate after warm-up; linear and cosine decay to zero."),
  })
  .prefault({});
