/** Kendall's tau between two permutations of 0..n-1: (concordant − discordant pairs) / (n(n−1)/2), in [−1, 1]. */
export function kendallTau(a: readonly number[], b: readonly number[]): number {
  const n = a.length;
  if (b.length !== n) throw new RangeError(`permutations of different length: ${n} and ${b.length}`);
  if (n < 2) return 1;
  const positionInB = new Map(b.map((item, position) => [item, position]));
  const positions = a.map((item) => {
    const position = positionInB.get(item);
    if (position === undefined) throw new RangeError(`${item} is in one permutation only`);
    return position;
  });
  let balance = 0;
  for (let i = 0; i < n; i++) {
    for (let j = i + 1; j < n; j++) balance += (positions[i] ?? 0) < (positions[j] ?? 0) ? 1 : -1;
  }
  return balance / ((n * (n - 1)) / 2);
}
