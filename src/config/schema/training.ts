/** Settings of what trains and what judges: mid-training, teacher, SFT, RL, evaluation. */
import { z } from "zod";
import { compress } from "./model.ts";
import { count, countOrZero, positive, share } from "./numbers.ts";
import { namedPlugin, pluginKeys } from "./plugin.ts";

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

const httpUrl = z.string().refine(
  (value) => {
    if (value === "") return true;
    const url = URL.canParse(value) ? new URL(value) : undefined;
    return url !== undefined && /^https?:$/.test(url.protocol) && url.username + url.password + url.search === "";
  },
  { error: "expected http(s)://HOST:PORT/v1, without credentials and query: a key belongs into the environment" },
);

const endpoint = z
  .strictObject({
    baseUrl: httpUrl
      .default("")
      .describe("OpenAI-compatible server, up to and with the version: http://127.0.0.1:8000/v1."),
    apiKeyEnv: z
      .string()
      .regex(/^([A-Za-z_][A-Za-z0-9_]*)?$/, "expected the NAME of an environment variable, never the key itself")
      .default("")
      .describe("Name of the environment variable that holds the key; empty = the server wants none."),
    structured: z
      .enum(["none", "json_object", "json_schema"])
      .default("none")
      .describe(
        "Have the server enforce JSON, or the exact form of the answer (vLLM, SGLang, llama.cpp, many hosted).",
      ),
    extraBody: z
      .record(z.string(), z.unknown())
      .default({})
      .describe("Sent along with every request, for example {chat_template_kwargs: {enable_thinking: false}}."),
    concurrency: count.default(8).describe("Requests at the same time."),
    timeoutSeconds: positive.default(120).describe("Longest wait for one answer."),
    maxRetries: countOrZero
      .default(4)
      .describe("Tries behind the first, after time-outs, 408, 429, 5xx and cut answers."),
    backoffSeconds: positive.default(1).describe("Wait before the first retry; doubles each time, ± half by chance."),
    maxWaitSeconds: positive
      .default(60)
      .describe("Longest wait between retries; a server whose Retry-After asks for more counts as failed."),
    maxFailures: count.default(3).describe("So many requests in a row that fail for good stop the stage."),
    maxRequests: countOrZero.default(0).describe("Budget: requests, retries included; 0 = no cap."),
    maxTokens: countOrZero.default(0).describe("Budget: tokens read and written; 0 = no cap."),
    maxCost: z.number().nonnegative().default(0).describe("Budget: money, in the currency of the prices; 0 = no cap."),
    inputPrice: z.number().nonnegative().default(0).describe("Price of a million tokens read."),
    outputPrice: z.number().nonnegative().default(0).describe("Price of a million tokens written."),
  })
  .prefault({});

const quality = z
  .strictObject({
    minWords: countOrZero.default(8).describe("Reasoning with fewer words is not kept."),
    maxWords: count.default(150).describe("Nor one with more; the teacher is told."),
    minCitations: countOrZero.default(1).describe("Items of history or slate that reasoning must cite at least."),
    language: z.enum(["en", "any"]).default("en").describe("Language that reasoning has to be in; any = not checked."),
  })
  .prefault({})
  .describe("Filters on the reasoning of a teacher that writes words.");

export const teacher = z
  .strictObject({
    kind: z
      .enum(["statistical", "openai", "worker"])
      .default("statistical")
      .describe(
        "Who writes the traces. statistical: offline, from co-occurrence, categories, recency, cross-fitted over users; openai: an LLM behind an OpenAI-compatible endpoint; worker: an LLM in the worker.",
      ),
    model: z
      .string()
      .default("")
      .describe(
        "openai: its name at the endpoint; worker: local folder, hub id, or smollm2-135m-instruct from a package registry.",
      ),
    ggufFile: z.string().default("").describe("worker: file in `model`, if the weights are GGUF."),
    endpoint,
    quality,
    maxSlates: countOrZero
      .default(0)
      .describe("openai, worker: slates asked about at most, a seeded draw; 0 = all of SFT's users."),
    maxAnswerTokens: count.default(512).describe("openai, worker: cut-off of one answer."),
    sampling: z
      .enum(["rejection", "targeted"])
      .default("rejection")
      .describe(
        "rejection: kept only if the teacher's own first choice is the true item; targeted: it is shown the answer (GR2 v1: rejection is better).",
      ),
    maxTries: count.default(8).describe("Bound on tries per slate."),
    temperature: positive.default(0.7).describe("Of the teacher's choice."),
    rest: z
      .enum(["teacher", "input"])
      .default("teacher")
      .describe(
        "What follows the first choice of a trace: the others as the teacher has them, or as the pre-rank had them, which a small model that is shown them can learn to copy.",
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
    kind: z
      .enum(["dapo", "opd"])
      .default("dapo")
      .describe(
        "dapo: verified rewards; opd: on-policy distillation, a teacher scores the student's own tokens (TR, Diffusion-GR2).",
      ),
    initial: z
      .string()
      .default("")
      .describe(
        "Folder of saved weights to begin with instead of SFT's, of a run with the same data, IDs and model: runs/NAME/stages/rl/state. For a second pass, for example without visible thoughts.",
      ),
    opd: z
      .strictObject({
        teacher: z
          .string()
          .default("")
          .describe(
            "Folder of the teacher, of a run with the same semantic IDs and tokenizer: saved weights (runs/NAME/stages/rl/state, LoRA too) or an exported model (gr2 export).",
          ),
        address: z
          .string()
          .default("")
          .describe("host:port or unix:/path of a worker for the teacher alone; empty = it shares this run's worker."),
        loss: z
          .enum(["surrogate", "forward-kl"])
          .default("surrogate")
          .describe(
            "surrogate: clipped, with log p_teacher - log p_student of the sampled token as its advantage (reverse KL, TR); forward-kl: KL from the teacher's likeliest alternatives at every token the student wrote (Diffusion-GR2).",
          ),
        topK: z
          .int()
          .min(1)
          .max(1000)
          .default(20)
          .describe("forward-kl: alternatives the teacher gives for every token; all others count as one more."),
        anchor: z
          .number()
          .nonnegative()
          .default(0.1)
          .describe("surrogate: weight of the k3 term that pulls toward the teacher."),
        advantageCap: positive.default(5).describe("surrogate: bound on |log p_teacher - log p_student| of a token."),
      })
      .prefault({}),
    steps: countOrZero
      .default(40)
      .describe("Optimizer batches: sample, verify, update (Diffusion-GR2: 600). 0 = no RL: its policy is SFT's."),
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
          .enum(["rank-promotion", "ndcg", "auc", "module"])
          .default("rank-promotion")
          .describe(
            "rank-promotion: (rank_pre - rank_re) / N (GR2 v1), the mean over the positives of a logged slate; ndcg, auc: (graded) NDCG@k, or the share of rightly ordered pairs, of the answer minus that of the input order (TR); module: as rl.reward.module says, which is enough to name.",
          ),
        ...pluginKeys("Own reward of a readable answer, in place of kind"),
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
    patience: countOrZero
      .default(2)
      .describe(
        "Stop after so many evaluations in a row without a better one; 0 = run every step. Needs keepBest, is ignored without.",
      ),
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
        "Also evaluate the controls: another user's history, another slate's reasoning and, where the prompt lists candidates, another order of them.",
      ),
    metrics: z
      .record(z.string().regex(/^[a-z][a-z0-9_]*$/, "lower-case letters, digits and _"), namedPlugin)
      .default({})
      .describe(
        "Metrics of yours by name, {NAME: {module: ./mine.ts}}: columns of the results table beside ours, over the slates that hold the true item.",
      ),
    baselines: z
      .record(
        z.string().regex(/^[a-z][a-z0-9_]*$/, "lower-case letters, digits and _"),
        z.union([z.string().min(1), namedPlugin], { error: "expected a file, or {module: ./mine.ts}" }),
      )
      .default({})
      .describe(
        "Systems of yours to compare with, by name: a module that scores candidates, {module: ./mine.ts}, or a JSONL file with {slate, scores} for every validation and test slate of stages/slates (scores in the order of its candidates, larger is better). For a fine-tuned cross-encoder, a zero-shot language model, the ranker in production.",
      ),
    compress: compress.describe(
      "Also ask the RL policy with prompts shortened so far: what compression costs a model not trained for it, and the tokens it saves.",
    ),
    bootstrap: count.default(10_000).describe("Paired bootstrap resamples over users."),
    examples: countOrZero.default(12).describe("Slates shown before and after in the report."),
  })
  .prefault({});
