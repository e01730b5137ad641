/**
 * Collaborative features: positions and scores of every pre-ranker, popularity, co-occurrence and transitions with the
 * latest history items, affinity in a latent space. Needs no text.
 */
import type { Statistics } from "../statistics.ts";
import { compared, type Family, type FeatureInput } from "./family.ts";

const own = [
  "log popularity",
  "popularity against history's",
  "history length",
  "co-occurrence with last 1",
  "co-occurrence with last 3",
  "co-occurrence with last 20",
  "strongest co-occurrence of last 20",
  "history items that co-occur",
  "share of last's co-occurrence",
  "transitions from last",
  "transitions from last 3",
  "transitions from last 20",
  "transitions to last",
  "transitions to last 3",
  "latent affinity of all history",
  "latent affinity of last 20",
  "latent affinity of last 5",
  "latent affinity of last",
] as const;

/** Weight of an older item's transitions: fade^age. */
const fade = 0.7;

/** @param experts names of the pre-rankers whose scores slates carry; empty if a single pre-ranker made them */
export function collaborative(statistics: Statistics, experts: readonly string[]): Family {
  const { numItems, neighbours, transitionsBack, latent, logPopularity_I: logPopularity } = statistics;
  const { starts, columns, transitions, cooccurrence, counts } = neighbours;
  // The pre-rank score may have any scale, so only its standardised value within the slate is used.
  const head = ["log position", "pre-rank score in slate"];
  for (const name of experts) head.push(`${name} log position`, `${name} score`, `${name} score in slate`);
  const slot = new Int32Array(numItems).fill(-1);
  const D = latent.dimensions;
  const V = latent.factors_ID;
  const all = new Float64Array(D);
  const recent = new Float64Array(D);
  const latest = new Float64Array(D);

  const write = (q: FeatureInput, out: Float32Array, at: number, stride: number): void => {
    const { history, candidates } = q;
    const N = candidates.length;
    const H = history.length;
    for (let i = 0; i < N; i++) out[at + i * stride] = Math.log((q.positions?.[i] ?? i) + 1);
    writeWithinSlate(q.scores, out, at + 1, stride);
    experts.forEach((name, k) => {
      writeExpert(q.experts?.[name], N, out, at + 2 + 3 * k, stride);
    });
    const base = at + head.length;
    const first = Math.max(0, H - compared);
    let usual = 0;
    for (let p = first; p < H; p++) usual += logPopularity[history[p] as number] as number;
    usual /= Math.max(1, H - first);
    const length = Math.log1p(H);
    for (let i = 0; i < N; i++) {
      const c = candidates[i] as number;
      const o = base + i * stride;
      const popularity = logPopularity[c] as number;
      for (let f = 3; f < own.length; f++) out[o + f] = 0;
      out[o] = popularity;
      out[o + 1] = Math.abs(popularity - usual);
      out[o + 2] = length;
      slot[c] = i;
    }
    const meet = (k: number, i: number, h: number, age: number, weight: number): void => {
      const o = base + i * stride;
      const c = candidates[i] as number;
      const similar = statistics.similarityAt(k, h, c);
      const to = transitions[k] as number;
      const back = transitionsBack[k] as number;
      out[o + 5] = (out[o + 5] as number) + similar;
      if (similar > (out[o + 6] as number)) out[o + 6] = similar;
      out[o + 7] = (out[o + 7] as number) + 1;
      out[o + 11] = (out[o + 11] as number) + weight * to;
      if (age >= 3) return;
      out[o + 4] = (out[o + 4] as number) + similar;
      out[o + 10] = (out[o + 10] as number) + to;
      out[o + 13] = (out[o + 13] as number) + back;
      if (age > 0) return;
      out[o + 3] = similar;
      out[o + 8] = (cooccurrence[k] as number) / ((counts[h] as number) + 1);
      out[o + 9] = to;
      out[o + 12] = back;
    };
    let weight = 1;
    for (let p = H - 1; p >= first; p--, weight *= fade) {
      const h = history[p] as number;
      const start = starts[h] as number;
      const end = starts[h + 1] as number;
      const age = H - 1 - p;
      // Whichever is cheaper: scanning the history item's row, or searching it for every candidate.
      if (end - start < N * (32 - Math.clz32(end - start)))
        for (let k = start; k < end; k++) {
          const i = slot[columns[k] as number] as number;
          if (i >= 0) meet(k, i, h, age, weight);
        }
      else
        for (let i = 0; i < N; i++) {
          const k = statistics.find(h, candidates[i] as number);
          if (k >= 0) meet(k, i, h, age, weight);
        }
    }
    all.fill(0);
    recent.fill(0);
    latest.fill(0);
    for (let p = 0; p < H; p++) {
      const v = (history[p] as number) * D;
      for (let d = 0; d < D; d++) {
        const x = V[v + d] as number;
        all[d] = (all[d] as number) + x;
        if (p >= first) recent[d] = (recent[d] as number) + x;
        if (p >= H - 5) latest[d] = (latest[d] as number) + x;
      }
    }
    const last = H > 0 ? (history[H - 1] as number) * D : -1;
    for (let i = 0; i < N; i++) {
      const c = candidates[i] as number;
      const o = base + i * stride;
      for (let f = 3; f < 7; f++) out[o + f] = Math.sqrt(out[o + f] as number);
      for (let f = 9; f < 14; f++) out[o + f] = Math.log1p(out[o + f] as number);
      let [a, r, l, one] = [0, 0, 0, 0];
      for (let d = 0; d < D; d++) {
        const x = V[c * D + d] as number;
        a += (all[d] as number) * x;
        r += (recent[d] as number) * x;
        l += (latest[d] as number) * x;
        if (last >= 0) one += (V[last + d] as number) * x;
      }
      out[o + 14] = a;
      out[o + 15] = r;
      out[o + 16] = l;
      out[o + 17] = one;
      slot[c] = -1;
    }
  };
  return { name: "collaborative", columns: [...head, ...own], write };
}

/** Scores standardised within the slate; 0 where all are equal, NaN where there is none. */
function writeWithinSlate(scores: readonly (number | null)[], out: Float32Array, at: number, stride: number): void {
  let [sum, squares, n] = [0, 0, 0];
  for (const s of scores) {
    if (s === null) continue;
    sum += s;
    n++;
  }
  const mean = sum / Math.max(1, n);
  for (const s of scores) if (s !== null) squares += (s - mean) ** 2;
  const deviation = Math.sqrt(squares / Math.max(1, n));
  const scale = deviation > 1e-12 ? 1 / deviation : 0;
  for (let i = 0; i < scores.length; i++) {
    const s = scores[i] ?? null;
    out[at + i * stride] = s === null ? Number.NaN : (s - mean) * scale;
  }
}

/**
 * Log position by the expert's score (ties: slate order), the score, and the score within the slate; NaN where missing.
 */
function writeExpert(
  scores: readonly (number | null)[] | undefined,
  N: number,
  out: Float32Array,
  at: number,
  stride: number,
): void {
  for (let i = 0; i < N; i++) {
    const own = scores?.[i] ?? null;
    let rank = 1;
    for (let j = 0; scores !== undefined && own !== null && j < N; j++) {
      const other = scores[j] ?? null;
      if (other !== null && (other > own || (other === own && j < i))) rank++;
    }
    out[at + i * stride] = own === null ? Number.NaN : Math.log(rank);
    out[at + i * stride + 1] = own ?? Number.NaN;
    out[at + i * stride + 2] = Number.NaN;
  }
  if (scores !== undefined) writeWithinSlate(scores, out, at + 2, stride);
}
