/**
 * Brand, categories and year of a candidate compared with the history's. Columns for data that no item has are left
 * out. Overlap of two items: idf mass of their shared categories over that of all their categories (weighted Jaccard).
 */
import type { ItemTable } from "../items.ts";
import { compared, type Family, type FeatureInput } from "./family.ts";

const brandColumns = ["brand of last", "share of brand in last 20", "share of brand, recent first"] as const;
const categoryColumns = [
  "category overlap with last 1",
  "category overlap with last 3",
  "category overlap with last 20",
  "best category overlap of last 20",
  "share of categories in last 20",
] as const;

/** Weight of an older item's brand: fade^age. */
const fade = 0.8;

export function metadata(items: ItemTable): Family | undefined {
  const { brand_I: brands, categories, year_I: years } = items;
  const hasBrands = brands.some((b) => b >= 0);
  const hasCategories = categories.ids.length > 0;
  const hasYears = years.some((y) => !Number.isNaN(y));
  const columns = [
    ...(hasBrands ? brandColumns : []),
    ...(hasCategories ? categoryColumns : []),
    ...(hasYears ? ["year closeness"] : []),
  ];
  if (columns.length === 0) return undefined;
  const mass_I = new Float64Array(items.numItems);
  for (let i = 0; i < items.numItems; i++)
    for (let k = categories.starts[i] as number; k < (categories.starts[i + 1] as number); k++) {
      mass_I[i] = (mass_I[i] as number) + (categories.weights[k] as number);
    }
  const marked = new Uint8Array(categories.numIds);
  const profile = new Float64Array(categories.numIds);

  const writeBrands = (q: FeatureInput, out: Float32Array, at: number, stride: number): void => {
    const first = Math.max(0, q.history.length - compared);
    for (let i = 0; i < q.candidates.length; i++) {
      const brand = brands[q.candidates[i] as number] as number;
      let [last, same, known, recent, weights, weight] = [Number.NaN, 0, 0, 0, 0, 1];
      for (let p = q.history.length - 1; p >= first; p--, weight *= fade) {
        const b = brands[q.history[p] as number] as number;
        if (b < 0) continue;
        known++;
        weights += weight;
        if (b === brand) {
          same++;
          recent += weight;
        }
        if (p === q.history.length - 1) last = b === brand ? 1 : 0;
      }
      const o = at + i * stride;
      const unknown = brand < 0 || known === 0;
      out[o] = unknown ? Number.NaN : last;
      out[o + 1] = unknown ? Number.NaN : same / known;
      out[o + 2] = unknown ? Number.NaN : recent / weights;
    }
  };

  const writeCategories = (q: FeatureInput, out: Float32Array, at: number, stride: number): void => {
    const { starts, ids, weights } = categories;
    const { history, candidates } = q;
    const N = candidates.length;
    const H = history.length;
    const first = Math.max(0, H - compared);
    for (let i = 0; i < N; i++) for (let f = 0; f < categoryColumns.length; f++) out[at + i * stride + f] = 0;
    let total = 0;
    for (let p = H - 1; p >= first; p--) {
      const h = history[p] as number;
      const age = H - 1 - p;
      for (let k = starts[h] as number; k < (starts[h + 1] as number); k++) {
        const c = ids[k] as number;
        marked[c] = 1;
        profile[c] = (profile[c] as number) + 1;
      }
      total++;
      for (let i = 0; i < N; i++) {
        const c = candidates[i] as number;
        let both = 0;
        for (let k = starts[c] as number; k < (starts[c + 1] as number); k++)
          if (marked[ids[k] as number] === 1) both += weights[k] as number;
        if (both === 0) continue;
        const overlap = both / ((mass_I[h] as number) + (mass_I[c] as number) - both);
        const o = at + i * stride;
        if (age === 0) out[o] = overlap;
        if (age < 3) out[o + 1] = (out[o + 1] as number) + overlap;
        out[o + 2] = (out[o + 2] as number) + overlap;
        if (overlap > (out[o + 3] as number)) out[o + 3] = overlap;
      }
      for (let k = starts[h] as number; k < (starts[h + 1] as number); k++) marked[ids[k] as number] = 0;
    }
    for (let i = 0; i < N; i++) {
      const c = candidates[i] as number;
      let shared = 0;
      for (let k = starts[c] as number; k < (starts[c + 1] as number); k++)
        shared += (weights[k] as number) * (profile[ids[k] as number] as number);
      const o = at + i * stride;
      out[o + 4] = shared / Math.max(1, total) / Math.max(1e-9, mass_I[c] as number);
      if (starts[c] === starts[c + 1]) for (let f = 0; f < categoryColumns.length; f++) out[o + f] = Number.NaN;
    }
    for (let p = first; p < H; p++) {
      const h = history[p] as number;
      for (let k = starts[h] as number; k < (starts[h + 1] as number); k++) profile[ids[k] as number] = 0;
    }
  };

  /** −|year − mean year of the last ten| / (their spread + 3 years). */
  const writeYears = (q: FeatureInput, out: Float32Array, at: number, stride: number): void => {
    let [n, sum, squares] = [0, 0, 0];
    for (let p = Math.max(0, q.history.length - 10); p < q.history.length; p++) {
      const y = years[q.history[p] as number] as number;
      if (Number.isNaN(y)) continue;
      n++;
      sum += y;
      squares += y * y;
    }
    const mean = n === 0 ? Number.NaN : sum / n;
    const spread = Math.sqrt(Math.max(0, squares / n - mean * mean));
    for (let i = 0; i < q.candidates.length; i++)
      out[at + i * stride] = -Math.abs((years[q.candidates[i] as number] as number) - mean) / (spread + 3);
  };

  return {
    name: "metadata",
    columns,
    write(q, out, at, stride) {
      let column = at;
      if (hasBrands) {
        writeBrands(q, out, column, stride);
        column += brandColumns.length;
      }
      if (hasCategories) {
        writeCategories(q, out, column, stride);
        column += categoryColumns.length;
      }
      if (hasYears) writeYears(q, out, column, stride);
    },
  };
}
