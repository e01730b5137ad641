/**
 * What 10, 50 and 100 candidates cost: fusing three lists, fitting the prior, likelihoods and constrained answers of a
 * small language model (no reasoning; the prompt lists the candidates), per slate. CPU seconds of one thread, worker
 * and Node together; memory is the worker's peak, in a separate worker for every size. The weights are random: only
 * costs are measured.
 *   npm run bench -- candidates [--slates 64]
 */
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { Rng } from "../src/core/rng.ts";
import { fitPrior } from "../src/policy/prior.ts";
import { fuse } from "../src/prerank/fuse.ts";
import { startWorker } from "../src/worker/launcher.ts";
import { sampleAll } from "../src/worker/types.ts";
import { type Benchmark, timed } from "./claim.ts";
import { models } from "./rl-models.ts";

const sizes = [10, 50, 100] as const;
const [historyTokens, codes] = [60, 3];
/** Memory and time of an answer may grow with N, not with its square: at 100, ten times the cost at 10 plus a third. */
const growth = 13;

export const bench: Benchmark = async (emit, args) => {
  const { values } = parseArgs({ args: [...args], options: { slates: { type: "string", default: "64" } } });
  const slates = Number(values.slates);
  const first = new Map<string, number>();
  for (const n of sizes) {
    const say = (what: string, value: number, unit: string): void => {
      const base = first.get(what);
      if (base === undefined) first.set(what, value);
      emit({
        claim: `candidates/${what}, ${n} candidates`,
        ...{ value, unit, n: slates },
        ...(base === undefined
          ? {}
          : { peer: "10 candidates", peerValue: base, bar: ["ratio", "<=", growth] as const }),
      });
    };
    say("milliseconds to fuse a slate", (1000 * fusionSeconds(n, slates)) / slates, "ms");
    say("seconds to fit a prior on 1,000 slates", priorSeconds(n), "s");
    const cost = await modelCost(n, slates);
    say("milliseconds of likelihoods", (1000 * cost.likelihood) / slates, "ms");
    say("milliseconds of a constrained answer", (1000 * cost.answer) / slates, "ms");
    say("peak memory of the worker", cost.peakMb, "MB");
  }
};

/** Three lists, each twice as long as the slate. */
function fusionSeconds(n: number, slates: number): number {
  const rng = Rng.of(n, "bench/candidates");
  const experts = [
    { name: "counts", scale: "log" },
    { name: "model", scale: "none" },
    { name: "popularity", scale: "log" },
  ] as const;
  const fusion = Object.fromEntries(experts.map(({ name }) => [name, { value: 1, missing: -0.5 }]));
  const list = () => {
    const items = rng.shuffle(Array.from({ length: 12_000 }, (_, i) => i)).slice(0, 2 * n);
    return { items, scores: items.map(() => rng.uniform()).sort((a, b) => b - a) };
  };
  const all = Array.from({ length: slates }, () => experts.map(list));
  return timed(3, () => all.map((lists) => fuse(lists, experts, fusion, n))).seconds;
}

function priorSeconds(n: number): number {
  const rng = Rng.of(n, "bench/candidates prior");
  const slates = Array.from({ length: 1000 }, () => {
    const at = Math.floor(n * rng.uniform() ** 2);
    const scores = Array.from({ length: n }, (_, j) => -Math.log(j + 1));
    return { scores, logLikelihood: scores.map(() => -8 * rng.uniform()), truth: scores.map((_, j) => +(j === at)) };
  });
  return timed(1, () => fitPrior(slates, { likelihood: true, evidence: false })).seconds;
}

async function modelCost(
  n: number,
  slates: number,
): Promise<{ readonly likelihood: number; readonly answer: number; readonly peakMb: number }> {
  const running = await startWorker({ mode: "embedded", threads: 1, device: "cpu" });
  try {
    const { client, pid } = running;
    const { tokenizerJson } = await client.trainTokenizer({ texts: ["a b"], vocabSize: 256, specialTokens: [] });
    const { vocab_size: rows, ...architecture } = models.small;
    await client.loadModel({ source: { kind: "scratch", architecture, tokenizerJson }, padVocabMultiple: rows });
    const rng = Rng.of(n, "bench/candidates model");
    const draw = (length: number): Int32Array => Int32Array.from({ length }, () => 3 + rng.int(rows - 3));
    const asked = Array.from({ length: slates }, () => {
      const candidates = Array.from({ length: n }, (_, k) => Int32Array.of(3 + k, ...draw(codes - 1)));
      const prompt = Int32Array.from([...draw(historyTokens), ...candidates.flatMap((c) => Array.from(c))]);
      return { prompt, candidates };
    });
    const spent = async (work: () => Promise<unknown>): Promise<number> => {
      const before = cpuSeconds(pid);
      await work();
      return cpuSeconds(pid) - before;
    };
    const batch = {
      groups: asked.map(({ prompt, candidates }) => ({
        prompt: prompt.subarray(0, historyTokens),
        responses: candidates,
      })),
    };
    const groups = asked.map(({ candidates }) => ({ sequences: candidates, prior: candidates.map(() => 0) }));
    const constraint = { groups, scale: 1, wholeSequences: true, maxFreeTokens: 0, trigger: [], separator: [] };
    return {
      likelihood: await spent(() => client.forward({ batch })),
      answer: await spent(() =>
        sampleAll(client, {
          ...{ prompts: asked.map(({ prompt }) => prompt), numSamples: 1, maxNewTokens: n * codes + 1 },
          ...{ temperature: 1, seed: 0, constraint: { ...constraint, terminator: [2] } },
        }),
      ),
      peakMb: (await client.getInfo()).memoryUsedBytes / 2 ** 20,
    };
  } finally {
    await running.close();
  }
}

/** CPU seconds of this process and of the worker's. */
function cpuSeconds(pid: number | undefined): number {
  const { user, system } = process.cpuUsage();
  const own = (user + system) / 1e6;
  if (pid === undefined) return own;
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
  return own + (Number(fields[11]) + Number(fields[12])) / 100; // utime and stime, in ticks of 10 ms
}
