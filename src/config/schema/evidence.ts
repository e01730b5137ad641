/** Settings of the evidence: features and a light model that order candidates without a language model. */
import { z } from "zod";
import { count, countOrZero, positive, share } from "./numbers.ts";

export const familyNames = ["collaborative", "metadata", "lexical", "embedding", "time"] as const;

export const evidence = z
  .strictObject({
    model: z
      .enum(["stacked", "lambdamart", "listwise"])
      .default("stacked")
      .describe(
        "lambdamart: gradient-boosted trees (LightGBM, fitted by the worker); " +
          "listwise: a logistic regression over the candidates, which needs no worker; " +
          "stacked: the sum of both, weighted out of sample.",
      ),
    families: z
      .array(z.enum(familyNames))
      .min(1)
      .refine((names) => new Set(names).size === names.length, { error: "a family is named twice" })
      .default([...familyNames])
      .describe(
        "Feature families: other users' behaviour, brand and categories, title words, the run's text embeddings, " +
          "times of interactions. Families without data are left out automatically.",
      ),
    folds: z
      .int()
      .min(2)
      .default(9)
      .describe("Folds of users: statistics for a user's training slates come from the other folds' users."),
    modelFolds: z
      .int()
      .min(2)
      .default(3)
      .describe(
        "Folds of users for the model itself: " +
          "scores of a user's training slates come from a model not trained on them.",
      ),
    midtrainFolds: countOrZero
      .default(0)
      .describe(
        "Also learn from slates of the mid-training segment, made in this many folds of users by a pre-ranker " +
          "that has not seen the slate's user; needs a pre-ranker that is cheap to fit this often (itemknn, " +
          "popularity). " +
          "0 = only the re-rank slates and the mid-training slates that stage slates already made " +
          "(prerank.trainSlates).",
      ),
    maxSlates: count.default(32_000).describe("Maximum number of slates to learn from; whole users are drawn."),
    trees: z
      .strictObject({
        maxTrees: count.default(400).describe("Maximum number of trees; the held-out folds decide how many are kept."),
        learningRate: positive.default(0.1).describe("Shrinkage of every tree."),
        leaves: z.int().min(2).max(32).default(15).describe("Maximum leaves per tree."),
        minLeafRows: count.default(50).describe("Minimum candidates per leaf."),
        l2: z.number().nonnegative().default(1).describe("Penalty on leaf values."),
        featureShare: share
          .refine((s) => s > 0)
          .default(0.8)
          .describe("Share of features that each tree may use, drawn anew per tree."),
        maxBins: z.int().min(2).max(255).default(63).describe("Histogram bins per feature."),
        top: count
          .default(10)
          .describe("LambdaMART's truncation level: pairs of candidates both ranked below it are ignored."),
        patience: count.default(20).describe("Stop after this many trees without a better NDCG on the held-out folds."),
      })
      .prefault({})
      .describe("model: lambdamart."),
    l2: z.number().nonnegative().default(30).describe("model: listwise. Ridge penalty."),
  })
  .prefault({});
