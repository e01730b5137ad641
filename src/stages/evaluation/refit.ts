/**
 * Refit (settings `refit`, midtrain.refit): the weights used in direct mode learn next items from all data before the
 * evaluated position: through the re-rank segment for validation slates, through the validation segment for test
 * slates. The model is then as up to date on test as on validation, where its weight was chosen, and as up to date as
 * pre-rankers and evidence. It learns all items of windows that contain a new one, at a fraction of mid-training's step
 * size. Modes that generate keep their own weights: training on next items only would make the model forget how to
 * answer.
 */

import { adamW } from "../../config/schema/training.ts";
import { deriveSeed, Rng } from "../../core/rng.ts";
import { checkTrainingView } from "../../data/leakage.ts";
import { segmentRange, trainingView } from "../../data/split.ts";
import type { UserSplit } from "../../data/types.ts";
import type { LanguageModelStage } from "../../eval/systems.ts";
import { type Document, intoBatches, learnDocuments, sequentialDocuments } from "../../models/documents.ts";
import { type LanguageModel, weightsChanged } from "../../models/language-model.ts";
import { learningRateAt } from "../../rl/groups.ts";
import type { Asked } from "./asked.ts";

/** The last segment that the model has seen. */
export type Through = "rerank" | "validation";

/** Continues training the loaded weights of a stage, and saves them. @param path folder of the refitted weights */
export async function refit(
  stage: LanguageModelStage,
  through: Through,
  { context, corpus }: Asked,
  model: LanguageModel,
  path: string,
): Promise<void> {
  const { config, signal } = context;
  const { batchTokens, learningRate, warmupSteps, schedule, weightDecay, maxGradNorm } = config.midtrain;
  const { epochs, rate } = config.midtrain.refit;
  const worker = await context.worker();
  const view = trainingView(corpus.split, through);
  checkTrainingView(corpus.split, view, through, "the refit");
  const known = (user: number): number =>
    segmentRange(corpus.split.splits[user] as UserSplit, through === "rerank" ? "midtrain" : "rerank")[1];
  const batches: Document[][] = [];
  for (let epoch = 0; epoch < Math.ceil(epochs); epoch++) {
    const part = Math.min(1, epochs - epoch);
    const rng = Rng.of(config.seed, "refit", stage, through, epoch);
    const documents = rng.shuffle(sequentialDocuments(config, view, model.encoder, epoch, known));
    batches.push(...intoBatches(documents.slice(0, Math.round(part * documents.length)), batchTokens));
  }
  weightsChanged(worker);
  const rates = {
    learningRate: rate * learningRate,
    warmupSteps: Math.min(warmupSteps, Math.ceil(batches.length / 10)),
    schedule,
  };
  let loss = 0;
  for (const [step, documents] of batches.entries()) {
    const result = await worker.forwardBackward(
      {
        ...learnDocuments(documents),
        microBatchTokens: config.runtime.microBatchTokens,
        seed: deriveSeed(config.seed, "refit", stage, through, "dropout", step),
      },
      { signal },
    );
    const stepRate = learningRateAt(step, batches.length, rates);
    await worker.optimStep({ ...adamW, learningRate: stepRate, weightDecay, maxGradNorm }, { signal });
    loss += result.loss / batches.length;
    context.progress(`refit of ${stage} through ${through}`, step + 1, batches.length);
  }
  await worker.saveState({ path, includeOptimizer: false, metadata: model.lineage }, { signal });
  context.log(`refit of ${stage} through ${through}: ${batches.length} steps, mean loss ${loss.toFixed(3)}`);
}
