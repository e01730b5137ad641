/**
 * Item metadata in a form that is fast to compare: brand, categories, words and year of the title, text embedding.
 * Pure; the embeddings are the run's own (stage embed), frozen.
 *
 * Shapes: I items, D dimensions. Sparse rows: entries starts[i] … starts[i + 1].
 */
import type { Item } from "../data/types.ts";
import { principalAxes } from "./latent.ts";

/** Sparse weights per row: categories or words. */
export interface SparseRows {
  readonly starts: Int32Array;
  /** Ascending within a row. */
  readonly ids: Int32Array;
  readonly weights: Float32Array;
  readonly numIds: number;
}

export interface ItemVectors {
  readonly dims: number;
  /** Row-major, of unit norm; a row of zeros: the item has no text. */
  readonly vectors_ID: Float32Array;
}

export interface ItemTable {
  readonly numItems: number;
  /** Brand number; -1: none. */
  readonly brand_I: Int32Array;
  /** Inverse document frequency of each of the item's categories; rows are not normalised. */
  readonly categories: SparseRows;
  /** TF-IDF of the title's words, each row of unit norm. Words of a single item match nothing and are left out. */
  readonly words: SparseRows;
  /** A four-digit year in brackets in the title; NaN without one. */
  readonly year_I: Float64Array;
  readonly embeddings?: ItemVectors;
}

/** Dimensions kept of embeddings: cosines of 64 principal components cost a sixth of MiniLM's 384. */
const embeddingDims = 64;

/** @param embeddings one row per item, as stage embed wrote them */
export function itemTable(
  items: readonly Item[],
  embeddings?: { readonly rows: number; readonly cols: number; readonly data: Float32Array },
): ItemTable {
  const brands = numbering();
  const withText = items.map((it) => it.title !== "" || it.brand !== "" || it.categories.length > 0);
  return {
    numItems: items.length,
    brand_I: Int32Array.from(items, (it) => (it.brand === "" ? -1 : brands(it.brand.toLowerCase()))),
    categories: sparse(
      items.map((it) => new Map(it.categories.map((c) => [c, 1]))),
      (_count, idf) => idf,
      1,
    ),
    words: unitRows(
      sparse(
        items.map((it) => count(it.title.toLowerCase().match(/[\p{L}\p{N}]{2,}/gu) ?? [])),
        (n, idf) => (1 + Math.log(n)) * idf,
        2,
      ),
    ),
    year_I: Float64Array.from(items, (it) => Number(/\((\d{4})\)/.exec(it.title)?.[1] ?? Number.NaN)),
    ...(embeddings ? { embeddings: compress(embeddings, withText) } : {}),
  };
}

/** Weighted Jaccard similarity of two items; 0 if either has no weights. */
export function overlap({ starts, ids, weights }: SparseRows, a: number, b: number): number {
  let [both, either] = [0, 0];
  let [i, j] = [starts[a] as number, starts[b] as number];
  const [endA, endB] = [starts[a + 1] as number, starts[b + 1] as number];
  while (i < endA || j < endB) {
    const [idA, idB] = [i < endA ? (ids[i] as number) : Infinity, j < endB ? (ids[j] as number) : Infinity];
    const weight = idA <= idB ? (weights[i] as number) : (weights[j] as number);
    either += weight;
    if (idA === idB) both += weight;
    if (idA <= idB) i++;
    if (idB <= idA) j++;
  }
  return either === 0 ? 0 : both / either;
}

/** Numbers names from 0 in order of first appearance. */
function numbering(): (name: string) => number {
  const numbers = new Map<string, number>();
  return (name) => {
    const known = numbers.get(name);
    if (known !== undefined) return known;
    numbers.set(name, numbers.size);
    return numbers.size - 1;
  };
}

function count(words: readonly string[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const w of words) counts.set(w, (counts.get(w) ?? 0) + 1);
  return counts;
}

/** @param least rows a name must occur in to be kept */
function sparse(
  rows: readonly ReadonlyMap<string, number>[],
  weight: (count: number, idf: number) => number,
  least: number,
): SparseRows {
  const frequency = new Map<string, number>();
  for (const row of rows) for (const name of row.keys()) frequency.set(name, (frequency.get(name) ?? 0) + 1);
  const assignNumber = numbering();
  const starts = new Int32Array(rows.length + 1);
  const ids: number[] = [];
  const weights: number[] = [];
  rows.forEach((row, i) => {
    const entries = [...row].flatMap(([name, n]): [number, number][] => {
      const df = frequency.get(name) ?? 0;
      return df < least ? [] : [[assignNumber(name), weight(n, Math.log(1 + rows.length / df))]];
    });
    for (const [id, w] of entries.sort((a, b) => a[0] - b[0])) {
      ids.push(id);
      weights.push(w);
    }
    starts[i + 1] = ids.length;
  });
  const numIds = ids.reduce((most, id) => Math.max(most, id + 1), 0);
  return { starts, ids: Int32Array.from(ids), weights: Float32Array.from(weights), numIds };
}

function unitRows(rows: SparseRows): SparseRows {
  const weights = rows.weights.slice();
  for (let i = 0; i + 1 < rows.starts.length; i++) {
    const row = weights.subarray(rows.starts[i], rows.starts[i + 1]);
    const norm = Math.sqrt(row.reduce((s, w) => s + w * w, 0));
    for (let k = 0; k < row.length; k++) row[k] = (row[k] as number) / norm;
  }
  return { ...rows, weights };
}

/** Centred, cut to the leading principal components, and of unit norm; rows of items without text become zero. */
function compress(
  m: { readonly rows: number; readonly cols: number; readonly data: Float32Array },
  withText: readonly boolean[],
): ItemVectors {
  const { rows, cols, data } = m;
  const mean = new Float64Array(cols);
  for (let i = 0; i < rows; i++)
    for (let d = 0; d < cols; d++) mean[d] = (mean[d] as number) + (data[i * cols + d] as number) / rows;
  const dims = Math.min(embeddingDims, cols, Math.max(1, rows - 1));
  const axes = principalAxes(data, rows, cols, mean, dims);
  const vectors = new Float32Array(rows * dims);
  const centred = new Float64Array(cols);
  const projected = new Float64Array(dims);
  for (let i = 0; i < rows; i++) {
    if (!withText[i]) continue;
    for (let d = 0; d < cols; d++) centred[d] = (data[i * cols + d] as number) - (mean[d] as number);
    projected.fill(0);
    for (let d = 0; d < cols; d++) {
      const x = centred[d] as number;
      for (let k = 0; k < dims; k++) projected[k] = (projected[k] as number) + x * (axes[d * dims + k] as number);
    }
    const norm = Math.sqrt(projected.reduce((s, x) => s + x * x, 0));
    for (let k = 0; k < dims; k++) vectors[i * dims + k] = norm > 1e-9 ? (projected[k] as number) / norm : 0;
  }
  return { dims, vectors_ID: vectors };
}
