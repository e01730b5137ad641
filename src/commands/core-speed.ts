/**
 * How fast one core of this machine is, relative to the one used for the rates in plan/time.ts: a small fixed
 * computation.
 */
import { cpuUsage } from "node:process";

/** CPU seconds of `probe` on that core (Intel Xeon, 2026-11-28). */
const referenceSeconds = 0.128;
const size = 192;

/** Between 0.2 and 5; the best of three, in CPU time, so that other processes matter little. */
export function speedOfCore(): number {
  const best = Math.min(probe(), probe(), probe());
  return Math.min(5, Math.max(0.2, referenceSeconds / best));
}

/** Products of two matrices, row by row, in plain float32; CPU seconds. */
function probe(): number {
  const [a, b, c] = [0, 1, 2].map((k) => new Float32Array(size * size).fill(1 / (k + 1)));
  if (!a || !b || !c) return referenceSeconds;
  const before = cpuUsage();
  for (let round = 0; round < 6; round++)
    for (let i = 0; i < size; i++)
      for (let k = 0; k < size; k++) {
        const x = a[i * size + k] as number;
        for (let j = 0; j < size; j++) c[i * size + j] = (c[i * size + j] as number) + x * (b[k * size + j] as number);
      }
  const { user, system } = cpuUsage(before);
  return (user + system) / 1e6;
}
