/**
 * Similarity of a candidate's text to the history's: by words (TF-IDF of titles) and by the run's frozen embeddings.
 * The columns are the same for both: cosine with the last item, with the sum of the last three and of the last twenty,
 * and the best of the last ten. NaN where the candidate or the history has no text.
 */
import type { ItemTable, ItemVectors, SparseRows } from "../items.ts";
import { compared, comparedTexts, type Family, type FeatureInput } from "./family.ts";

const listColumns = (what: string): string[] => [
  `${what} like last`,
  `${what} like last 3`,
  `${what} like last 20`,
  `${what} like best of last 10`,
];

export function lexical(items: ItemTable): Family | undefined {
  const { words } = items;
  if (words.ids.length === 0) return undefined;
  const { starts, ids, weights } = words;
  const one = new Float64Array(words.numIds);
  const few = new Float64Array(words.numIds);
  const many = new Float64Array(words.numIds);
  const add = (to: Float64Array, item: number): void => {
    for (let k = starts[item] as number; k < (starts[item + 1] as number); k++) {
      const w = ids[k] as number;
      to[w] = (to[w] as number) + (weights[k] as number);
    }
  };
  const clear = (of: Float64Array, item: number): void => {
    for (let k = starts[item] as number; k < (starts[item + 1] as number); k++) of[ids[k] as number] = 0;
  };
  const dot = (profile: Float64Array, item: number): number => {
    let s = 0;
    for (let k = starts[item] as number; k < (starts[item + 1] as number); k++)
      s += (weights[k] as number) * (profile[ids[k] as number] as number);
    return s;
  };
  const has = (item: number): boolean => starts[item] !== starts[item + 1];

  const write = ({ history, candidates }: FeatureInput, out: Float32Array, at: number, stride: number): void => {
    const N = candidates.length;
    const H = history.length;
    const first = Math.max(0, H - compared);
    for (let i = 0; i < N; i++) out[at + i * stride + 3] = 0;
    for (let p = H - 1; p >= first; p--) {
      const h = history[p] as number;
      add(many, h);
      if (p >= H - 3) add(few, h);
      if (p < H - comparedTexts) continue;
      add(one, h);
      for (let i = 0; i < N; i++) {
        const s = dot(one, candidates[i] as number);
        const o = at + i * stride;
        if (p === H - 1) out[o] = has(h) ? s : Number.NaN;
        if (s > (out[o + 3] as number)) out[o + 3] = s;
      }
      clear(one, h);
    }
    const [fewNorm, manyNorm] = [norm(few, words, history, H - 3), norm(many, words, history, first)];
    for (let i = 0; i < N; i++) {
      const c = candidates[i] as number;
      const o = at + i * stride;
      const known = has(c);
      if (!known || H === 0) out[o] = Number.NaN;
      out[o + 1] = known && fewNorm > 0 ? dot(few, c) / fewNorm : Number.NaN;
      out[o + 2] = known && manyNorm > 0 ? dot(many, c) / manyNorm : Number.NaN;
      if (!known || manyNorm === 0) out[o + 3] = Number.NaN;
    }
    for (let p = first; p < H; p++) {
      clear(many, history[p] as number);
      clear(few, history[p] as number);
    }
  };
  return { name: "lexical", columns: listColumns("title"), write };
}

/** Norm of a profile that is the sum of the history's rows from `first` on. */
function norm(profile: Float64Array, { starts, ids, weights }: SparseRows, history: Int32Array, first: number): number {
  // |Σ v|² = Σ_h v_h · Σ v
  let s = 0;
  for (let p = Math.max(0, first); p < history.length; p++) {
    const h = history[p] as number;
    for (let k = starts[h] as number; k < (starts[h + 1] as number); k++)
      s += (weights[k] as number) * (profile[ids[k] as number] as number);
  }
  return Math.sqrt(s);
}

export function embedding(items: ItemTable): Family | undefined {
  return items.embeddings && cosines(items.embeddings);
}

function cosines({ dims: D, vectors_ID: E }: ItemVectors): Family {
  const few = new Float64Array(D);
  const many = new Float64Array(D);
  const length = (v: Float64Array): number => Math.sqrt(v.reduce((s, x) => s + x * x, 0));
  const has = (item: number): boolean => {
    for (let d = 0; d < D; d++) if (E[item * D + d] !== 0) return true;
    return false;
  };
  const write = ({ history, candidates }: FeatureInput, out: Float32Array, at: number, stride: number): void => {
    const H = history.length;
    few.fill(0);
    many.fill(0);
    for (let p = Math.max(0, H - compared); p < H; p++) {
      const v = (history[p] as number) * D;
      for (let d = 0; d < D; d++) {
        const x = E[v + d] as number;
        many[d] = (many[d] as number) + x;
        if (p >= H - 3) few[d] = (few[d] as number) + x;
      }
    }
    const [fewNorm, manyNorm] = [length(few), length(many)];
    const from = Math.max(0, H - comparedTexts);
    const lastKnown = H > 0 && has(history[H - 1] as number);
    for (let i = 0; i < candidates.length; i++) {
      const c = (candidates[i] as number) * D;
      const o = at + i * stride;
      const known = has(candidates[i] as number);
      let [a, b, best, last] = [0, 0, Number.NEGATIVE_INFINITY, 0];
      for (let d = 0; d < D; d++) {
        const x = E[c + d] as number;
        a += (few[d] as number) * x;
        b += (many[d] as number) * x;
      }
      for (let p = from; p < H; p++) {
        const v = (history[p] as number) * D;
        let s = 0;
        for (let d = 0; d < D; d++) s += (E[v + d] as number) * (E[c + d] as number);
        if (s > best) best = s;
        last = s;
      }
      out[o] = known && lastKnown ? last : Number.NaN;
      out[o + 1] = known && fewNorm > 1e-9 ? a / fewNorm : Number.NaN;
      out[o + 2] = known && manyNorm > 1e-9 ? b / manyNorm : Number.NaN;
      out[o + 3] = known && manyNorm > 1e-9 ? best : Number.NaN;
    }
  };
  return { name: "embedding", columns: listColumns("embedding"), write };
}
