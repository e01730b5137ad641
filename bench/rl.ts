/**
 * RL's three costs, each compared with common libraries (same model, prompts, group size, token counts, dtype), in one
 * run: the update (a padded batch through transformers), sampling (generate()), and a whole step (TRL's GRPOTrainer
 * with loss_type="dapo" and its own generation); what a step costs outside of the worker; and how fast rewards are
 * verified. On the CPU: CPU seconds of one thread, worker and Node together. On a CUDA GPU: wall seconds.
 *   npm run bench -- rl [--shape small|135m|qwen3-1.7b] [--device cpu|cuda] [--dtype float32|bfloat16]
 *     [--python PYTHON_WITH_TRL]
 *     [--only update,sample,step,verify] [--repetitions 3] [--prompts N] [--long] [--alone] [--peak-tflops T]
 * Without --python, the peers that need only transformers run in the worker's environment, and the whole step has no
 * peer; --alone runs no peers. With --peak-tflops (from the data sheet, for the dtype) the utilisation of model FLOPs
 * is printed.
 */

import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { adamW } from "../src/config/schema/training.ts";
import { ConfigError, EnvironmentError } from "../src/core/errors.ts";
import { repositoryRoot } from "../src/core/paths.ts";
import { Rng } from "../src/core/rng.ts";
import { parseResponse } from "../src/prompts/parse.ts";
import { markers } from "../src/prompts/pieces.ts";
import { verify } from "../src/reward/verify.ts";
import { groupAdvantages, tokenWeights } from "../src/rl/groups.ts";
import { codeToken } from "../src/sid/semantic-id.ts";
import { attributeSeconds } from "../src/stages/rl/seconds.ts";
import type { GrpcWorkerClient } from "../src/worker/client.ts";
import { startWorker } from "../src/worker/launcher.ts";
import { sampleAll } from "../src/worker/types.ts";
import { type Benchmark, type Measurement, timed } from "./claim.ts";
import { forwardFlops, type ModelName, models, type Shape } from "./rl-models.ts";

const kinds = ["update", "sample", "step", "verify"] as const;
const peers = { update: "padded rows, transformers", sample: "generate()", step: "TRL GRPOTrainer, dapo" };
/** A forward pass counts one, a backward pass two; a step samples and updates. */
const passes = { update: 3, sample: 1, step: 4 };
const bars = { update: 3.5, sample: 3, step: 4 };
/** The allowed share of a step outside the worker, by model. */
const outsideBars: Partial<Record<ModelName, number>> = { small: 0.05, "135m": 0.01 };

type Work = keyof typeof peers;

interface Setting {
  readonly model: ModelName;
  readonly device: string;
  readonly dtype: "float32" | "bfloat16";
  readonly repetitions: number;
  /** Runs the peers; undefined = none. */
  readonly python: string | undefined;
  readonly peakTflops: number | undefined;
}

interface Cost {
  /** Median seconds of a repetition: CPU seconds on the CPU. */
  readonly seconds: number;
  readonly peakMb: number;
  /** Share of wall seconds outside the worker's verbs. */
  readonly outside: number;
}

export const bench: Benchmark = async (emit, args) => {
  const { values } = parseArgs({
    args: [...args],
    options: {
      shape: { type: "string", default: "small" },
      device: { type: "string", default: "cpu" },
      dtype: { type: "string", default: "float32" },
      python: { type: "string" },
      only: { type: "string", default: kinds.join(",") },
      repetitions: { type: "string", default: "3" },
      prompts: { type: "string" },
      long: { type: "boolean", default: false },
      alone: { type: "boolean", default: false },
      "peak-tflops": { type: "string" },
    },
  });
  const parseChoice = <T extends string>(option: string, value: string, allowed: readonly T[]): T => {
    const found = allowed.find((a) => a === value);
    if (found === undefined) throw new ConfigError(`--${option} ${value}: there are ${allowed.join(", ")}`);
    return found;
  };
  const only = values.only.split(",").map((kind) => parseChoice("only", kind, kinds));
  const own = join(repositoryRoot, ".venv/bin/python");
  const setting: Setting = {
    model: parseChoice("shape", values.shape, Object.keys(models) as ModelName[]),
    device: values.device,
    dtype: parseChoice("dtype", values.dtype === "bf16" ? "bfloat16" : values.dtype, ["float32", "bfloat16"]),
    repetitions: Number(values.repetitions),
    python: values.alone ? undefined : (values.python ?? own),
    peakTflops: values["peak-tflops"] === undefined ? undefined : Number(values["peak-tflops"]),
  };
  const prompts = (usual: number): number => (values.prompts ? Number(values.prompts) : usual);
  const update: Shape = { prompts: prompts(1), group: 8, promptTokens: 1000, responseTokens: 100, rowsAtOnce: 4 };
  const generation: Shape = { prompts: prompts(4), group: 8, promptTokens: 500, responseTokens: 128, rowsAtOnce: 8 };

  if (only.includes("verify")) emit(verification());
  if (only.includes("update")) {
    await compare(emit, "update", update, setting);
    if (values.long) await compare(emit, "update", { ...update, promptTokens: 2200, responseTokens: 130 }, setting);
  }
  if (only.includes("sample")) await compare(emit, "sample", generation, setting);
  const withTrl = { ...setting, python: values.alone ? undefined : values.python };
  if (only.includes("step")) await compare(emit, "step", { ...update, prompts: prompts(4) }, withTrl);
};

/** Emits seconds and memory of one kind of work, ours against the peer's, and the share of the machine's peak speed. */
async function compare(emit: (m: Measurement) => void, what: Work, shape: Shape, setting: Setting): Promise<void> {
  const { repetitions: n, model, device, dtype } = setting;
  const peer = setting.python === undefined ? undefined : peerCost(what, shape, setting, setting.python);
  const own = await ownCost(what, shape, setting);
  const machine = device === "cpu" ? "CPU second" : "second";
  const where = model === "small" && device === "cpu" ? "" : `, ${model} on ${device} in ${dtype}`;
  const name = `rl/${what}, prompt ${shape.promptTokens}, response ${shape.responseTokens}, G ${shape.group}, ${shape.prompts} prompts${where}`;
  const tokens = shape.prompts * shape.group * shape.responseTokens;
  emit({
    claim: `${name}: response tokens per ${machine}`,
    value: tokens / own.seconds,
    unit: "tokens/s",
    n,
    ...(peer ? { peer: peers[what], peerValue: tokens / peer.seconds, bar: ["ratio", ">=", bars[what]] as const } : {}),
  });
  emit({
    claim: `${name}: peak memory of the ${device === "cpu" ? "process" : "device"}`,
    value: own.peakMb,
    unit: "MB",
    n: 1,
    ...(peer ? { peer: peers[what], peerValue: peer.peakMb } : {}),
  });
  const flops = (passes[what] * forwardFlops(models[model], shape)) / own.seconds;
  const ceiling = (peer ?? { ceiling: undefined }).ceiling;
  emit({
    claim: `${name}: model FLOPs per ${machine}`,
    value: flops / 1e9,
    unit: "GFLOP/s",
    n,
    ...(ceiling ? { peer: `one large matmul, ${dtype}`, peerValue: ceiling / 1e9 } : {}),
  });
  if (setting.peakTflops)
    emit({ claim: `${name}: MFU`, value: flops / (setting.peakTflops * 1e12), unit: "share of the peak", n });
  if (what !== "step") return;
  const bar = outsideBars[model];
  emit({
    claim: `${name}: share of a step outside the worker (TypeScript and wire)`,
    value: own.outside,
    unit: "share",
    n,
    ...(bar ? { bar: ["value", "<=", bar] as const } : {}),
  });
}

function peerCost(what: Work, shape: Shape, setting: Setting, python: string): Cost & { readonly ceiling: number } {
  const job = {
    what,
    architecture: { ...models[setting.model], bos_token_id: 1, eos_token_id: 2, pad_token_id: 0 },
    prompts: shape.prompts,
    group: shape.group,
    prompt_tokens: shape.promptTokens,
    response_tokens: shape.responseTokens,
    rows_at_once: shape.rowsAtOnce,
    repetitions: setting.repetitions,
    device: setting.device,
    dtype: setting.dtype,
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
  const { seconds, peak_mb, ceiling } = JSON.parse(run.stdout) as {
    seconds: number[];
    peak_mb: number;
    ceiling: number;
  };
  return { seconds: median(seconds), peakMb: peak_mb, outside: 0, ceiling };
}

/** GR2's side: the verbs over gRPC that the RL stage uses, in a separate worker. */
async function ownCost(what: Work, shape: Shape, { model, device, dtype, repetitions }: Setting): Promise<Cost> {
  const running = await startWorker({ mode: "embedded", threads: 1, device });
  try {
    const { client, pid } = running;
    const { tokenizerJson } = await client.trainTokenizer({ texts: ["a b"], vocabSize: 256, specialTokens: [] });
    const { vocab_size: rows, ...rest } = models[model];
    const source = { kind: "scratch" as const, architecture: rest, tokenizerJson };
    await client.loadModel({ source, padVocabMultiple: rows, dtype });
    const seconds: number[] = [];
    const outside: number[] = [];
    for (let repetition = 0; repetition <= repetitions; repetition++) {
      const [began, before, costs] = [performance.now(), cpuSeconds(pid), client.stats()];
      await once(client, what, shape, rows, repetition);
      const clock = (performance.now() - began) / 1000;
      seconds.push(device === "cpu" ? cpuSeconds(pid) - before : clock);
      const { seconds_wire = 0, seconds_typescript = 0 } = attributeSeconds(costs, client.stats(), clock);
      outside.push((seconds_wire + seconds_typescript) / clock);
    }
    const { memoryUsedBytes } = await client.getInfo();
    return { seconds: median(seconds.slice(1)), peakMb: memoryUsedBytes / 2 ** 20, outside: median(outside.slice(1)) };
  } finally {
    await running.close();
  }
}

async function once(
  client: GrpcWorkerClient,
  what: Work,
  shape: Shape,
  vocabulary: number,
  repetition: number,
): Promise<void> {
  const rng = Rng.of(repetition, "bench/rl");
  const draw = (length: number): Int32Array => Int32Array.from({ length }, () => 3 + rng.int(vocabulary - 3));
  const prompts = Array.from({ length: shape.prompts }, () => draw(shape.promptTokens));
  const sampled =
    what === "update"
      ? prompts.map(() =>
          Array.from({ length: shape.group }, () => ({
            tokens: draw(shape.responseTokens),
            logprobs: new Float32Array(shape.responseTokens).fill(-Math.log(vocabulary)),
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
  await client.optimStep({ ...adamW, learningRate: 1e-5, maxGradNorm: 1 });
}

/** CPU seconds of this process and of the worker's, threads included. */
function cpuSeconds(pid: number | undefined): number {
  const { user, system } = process.cpuUsage();
  const own = (user + system) / 1e6;
  if (pid === undefined) return own;
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
  return own + (Number(fields[11]) + Number(fields[12])) / 100; // utime and stime, in ticks of 10 ms
}

/** Parsing and verifying whole answers: ten candidates of four codes after some reasoning. */
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
    claim: "rl/answers parsed and verified per CPU second",
    value: count / seconds,
    unit: "answers/s",
    n: 5 * count,
    bar: ["value", ">=", 100_000],
  };
}

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1] as number;
