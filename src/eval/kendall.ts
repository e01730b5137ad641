/** Kendall's tau between two permutations of 0..n-1: (concordant − discordant pairs) / (n(n−1)/2), in [−1, 1]. */
export function kendallTau(a: readonly number[], b: readonly number[]): number {
  const n = a.length;
  if (b.length !== n) throw new RangeError(`permutations of different length: ${n} and ${b.length}`);
  if (n < 2) return 1;
  const placeInB = new Map(b.map((item, place) => [item, place]));
  const places = a.map((item) => {
    const place = placeInB.get(item);
    if (place === undefined) throw new RangeError(`${item} is in one permutation only`);
    return place;
  });
  let balance = 0;
  for (let i = 0; i < n; i++) {
    for (let j = i + 1; j < n; j++) balance += (places[i] ?? 0) < (places[j] ?? 0) ? 1 : -1;
  }
  return balance / ((n * (n - 1)) / 2);
}
