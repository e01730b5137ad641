/**
 * RL's three costs, each against the usual way on the same model, prompts, group size, token counts and dtype, in one run:
 * the update (a padded batch through transformers), sampling (generate()), and a whole step (TRL's GRPOTrainer with
 * loss_type="dapo" and its own generation); and how fast rewards are verified. CPU seconds of one thread, the worker's and
 * Node's together; the model is a small Qwen3 from scratch (d 256, 6 layers, vocabulary 4,096), float32.
 *   npm run bench -- rl [--python PYTHON_WITH_TRL] [--only update,sample,step,verify] [--repetitions 3] [--long]
 * Without --python the peers that transformers alone can play run in the worker's environment, and the whole step has none.
 */
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { ConfigError, EnvironmentError } from "../src/core/errors.ts";
import { repositoryRoot } from "../src/core/paths.ts";
import { Rng } from "../src/core/rng.ts";
import { parseResponse } from "../src/prompts/parse.ts";
import { markers } from "../src/prompts/pieces.ts";
import { verify } from "../src/reward/verify.ts";
import { groupAdvantages, tokenWeights } from "../src/rl/groups.ts";
import { codeToken } from "../src/sid/semantic-id.ts";
import type { GrpcWorkerClient } from "../src/worker/client.ts";
import { startWorker } from "../src/worker/launcher.ts";
import { sampleAll } from "../src/worker/types.ts";
import { type Benchmark, type Measurement, timed } from "./claim.ts";

const architecture = {
  model_type: "qwen3",
  vocab_size: 4096,
  hidden_size: 256,
  intermediate_size: 768,
  num_hidden_layers: 6,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  head_dim: 64,
  max_position_embeddings: 4096,
  tie_word_embeddings: true,
};

interface Shape {
  readonly prompts: number;
  readonly group: number;
  readonly promptTokens: number;
  readonly responseTokens: number;
  /** Rows the peer computes at once. */
  readonly rowsAtOnce: number;
}

interface Cost {
  /** Median CPU seconds of a repetition. */
  readonly seconds: number;
  readonly peakMb: number;
}

const kinds = ["update", "sample", "step", "verify"] as const;

export const bench: Benchmark = async (emit, args) => {
  const { values } = parseArgs({
    args: [...args],
    options: {
      python: { type: "string" },
      only: { type: "string", default: kinds.join(",") },
      repetitions: { type: "string", default: "3" },
      long: { type: "boolean", default: false },
    },
  });
  const only = values.only.split(",");
  const unknown = only.find((k) => !kinds.some((kind) => kind === k));
  if (unknown !== undefined) throw new ConfigError(`--only ${unknown}: there are ${kinds.join(", ")}`);
  const repetitions = Number(values.repetitions);
  const python = values.python ?? join(repositoryRoot, ".venv/bin/python");
  const update: Shape = { prompts: 1, group: 8, promptTokens: 1000, responseTokens: 100, rowsAtOnce: 4 };
  const generation: Shape = { prompts: 4, group: 8, promptTokens: 500, responseTokens: 128, rowsAtOnce: 8 };

  if (only.includes("verify")) emit(verification());
  if (only.includes("update")) {
    await compare(emit, "update", update, repetitions, python, 3.5);
    if (values.long)
      await compare(emit, "update", { ...update, promptTokens: 2200, responseTokens: 130 }, repetitions, python);
  }
  if (only.includes("sample")) await compare(emit, "sample", generation, repetitions, python, 3);
  if (only.includes("step")) await compare(emit, "step", { ...update, prompts: 4 }, repetitions, values.python, 4);
};

/** Emits seconds and memory of one kind of work, ours against the peer's. */
async function compare(
  emit: (m: Measurement) => void,
  what: "update" | "sample" | "step",
  shape: Shape,
  repetitions: number,
  python: string | undefined,
  bar?: number,
): Promise<void> {
  const peers = { update: "padded rows, transformers", sample: "generate()", step: "TRL GRPOTrainer, dapo" };
  const peer = python === undefined ? undefined : peerCost(what, shape, repetitions, python);
  const own = await ownCost(what, shape, repetitions);
  const name = `rl/${what}, prompt ${shape.promptTokens}, response ${shape.responseTokens}, G ${shape.group}, ${shape.prompts} prompts`;
  const tokens = shape.prompts * shape.group * shape.responseTokens;
  emit({
    claim: `${name}: response tokens a CPU second`,
    value: tokens / own.seconds,
    unit: "tokens/s",
    n: repetitions,
    ...(peer ? { peer: peers[what], peerValue: tokens / peer.seconds } : {}),
    ...(peer && bar !== undefined ? { bar: ["ratio", ">=", bar] as const } : {}),
  });
  emit({
    claim: `${name}: peak memory of the process`,
    value: own.peakMb,
    unit: "MB",
    n: 1,
    ...(peer ? { peer: peers[what], peerValue: peer.peakMb } : {}),
  });
}

function peerCost(what: string, shape: Shape, repetitions: number, python: string): Cost {
  const job = {
    what,
    architecture: { ...architecture, bos_token_id: 1, eos_token_id: 2, pad_token_id: 0 },
    prompts: shape.prompts,
    group: shape.group,
    prompt_tokens: shape.promptTokens,
    response_tokens: shape.responseTokens,
    rows_at_once: shape.rowsAtOnce,
    repetitions,
    threads: 1,
  };
  const run = spawnSync(python, [join(repositoryRoot, "bench/peers/rl.py"), JSON.stringify(job)], {
    encoding: "utf8",
    maxBuffer: 1 << 26,
    env: { ...process.env, OMP_NUM_THREADS: "1" },
  });
  if (run.status !== 0)
    throw new EnvironmentError(`the peer of rl/${what} failed: ${run.stderr.trim().split("\n").at(-1) ?? run.error}`, {
      advice: "For the whole step it needs trl and datasets: --python FILE of an environment that has them.",
    });
  const { seconds, peak_mb } = JSON.parse(run.stdout) as { seconds: number[]; peak_mb: number };
  return { seconds: median(seconds), peakMb: peak_mb };
}

/** The product's way: the same verbs over gRPC that the RL stage uses, in a worker of its own. */
async function ownCost(what: "update" | "sample" | "step", shape: Shape, repetitions: number): Promise<Cost> {
  const running = await startWorker({ mode: "embedded", threads: 1, device: "cpu" });
  try {
    const { client, pid } = running;
    const { tokenizerJson } = await client.trainTokenizer({ texts: ["a b"], vocabSize: 256, specialTokens: [] });
    const { vocab_size: rows, ...rest } = architecture;
    await client.loadModel({ source: { kind: "scratch", architecture: rest, tokenizerJson }, padVocabMultiple: rows });
    const seconds: number[] = [];
    for (let repetition = 0; repetition <= repetitions; repetition++) {
      const before = cpuSeconds(pid);
      await once(client, what, shape, repetition);
      seconds.push(cpuSeconds(pid) - before);
    }
    const { memoryUsedBytes } = await client.getInfo();
    return { seconds: median(seconds.slice(1)), peakMb: memoryUsedBytes / 2 ** 20 };
  } finally {
    await running.close();
  }
}

async function once(client: GrpcWorkerClient, what: string, shape: Shape, repetition: number): Promise<void> {
  const rng = Rng.of(repetition, "bench/rl");
  const draw = (length: number): Int32Array =>
    Int32Array.from({ length }, () => 3 + rng.int(architecture.vocab_size - 3));
  const prompts = Array.from({ length: shape.prompts }, () => draw(shape.promptTokens));
  const sampled =
    what === "update"
      ? prompts.map(() =>
          Array.from({ length: shape.group }, () => ({
            tokens: draw(shape.responseTokens),
            logprobs: new Float32Array(shape.responseTokens).fill(-Math.log(architecture.vocab_size)),
          })),
        )
      : await sampleAll(client, {
          prompts,
          numSamples: shape.group,
          maxNewTokens: shape.responseTokens,
          temperature: 1,
          seed: repetition,
        }).then(({ completions }) => completions);
  if (what === "sample") return;
  const rewards = sampled.map((group) => group.map(({ tokens }) => (tokens.reduce((a, b) => a + b, 0) % 17) / 17));
  const advantages = rewards.flatMap((group) => groupAdvantages(group, true));
  const responses = sampled.flat();
  const lengths = responses.map((r) => r.tokens.length);
  const perToken = (values: readonly number[]): Float32Array =>
    Float32Array.from(responses.flatMap((r, i) => Array.from(r.tokens, () => values[i] as number)));
  await client.forwardBackward({
    batch: { groups: prompts.map((prompt, p) => ({ prompt, responses: (sampled[p] ?? []).map((r) => r.tokens) })) },
    weights: perToken(
      tokenWeights(
        lengths,
        lengths.map(() => true),
        "token",
      ),
    ),
    loss: {
      kind: "policy",
      advantages: perToken(advantages),
      oldLogprobs: Float32Array.from(responses.flatMap((r) => Array.from(r.logprobs))),
      clipLow: 0.2,
      clipHigh: 0.28,
    },
  });
  await client.optimStep({ learningRate: 1e-5, maxGradNorm: 1 });
}

/** CPU seconds of this process and of the worker's, threads included. */
function cpuSeconds(pid: number | undefined): number {
  const { user, system } = process.cpuUsage();
  const own = (user + system) / 1e6;
  if (pid === undefined) return own;
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
  return own + (Number(fields[11]) + Number(fields[12])) / 100; // utime and stime, in ticks of 10 ms
}

/** Parsing and verifying whole answers: ten candidates of four codes behind a thought. */
function verification(): Measurement {
  const rng = Rng.of(0, "bench/rl verify");
  const spell = (): string => Array.from({ length: 4 }, (_, level) => codeToken(level, rng.int(256))).join("");
  const count = 20_000;
  const cases = Array.from({ length: count }, () => {
    const spellings = Array.from({ length: 10 }, spell);
    const answer = rng.shuffle([...spellings]).join("");
    return { spellings, response: `liked ${spellings[3]}, so more of it ${markers.answer}${answer}${markers.end}` };
  });
  const labels = [0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
  const options = {
    kind: "rank-promotion",
    ndcgK: 5,
    format: "conditional",
    formatBonus: 0.2,
    dehacked: true,
    invalid: -1,
  } as const;
  const { seconds, result } = timed(5, () =>
    cases.reduce(
      (valid, { response, spellings }) =>
        valid +
        Number(verify(parseResponse(response, spellings, "think", { format: "compact" }), labels, options).valid),
      0,
    ),
  );
  if (result !== count) throw new Error(`${count - result} answers of the benchmark are not valid`);
  return {
    claim: "rl/answers parsed and verified a CPU second",
    value: count / seconds,
    unit: "answers/s",
    n: 5 * count,
    bar: ["value", ">=", 100_000],
  };
}

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1] as number;
