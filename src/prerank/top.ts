/** Selecting the best n of dense scores, ties broken by a hash of the row, which carries no order. */

/** A fixed pseudo-random key per row (Murmur3's finaliser), distinct for distinct rows. */
export function tieKeys(numItems: number): Uint32Array {
  const keys = new Uint32Array(numItems);
  for (let i = 0; i < numItems; i++) {
    let h = i ^ 0x9e3779b9;
    h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
    h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
    keys[i] = (h ^ (h >>> 16)) >>> 0;
  }
  return keys;
}

/** The n highest scores whose row is not excluded, best first; fewer if fewer are left. O(items) for small n. */
export function selectTop(
  scores: Float64Array,
  n: number,
  exclude: ReadonlySet<number>,
  ties: Uint32Array,
): { items: number[]; scores: number[] } {
  const items: number[] = [];
  const best: number[] = [];
  let worst = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < scores.length; i++) {
    const s = scores[i] as number;
    if (items.length === n && s < worst) continue;
    if (exclude.has(i)) continue;
    const tie = ties[i] as number;
    let k = items.length;
    while (k > 0) {
      const before = best[k - 1] as number;
      if (before > s || (before === s && (ties[items[k - 1] as number] as number) < tie)) break;
      k--;
    }
    if (k >= n) continue;
    items.splice(k, 0, i);
    best.splice(k, 0, s);
    if (items.length > n) {
      items.pop();
      best.pop();
    }
    worst = best[best.length - 1] as number;
  }
  return { items, scores: best };
}
