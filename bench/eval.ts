/**
 * The paired bootstrap over users that every result rests on, against a vectorised NumPy implementation of the same
 * work: 3,000 slates of 900 users, 10 systems x 6 metrics, 10,000 resamples, an interval each
 * and a comparison with the first.
 *   npm run bench -- eval [PYTHON]
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Rng } from "../src/core/rng.ts";
import { PairedBootstrap } from "../src/eval/bootstrap.ts";
import { metricsFromRank } from "../src/eval/metrics.ts";
import { type Benchmark, timed } from "./claim.ts";

const numSlates = 3000;
const numUsers = 900;
const numSystems = 10;
const resamples = 10_000;
const repeats = 3;
/** Two bootstraps of one sample with different draws: the ends of their intervals differ only by Monte-Carlo error. */
const tolerance = 1.5e-3;

const peer = `
import json, sys, time
import numpy as np
given = json.load(open(sys.argv[1]))
users = np.asarray(given["users"])
values_KQ = np.asarray(given["values"]).T
B, M = given["resamples"], given["metrics"]
seconds = []
for _ in range(given["repeats"]):
    start = time.process_time()
    _, row = np.unique(users, return_inverse=True)
    U, Q = row.max() + 1, values_KQ.shape[1]
    sums_UQ = np.zeros((U, Q))
    np.add.at(sums_UQ, row, values_KQ)
    counts_U = np.bincount(row).astype(float)
    rng = np.random.default_rng(0)
    draws_BQ = np.empty((B, Q))
    for at in range(0, B, 1000):
        times_bU = rng.multinomial(U, np.full(U, 1 / U), size=min(1000, B - at)).astype(float)
        draws_BQ[at : at + 1000] = (times_bU @ sums_UQ) / (times_bU @ counts_U)[:, None]
    estimates = np.percentile(draws_BQ, [2.5, 97.5], axis=0)
    deltas_BQ = draws_BQ[:, M:] - np.tile(draws_BQ[:, :M], (1, Q // M - 1))
    compared = np.percentile(deltas_BQ, [2.5, 97.5], axis=0)
    p = 2 * (np.minimum((deltas_BQ <= 0).sum(0), (deltas_BQ >= 0).sum(0)) + 1) / (B + 1)
    seconds.append(time.process_time() - start)
print(json.dumps({"seconds": sorted(seconds)[len(seconds) // 2], "means": values_KQ.mean(0).tolist(),
                  "estimates": estimates.tolist(), "compared": compared.tolist(), "p": p.tolist()}))
`;

interface PeerAnswer {
  readonly seconds: number;
  readonly means: readonly number[];
  /** [low, high][quantity] */
  readonly estimates: readonly [readonly number[], readonly number[]];
  readonly compared: readonly [readonly number[], readonly number[]];
}

export const bench: Benchmark = async (emit, [python = ".venv/bin/python"]) => {
  const { users, quantities, numMetrics } = sample();
  const own = timed(repeats, () => {
    const bootstrap = new PairedBootstrap(users, quantities, { resamples, seed: 0 });
    return {
      estimates: quantities.map((_, q) => bootstrap.estimate(q)),
      compared: quantities.slice(numMetrics).map((_, k) => bootstrap.compare(k + numMetrics, k % numMetrics)),
    };
  });
  const theirs = askNumPy(python, {
    users,
    values: quantities.map((q) => Array.from(q.values)),
    resamples,
    repeats,
    metrics: numMetrics,
  });
  const gaps = [
    ...own.result.estimates.flatMap((e, q) => [
      Math.abs(e.ciLow - (theirs.estimates[0][q] as number)),
      Math.abs(e.ciHigh - (theirs.estimates[1][q] as number)),
    ]),
    ...own.result.compared.flatMap((c, k) => [
      Math.abs(c.ciLow - (theirs.compared[0][k] as number)),
      Math.abs(c.ciHigh - (theirs.compared[1][k] as number)),
    ]),
  ];
  const meanGap = Math.max(...own.result.estimates.map((e, q) => Math.abs(e.value - (theirs.means[q] as number))));
  emit({
    claim: "eval/CPU seconds of a paired bootstrap (3,000 slates, 60 quantities, 10,000 resamples)",
    value: own.seconds,
    unit: "s",
    n: repeats,
    peer: "NumPy on one thread, multinomial draws and matrix products",
    peerValue: theirs.seconds,
    bar: ["ratio", "<=", 2],
  });
  emit({
    claim: "eval/largest difference of a mean from NumPy's",
    value: meanGap,
    unit: "absolute",
    n: quantities.length,
    bar: ["value", "<=", 1e-12],
  });
  emit({
    claim: "eval/largest difference of an interval's end from NumPy's (other draws)",
    value: Math.max(...gaps),
    unit: "absolute",
    n: gaps.length,
    bar: ["value", "<=", tolerance],
  });
};

/** Ranks of the true item under systems that differ a little, as the evaluation stage sees them. */
function sample(): { users: number[]; quantities: { values: Float64Array }[]; numMetrics: number } {
  const rng = Rng.of(0, "bench eval");
  const users = Array.from({ length: numSlates }, () => rng.int(numUsers));
  const base = users.map(() => 1 + Math.floor(10 * rng.uniform() ** 1.6));
  const quantities = Array.from({ length: numSystems }, (_, s) => {
    const ranks = base.map((r) => (rng.uniform() < 0.3 ? 1 + Math.floor(10 * rng.uniform() ** (1.5 + s / 20)) : r));
    const rows = ranks.map((r) => metricsFromRank(r));
    return (rows[0] ?? []).map((_, m) => ({ values: Float64Array.from(rows, (row) => row[m] ?? 0) }));
  });
  return { users, quantities: quantities.flat(), numMetrics: quantities[0]?.length ?? 0 };
}

const oneThread = { OMP_NUM_THREADS: "1", OPENBLAS_NUM_THREADS: "1", MKL_NUM_THREADS: "1" };

function askNumPy(python: string, given: object): PeerAnswer {
  const folder = mkdtempSync(join(tmpdir(), "gr2-bench-"));
  try {
    const file = join(folder, "given.json");
    writeFileSync(file, JSON.stringify(given));
    return JSON.parse(execFileSync(python, ["-c", peer, file], { encoding: "utf8", env: oneThread })) as PeerAnswer;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
