/** Settings of the evaluation. */
import { z } from "zod";
import { compress } from "./model.ts";
import { count, countOrZero, positive } from "./numbers.ts";
import { namedPlugin } from "./plugin.ts";

export const evaluation = z
  .strictObject({
    maxSlates: countOrZero.default(0).describe("Maximum number of test slates (whole users are drawn); 0 = all."),
    validationSlates: countOrZero
      .default(1000)
      .describe("Number of validation slates on which systems are chosen; 0 = all."),
    controls: z
      .boolean()
      .default(true)
      .describe(
        "Also evaluate the controls: another user's history, another slate's reasoning and, " +
          "if the prompt lists candidates, another order of them.",
      ),
    zeroShot: z
      .boolean()
      .default(true)
      .describe(
        "Also evaluate a pretrained model before any training: with the same prompt, " +
          "and by the likelihood of titles. " +
          "A model from scratch knows nothing before training and is left out.",
      ),
    crossEncoder: z
      .strictObject({
        slates: countOrZero
          .default(0)
          .describe(
            "Re-rank slates it is trained on, a seeded sample; 0 = no such baseline. " +
              "On two CPU cores, training takes about a second per slate and scoring a quarter of a second.",
          ),
        epochs: positive.default(1).describe("Passes over them."),
        learningRate: positive.default(5e-5).describe("Peak learning rate; linear decay to zero."),
        batchSlates: count.default(8).describe("Slates per optimizer step."),
        historyItems: count.default(5).describe("Latest titles of the history that it reads with each candidate."),
        maxTokens: count.default(128).describe("Tokens of history and candidate together; the history is cut."),
      })
      .prefault({})
      .describe(
        "Baseline `minilm`: a cross-encoder, " +
          "the embedding model (embed.model) fine-tuned on history and candidate together.",
      ),
    metrics: z
      .record(z.string().regex(/^[a-z][a-z0-9_]*$/, "lower-case letters, digits and _"), namedPlugin)
      .default({})
      .describe(
        "Your own metrics by name, {NAME: {module: ./mine.ts}}: " +
          "extra columns of the results table, over the slates that contain the true item.",
      ),
    baselines: z
      .record(
        z.string().regex(/^[a-z][a-z0-9_]*$/, "lower-case letters, digits and _"),
        z.union([z.string().min(1), namedPlugin], { error: "expected a file, or {module: ./mine.ts}" }),
      )
      .default({})
      .describe(
        "Your own systems to compare with, by name: each a module that scores candidates, {module: ./mine.ts}, " +
          "or a JSONL file with {slate, scores} for every validation and test slate of stages/slates " +
          "(scores in candidate order, larger is better). " +
          "For example a fine-tuned cross-encoder, a zero-shot language model, or your production ranker.",
      ),
    compress: compress.describe(
      "Also evaluate the RL policy on compressed prompts: " +
        "the loss in quality for a model not trained on them, and the tokens saved.",
    ),
    bootstrap: count.default(10_000).describe("Paired bootstrap resamples over users."),
    examples: countOrZero.default(12).describe("Number of example slates in the report, before and after re-ranking."),
  })
  .prefault({});
