/** FakeWorker's items: embeddings of texts and semantic IDs without Python. Their quality means nothing. */
import { WorkerError } from "../core/errors.ts";
import { sha256 } from "../core/hash.ts";
import { hash01 } from "./fake-model.ts";
import type * as t from "./types.ts";

const embeddingDims = 32;

/** Bags of hashed words: texts that share words are near each other. */
export function embeddings(request: t.EmbedRequest): t.Matrix {
  const data = new Float32Array(request.texts.length * embeddingDims);
  for (const [row, text] of request.texts.entries()) {
    const vector = data.subarray(row * embeddingDims, (row + 1) * embeddingDims);
    for (const word of text.toLowerCase().split(/\W+/u).filter(Boolean)) {
      const seed = Number.parseInt(sha256(word).slice(0, 7), 16);
      for (let d = 0; d < embeddingDims; d++) vector[d] = (vector[d] ?? 0) + hash01(seed, d, 1) - 0.5;
    }
    const norm = Math.hypot(...vector) || 1;
    if (request.normalize) for (let d = 0; d < embeddingDims; d++) vector[d] = (vector[d] ?? 0) / norm;
  }
  return { rows: request.texts.length, cols: embeddingDims, data };
}

/** Items sorted along a random direction, their rank written with the fewest codes per level that keep IDs unique. */
export function fittedIds(
  request: t.FitSemanticIdsRequest,
  onProgress?: (progress: t.FitProgress) => void,
): t.FittedSemanticIds {
  const { embeddings, config } = request;
  const base = Math.max(2, Math.ceil(embeddings.rows ** (1 / config.levels)));
  if (base > config.codes)
    throw new WorkerError(`${config.codes}^${config.levels} codes are too few for ${embeddings.rows} items`, {
      retryable: false,
    });
  for (let epoch = 1; epoch <= Math.min(3, config.epochs); epoch++) {
    onProgress?.({
      epoch,
      epochs: Math.min(3, config.epochs),
      metrics: { loss: 1 / epoch, reconstruction: 0.5 / epoch },
    });
  }
  const data = new Int32Array(embeddings.rows * config.levels);
  for (const [rank, row] of order(embeddings, config.seed).entries()) {
    let rest = rank;
    for (let level = config.levels - 1; level >= 0; level--) {
      data[row * config.levels + level] = rest % base;
      rest = Math.floor(rest / base);
    }
  }
  const artifact = new TextEncoder().encode(JSON.stringify({ fake: true, levels: config.levels, codes: config.codes }));
  return {
    codes: { rows: embeddings.rows, cols: config.levels, data },
    artifact,
    codeVectors: { rows: 0, cols: 0, data: new Float32Array() },
    metrics: { uniqueness: 1, uniqueness_before_assignment: 0.97, reconstruction: 0.17 },
  };
}

/** The lowest free IDs. */
export function encodedIds(request: t.EncodeSemanticIdsRequest): t.IntMatrix {
  const { levels, codes } = JSON.parse(new TextDecoder().decode(request.artifact)) as {
    levels: number;
    codes: number;
  };
  const key = (ids: Int32Array) => ids.join(",");
  const taken = new Set<string>();
  for (let r = 0; r < request.taken.rows; r++)
    taken.add(key(request.taken.data.subarray(r * levels, (r + 1) * levels)));
  const data = new Int32Array(request.embeddings.rows * levels);
  let next = 0;
  for (let r = 0; r < request.embeddings.rows; r++) {
    const ids = data.subarray(r * levels, (r + 1) * levels);
    if (request.apart) next = 0;
    do {
      let rest = next++;
      for (let level = levels - 1; level >= 0; level--) {
        ids[level] = rest % codes;
        rest = Math.floor(rest / codes);
      }
    } while (taken.has(key(ids)));
  }
  return { rows: request.embeddings.rows, cols: levels, data };
}

function order(m: t.Matrix, seed: number): number[] {
  const projection = Array.from({ length: m.rows }, (_, r) => {
    let sum = 0;
    for (let c = 0; c < m.cols; c++) sum += (m.data[r * m.cols + c] ?? 0) * (hash01(seed, c, 2) - 0.5);
    return sum;
  });
  return projection.map((_, r) => r).sort((a, b) => (projection[a] ?? 0) - (projection[b] ?? 0) || a - b);
}

/** One tree with two leaves: splits the feature that best separates relevant rows from the others, at its mean. */
export function fittedTrees({ features, labels, groupSizes, folds }: t.FitTreesRequest): t.FittedTrees {
  const { rows, cols, data } = features;
  const foldOfRow = Array.from(groupSizes).flatMap((n, g) => new Array<number>(n).fill(folds[g] as number));
  const grow = (leftOut: number): { text: string; feature: number; gain: number } => {
    let best = { feature: 0, gain: 0, mean: 0, sign: 1 };
    for (let f = 0; f < cols; f++) {
      const sums = { of: [0, 0], n: [0, 0], squares: 0 };
      for (let r = 0; r < rows; r++) {
        const x = data[r * cols + f] as number;
        if (foldOfRow[r] === leftOut || Number.isNaN(x)) continue;
        const label = (labels[r] as number) > 0 ? 1 : 0;
        sums.of[label] = (sums.of[label] as number) + x;
        sums.n[label] = (sums.n[label] as number) + 1;
        sums.squares += x * x;
      }
      const [others = 0, chosen = 0] = sums.of.map((sum, label) => sum / Math.max(1, sums.n[label] as number));
      const n = (sums.n[0] as number) + (sums.n[1] as number);
      const mean = ((sums.of[0] as number) + (sums.of[1] as number)) / Math.max(1, n);
      const deviation = Math.sqrt(Math.max(1e-12, sums.squares / Math.max(1, n) - mean * mean));
      const gain = Math.abs(chosen - others) / deviation;
      if (gain > best.gain && deviation > 1e-5) best = { feature: f, gain, mean, sign: Math.sign(chosen - others) };
    }
    const text = [
      ...["tree", "version=v4", `max_feature_idx=${cols - 1}`, "", "Tree=0", "num_leaves=2", "num_cat=0"],
      ...[`split_feature=${best.feature}`, `threshold=${best.mean}`, "decision_type=8", "left_child=-1"],
      ...["right_child=-2", `leaf_value=${-best.sign} ${best.sign}`, "is_linear=0", ""],
    ].join("\n");
    return { text, feature: best.feature, gain: best.gain };
  };
  const leftOut = [...new Set(folds)].sort((a, b) => a - b);
  const all = grow(-1);
  return {
    models: [...leftOut.map((fold) => grow(fold).text), all.text],
    gains: Array.from({ length: cols }, (_, f) => (f === all.feature ? all.gain : 0)),
    trees: 1,
    ndcg: [0.5],
  };
}
