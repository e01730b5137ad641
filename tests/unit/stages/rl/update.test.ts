import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { loadConfig } from "../../../../src/config/load.ts";
import { repositoryRoot } from "../../../../src/core/paths.ts";
import type { Policy, Rollout } from "../../../../src/policy/policy.ts";
import type { Slate } from "../../../../src/prerank/types.ts";
import { admittedSlates } from "../../../../src/stages/rl/dapo.ts";
import { type AnswerGroup, update } from "../../../../src/stages/rl/update.ts";
import type { ForwardBackwardRequest, ForwardRequest, WorkerClient } from "../../../../src/worker/types.ts";

const slate = (targetIndex: number): Slate =>
  ({ id: `${targetIndex}`, candidates: [4, 5, 6], scores: [3, 2, 1], targetIndex }) as unknown as Slate;

const rollout = (tokens: readonly number[], logprob: number, weightVersion = 1): Rollout =>
  ({
    prompt: [1, 2],
    weightVersion,
    tokens: Int32Array.from(tokens),
    logprobs: new Float32Array(tokens.length).fill(logprob),
    truncated: false,
  }) as unknown as Rollout;

/** One group: rewards 1 and 0, so advantages 1 and -1; responses of 2 tokens and of 1. */
const group: AnswerGroup = {
  slate: slate(1),
  mode: "answer",
  rollouts_G: [rollout([7, 8], -1), rollout([9], -2)],
  verdicts_G: [],
  rewards_G: [1, 0],
};

/** A worker that gives fixed log-probs and remembers what it was asked. */
function recorder(trainer: readonly number[], reference: readonly number[]) {
  const calls: { forward: ForwardRequest[]; backward: ForwardBackwardRequest[]; steps: number } = {
    forward: [],
    backward: [],
    steps: 0,
  };
  const worker = {
    async forward(request: ForwardRequest) {
      calls.forward.push(request);
      return { logprobs: Float32Array.from(request.modelId === "reference" ? reference : trainer) };
    },
    async forwardBackward(request: ForwardBackwardRequest) {
      calls.backward.push(request);
      return { loss: 0.5, metrics: { entropy: 1 }, logprobs: Float32Array.from(request.wantLogprobs ? trainer : []) };
    },
    async optimStep() {
      calls.steps++;
      return { gradNorm: 1, weightVersion: 1 + calls.steps };
    },
  } as unknown as WorkerClient;
  return { worker, calls };
}

async function run(set: readonly string[], trainer = [-1, -1, -2], reference = [-1, -1, -2], groups = [group]) {
  const config = loadConfig(join(repositoryRoot, "configs/nano-ml100k.yaml"), [...set]);
  const { worker, calls } = recorder(trainer, reference);
  const policy = { constraint: () => undefined } as unknown as Policy;
  const values = await update(groups, {
    worker,
    policy,
    config,
    toSlateInput: () => ({ history: [], candidates: [], scores: [] }),
    step: 5,
    signal: new AbortController().signal,
  });
  const loss = calls.backward.map((b) => b.loss as Extract<ForwardBackwardRequest["loss"], { kind: "policy" }>);
  return { values, calls, loss };
}

const close = (got: ArrayLike<number> | undefined, want: readonly number[]): void => {
  expect(got?.length).toBe(want.length);
  for (const [i, w] of want.entries()) expect(got?.[i]).toBeCloseTo(w, 6);
};

describe("update", () => {
  it("spreads each response's advantage over its tokens and averages over all tokens", async () => {
    const { calls, loss } = await run([]);
    close(loss[0]?.advantages, [1, 1, -1]);
    close(loss[0]?.oldLogprobs, [-1, -1, -2]);
    close(calls.backward[0]?.weights, [1 / 3, 1 / 3, 1 / 3]);
    expect(calls.forward).toEqual([]);
  });

  it("reports how far sampler and trainer are apart, from the first update on", async () => {
    const { values } = await run([], [-1.1, -1, -2.3]);
    expect(values.logprobGapMax).toBeCloseTo(0.3, 5);
    expect(values.logprobGapMean).toBeCloseTo(0.4 / 3, 5);
    expect(values).not.toHaveProperty("gapSum");
  });

  it("counts how many updates lie between the oldest answer and the step's first", async () => {
    // The worker is at version 1; the answers were drawn with versions 1 and -1.
    const old: AnswerGroup = { ...group, rollouts_G: [rollout([7, 8], -1), rollout([9], -2, -1)] };
    expect((await run(["rl.epochs=2"])).values).toMatchObject({ weight_version_lag: 0, weightVersion: 3 });
    expect((await run(["rl.epochs=2"], undefined, undefined, [old])).values.weight_version_lag).toBe(2);
  });

  it("importanceCap: old log-probs are the trainer's, advantages weigh min(p_trainer / p_sampler, cap)", async () => {
    // Ratios exp(.2) = 1.2214, 1, exp(1) = 2.718 capped at 2.
    const { loss } = await run(["rl.importanceCap=2"], [-0.8, -1, -1]);
    close(loss[0]?.oldLogprobs, [-0.8, -1, -1]);
    close(loss[0]?.advantages, [Math.exp(0.2), 1, -2]);
  });

  it("k3 is a term of the loss, k1 comes off the advantage", async () => {
    const reference = [-1.5, -1, -1];
    const k3 = await run(["rl.klCoef=0.1"], undefined, reference);
    close(k3.loss[0]?.referenceLogprobs, reference);
    expect(k3.loss[0]?.klCoef).toBe(0.1);
    close(k3.loss[0]?.advantages, [1, 1, -1]);
    // k1 = old - reference = .5, 0, -1.
    const k1 = await run(["rl.klCoef=0.1", "rl.klEstimator=k1"], undefined, reference);
    expect(k1.loss[0]?.klCoef ?? 0).toBe(0);
    close(k1.loss[0]?.advantages, [1 - 0.05, 1, -1 + 0.1]);
  });

  it("asks for fixed log-probs once, before the first of several updates", async () => {
    const groups = [group, { ...group, rollouts_G: [rollout([7, 8], -1), rollout([9], -2)] }];
    const six = [-1, -1, -2, -1, -1, -2];
    const { calls, loss } = await run(
      ["rl.importanceCap=2", "rl.klCoef=0.1", "rl.epochs=2", "rl.minibatches=2"],
      six,
      six,
      groups,
    );
    expect(calls.forward.map((f) => f.modelId ?? "policy")).toEqual(["policy", "reference"]);
    expect(calls.steps).toBe(4);
    expect(loss.every((l) => l.oldLogprobs.length === 3)).toBe(true);
  });

  it("leaves truncated responses out of the loss and of its denominator", async () => {
    const cut = { ...rollout([9], -2), truncated: true } as Rollout;
    const { calls } = await run([], undefined, undefined, [{ ...group, rollouts_G: [rollout([7, 8], -1), cut] }]);
    close(calls.backward[0]?.weights, [0.5, 0.5, 0]);
  });
});

describe("admittedSlates", () => {
  const pool = [2, 0, 1, 2, 0, 1].map(slate);
  const places = (curriculum: "near-first" | "far-first", progress: number): number[] =>
    admittedSlates(pool, curriculum, progress).map((s) => s.targetIndex);
  it("begins with a third and has everything half-way", () => {
    expect(places("near-first", 0)).toEqual([0, 0]);
    expect(places("far-first", 0)).toEqual([2, 2]);
    expect(places("near-first", 0.25)).toEqual([0, 0, 1, 1]); // 1/3 + 1/3
    expect(places("near-first", 0.5)).toHaveLength(6);
    expect(places("far-first", 1)).toHaveLength(6);
  });
});
