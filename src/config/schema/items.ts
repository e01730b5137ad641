/** Settings of items: text embeddings and semantic IDs. */
import { z } from "zod";
import { count, countOrZero, positive, share } from "./numbers.ts";

export const embed = z
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

export const sid = z
  .strictObject({
    method: z
      .enum(["rqvae", "rqkmeans"])
      .default("rqvae")
      .describe("rqvae: residual-quantised VAE (GR2 v1, TIGER); rqkmeans: residual k-means, without gradients."),
    levels: count.default(4).describe("L, codes per item (GR2 v1: 4)."),
    codes: z.int().min(2).default(256).describe("C, codebook size of each level (GR2 v1: 256)."),
    format: z
      .enum(["wrapped", "bare"])
      .default("wrapped")
      .describe(
        "wrapped: <|sid_begin|> codes <|sid_end|>, as in the paper; bare: codes only, fewer tokens for small models.",
      ),
    latentDim: count
      .default(32)
      .describe(
        "Dimensions that are quantised: the encoder's output (rqvae), " +
          "or principal components of the embeddings (rqkmeans).",
      ),
    hiddenDims: z.array(count).default([256, 128]).describe("Encoder layers; the decoder mirrors them."),
    epochs: count.default(100).describe("Passes over the items."),
    batchSize: count.default(512).describe("Items per step."),
    learningRate: positive.default(1e-3).describe("Adam's learning rate."),
    commitment: z.number().nonnegative().default(0.25).describe("beta of the commitment loss (RQ-VAE)."),
    emaDecay: z
      .number()
      .min(0)
      .lt(1)
      .default(0.95)
      .describe(
        "gamma of the EMA codebook update; 0 = codebooks learn by gradient (GR2 v1: EMA is essential, 0.95 to 0.99).",
      ),
    kmeansInit: z.boolean().default(true).describe("Initialise every codebook by k-means on its residuals."),
    randomLastLevel: z
      .boolean()
      .default(true)
      .describe(
        "Draw the last code at random among those free under the prefix (GR2 v1: " +
          "used in every run with >= 99 % unique IDs).",
      ),
    diversityWeight: z
      .number()
      .nonnegative()
      .default(0)
      .describe("Weight of the loss that pulls code usage toward uniform; 0 = off (GR2 v1: +0.6 points)."),
    deadCodeResetEpochs: countOrZero
      .default(0)
      .describe("Epochs between resets of unused codes; 0 = off (GR2 v1: -4.0 points)."),
    contrastiveWeight: z
      .number()
      .nonnegative()
      .default(0)
      .describe(
        "Weight of the loss that pulls co-interacted items together; " +
          "0 = off (GR2 v1: fewer unique IDs, better recommendations). Pairs come from the mid-training segment only.",
      ),
    contrastiveTemperature: positive.default(0.1).describe("Temperature of the contrastive loss."),
    contrastivePairsPerItem: count.default(8).describe("Positives per item: its most frequent neighbours."),
    collaborativeDims: countOrZero
      .default(0)
      .describe(
        "Dimensions of a truncated SVD of mid-training co-occurrence appended to the text embedding; 0 = text only.",
      ),
    collaborativeWeight: positive.default(1).describe("Norm of the appended part relative to the text part."),
    minUniqueness: share.default(0.99).describe("Gate: the run stops if a smaller share of items has a unique ID."),
  })
  .prefault({});
