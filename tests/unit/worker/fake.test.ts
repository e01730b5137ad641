import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { adamW } from "../../../src/config/schema/training.ts";
import { FakeWorker } from "../../../src/worker/fake.ts";
import { byteTokenizerJson } from "../../../src/worker/fake-tokenizer.ts";
import { Tokenizer } from "../../../src/worker/tokenizer.ts";
import { type PermutationConstraint, sampleAll } from "../../../src/worker/types.ts";

const special = ["<|endoftext|>", "<|answer|>", "<|sep|>", "<|end|>", "<s_a_0>", "<s_a_1>", "<s_b_0>", "<s_b_1>"];

async function loaded(seed = 3) {
  const worker = new FakeWorker();
  const { tokenizerJson } = await worker.trainTokenizer({ texts: ["a"], vocabSize: 256, specialTokens: special });
  const model = await worker.loadModel({ source: { kind: "scratch", architecture: {}, tokenizerJson }, seed });
  const tokenizer = Tokenizer.fromJson(model.tokenizerJson);
  const id = (token: string) => tokenizer.requireTokenId(token);
  const constraint: PermutationConstraint = {
    groups: [
      {
        sequences: [
          ["<s_a_0>", "<s_b_0>"],
          ["<s_a_0>", "<s_b_1>"],
          ["<s_a_1>", "<s_b_0>"],
        ].map((s) => s.map(id)),
        prior: [1, 0, -1],
      },
    ],
    scale: 0.7,
    trigger: [id("<|answer|>")],
    separator: [id("<|sep|>")],
    terminator: [id("<|end|>")],
  };
  return { worker, tokenizer, model, id, constraint };
}

describe("FakeWorker", () => {
  it("gives a tokenizer that round-trips any text and knows its special tokens", async () => {
    const { tokenizer, model } = await loaded();
    const text = "Žluťoučký kůň — 日本語 <|answer|> it's\n  two  spaces";
    expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
    expect(tokenizer.encode("<|answer|>")).toEqual([257]);
    expect(tokenizer.vocabSize).toBe(256 + special.length);
    expect(model.vocabSize).toBe(tokenizer.vocabSize);
    expect(model.eosTokenId).toBe(256);
  });

  it("adds tokens after the vocabulary and keeps the ids of known ones", async () => {
    const worker = new FakeWorker();
    const model = await worker.loadModel({
      source: { kind: "scratch", architecture: {}, tokenizerJson: byteTokenizerJson(["<|x|>"]) },
      addedTokens: ["<|y|>", "<|x|>", "<|z|>"],
    });
    expect(model.addedTokenIds).toEqual([257, 256, 258]);
  });

  it("samples permutations only, and Forward repeats the log-probs Sample reported", async () => {
    const { worker, tokenizer, constraint } = await loaded();
    const prompt = tokenizer.encode("history");
    const request = { prompts: [prompt], numSamples: 8, maxNewTokens: 40, temperature: 0.9, seed: 1, constraint };
    const { completions } = await sampleAll(worker, request);
    const orders = new Set<string>();
    for (const c of completions[0] ?? []) {
      const answer = tokenizer.decode(c.tokens).split("<|answer|>").at(-1) ?? "";
      expect(answer.endsWith("<|end|>")).toBe(true);
      const items = answer.replace("<|end|>", "").split("<|sep|>");
      expect([...items].sort()).toEqual(["<s_a_0><s_b_0>", "<s_a_0><s_b_1>", "<s_a_1><s_b_0>"]);
      expect(c.finishReason).toBe("stop");
      orders.add(answer);
    }
    expect(orders.size).toBeGreaterThan(1);
    const responses = (completions[0] ?? []).map((c) => c.tokens);
    const { logprobs } = await worker.forward({
      batch: { groups: [{ prompt, responses }] },
      constraint,
      temperature: 0.9,
    });
    const sampled = (completions[0] ?? []).flatMap((c) => [...c.logprobs]);
    for (const [i, l] of sampled.entries()) expect(logprobs[i]).toBeCloseTo(l, 5);
  });

  it("chooses among whole sequences: one log-prob a choice, Plackett-Luce over what remains", async () => {
    const { worker, tokenizer, id, constraint } = await loaded();
    const whole = { ...constraint, trigger: [], wholeSequences: true };
    const prompt = tokenizer.encode("history");
    const request = { prompts: [prompt], numSamples: 12, maxNewTokens: 40, temperature: 0.9, seed: 1 };
    const { completions } = await sampleAll(worker, { ...request, constraint: whole });
    const sampled = completions[0] ?? [];
    const { logprobs } = await worker.forward({
      batch: { groups: [{ prompt, responses: sampled.map((c) => c.tokens) }] },
      constraint: whole,
      temperature: 0.9,
    });
    expect(Array.from(logprobs)).toEqual(sampled.flatMap((c) => [...c.logprobs]));
    expect(new Set(sampled.map((c) => tokenizer.decode(c.tokens))).size).toBeGreaterThan(1);

    // By hand: s_j = (scale * log p(tokens of j | prompt) + prior_j) / temperature; the first choice is softmax(s).
    const sequences = (whole.groups[0]?.sequences ?? []).map((s) => Array.from(s));
    const prior = Array.from(whole.groups[0]?.prior ?? []);
    const alone = await worker.forward({ batch: { groups: [{ prompt, responses: sequences }] } });
    const scores = sequences.map((_, j) => {
      const likelihood = (alone.logprobs[2 * j] as number) + (alone.logprobs[2 * j + 1] as number);
      return (0.7 * likelihood + (prior[j] as number)) / 0.9;
    });
    for (const c of sampled) {
      const text = Array.from(c.tokens);
      const order = [0, 3, 6].map((at) => sequences.findIndex((s) => s.every((t, i) => text[at + i] === t)));
      let left = scores;
      const expected = order.map((j) => {
        const logprob = (scores[j] as number) - Math.log(left.reduce((sum, s) => sum + Math.exp(s), 0));
        left = left.filter((s) => s !== scores[j]);
        return logprob;
      });
      // id id <|sep|> id id <|sep|> id id <|end|>: choices stand at 0, 3 and 6
      expect(text[2]).toBe(id("<|sep|>"));
      for (const [at, logprob] of c.logprobs.entries())
        expect(logprob).toBeCloseTo(at % 3 === 0 ? (expected[at / 3] as number) : 0, 4);
    }
  });

  it("forces the trigger when the free part has used up its tokens", async () => {
    const { worker, tokenizer, id, constraint } = await loaded();
    for (const wholeSequences of [false, true]) {
      const bounded = { ...constraint, wholeSequences, maxFreeTokens: 7 };
      const prompt = tokenizer.encode("history");
      const request = { prompts: [prompt], numSamples: 8, maxNewTokens: 40, temperature: 1, seed: 2 };
      const { completions } = await sampleAll(worker, { ...request, constraint: bounded });
      const sampled = completions[0] ?? [];
      for (const c of sampled) {
        expect(c.finishReason).toBe("stop");
        expect(c.tokens.indexOf(id("<|answer|>"))).toBe(4); // of its own accord
        expect(c.logprobs[4]).toBeLessThan(0);
      }
      const groups = [{ prompt, responses: sampled.map((c) => c.tokens) }];
      const { logprobs } = await worker.forward({ batch: { groups }, constraint: bounded });
      expect(Array.from(logprobs)).toEqual(sampled.flatMap((c) => [...c.logprobs]));
      const forced = [...tokenizer.encode("1234567"), ...(sampled[0]?.tokens.slice(4) ?? [])];
      const atLimit = await worker.forward({
        batch: { groups: [{ prompt, responses: [forced] }] },
        constraint: bounded,
      });
      expect(atLimit.logprobs[7]).toBe(0);
      const late = [...tokenizer.encode("12345678"), id("<|answer|>")];
      await expect(
        worker.forward({ batch: { groups: [{ prompt, responses: [late] }] }, constraint: bounded }),
      ).rejects.toThrow("not allowed");
    }
  });

  it("learns to prefer a rewarded order of whole sequences", async () => {
    const { worker, tokenizer, constraint } = await loaded();
    const whole = { ...constraint, trigger: [], wholeSequences: true };
    const prompt = tokenizer.encode("history");
    const request = { prompts: [prompt], numSamples: 2, maxNewTokens: 40, temperature: 1, seed: 4, constraint: whole };
    const [good] = (await sampleAll(worker, request)).completions[0] ?? [];
    if (!good) throw new Error("no sample");
    const batch = { groups: [{ prompt, responses: [good.tokens] }] };
    const advantages = new Float32Array(good.tokens.length).fill(1);
    const oldLogprobs = (await worker.forward({ batch, constraint: whole })).logprobs;
    await worker.forwardBackward({
      batch,
      constraint: whole,
      weights: new Float32Array(good.tokens.length).fill(0.1),
      loss: { kind: "policy", advantages, oldLogprobs, clipLow: 0.2, clipHigh: 0.28 },
    });
    await worker.optimStep({ ...adamW, learningRate: 0.01 });
    const after = (await worker.forward({ batch, constraint: whole })).logprobs;
    expect(after[0]).toBeGreaterThan(oldLogprobs[0] as number);
  });

  it("is deterministic in the seed", async () => {
    const [a, b] = [await loaded(), await loaded()];
    const request = { prompts: [[1, 2, 3]], numSamples: 3, maxNewTokens: 12, temperature: 1, seed: 5 };
    expect(await sampleAll(a.worker, request)).toEqual(await sampleAll(b.worker, request));
    expect(await sampleAll(a.worker, { ...request, seed: 6 })).not.toEqual(await sampleAll(b.worker, request));
  });

  it("learns: the loss falls, rewarded tokens rise, and a saved state continues as if never interrupted", async () => {
    const { worker, tokenizer } = await loaded();
    const groups = [{ prompt: tokenizer.encode("a"), responses: [tokenizer.encode("bcd"), tokenizer.encode("bce")] }];
    const train = async (w: FakeWorker, advantages?: Float32Array) => {
      const weights = new Float32Array(6).fill(1 / 6);
      const oldLogprobs = (await w.forward({ batch: { groups } })).logprobs;
      const loss = advantages
        ? ({ kind: "policy", advantages, oldLogprobs, clipLow: 0.2, clipHigh: 0.28 } as const)
        : ({ kind: "cross_entropy" } as const);
      const result = await w.forwardBackward({ batch: { groups }, weights, loss });
      await w.optimStep({ ...adamW, learningRate: 0.01 });
      return result.loss;
    };
    const first = await train(worker);
    for (let i = 0; i < 3; i++) await train(worker);
    const path = await mkdtemp(join(tmpdir(), "fake-"));
    const saved = await worker.saveState({ path });
    const next = await train(worker);
    expect(next).toBeLessThan(first);
    const other = (await loaded()).worker;
    expect((await other.loadState({ path })).sha256).toBe(saved.sha256);
    expect(await train(other)).toBe(next);

    const before = (await worker.forward({ batch: { groups } })).logprobs;
    await train(worker, Float32Array.from([0, 0, 1, 0, 0, -1]));
    const after = (await worker.forward({ batch: { groups } })).logprobs;
    expect(after[2]).toBeGreaterThan(before[2] as number);
    expect(after[5]).toBeLessThan(before[5] as number);
  });

  it("assigns unique semantic IDs and new ones that avoid those taken", async () => {
    const worker = new FakeWorker();
    const texts = Array.from({ length: 50 }, (_, i) => `item number ${i} of kind ${i % 7}`);
    const embeddings = await worker.embed({ modelPath: "", texts, batchSize: 8, normalize: true });
    const config = {
      method: "rqvae",
      levels: 3,
      codes: 8,
      latentDim: 4,
      hiddenDims: [],
      epochs: 5,
      batchSize: 8,
      learningRate: 1e-3,
      commitment: 0.25,
      emaDecay: 0.99,
      kmeansInit: true,
      randomLastLevel: true,
      diversityWeight: 0,
      deadCodeResetEpochs: 0,
      contrastiveWeight: 0,
      contrastiveTemperature: 0.1,
      seed: 0,
    } as const;
    const progress: number[] = [];
    const fit = await worker.fitSemanticIds({ embeddings, config }, (p) => progress.push(p.epoch));
    const ids = (m: { rows: number; cols: number; data: Int32Array }) =>
      Array.from({ length: m.rows }, (_, r) => m.data.subarray(r * m.cols, (r + 1) * m.cols).join("-"));
    expect(new Set(ids(fit.codes)).size).toBe(50);
    expect(progress).toEqual([1, 2, 3]);
    const more = await worker.encodeSemanticIds({ artifact: fit.artifact, embeddings, taken: fit.codes });
    expect(new Set([...ids(fit.codes), ...ids(more)]).size).toBe(100);
  });

  it("refuses what a real worker refuses", async () => {
    const { worker, constraint } = await loaded();
    await expect(worker.forward({ modelId: "nobody", batch: { groups: [] } })).rejects.toThrow('no model "nobody"');
    const batch = { groups: [{ prompt: [1], responses: [[257, 5]] }] };
    await expect(worker.forward({ batch, constraint })).rejects.toThrow("not allowed");
  });
});
