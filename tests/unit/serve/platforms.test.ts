/**
 * What other servers' clients and platforms expect: their paths, their keys, compressed bodies,
 * errors in their own shape.
 */
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { peekObject } from "../../../src/serve/http/body.ts";
import { readPath } from "../../../src/serve/http/routes.ts";
import { newToken } from "../../../src/serve/security/tokens.ts";
import { reversed, servedModel, startService, type TestService } from "../../serve-fixture.ts";

let service: TestService;
beforeAll(async () => {
  service = await startService();
});
afterAll(() => service.server.close());

const post = async (path: string, body: unknown) => {
  const response = await service.post(path, body, { "x-request-id": "r-1" });
  return { status: response.status, body: (await response.json()) as unknown };
};
const get = async (path: string) => {
  const response = await fetch(service.url + path);
  return { status: response.status, body: (await response.json()) as unknown };
};

describe("paths of other servers", () => {
  it("tell health, version and model", async () => {
    for (const path of ["/health", "/ping", "/readyz"])
      expect(await get(path), path).toEqual({ status: 200, body: { ready: true } });
    expect((await get("/version")).body).toEqual({ version: expect.stringMatching(/^\d+\.\d+\.\d+/) });
    for (const path of ["/v1/models", "/models"])
      expect((await get(path)).body, path).toMatchObject({
        object: "list",
        data: [{ id: "fake", object: "model", created: expect.any(Number), root: "fake@1" }],
      });
    expect((await get("/info")).body).toMatchObject({
      ...{ model_id: "fake", model_type: { reranker: {} }, model_sha: "00" },
      ...{ max_client_batch_size: 100, max_input_length: 1024, auto_truncate: false }, // 4096 bytes / 4
    });
    service.reranker.loaded = undefined;
    for (const path of ["/health", "/ping", "/info", "/v1/models"]) expect((await get(path)).status, path).toBe(503);
    service.reranker.loaded = servedModel;
  });

  it("may end in a slash, or begin with two", async () => {
    const body = { query: "q", documents: ["a", "b"] };
    for (const path of ["/v2/rerank/", "//v2/rerank", "/v2//rerank/?x=1"])
      expect(await post(path, body), path).toMatchObject({
        status: 200,
        body: { results: [{ index: 1 }, { index: 0 }] },
      });
    expect((await get("/healthz/")).status).toBe(200);
    expect(service.log.at(-1)?.route).toBe("/healthz");
    expect(["/", "//", "/a/", "/a//b///", "/a?b=/c/"].map(readPath)).toEqual(["/", "/", "/a", "/a/b", "/a"]);
    const start = performance.now();
    readPath(`/${"/".repeat(1_000_000)}x`);
    expect(performance.now() - start).toBeLessThan(1_000); // a power would take minutes
  });
});

describe("infinity", () => {
  it("is told from vLLM by a field only it has, and gives texts as texts", async () => {
    const body = { model: "m", query: "q", documents: ["a", "b"], return_documents: true, top_n: 1, raw_scores: false };
    expect((await post("/rerank", body)).body).toEqual({
      ...{ object: "rerank", id: "infinity-r-1", model: "fake", created: expect.any(Number) },
      usage: { prompt_tokens: 40, total_tokens: 42 },
      results: [{ index: 1, relevance_score: 0.2, document: "b" }],
    });
    const raw = (await post("/v1/rerank", { query: "q", documents: ["a"], raw_scores: true })).body;
    expect(raw).toMatchObject({ results: [{ index: 0, relevance_score: Math.log(0.1), document: null }] });
    // litellm sends the same to both: the path tells them apart.
    const same = { query: "q", documents: ["a"], return_documents: true };
    expect((await post("/rerank", same)).body).toMatchObject({ results: [{ document: { text: "a" } }] });
    expect((await post("/infinity/rerank", same)).body).toMatchObject({ results: [{ document: "a" }] });
    expect(await post("/rerank", { ...body, documents: [] })).toMatchObject({
      status: 400,
      body: { error: { type: "BadRequestError", code: 400 } },
    });
  });
});

describe("voyage", () => {
  it("is told from Cohere and Jina by its fields or its models", async () => {
    expect(
      (await post("/v1/rerank", { query: "q", documents: ["a", "b"], top_k: 1, return_documents: true })).body,
    ).toEqual({
      ...{ object: "list", model: "fake", usage: { total_tokens: 42 } },
      data: [{ index: 1, relevance_score: 0.2, document: "b" }],
    });
    for (const model of ["rerank-2.5", "rerank-2-lite", "rerank-lite-1"])
      expect((await post("/v1/rerank", { model, query: "q", documents: ["a"] })).body, model).toHaveProperty("data");
    for (const model of ["rerank-v3.5", "rerank-english-v3.0", "rerank-multilingual-v2.0"])
      expect((await post("/v1/rerank", { model, query: "q", documents: ["a"] })).body, model).toHaveProperty("meta");
    const long = { query: "q", documents: ["x".repeat(5000)] };
    expect(await post("/v1/rerank", { ...long, truncation: false })).toMatchObject({
      status: 413,
      body: { detail: expect.stringMatching(/^documents\[0\]\.text has 5000 bytes/) },
    });
    expect((await post("/v1/rerank", { ...long, truncation: true })).status).toBe(200);
    expect(service.reranker.last.candidates[0]?.text).toHaveLength(4096);
    expect(await post("/v1/rerank", { query: "q", documents: [], top_k: 1 })).toMatchObject({ status: 400 });
  });
});

describe("scores", () => {
  it("come in the order of the texts", async () => {
    const data = [0.1, 0.2, 0.3].map((score, index) => ({ index, object: "score", score }));
    for (const path of ["/score", "/v1/score"])
      expect((await post(path, { text_1: "q", text_2: ["a", "b", "c"] })).body).toMatchObject({ object: "list", data });
    expect((await post("/score", { queries: ["q"], documents: ["a", "b", "c"] })).body).toMatchObject({ data });
    expect((await post("/score", { text_1: "q", text_2: "a" })).body).toMatchObject({ data: data.slice(0, 1) });
    service.reranker.answer = (request) => ({ ...reversed(request), fallback: "deadline" });
    expect((await post("/score", { text_1: "q", text_2: "a" })).body).toMatchObject({ fallback: "deadline" });
    service.reranker.answer = reversed;
  });

  it("need one history", async () => {
    const refused = async (body: object) => (await post("/score", body)).body as { error: { message: string } };
    expect((await refused({ text_1: ["p", "q"], text_2: ["a", "b"] })).error.message).toMatch(/^text_1 must be one/);
    expect((await refused({ text_1: "p" })).error.message).toMatch(/^text_2 is missing/);
    expect((await refused({ documents: ["a"] })).error.message).toMatch(/^text_1 is missing/);
    expect((await refused({ queries: "q", items: [] })).error.message).toMatch(/^items is empty/);
  });
});

describe("a key", () => {
  it("is taken from any of the usual headers", async () => {
    const { token, line } = newToken("shop");
    const tokens = join(mkdtempSync(join(tmpdir(), "gr2-key-")), "tokens");
    writeFileSync(tokens, line);
    const guarded = await startService({ security: { tokens } });
    const status = async (headers: Record<string, string>) =>
      (await guarded.post("/v2/rerank", { query: "q", documents: ["a"] }, headers)).status;
    expect(await status({ authorization: `Bearer ${token}` })).toBe(200);
    expect(await status({ "x-api-key": token })).toBe(200);
    expect(await status({ "api-key": token })).toBe(200);
    expect(await status({ "api-key": `${token}x` })).toBe(401);
    expect(await status({ authorization: "Bearer wrong", "x-api-key": token })).toBe(401); // the first that is there counts
    await guarded.server.close();
  });
});

describe("a compressed body", () => {
  const send = (at: TestService, body: Buffer, path = "/v2/rerank") =>
    fetch(at.url + path, {
      method: "POST",
      headers: { "content-type": "application/json", "content-encoding": "gzip" },
      body: new Uint8Array(body),
    });

  it("is read", async () => {
    const response = await send(service, gzipSync(JSON.stringify({ query: "q", documents: ["a", "b"] })));
    expect(response.status).toBe(200);
    expect(await response.json()).toMatchObject({ results: [{ index: 1 }, { index: 0 }] });
  });

  it("may not be more than the limit once it is read, whatever it weighs", async () => {
    const limits = { maxRequestBytes: 100_000 };
    const small = await startService({ limits });
    const bomb = gzipSync(Buffer.alloc(50_000_000, 0x20)); // 1000 times as large as it is sent
    expect(bomb.length).toBeLessThan(limits.maxRequestBytes);
    const before = process.memoryUsage().arrayBuffers;
    const response = await send(small, bomb);
    expect(response.status).toBe(413);
    expect(await response.json()).toEqual({ id: expect.any(String), message: "The body has more than 100000 bytes." });
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(10_000_000);
    // Room that was reserved is given back: 40 in a row are all read.
    const good = gzipSync(JSON.stringify({ query: "q", documents: ["a"], pad: " ".repeat(90_000) }));
    for (let i = 0; i < 40; i++) expect((await send(small, good)).status).toBe(200);
    // Two gzip members, or a second layer, are no way round it.
    const twice = Buffer.concat([gzipSync(Buffer.alloc(99_000, 0x20)), gzipSync(Buffer.alloc(99_000, 0x20))]);
    expect((await send(small, twice)).status).toBe(413);
    expect((await send(small, gzipSync(good))).status).toBe(400);
    await small.server.close();
  });

  it("that is none is refused", async () => {
    expect((await send(service, Buffer.from("{}"))).status).toBe(400);
    const whole = gzipSync(JSON.stringify({ query: "q", documents: ["a"] }));
    expect((await send(service, whole.subarray(0, whole.length - 4))).status).toBe(400);
  });
});

describe("a body that is refused unread", () => {
  it("is refused in the shape of its own dialect", async () => {
    const small = await startService({ limits: { maxRequestBytes: 300 } });
    const long = "x".repeat(400);
    const refused = async (path: string, body: object): Promise<unknown> => {
      const response = await small.post(path, body);
      expect(response.status, path).toBe(413);
      return await response.json();
    };
    const message = "The body has more than 300 bytes.";
    const openAi = { error: { message, type: "BadRequestError", param: null, code: 413 } };
    expect(await refused("/rerank", { query: "q", texts: [long] })).toEqual({
      error: message,
      error_type: "Validation",
    });
    expect(await refused("/rerank", { query: "q", documents: [long] })).toEqual(openAi);
    expect(await refused("/rerank", { return_documents: true, documents: [long] })).toEqual(openAi);
    expect(await refused("/v1/rerank", { query: "q", documents: [long] })).toEqual({ detail: message });
    expect(await refused("/v1/rerank", { model: "rerank-v3.5", documents: [long] })).toMatchObject({ message });
    expect(await refused("/v2/rerank", { query: long })).toMatchObject({ message });
    expect(await refused("/v2/rerank", { truncate_prompt_tokens: 1, query: long })).toEqual(openAi);
    await small.server.close();
  });

  it("is known by its own keys alone", () => {
    const peek = (text: string) => peekObject(Buffer.from(text));
    expect(peek('{"a": {"b": 1}, "c": [{"d": 2}], "e": "f", "g\\"": 1, "h": "')).toEqual({
      ...{ a: undefined, c: undefined, e: "f", h: undefined },
    });
    expect(peek('{"text": "\\"documents\\": {", "model": "m"')).toEqual({ text: undefined, model: "m" });
    expect([peek("[1]"), peek(""), peek("nonsense")]).toEqual([undefined, undefined, undefined]);
    const start = performance.now();
    for (const part of ['"\\', '"a" ', "{", '""', '"a":'])
      peekObject(Buffer.from(`{${part.repeat(1_000_000 / part.length)}`));
    expect(performance.now() - start).toBeLessThan(2_000);
  });
});

describe("limits", () => {
  it("let a thousand documents in, as Cohere does, and name the limit beyond", async () => {
    service.reranker.loaded = { ...servedModel, limits: { ...servedModel.limits, maxCandidates: 1000 } };
    const documents = Array.from({ length: 1000 }, (_, i) => `film ${i}`);
    const { status, body } = await post("/v2/rerank", { query: "q", documents, top_n: 3 });
    expect([status, (body as { meta: { billed_units: object } }).meta.billed_units]).toEqual([
      200,
      { search_units: 10 },
    ]);
    expect(await post("/v2/rerank", { query: "q", documents: [...documents, "one more"] })).toMatchObject({
      status: 413,
      body: { message: "documents has 1001 entries; at most 1000 are allowed." },
    });
    service.reranker.loaded = servedModel;
  });
});
