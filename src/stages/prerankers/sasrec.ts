/**
 * SASRec (Kang & McAuley, 1808.09781) as a pre-ranker: a causal transformer over items with a softmax over all of them
 * (full cross-entropy: Klenitskiy & Vasilev, 2309.07602). It is a second model in the worker, a small GPT-2 whose
 * vocabulary is the catalogue: token id = item row. Training is next-token prediction, and a beam search over one-token
 * items gives the exact full ranking.
 *
 * Differences from the 2018 model: layer norms before the blocks and a last one after them (as in GPT-2), positions
 * counted from a sequence's start.
 *
 * The first fit of a plan (prerank/fits) chooses the number of epochs on validation positions of the users it is
 * queried for; later fits use the same number without looking at validation. Every evaluation writes a checkpoint from
 * which an interrupted stage resumes.
 */

import { readdirSync, rmSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { sasrecState } from "../../artifacts/candidates.ts";
import { adamW } from "../../config/schema/training.ts";
import { sha256 } from "../../core/hash.ts";
import { deriveSeed, Rng, unitHash } from "../../core/rng.ts";
import type { TrainingView } from "../../data/split.ts";
import type { SplitDataset } from "../../data/types.ts";
import { ndcgAt } from "../../eval/metrics.ts";
import { oneTokenItems, sasrecBeams } from "../../models/beam-ranker.ts";
import { checkpointValue, resume, saveCheckpoint } from "../../models/checkpoint.ts";
import { windows, withShuffledTies } from "../../models/documents.ts";
import { checkLineage, type Lineage } from "../../models/language-model.ts";
import { sasrecModel } from "../../models/sasrec.ts";
import { buildSlates, defaultSlates } from "../../prerank/slates.ts";
import type { FitPreRanker, FitPurpose, PreRanker } from "../../prerank/types.ts";
import type { StageContext } from "../../run/stage.ts";
import type { WorkerClient } from "../../worker/types.ts";

const modelId = "sasrec";

/** State of a fit: everything it depends on besides seed and data. */
interface Progress {
  /** Name of the fit. */
  readonly through: string;
  readonly epoch: number;
  /** Epochs over all fits so far: the name of the checkpoint. */
  readonly epochs: number;
  readonly best: { readonly epoch: number; readonly ndcg: number };
  /** Epochs of each finished fit, in order. */
  readonly finished: Readonly<Record<string, number>>;
}

/** Fits one view after the other. */
export function sasrecFitter(context: StageContext, data: SplitDataset): FitPreRanker {
  let progress = checkpointValue<Progress>(context);
  return async (view, purpose) => {
    const worker = await context.worker();
    const { config, signal } = context;
    const model = await worker.loadModel({ modelId, ...sasrecModel(config, view.numItems, purpose.name) }, { signal });
    const items = oneTokenItems(view.numItems);
    const preRanker = sasrecBeams(worker, signal, { config, items, parameters: model.numParameters, modelId });
    const lineage = { catalogue: data.dataset.hash, tokenizer: sha256(model.tokenizerJson) };
    const state = sasrecState(context.dir, purpose.name);
    if (progress?.finished[purpose.name] === undefined)
      progress = await train({ context, worker, data, view, purpose, preRanker, state, lineage }, progress);
    else {
      const loaded = await worker.loadState(
        { modelId, path: state, includeOptimizer: false },
        { signal: context.signal },
      );
      checkLineage(state, loaded, lineage);
    }
    return preRanker;
  };
}

/** Frees the model at the end of a stage. */
export const unloadSasrec = (worker: WorkerClient, signal: AbortSignal): Promise<void> =>
  worker.unloadModel(modelId, { signal });

/** One fit and its inputs. */
interface Fit {
  readonly context: StageContext;
  readonly worker: WorkerClient;
  readonly data: SplitDataset;
  readonly view: TrainingView;
  readonly purpose: FitPurpose;
  readonly preRanker: PreRanker;
  /** Folder of the finished weights. */
  readonly state: string;
  readonly lineage: Lineage;
}

/** Trains on the view, resuming from `before`; leaves the chosen weights loaded and in `state`. */
async function train(fit: Fit, before: Progress | undefined): Promise<Progress> {
  const { context, worker, preRanker, state, lineage } = fit;
  const { signal, config } = context;
  const o = config.prerank.sasrec;
  const through = fit.purpose.name;
  const finished = before?.finished ?? {};
  const resumed = before?.through === through ? await resume<Progress>(context, worker, lineage, modelId) : undefined;
  const [chosen] = Object.values(finished);
  const bestState = (epoch: number): string => context.work(`best-${epoch}`);
  let epochs = before?.epochs ?? 0;
  let best = resumed?.best ?? { epoch: 0, ndcg: -1 };
  for (let epoch = 1 + (resumed?.epoch ?? 0); ; epoch++) {
    const loss = await trainEpoch(fit, epoch);
    const evaluates = chosen === undefined && (epoch % o.evalEpochs === 0 || epoch === o.maxEpochs);
    const ndcg = evaluates ? await validationNdcg(fit) : undefined;
    context.metrics(epochs++, { loss, ...(ndcg === undefined ? {} : { "validation N@10": ndcg }) });
    if (ndcg !== undefined && ndcg > best.ndcg) {
      best = { epoch, ndcg };
      await worker.saveState(
        { modelId, path: bestState(epoch), includeOptimizer: false, metadata: lineage },
        { signal },
      );
    }
    if (ndcg !== undefined)
      context.log(`sasrec, epoch ${epoch}: loss ${loss.toFixed(3)}, validation N@10 ${ndcg.toFixed(4)}`);
    if (epoch === (chosen ?? o.maxEpochs)) break;
    if (chosen === undefined && epoch >= best.epoch + o.patience * o.evalEpochs) break;
    if (epoch % o.evalEpochs === 0) {
      await saveCheckpoint(context, worker, lineage, epochs, { through, epoch, epochs, best, finished }, modelId);
      removeOthers(bestState(best.epoch));
    }
  }
  const took = chosen ?? best.epoch;
  if (chosen === undefined)
    await worker.loadState({ modelId, path: bestState(took), includeOptimizer: false }, { signal });
  await worker.saveState({ modelId, path: state, includeOptimizer: false, metadata: lineage }, { signal });
  const done: Progress = { through, epoch: took, epochs, best, finished: { ...finished, [through]: took } };
  await saveCheckpoint(context, worker, lineage, epochs, done, modelId);
  context.log(`sasrec, fit ${through}: ${took} epochs, ${preRanker.parameters} parameters`);
  return done;
}

/** One pass over all windows; returns the mean loss in nats per item. */
async function trainEpoch({ context, worker, view, purpose }: Fit, epoch: number): Promise<number> {
  const { signal, config } = context;
  const o = config.prerank.sasrec;
  const rng = Rng.of(config.seed, "sasrec", purpose.name, epoch);
  const documents = view.sequences.flatMap((sequence, user) => {
    const items = withShuffledTies(sequence, view.times[user] as Float64Array, rng);
    // One item longer than a history: the last item is only a target. Every epoch cuts differently.
    const cuts = windows(items.length, o.historyItems + 1, o.historyItems, rng.int(o.historyItems));
    return cuts.map(([start, end]) => items.subarray(start, end));
  });
  rng.shuffle(documents);
  let nats = 0;
  let learned = 0;
  for (let start = 0; start < documents.length; start += o.batchSequences) {
    const batch = documents.slice(start, start + o.batchSequences);
    const targets = batch.reduce((n, d) => n + d.length - 1, 0);
    const { loss } = await worker.forwardBackward(
      {
        modelId,
        batch: { groups: batch.map((d) => ({ prompt: d.subarray(0, 1), responses: [d.subarray(1)] })) },
        weights: new Float32Array(targets).fill(1 / targets),
        loss: { kind: "cross_entropy", negatives: o.negatives },
        microBatchTokens: config.runtime.microBatchTokens,
        seed: deriveSeed(config.seed, "sasrec", purpose.name, "dropout", epoch, start),
      },
      { signal },
    );
    const { learningRate, weightDecay } = o;
    await worker.optimStep({ ...adamW, beta2: 0.98, modelId, learningRate, weightDecay, maxGradNorm: 1 }, { signal });
    nats += loss * targets;
    learned += targets;
    const done = Math.min(start + o.batchSequences, documents.length);
    context.progress(`sasrec, fit ${purpose.name}, epoch ${epoch}`, done, documents.length);
  }
  return nats / Math.max(1, learned);
}

/** N@10 over the validation positions of a sample of the queried users. */
async function validationNdcg({ context, data, preRanker, purpose }: Fit): Promise<number> {
  const { seed, prerank } = context.config;
  const asked = data.splits.reduce((n, _, user) => n + Number(purpose.asks(user)), 0);
  const share = prerank.sasrec.validationUsers / asked;
  const keepUser = (user: number): boolean =>
    purpose.asks(user) && (share === 0 || unitHash(deriveSeed(seed, "sasrec-validation"), user) < share);
  const options = { ...defaultSlates, size: 10 };
  const { slates } = await buildSlates(data, "validation", preRanker, options, keepUser);
  return (
    slates.reduce((sum, s) => sum + ndcgAt(s.targetIndex < 0 ? Infinity : s.targetIndex + 1, 10), 0) /
    Math.max(1, slates.length)
  );
}

/** Removes superseded best weights, once nothing refers to them. */
function removeOthers(kept: string): void {
  for (const name of readdirSync(dirname(kept)))
    if (name.includes("best-") && name !== basename(kept)) rmSync(join(dirname(kept), name), { recursive: true });
}
