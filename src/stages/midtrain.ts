/**
 * Stage 1b, mid-training (GR2 v1 §3; tasks after OneRec-Think): next-token training on a mixture of sequential
 * preference, dense captioning, persona grounding and plain language. Learns only from the mid-training segment.
 */

import { execFileSync } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { type Corpus, dominantCategories, openCorpus } from "../artifacts/corpus.ts";
import { stateDir, tokenizerFile } from "../artifacts/weights.ts";
import { adamW } from "../config/schema/training.ts";
import type { Config } from "../config/schema.ts";
import { EnvironmentError } from "../core/errors.ts";
import { sha256 } from "../core/hash.ts";
import { deriveSeed, Rng } from "../core/rng.ts";
import { checkTrainingView } from "../data/leakage.ts";
import { trainingView } from "../data/split.ts";
import { resume, saveCheckpoint } from "../models/checkpoint.ts";
import { type Document, intoBatches, learnDocuments, sequentialDocuments } from "../models/documents.ts";
import { addedTokens, openLanguageModel, weightsChanged } from "../models/language-model.ts";
import type { Encoder, Piece } from "../prompts/pieces.ts";
import { captioningTask, describe, languageTask, personaTask } from "../prompts/tasks.ts";
import { learningRateAt } from "../rl/groups.ts";
import type { Stage, StageContext, Summary } from "../run/stage.ts";
import { modelVerbs } from "../run/verbs.ts";

export const midtrain: Stage = {
  name: "midtrain",
  source: import.meta.url,
  inputs: ["data", "sid"],
  verbs: ["trainTokenizer", ...modelVerbs],
  settings: ({ midtrain: { refit: _, ...midtrain }, ...c }) => ({
    midtrain,
    language:
      midtrain.languageFile && existsSync(midtrain.languageFile) ? sha256(readFileSync(midtrain.languageFile)) : "",
    model: c.model,
    sid: [c.sid.levels, c.sid.codes, c.sid.format],
    seed: c.seed,
    dtype: c.runtime.dtype,
  }),
  run,
};

async function run(context: StageContext): Promise<Summary> {
  const { config, signal } = context;
  const o = config.midtrain;
  const worker = await context.worker();
  const corpus = await openCorpus(context);
  const language = languageParagraphs(config);
  const file = tokenizerFile(context.dir);
  if (config.model.source === "scratch" && !existsSync(file)) {
    const texts = [...corpus.items.map(describe), ...language];
    const specialTokens = addedTokens(config);
    const trained = await worker.trainTokenizer({ texts, vocabSize: config.model.bpeVocab, specialTokens }, { signal });
    writeFileSync(file, trained.tokenizerJson);
  }
  const model = await openLanguageModel(context, corpus, undefined, file);
  context.log(`${(model.numParameters / 1e6).toFixed(2)}M parameters, ${model.tokenizer.vocabSize} tokens`);

  const batches = planBatches(config, corpus, model.encoder, language);
  const resumed = await resume<{ step: number; tokens: number; smooth: number }>(context, worker, model.lineage);
  weightsChanged(worker);

  let tokens = resumed?.tokens ?? 0;
  let smooth = resumed?.smooth ?? Number.NaN;
  for (let step = resumed?.step ?? 0; step < batches.length; step++) {
    const documents = batches[step] as readonly Document[];
    const result = await worker.forwardBackward(
      {
        ...learnDocuments(documents),
        microBatchTokens: config.runtime.microBatchTokens,
        seed: deriveSeed(config.seed, "midtrain", "dropout", step),
      },
      { signal },
    );
    const learningRate = learningRateAt(step, batches.length, o);
    const { gradNorm } = await worker.optimStep(
      { ...adamW, learningRate, weightDecay: o.weightDecay, maxGradNorm: o.maxGradNorm },
      { signal },
    );
    tokens += documents.reduce((n, d) => n + d.length - 1, 0);
    smooth = Number.isNaN(smooth) ? result.loss : 0.95 * smooth + 0.05 * result.loss;
    context.progress(`loss ${smooth.toFixed(3)}`, step + 1, batches.length);
    if (step % 10 === 0 || step + 1 === batches.length)
      context.metrics(step, { loss: result.loss, gradNorm, learningRate, tokens });
    if ((step + 1) % o.checkpointSteps === 0 && step + 1 < batches.length)
      await saveCheckpoint(context, worker, model.lineage, step + 1, { step: step + 1, tokens, smooth });
  }
  await worker.saveState({ path: stateDir(context.dir), includeOptimizer: false, metadata: model.lineage }, { signal });
  return { steps: batches.length, tokens, parameters: model.numParameters, finalLoss: smooth };
}

/** All optimizer batches of all epochs, in order. The other tasks are drawn until they have their share of tokens. */
function planBatches(config: Config, corpus: Corpus, encoder: Encoder, language: readonly string[]): Document[][] {
  const { epochs, mixture, batchTokens, windowItems } = config.midtrain;
  const view = trainingView(corpus.split, "midtrain");
  checkTrainingView(corpus.split, view, "midtrain", "mid-training");
  const learners = view.sequences.filter((s) => s.length > 1);
  const batches: Document[][] = [];
  for (let epoch = 0; epoch < Math.ceil(epochs); epoch++) {
    const rng = Rng.of(config.seed, "midtrain", epoch);
    let documents = sequentialDocuments(config, view, encoder, epoch);
    const part = Math.min(1, epochs - epoch);
    if (part < 1) documents = rng.shuffle(documents).slice(0, Math.round(part * documents.length));
    const sequentialTokens = documents.reduce((n, d) => n + d.length, 0);
    const draw = (share: number, make: () => readonly Piece[]): void => {
      let left = (sequentialTokens * share) / mixture.sequential;
      while (left > 0) {
        const document = encoder.encode(make()).slice(0, maxDocument);
        documents.push(document);
        left -= document.length;
      }
    };
    draw(mixture.captioning, () => {
      const row = rng.int(corpus.items.length);
      const direction = rng.uniform() < 0.5 ? "describe" : "identify";
      return captioningTask(row, corpus.items[row] as Corpus["items"][number], direction);
    });
    draw(mixture.persona, () => {
      const items = rng.pick(learners);
      const end = 1 + rng.int(items.length);
      const rows = items.subarray(Math.max(0, end - Math.ceil(windowItems / 3)), end);
      return personaTask(
        rows,
        (row) => corpus.items[row] as Corpus["items"][number],
        dominantCategories(corpus, rows, 3),
      );
    });
    if (language.length > 0) draw(mixture.language, () => languageTask(rng.pick(language)));
    batches.push(...intoBatches(rng.shuffle(documents), batchTokens));
  }
  return batches;
}

/** Maximum tokens per document. */
const maxDocument = 512;

/**
 * Paragraphs of plain prose: the configured file, or Python's own language reference (on every machine, PSF licence).
 */
function languageParagraphs(config: Config): string[] {
  if (config.midtrain.mixture.language === 0) return [];
  let body: string;
  const file = config.midtrain.languageFile;
  try {
    body = file
      ? readFileSync(file, "utf8")
      : execFileSync(
          config.runtime.python,
          ["-c", "import pydoc_data.topics as t; print('\\n\\n'.join(t.topics[k] for k in sorted(t.topics)))"],
          { encoding: "utf8", maxBuffer: 1 << 26 },
        );
  } catch (cause) {
    throw new EnvironmentError(
      file ? `midtrain.languageFile = ${file}: cannot be read` : `${config.runtime.python} cannot be started`,
      {
        cause,
        advice: file ? "Set it to a plain text file, or leave it empty." : "Run make setup, or set runtime.python.",
      },
    );
  }
  return body
    .split(/\n\s*\n/)
    .map((p) => p.replace(/\s+/g, " ").replaceAll("<|", "< |").trim())
    .filter((p) => p.length >= 80 && p.length <= 1200);
}
