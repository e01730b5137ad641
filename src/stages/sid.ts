/**
 * Stage 1a, semantic IDs (GR2 v1 §3.1, TIGER): item embeddings -> residual quantiser -> L codes per item; at
 * least 99 % of the IDs must be unique. Collaborative signal, if enabled, comes only from the mid-training segment.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { openData } from "../artifacts/dataset.ts";
import { embedderFile, embeddingFile } from "../artifacts/embeddings.ts";
import { readJson, readMatrix, writeJson, writeMatrix } from "../artifacts/files.ts";
import { artifactFile, catalogueFile, codeVectorsFile, identityFile } from "../artifacts/semantic-ids.ts";
import { deriveSeed, unitHash } from "../core/rng.ts";
import { checkTrainingView } from "../data/leakage.ts";
import { type TrainingView, trainingView } from "../data/split.ts";
import type { Item, SplitDataset } from "../data/types.ts";
import { countNeighbours } from "../prerank/neighbours.ts";
import type { Stage, StageContext, Summary } from "../run/stage.ts";
import { Catalogue } from "../sid/catalogue.ts";
import { checkUniqueness } from "../sid/gate.ts";
import { buildIdentity, type Embedder } from "../sid/identity.ts";
import { type Near, nearestRows } from "../sid/nearest.ts";
import { sidReport } from "../sid/report.ts";
import type { IntMatrix, Matrix, WorkerClient } from "../worker/types.ts";

export const sid: Stage = {
  name: "sid",
  source: import.meta.url,
  inputs: ["data", "embed"],
  verbs: ["factorize", "fitSemanticIds", "encodeSemanticIds"],
  settings: (c) => ({ sid: c.sid, seed: c.seed }),
  run,
};

async function run(context: StageContext): Promise<Summary> {
  const { config, signal } = context;
  const o = config.sid;
  const data = await openData(context);
  const worker = await context.worker();
  const text = readMatrix(embeddingFile(context.inputDir("embed")));
  const embeddings = o.collaborativeDims > 0 ? await withCollaborative(context, worker, text, data) : text;
  const pairs = o.contrastiveWeight > 0 ? positivePairs(data, o.contrastivePairsPerItem) : undefined;
  const fitted = await worker.fitSemanticIds(
    {
      embeddings,
      config: {
        method: o.method,
        levels: o.levels,
        codes: o.codes,
        latentDim: o.latentDim,
        hiddenDims: o.hiddenDims,
        epochs: o.epochs,
        batchSize: o.batchSize,
        learningRate: o.learningRate,
        commitment: o.commitment,
        emaDecay: o.emaDecay,
        kmeansInit: o.kmeansInit,
        randomLastLevel: o.randomLastLevel,
        diversityWeight: o.diversityWeight,
        deadCodeResetEpochs: o.deadCodeResetEpochs,
        contrastiveWeight: o.contrastiveWeight,
        contrastiveTemperature: o.contrastiveTemperature,
        seed: deriveSeed(config.seed, "sid"),
      },
      ...(pairs ? { positivePairs: pairs } : {}),
    },
    ({ epoch, epochs, metrics }) => {
      context.progress("fitting semantic IDs", epoch, epochs);
      context.metrics(epoch, metrics);
    },
    { signal },
  );
  const codes = Array.from({ length: fitted.codes.rows }, (_, row) =>
    Array.from(fitted.codes.data.subarray(row * o.levels, (row + 1) * o.levels)),
  );
  const catalogue = Catalogue.of(codes, { levels: o.levels, codes: o.codes, format: o.format });
  writeFileSync(artifactFile(context.dir), fitted.artifact);
  writeMatrix(codeVectorsFile(context.dir), fitted.codeVectors);
  writeJson(catalogueFile(context.dir), catalogue.toJSON());
  const { name, hash, items } = data.dataset;
  const { workerVersion, pythonVersion, torchVersion } = await worker.getInfo({ signal });
  const identity = buildIdentity({
    artifact: fitted.artifact,
    catalogue,
    embedder: readJson<Embedder>(embedderFile(context.inputDir("embed"))),
    data: { name, hash },
    config: o,
    seed: config.seed,
    versions: { worker: workerVersion, python: pythonVersion, torch: torchVersion },
  });
  writeJson(identityFile(context.dir), identity);

  const sample = drawSample(items, embeddings.cols);
  const near = nearestRows(embeddings, selectRows(embeddings, sample), 5, sample);
  const neighbours: number[][] = items.map(() => []);
  sample.forEach((row, i) => {
    neighbours[row] = (near[i] as Near[]).map((n) => n.row);
  });
  const report = sidReport({
    catalogue,
    titles: items.map((i) => i.title),
    labels: items.map((i) => i.categories[0] ?? ""),
    neighbours,
    examples: sample.slice(0, numExamples).map((row, i) => ({ row, nearest: (near[i] as Near[]).slice(0, 3) })),
    fit: fitted.metrics,
  });
  writeJson(join(context.dir, "report.json"), report);
  const uniqueness = catalogue.uniqueness();
  context.log(`${items.length} items, ${(100 * uniqueness).toFixed(2)} % with a unique semantic ID`);
  checkUniqueness(report, o);
  return { ...fitted.metrics, uniqueness };
}

/** Items listed with their neighbours. */
const numExamples = 12;

/** Items whose neighbours are listed: the same for every seed, so that reports can be compared. */
function drawSample(items: readonly Item[], dims: number): number[] {
  const hashes = items.map((item) => unitHash(0, "sid report", item.id));
  return items
    .map((_, row) => row)
    .sort((a, b) => (hashes[a] as number) - (hashes[b] as number) || a - b)
    .slice(0, Math.min(256, Math.max(numExamples, Math.floor(2e9 / (items.length * dims))))); // a few seconds at most
}

function selectRows(m: Matrix, rows: readonly number[]): Matrix {
  const data = new Float32Array(rows.length * m.cols);
  rows.forEach((row, i) => {
    data.set(m.data.subarray(row * m.cols, (row + 1) * m.cols), i * m.cols);
  });
  return { rows: rows.length, cols: m.cols, data };
}

/** The interactions that semantic IDs may use: the mid-training segment, checked. */
function learnable(data: SplitDataset, consumer: string): TrainingView {
  const view = trainingView(data, "midtrain");
  checkTrainingView(data, view, "midtrain", consumer);
  return view;
}

/** Each item's most frequent neighbours within the mid-training segment: positives of the contrastive loss. */
function positivePairs(data: SplitDataset, perItem: number): IntMatrix {
  const { starts, columns, cooccurrence } = countNeighbours(learnable(data, "the contrastive pairs"), 3, 1);
  const flat: number[] = [];
  for (let i = 0; i + 1 < starts.length; i++) {
    const edges = Array.from(
      { length: (starts[i + 1] as number) - (starts[i] as number) },
      (_, k) => (starts[i] as number) + k,
    );
    edges.sort(
      (a, b) =>
        (cooccurrence[b] as number) - (cooccurrence[a] as number) || (columns[a] as number) - (columns[b] as number),
    );
    for (const edge of edges.slice(0, perItem)) flat.push(i, columns[edge] as number);
  }
  return { rows: flat.length / 2, cols: 2, data: Int32Array.from(flat) };
}

/**
 * Appends a factorisation of the mid-training co-occurrence (positive pointwise mutual information, truncated SVD) to
 * the text embedding, each part of unit norm times its weight; zeros for items without evidence.
 */
async function withCollaborative(
  context: StageContext,
  worker: WorkerClient,
  text: Matrix,
  data: SplitDataset,
): Promise<Matrix> {
  const { collaborativeDims: dims, collaborativeWeight } = context.config.sid;
  const { starts, columns, cooccurrence, counts } = countNeighbours(
    learnable(data, "the factorised co-occurrence"),
    10,
    1,
  );
  const total = cooccurrence.reduce((a, b) => a + b, 0);
  const mass = new Float64Array(text.rows);
  for (let i = 0; i < text.rows; i++)
    for (let k = starts[i] as number; k < (starts[i + 1] as number); k++)
      mass[i] = (mass[i] as number) + (cooccurrence[k] as number);
  const rows: number[] = [];
  const cols: number[] = [];
  const values: number[] = [];
  for (let i = 0; i < text.rows; i++)
    for (let k = starts[i] as number; k < (starts[i + 1] as number); k++) {
      const j = columns[k] as number;
      const pmi = Math.log(((cooccurrence[k] as number) * total) / ((mass[i] as number) * (mass[j] as number)));
      if (pmi > 0) {
        rows.push(i);
        cols.push(j);
        values.push(pmi);
      }
    }
  const factors = await worker.factorize(
    {
      size: text.rows,
      rows: Int32Array.from(rows),
      cols: Int32Array.from(cols),
      values: Float32Array.from(values),
      dims,
      seed: deriveSeed(context.config.seed, "factorize"),
    },
    { signal: context.signal },
  );
  const width = text.cols + dims;
  const out = new Float32Array(text.rows * width);
  for (let i = 0; i < text.rows; i++) {
    out.set(text.data.subarray(i * text.cols, (i + 1) * text.cols), i * width);
    const part = factors.data.subarray(i * dims, (i + 1) * dims);
    const norm = Math.hypot(...part);
    const evidence = Math.sqrt((counts[i] as number) / ((counts[i] as number) + 5)); // rare items have little evidence
    for (let d = 0; d < dims; d++)
      out[i * width + text.cols + d] = norm > 0 ? (collaborativeWeight * evidence * (part[d] as number)) / norm : 0;
  }
  return { rows: text.rows, cols: width, data: out };
}
