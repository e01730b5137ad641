/** Settings of the evidence: what orders candidates without a language model. */
import { z } from "zod";
import { count, countOrZero, positive, share } from "./numbers.ts";

export const familyNames = ["collaborative", "metadata", "lexical", "embedding", "time"] as const;

export const evidence = z
  .strictObject({
    model: z
      .enum(["stacked", "lambdamart", "listwise"])
      .default("stacked")
      .describe(
        "lambdamart: gradient-boosted trees (LightGBM, fitted by the worker); listwise: a logistic regression over the candidates, which needs no worker; stacked: the sum of both, weighed out of sample.",
      ),
    families: z
      .array(z.enum(familyNames))
      .min(1)
      .refine((names) => new Set(names).size === names.length, { error: "a family is named twice" })
      .default([...familyNames])
      .describe(
        "What it looks at: what others did, brand and categories, words of titles, the run's text embeddings, when items were chosen. Families for which the data has nothing are left out by themselves.",
      ),
    folds: z
      .int()
      .min(2)
      .default(9)
      .describe(
        "Folds of users: the statistics a user's training slates are judged by come from the other folds' users.",
      ),
    modelFolds: z
      .int()
      .min(2)
      .default(3)
      .describe(
        "Folds of users for the model itself: the scores of a user's training slates come from a model that has not learned from them.",
      ),
    midtrainFolds: countOrZero
      .default(0)
      .describe(
        "Folds of users for slates of the mid-training segment that the model learns from as well, each made without its user; needs a pre-ranker that is cheap to fit so often (itemknn, popularity). 0 = the re-rank slates alone, and whatever the stage slates made of that segment.",
      ),
    maxSlates: count.default(32_000).describe("Slates it learns from at most, a draw of whole users."),
    trees: z
      .strictObject({
        maxTrees: count.default(400).describe("Most trees; the held-out folds decide how many are kept."),
        learningRate: positive.default(0.1).describe("Shrinkage of every tree."),
        leaves: z.int().min(2).max(32).default(15).describe("Leaves of a tree at most."),
        minLeafRows: count.default(50).describe("Candidates in a leaf at least."),
        l2: z.number().nonnegative().default(1).describe("Penalty on leaf values."),
        featureShare: share
          .refine((s) => s > 0)
          .default(0.8)
          .describe("Features a tree may use, drawn anew for each."),
        maxBins: z.int().min(2).max(255).default(63).describe("Histogram bins a feature."),
        top: count.default(10).describe("Ranks that count: pairs of candidates below them teach nothing."),
        patience: count.default(20).describe("Trees without a better NDCG on the held-out folds before it stops."),
      })
      .prefault({})
      .describe("lambdamart."),
    l2: z.number().nonnegative().default(30).describe("listwise: ridge penalty."),
  })
  .prefault({});
