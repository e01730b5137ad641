/** The gRPC service end to end over loopback, on fake workers: methods, statuses, health, reflection, hostile bytes. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Client, credentials, loadPackageDefinition, Metadata, type ServiceError, status } from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import fc from "fast-check";
import { protoPath as healthProto } from "grpc-health-check";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { hostileCall, hostileChannel } from "../../../bench/hostile-grpc.ts";
import { readJson } from "../../../src/artifacts/files.ts";
import type { Results } from "../../../src/artifacts/results.ts";
import {
  FallbackReason,
  Mode,
  OnFallback,
  RerankClient,
  RerankRequest,
  RerankResponse,
  RerankServiceClient,
} from "../../../src/client/index.ts";
import { configSchema } from "../../../src/config/schema.ts";
import { repositoryRoot } from "../../../src/core/paths.ts";
import { type GrpcServer, startGrpcServer } from "../../../src/serve/grpc/server.ts";
import type { GrpcAccess } from "../../../src/serve/observe/access.ts";
import { Metrics } from "../../../src/serve/observe/metrics.ts";
import { readTraceparent } from "../../../src/serve/observe/trace.ts";
import { Refusal, type ServedModel } from "../../../src/serve/request/types.ts";
import { openSecurity, type Security } from "../../../src/serve/security/security.ts";
import { forever, makeRuns, type Setup, setUp, until } from "../../service-fixture.ts";

const folder = mkdtempSync(join(tmpdir(), "gr2-grpc-"));
const open = openSecurity(configSchema.parse({}).serve.security);
let setup: Setup;
let server: GrpcServer;
let client: RerankClient;
const bugs: string[] = [];
const records: GrpcAccess[] = [];

const start = (security: Security): Promise<GrpcServer> =>
  startGrpcServer({
    reranker: setup.engine,
    security,
    host: "127.0.0.1",
    port: 0,
    maxRequestBytes: 64 * 1024,
    defaultDeadlineMs: 5_000,
    metrics: new Metrics(),
    log: (message) => bugs.push(message),
    access: (record) => records.push(record),
  });

beforeAll(async () => {
  setup = await setUp(await makeRuns(folder, { run: [] }), "run");
  server = await start(open);
  client = new RerankClient(`127.0.0.1:${server.port}`);
});
afterAll(async () => {
  client.close();
  await server.drain(1_000);
  await setup.engine.drain(0);
  rmSync(folder, { recursive: true, force: true });
});

const request = {
  history: [{ itemId: "i1" }, { itemId: "i2" }],
  candidates: [10, 4, 20].map((i, place) => ({ id: `c${i}`, itemId: `i${i}`, score: 3 - place })),
};
/** What no other test asks: its answer is in no cache. */
const unasked = (item: number) => ({
  ...request,
  history: [{ itemId: `i${item}` }, { itemId: "i29" }, { itemId: "i28" }],
});
const catchError = (call: Promise<unknown>): Promise<ServiceError> =>
  call.then(
    () => expect.fail("it was answered"),
    (e: ServiceError) => e,
  );
/** One unary call of raw bytes. */
const raw = (bytes: Uint8Array, method = "Rerank"): Promise<{ code: status; response?: Buffer }> => {
  const channel = new Client(`127.0.0.1:${server.port}`, credentials.createInsecure());
  const same = (b: Buffer): Buffer => b;
  return new Promise((resolve) =>
    channel.makeUnaryRequest(`/gr2.v1.RerankService/${method}`, same, same, Buffer.from(bytes), (error, response) => {
      channel.close();
      resolve(error ? { code: error.code } : { code: status.OK, response: response as Buffer });
    }),
  );
};

describe("the methods", () => {
  it("rerank, alone, in a batch and as a stream, alike", async () => {
    const one = await client.rerank(request);
    expect(one.ranking.map((r) => r.id).sort()).toEqual(["c10", "c20", "c4"]);
    expect([one.fallback, one.modelVersion]).toEqual([
      FallbackReason.FALLBACK_REASON_UNSPECIFIED,
      setup.engine.model()?.version,
    ]);
    const { results } = await client.rerankBatch({ requests: [request, { candidates: [] }, request] });
    expect(results.map((r) => r.outcome?.$case)).toEqual(["answer", "error", "answer"]);
    expect(results[0]?.outcome).toMatchObject({ value: { ranking: one.ranking } });
    expect(results[1]?.outcome).toMatchObject({ value: { code: status.INVALID_ARGUMENT } });
    let thought = "";
    const answers: RerankResponse[] = [];
    for await (const { event } of client.rerankStream({ ...request, mode: Mode.MODE_THINK }))
      if (event?.$case === "thought") thought += event.value;
      else if (event) answers.push(event.value);
    expect(answers.length).toBe(1);
    expect(thought.trim()).toBe(answers[0]?.thought);
    expect(answers[0]?.ranking).toEqual((await client.rerank({ ...request, mode: Mode.MODE_THINK })).ranking);
  });

  it("leave one line each, with nothing the caller wrote", async () => {
    records.length = 0;
    await client.rerank({ ...request, candidates: [{ id: "mine", text: "a secret wish" }] });
    await catchError(client.rerankBatch({ requests: [] }));
    for await (const _ of client.rerankStream(request));
    const seen = records.map((r) => [
      r.route,
      r.status,
      r.client,
      r.numRequests,
      r.numHistory,
      r.numCandidates,
      r.problem,
    ]);
    expect(seen).toEqual([
      ["Rerank", "OK", "open", 1, 2, 1, undefined],
      ["RerankBatch", "INVALID_ARGUMENT", "open", 1, 0, 0, "invalid"],
      ["RerankStream", "OK", "open", 1, 2, 3, undefined],
    ]);
    expect(JSON.stringify(records)).not.toMatch(/secret|mine|i1\b/);
  });

  it("refuse with a time to try again while the process is too late with its work", async () => {
    const shed = vi.spyOn(setup.engine, "shed").mockImplementation(() => {
      throw new Refusal("overloaded", "late", { retryAfterMs: 250 });
    });
    const refused = await catchError(client.rerank(request));
    shed.mockRestore();
    expect([refused.code, refused.metadata.get("retry-after-ms")]).toEqual([status.RESOURCE_EXHAUSTED, ["250"]]);
  });

  it("say which model answers and what it takes", async () => {
    const model = await client.getModel();
    expect([model.name, model.modes]).toEqual(["run", [Mode.MODE_THINK, Mode.MODE_DIRECT]]);
    expect(model.limits).toMatchObject({ maxCandidates: 1000, maxBatch: 32 });
    // What the results of the run's evaluation say of the system that answers.
    const { comparisons } = readJson<Results>(join(folder, "runs/run/stages/evaluate/results.json"));
    const ofDirect = comparisons.filter((c) => c.system === model.directSystem && c.baseline === "prerank");
    const measured = ofDirect.find((c) => c.slice === "conditional" && c.metric === "N@5");
    expect([model.directSystem, measured?.delta]).toEqual(["rl_direct", expect.any(Number)]);
    expect(model.directLift).toEqual({
      ...{ metric: "N@5", delta: measured?.delta, ciLow: measured?.ci_low, ciHigh: measured?.ci_high },
    });
    const many = { ...request, candidates: Array.from({ length: 1001 }, (_, i) => ({ id: `${i}`, text: "x" })) };
    expect((await catchError(client.rerank(many))).code).toBe(status.RESOURCE_EXHAUSTED);
    const batch = { requests: Array.from({ length: 33 }, () => request) };
    expect((await catchError(client.rerankBatch(batch))).code).toBe(status.RESOURCE_EXHAUSTED);
    expect((await catchError(client.rerankBatch({}))).code).toBe(status.INVALID_ARGUMENT);
  });

  it("answer before the call's own deadline, and let go of a caller that hangs up", async () => {
    setup.gateAll(forever);
    const hurried = await client.rerank({ ...request, history: [], topN: 2 }, { timeoutMs: 300 });
    expect([hurried.fallback, hurried.ranking.map((r) => r.id)]).toEqual([
      FallbackReason.FALLBACK_REASON_DEADLINE,
      ["c10", "c4"],
    ]);
    const caller = new AbortController();
    const gone = catchError(client.rerank({ ...request, history: [] }, { signal: caller.signal }));
    while (setup.engine.load().running === 0) await new Promise((done) => setTimeout(done, 2));
    caller.abort();
    expect((await gone).code).toBe(status.CANCELLED);
    while (setup.engine.load().running > 0) await new Promise((done) => setTimeout(done, 2));
    setup.gateAll(async () => {});
  });
});

describe("who calls", () => {
  it("needs a token if tokens are required; health does not", async () => {
    const security: Security = {
      ...open,
      authenticate: (authorization) => {
        if (authorization !== "Bearer secret") throw new Refusal("unauthenticated", "A valid token is needed.");
        return { name: "test", requestsPerSecond: 1 };
      },
      admit: (_, requests) => {
        if ((requests ?? 1) > 1) throw new Refusal("rate_limited", "Too many.", { retryAfterMs: 1500.2 });
      },
    };
    const guarded = await start(security);
    const address = `127.0.0.1:${guarded.port}`;
    const stranger = new RerankClient(address);
    for (const header of ["x-api-key", "api-key"]) {
      const metadata = new Metadata();
      metadata.set(header, "secret");
      const stub = new RerankServiceClient(address, credentials.createInsecure());
      const answered = new Promise((resolve) => stub.getModel({}, metadata, (error) => resolve(error?.code)));
      expect(await answered).toBeUndefined();
      stub.close();
    }
    const friend = new RerankClient(address, { token: "secret" });
    expect((await catchError(stranger.rerank(request))).code).toBe(status.UNAUTHENTICATED);
    expect((await catchError(stranger.getModel())).code).toBe(status.UNAUTHENTICATED);
    expect((await friend.rerank(request)).ranking.length).toBe(3);
    const limited = await catchError(friend.rerankBatch({ requests: [request, request] }));
    expect([limited.code, limited.metadata.get("retry-after-ms")]).toEqual([status.RESOURCE_EXHAUSTED, ["1501"]]);
    expect(await checkHealth(address)).toBe("SERVING");
    stranger.close();
    friend.close();
    await guarded.drain(1_000);
  });
});

/** What grpc.health.v1 says of the service. */
function checkHealth(address: string): Promise<string> {
  const { grpc } = loadPackageDefinition(loadSync(healthProto, { enums: String })) as unknown as {
    grpc: { health: { v1: { Health: new (a: string, c: unknown) => Client & Record<string, CallableFunction> } } };
  };
  const health = new grpc.health.v1.Health(address, credentials.createInsecure());
  return new Promise((resolve, reject) =>
    health.check?.({ service: "gr2.v1.RerankService" }, (error: Error | null, r: { status: string }) => {
      health.close();
      if (error) reject(error);
      else resolve(r.status);
    }),
  );
}

describe("tools", () => {
  it("find the service by reflection", async () => {
    const proto = join(repositoryRoot, "node_modules/@grpc/reflection/build/proto/grpc/reflection/v1/reflection.proto");
    const { grpc } = loadPackageDefinition(loadSync(proto, { oneofs: true })) as unknown as {
      grpc: {
        reflection: {
          v1: { ServerReflection: new (a: string, c: unknown) => Client & Record<string, CallableFunction> };
        };
      };
    };
    const reflection = new grpc.reflection.v1.ServerReflection(
      `127.0.0.1:${server.port}`,
      credentials.createInsecure(),
    );
    const names = await new Promise<string[]>((resolve, reject) => {
      const stream = reflection.serverReflectionInfo?.();
      stream.on("data", (r: { listServicesResponse: { service: { name: string }[] } }) => {
        resolve(r.listServicesResponse.service.map((s) => s.name));
        stream.end();
      });
      stream.on("error", reject);
      stream.write({ listServices: "" });
    });
    reflection.close();
    expect(names).toEqual(expect.arrayContaining(["gr2.v1.RerankService", "grpc.health.v1.Health"]));
  });

  it("see health follow the engine", async () => {
    const own = await setUp(join(folder, "runs"), "run");
    const other = await startGrpcServer({
      ...{ reranker: own.engine, security: open, host: "127.0.0.1", port: 0, maxRequestBytes: 1024 },
      ...{ defaultDeadlineMs: 1_000, metrics: new Metrics(), log: () => {}, access: () => {} },
    });
    expect(await checkHealth(`127.0.0.1:${other.port}`)).toBe("SERVING");
    other.notServing();
    expect(await checkHealth(`127.0.0.1:${other.port}`)).toBe("NOT_SERVING");
    await other.drain(1_000);
    await own.engine.drain(0);
  });
});

describe("hostile bytes", () => {
  it("are refused as what they are: no message, bad UTF-8, too large", async () => {
    expect((await raw(Buffer.from("this is not protobuf"))).code).toBe(status.INVALID_ARGUMENT);
    const good = RerankRequest.encode(RerankRequest.fromPartial({ candidates: [{ id: "a", text: "abcd" }] })).finish();
    expect((await raw(good)).code).toBe(status.OK);
    const bad = Buffer.from(good);
    bad[bad.indexOf("abcd")] = 0xff;
    expect((await raw(bad)).code).toBe(status.INVALID_ARGUMENT);
    expect((await raw(Buffer.alloc(65 * 1024))).code).toBe(status.RESOURCE_EXHAUSTED);
    expect((await raw(Buffer.alloc(0), "RerankStream")).code).toBe(status.INVALID_ARGUMENT);
    expect((await raw(Buffer.alloc(0), "Nothing")).code).toBe(status.UNIMPLEMENTED);
  });

  it("never meet a bug: any bytes, and any mutation of a request, get an answer or a refusal", async () => {
    const good = Buffer.from(RerankRequest.encode(RerankRequest.fromPartial(request)).finish());
    const mutated = fc
      .array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { minLength: 1, maxLength: 6 })
      .map((edits) => {
        const bytes = Buffer.from(good);
        for (const [at, value] of edits) bytes[at] = value;
        return bytes;
      });
    await fc.assert(
      fc.asyncProperty(fc.oneof(mutated, fc.uint8Array({ maxLength: 200 })), async (bytes) => {
        const { code, response } = await raw(bytes);
        expect([status.OK, status.INVALID_ARGUMENT, status.RESOURCE_EXHAUSTED]).toContain(code);
        if (response) RerankResponse.decode(response);
      }),
      { numRuns: 150 },
    );
    expect(bugs).toEqual([]);
    expect((await client.rerank(request)).fallback).toBe(FallbackReason.FALLBACK_REASON_UNSPECIFIED);
  });
});

describe("hostile calls", () => {
  it("get the right status each, 1,500 of them", async () => {
    const limits = { ...(setup.engine.model() as ServedModel).limits, maxRequestBytes: 64 * 1024 };
    const channel = hostileChannel(`127.0.0.1:${server.port}`);
    const wrong: string[] = [];
    const kinds = new Set<string>();
    let next = 0;
    const caller = async (): Promise<void> => {
      for (let n = next++; n < 1_500; n = next++) {
        const hostile = hostileCall(0, n, limits);
        kinds.add(hostile.kind);
        const fault = await channel.send(hostile);
        if (fault !== "") wrong.push(`${n}: ${fault}`);
      }
    };
    await Promise.all(Array.from({ length: 8 }, caller));
    channel.close();
    expect(wrong).toEqual([]);
    expect(kinds.size).toBeGreaterThan(25);
    expect(bugs).toEqual([]);
    expect((await client.rerank(request)).ranking.length).toBe(3);
  });
});

describe("without an answer of the model", () => {
  it("a call ends as it asked: its own order, or UNAVAILABLE with the reason", async () => {
    setup.gateAll(forever);
    try {
      const asked = { ...unasked(25), deadlineMs: 40 };
      const own = await client.rerank({ ...asked, onFallback: OnFallback.ON_FALLBACK_OWN_ORDER });
      expect(own.fallback).toBe(FallbackReason.FALLBACK_REASON_DEADLINE);
      const error = await catchError(client.rerank({ ...asked, onFallback: OnFallback.ON_FALLBACK_ERROR }));
      expect([error.code, error.metadata.get("fallback")]).toEqual([status.UNAVAILABLE, ["deadline"]]);
    } finally {
      setup.gateAll(async () => {});
    }
  });
});

describe("a client that is to have an order whatever happens", () => {
  const none = FallbackReason.FALLBACK_REASON_NO_SERVICE;
  it("gets its own where nobody answers, and none for its own mistakes", async () => {
    const nowhere = new RerankClient("127.0.0.1:1", { ownOrder: true, timeoutMs: 500 });
    const { ranking, fallback } = await nowhere.rerank({ ...request, topN: 2 });
    expect([fallback, ranking]).toEqual([
      none,
      [
        { id: "c10", place: 0, score: 1 },
        { id: "c4", place: 1, score: 1 - 1 / 3 },
      ],
    ]);
    const left = nowhere.rerank(request, { signal: AbortSignal.abort() });
    expect((await catchError(left)).code).toBe(status.CANCELLED);
    nowhere.close();

    const careful = new RerankClient(`127.0.0.1:${server.port}`, { ownOrder: true });
    expect((await careful.rerank(request)).fallback).toBe(FallbackReason.FALLBACK_REASON_UNSPECIFIED);
    expect((await catchError(careful.rerank({ candidates: [] }))).code).toBe(status.INVALID_ARGUMENT);
    const shed = vi.spyOn(setup.engine, "shed").mockImplementation(() => {
      throw new Refusal("overloaded", "late", { retryAfterMs: 250 });
    });
    expect((await careful.rerank(request)).fallback).toBe(none);
    shed.mockRestore();
    careful.close();
  });
});

describe("a trace", () => {
  it("of the caller is returned, logged and sent to the worker, with what the request took", async () => {
    const traceId = "4bf92f3577b34da6a3ce929d0e0e4736";
    const metadata = new Metadata();
    metadata.set("traceparent", `00-${traceId}-00f067aa0ba902b7-01`);
    const sent: (readonly string[] | undefined)[] = [];
    setup.gateAll(async (call) => void sent.push(call?.traceparents));
    const stub = new RerankServiceClient(`127.0.0.1:${server.port}`, credentials.createInsecure());
    const head = await new Promise<Metadata>((resolve, reject) => {
      const asked = RerankRequest.fromPartial({ ...unasked(26), topN: 2 });
      const call = stub.rerank(asked, metadata, (error) => error && reject(error));
      call.on("metadata", resolve);
    });
    await until(() => records.some((r) => r.traceId === traceId));
    const record = records.find((r) => r.traceId === traceId);
    expect(readTraceparent(head.get("traceparent")[0])).toMatchObject({ traceId, spanId: record?.spanId, flags: 1 });
    expect(head.get("x-request-id")).toEqual([record?.requestId]);
    expect(sent).toEqual([[head.get("traceparent")[0]]]);
    expect(record).toMatchObject({
      ...{ level: "info", peer: "127.0.0.1", route: "Rerank", mode: "direct" },
      stages: {
        parse: expect.any(Number),
        encode: expect.any(Number),
        queue: expect.any(Number),
        model: expect.any(Number),
      },
    });
    setup.gateAll(async () => {});
    stub.close();
  });
});
