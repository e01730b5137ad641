/** GrpcWorkerClient against a server in this process: what goes over the wire, and what happens when it breaks. */

import { Metadata, Server, ServerCredentials, status } from "@grpc/grpc-js";
import fc from "fast-check";
import { afterEach, describe, expect, it } from "vitest";
import { adamW } from "../../../src/config/schema/training.ts";
import { InterruptedError, WorkerError } from "../../../src/core/errors.ts";
import * as batch from "../../../src/worker/batch.ts";
import { GrpcWorkerClient } from "../../../src/worker/client.ts";
import * as pb from "../../../src/worker/generated/gr2/v1/worker.ts";
import { type GroupBatch, sampleAll } from "../../../src/worker/types.ts";

type Handlers = Record<string, (call: { request: never; sendMetadata: unknown }, answer: never) => void>;
const open: (() => void)[] = [];
afterEach(() => {
  for (const close of open.splice(0)) close();
});

/** A server that implements only the given verbs. */
async function serve(handlers: Record<string, unknown>, options: { diagnose?: () => string | undefined } = {}) {
  const server = new Server({ "grpc.max_receive_message_length": -1 });
  const refuse = (_: unknown, answer: (e: unknown) => void) => answer({ code: status.UNIMPLEMENTED, details: "no" });
  const all = Object.fromEntries(Object.keys(pb.WorkerService).map((name) => [name, handlers[name] ?? refuse]));
  server.addService(pb.WorkerService, all as Handlers as never);
  const port = await new Promise<number>((done, fail) =>
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (e, p) => (e ? fail(e) : done(p))),
  );
  const client = new GrpcWorkerClient(`127.0.0.1:${port}`, options);
  open.push(() => {
    client.close();
    server.forceShutdown();
  });
  return client;
}

type Unary<Req, Res> = (call: { request: Req }, answer: (error: unknown, response?: Partial<Res>) => void) => void;
const groups = [
  { prompt: [1, 2, 3], responses: [[4, 5], Int32Array.from([6])] },
  { prompt: Int32Array.from([7]), responses: [[8, 9, 10]] },
];

/** The inverse of packBatch. */
function unpackBatch(packed: pb.GroupBatch): GroupBatch {
  const tokens = batch.toInt32(packed.tokens);
  const promptLengths = batch.toInt32(packed.promptLengths);
  const groupSizes = batch.toInt32(packed.groupSizes);
  const responseLengths = batch.toInt32(packed.responseLengths);
  let at = 0;
  let r = 0;
  const take = (n: number): number[] => {
    at += n;
    return Array.from(tokens.subarray(at - n, at));
  };
  const groups = Array.from(promptLengths, (promptLength, g) => {
    const prompt = take(promptLength);
    const responses = Array.from({ length: groupSizes[g] ?? 0 }, () => take(responseLengths[r++] ?? 0));
    return { prompt, responses };
  });
  return { groups };
}

describe("packing", () => {
  it("is the inverse of unpacking, for any batch", () => {
    const tokens = fc.array(fc.integer({ min: 0, max: 2 ** 31 - 1 }), { minLength: 1, maxLength: 5 });
    const group = fc.record({ prompt: tokens, responses: fc.array(tokens, { minLength: 1, maxLength: 3 }) });
    fc.assert(
      fc.property(fc.array(group, { maxLength: 4 }), (gs) => {
        expect(unpackBatch(batch.packBatch({ groups: gs }))).toEqual({ groups: gs });
      }),
      { numRuns: 100 },
    );
  });

  it("reads arrays that start at any offset", () => {
    const bytes = Buffer.concat([Buffer.from([0]), batch.toBytes(Float32Array.from([1.5, -2]))]);
    for (const shift of [0, 1, 2, 3]) {
      const moved = Buffer.concat([Buffer.alloc(shift), bytes]).subarray(shift + 1);
      expect([...batch.toFloat32(moved)]).toEqual([1.5, -2]);
    }
    expect(() => batch.toInt32(Buffer.alloc(6))).toThrow("6 bytes");
  });

  it("refuses what the contract forbids before anything is sent", () => {
    expect(() => batch.packBatch({ groups: [{ prompt: [], responses: [[1]] }] })).toThrow("empty prompt");
    expect(() => batch.packBatch({ groups: [{ prompt: [1], responses: [] }] })).toThrow("no responses");
    expect(() => batch.packConstraint({ groups: [] }, 1)).toThrow("0 entries for 1");
    const wrong = { groups: [{ sequences: [[1]], prior: [0, 0] }] };
    expect(() => batch.packConstraint(wrong, 1)).toThrow("2 priors for 1");
  });
});

describe("calls", () => {
  it("carry the traces of what is asked as metadata, and none without", async () => {
    const seen: unknown[] = [];
    const getInfo = ({ metadata }: { metadata: Metadata }, answer: (e: null, r: object) => void) => {
      seen.push(metadata.get("traceparent").join(" "));
      answer(null, pb.GetInfoResponse.fromPartial({}));
    };
    const client = await serve({ getInfo });
    await client.getInfo({ traceparents: ["00-a", "00-b"] });
    await client.getInfo();
    expect(seen.map((s) => String(s).replace(", ", " "))).toEqual(["00-a 00-b", ""]);
  });

  it("carry batches, constraints and per-target arrays both ways", async () => {
    let seen: pb.ForwardBackwardRequest | undefined;
    type Answer = (error: null, response: Partial<pb.ForwardBackwardResponse>, trailer: Metadata) => void;
    const forwardBackward = ({ request }: { request: pb.ForwardBackwardRequest }, answer: Answer) => {
      seen = request;
      const logprobs = batch.toBytes(Float32Array.from([-1, -2, -3, -4, -5, -6]));
      const trailer = new Metadata();
      trailer.set("gr2-compute-seconds", "0.25");
      answer(null, { loss: 0.5, metrics: { tokens: 6 }, logprobs, computeSeconds: 0.2 }, trailer);
    };
    const client = await serve({ forwardBackward });
    const weights = new Float32Array(6).fill(0.5);
    const constraint = { groups: [{ sequences: [[4, 5]] }, { sequences: [] }], scale: 0.5, maxSequences: 1 };
    const result = await client.forwardBackward({
      batch: { groups },
      constraint,
      weights,
      loss: { kind: "cross_entropy" },
      wantLogprobs: true,
    });
    expect([...result.logprobs]).toEqual([-1, -2, -3, -4, -5, -6]);
    expect(result.metrics).toEqual({ tokens: 6 });
    expect(unpackBatch(seen?.batch as pb.GroupBatch).groups.map((g) => g.responses.length)).toEqual([2, 1]);
    expect([...batch.toInt32(seen?.constraint?.sequenceCounts as Buffer)]).toEqual([1, 0]);
    expect(seen?.requestId).toMatch(/^[0-9a-f-]{36}$/);
    const stats = client.stats().forwardBackward;
    expect(stats).toMatchObject({ calls: 1, retries: 0, computeSeconds: 0.25 });
    expect(stats?.bytesSent).toBeGreaterThan(24);
    expect(stats?.bytesReceived).toBeGreaterThan(24);
    const short = { batch: { groups }, weights: new Float32Array(5), loss: { kind: "cross_entropy" } as const };
    await expect(client.forwardBackward(short)).rejects.toThrow("weights has 5 values for 6 response tokens");
  });

  it("repeat the same request id when the worker was briefly away", async () => {
    const ids: string[] = [];
    const optimStep: Unary<pb.OptimStepRequest, pb.OptimStepResponse> = ({ request }, answer) => {
      ids.push(request.requestId);
      if (ids.length < 3) answer({ code: status.UNAVAILABLE, details: "shutting down" });
      else answer(null, { gradNorm: 1, step: 1, weightVersion: 1 });
    };
    const client = await serve({ optimStep });
    expect(await client.optimStep({ ...adamW, learningRate: 1e-3 })).toMatchObject({ step: 1 });
    expect(new Set(ids).size).toBe(1);
    expect(client.stats().optimStep).toMatchObject({ calls: 1, retries: 2 });
    await client.optimStep({ ...adamW, learningRate: 1e-3 });
    expect(new Set(ids).size).toBe(2);
  });

  it("fail with the worker's own sentence, at once where a retry is of no use", async () => {
    let calls = 0;
    const forward: Unary<pb.ForwardRequest, pb.ForwardResponse> = (_, answer) => {
      calls++;
      answer({ code: status.RESOURCE_EXHAUSTED, details: "out of memory at 8192 tokens; lower micro_batch_tokens" });
    };
    const client = await serve({ forward });
    const error = await client.forward({ batch: { groups } }).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(WorkerError);
    expect(error).toMatchObject({
      message: "forward failed: out of memory at 8192 tokens; lower micro_batch_tokens",
      retryable: false,
    });
    expect(calls).toBe(1);
    await expect(client.getInfo()).rejects.toThrow("does not know this verb");
  });

  it("say that the process is gone instead of retrying", async () => {
    const getInfo: Unary<unknown, unknown> = (_, answer) => answer({ code: status.UNAVAILABLE, details: "x" });
    const client = await serve({ getInfo }, { diagnose: () => "the worker process is gone (killed by SIGKILL)" });
    const start = performance.now();
    await expect(client.getInfo()).rejects.toThrow("getInfo failed: the worker process is gone (killed by SIGKILL)");
    expect(performance.now() - start).toBeLessThan(1000);
  });

  it("end when aborted or too slow", async () => {
    const client = await serve({ getInfo: () => {} });
    const controller = new AbortController();
    const pending = client.getInfo({ signal: controller.signal });
    setTimeout(() => controller.abort(), 20);
    await expect(pending).rejects.toBeInstanceOf(InterruptedError);
    await expect(client.getInfo({ signal: controller.signal })).rejects.toBeInstanceOf(InterruptedError);
    await expect(client.getInfo({ timeoutMs: 30 })).rejects.toThrow("no answer within 30 ms");
  });

  it("carry messages far above gRPC's default limit", async () => {
    const embed: Unary<pb.EmbedRequest, pb.EmbedResponse> = ({ request }, answer) => {
      const rows = request.texts.length;
      answer(null, { embeddings: { rows, cols: 2 ** 20, data: Buffer.alloc(rows * 2 ** 22) } });
    };
    const client = await serve({ embed });
    const m = await client.embed({ modelPath: "m", texts: ["a", "b", "c"], batchSize: 2 });
    expect([m.rows, m.cols, m.data.length]).toEqual([3, 2 ** 20, 3 * 2 ** 20]);
  });
});

describe("streams", () => {
  const item = (prompt: number, sample: number): pb.SampleResponse_Item => ({
    prompt,
    sample,
    tokens: batch.intBytes([prompt, sample]),
    logprobs: batch.floatBytes([-1, -1]),
    finishReason: 1,
  });
  interface Stream {
    write(m: pb.SampleResponse): void;
    end(trailer?: Metadata): void;
    emit(event: "error", e: unknown): void;
    on(event: "cancelled", f: () => void): void;
  }
  const message = (items: pb.SampleResponse_Item[]) => ({
    items,
    weightVersion: 3,
    done: items.length,
    total: 4,
    tokens: [],
    reusedPromptTokens: 0,
    weightsId: "",
  });
  const request = { prompts: [[1], [2]], numSamples: 2, maxNewTokens: 4, temperature: 1, seed: 0 };

  it("deliver every completion once, in any order, also when the stream breaks in the middle", async () => {
    let attempts = 0;
    const sample = (call: Stream) => {
      if (attempts++ === 0) {
        call.write(message([item(1, 1), item(0, 0)]));
        setTimeout(() => call.emit("error", { code: status.UNAVAILABLE, details: "gone" }), 20);
        return;
      }
      call.write(message([item(0, 0), item(1, 0)]));
      call.write(message([item(0, 1), item(1, 1)]));
      const trailer = new Metadata();
      trailer.set("gr2-compute-seconds", "0.5");
      call.end(trailer);
    };
    const client = await serve({ sample });
    const progress: number[] = [];
    const { completions, weightVersion } = await sampleAll(client, request, (done) => progress.push(done));
    expect(completions.map((c) => c.map((x) => [...x.tokens]))).toEqual([
      [
        [0, 0],
        [0, 1],
      ],
      [
        [1, 0],
        [1, 1],
      ],
    ]);
    expect(weightVersion).toBe(3);
    expect(progress.at(-1)).toBe(4);
    expect(attempts).toBe(2);
    expect(client.stats().sample).toMatchObject({ retries: 1, computeSeconds: 0.5 });
  });

  it("are cancelled at the worker when the reader leaves", async () => {
    let cancelled = false;
    const sample = (call: Stream) => {
      call.on("cancelled", () => {
        cancelled = true;
      });
      call.write(message([item(0, 0)]));
    };
    const client = await serve({ sample });
    for await (const event of client.sample(request)) {
      expect(event.completions.length).toBe(1);
      break;
    }
    for (let i = 0; i < 100 && !cancelled; i++) await new Promise((done) => setTimeout(done, 10));
    expect(cancelled).toBe(true);
  });

  it("report progress of fitting, then the result", async () => {
    const fitSemanticIds = (call: { write(m: pb.FitSemanticIdsResponse): void; end(): void }) => {
      call.write({ event: { $case: "progress", value: { epoch: 1, epochs: 1, metrics: { loss: 2 } } } });
      const codes = { rows: 1, cols: 2, data: batch.intBytes([3, 4]) };
      call.write({
        event: {
          $case: "result",
          value: {
            codes,
            artifact: Buffer.from("a"),
            metrics: { uniqueness: 1 },
            codeVectors: { rows: 0, cols: 0, data: Buffer.alloc(0) },
          },
        },
      });
      call.end();
    };
    const client = await serve({ fitSemanticIds });
    const seen: number[] = [];
    const config = {
      method: "rqvae",
      levels: 2,
      codes: 8,
      latentDim: 4,
      hiddenDims: [8],
      epochs: 1,
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
    const embeddings = { rows: 1, cols: 2, data: Float32Array.from([1, 2]) };
    const fit = await client.fitSemanticIds({ embeddings, config }, (p) => seen.push(p.metrics.loss as number));
    expect([...fit.codes.data]).toEqual([3, 4]);
    expect(seen).toEqual([2]);
  });
});
