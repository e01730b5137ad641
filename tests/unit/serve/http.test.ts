/**
 * The HTTP server under bad luck and bad manners: limits, slow clients, clients that leave, shutting down, strangers.
 */
import { mkdtempSync, writeFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, describe, expect, it } from "vitest";
import { Refusal } from "../../../src/serve/request/types.ts";
import { newToken } from "../../../src/serve/security/tokens.ts";
import { FakeReranker, reversed, startService, type TestService } from "../../serve-fixture.ts";

const open: TestService[] = [];
const start = async (...args: Parameters<typeof startService>): Promise<TestService> => {
  const service = await startService(...args);
  open.push(service);
  return service;
};
afterEach(async () => {
  await Promise.all(open.splice(0).map((s) => s.server.close()));
});

const good = { candidates: [{ id: "a", text: "A" }] };
const path = "/gr2/v1/rerank";

/** Sends bytes as they are; resolves with everything that came back when the server closes or `until` is seen. */
function raw(port: number, send: (socket: Socket) => void, until = /$^/): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1", () => send(socket));
    let text = "";
    const done = (): void => {
      socket.destroy();
      resolve(text);
    };
    socket.on("data", (chunk) => {
      text += chunk.toString();
      if (until.test(text)) done();
    });
    socket.on("close", done);
    socket.on("error", () => undefined);
  });
}

const readCode = async (response: Response): Promise<[number, string]> => {
  const body = (await response.json()) as { error: { code: string } };
  return [response.status, body.error.code];
};

describe("a body", () => {
  it("must be small, JSON, UTF-8, shallow and of few values", async () => {
    const service = await start({ limits: { maxRequestBytes: 20_000, maxCandidates: 2, maxHistory: 2 } });
    const post = async (body: string | Uint8Array, headers: Record<string, string> = {}) =>
      readCode(
        await fetch(service.url + path, {
          method: "POST",
          headers: { "content-type": "application/json", ...headers },
          body: body as string,
        }),
      );
    expect(await post("x".repeat(20_001))).toEqual([413, "too_large"]);
    expect(await post("")).toEqual([400, "syntax"]);
    expect(await post('{"candidates": [')).toEqual([400, "syntax"]);
    expect(await post("null")).toEqual([400, "invalid"]);
    expect(await post(Buffer.from([0x22, 0xc3, 0x28, 0x22]))).toEqual([400, "syntax"]);
    expect(await post("[".repeat(9) + "]".repeat(9))).toEqual([413, "too_large"]);
    expect(await post(`{"a": "${"[".repeat(100)}\\"${"[".repeat(100)}"}`)).toEqual([400, "invalid"]); // in a text they are no nesting
    expect(await post(`[${"1,".repeat(400)}1]`)).toEqual([413, "too_large"]); // 16 (2 + 2) + 256 values at most
    expect(await post("{}", { "content-type": "text/plain" })).toEqual([415, "unsupported_media"]);
    expect(await post("{}", { "content-type": "application/json; charset=latin1" })).toEqual([
      415,
      "unsupported_media",
    ]);
    expect(await post("{}", { "content-encoding": "br" })).toEqual([415, "unsupported_media"]);
    expect(service.reranker.requests).toEqual([]);
    expect((await service.post(path, good, { "content-type": "application/json; charset=UTF-8" })).status).toBe(200);
  });

  it("of unknown length is cut off at the limit", async () => {
    const service = await start({ limits: { maxRequestBytes: 1000 } });
    const body = new ReadableStream<Uint8Array>({
      pull(controller) {
        controller.enqueue(new Uint8Array(400).fill(0x20));
        if (controller.desiredSize === null) controller.close();
      },
    });
    const headers = { "content-type": "application/json" };
    const response = fetch(service.url + path, { method: "POST", headers, body, duplex: "half" } as RequestInit);
    // An endless body ends in the answer or in a closed connection, never in more memory.
    const status = await response.then((r) => r.status).catch(() => 413);
    expect(status).toBe(413);
    expect(service.log[0]).toMatchObject({ status: 413, problem: "too_large" });
  });

  it("is not even asked for if its length says enough", async () => {
    const service = await start({ limits: { maxRequestBytes: 1000 } });
    const head = `POST ${path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n`;
    const refused = await raw(service.port, (s) => s.write(`${head}Content-Length: 5000\r\n\r\n`));
    expect(refused).toMatch(/^HTTP\/1.1 413 /);
    const body = JSON.stringify(good);
    const answered = await raw(
      service.port,
      (s) => {
        s.write(`${head}Content-Length: ${body.length}\r\n\r\n`);
        s.once("data", () => s.write(body));
      },
      /model_version/,
    );
    expect(answered).toMatch(/^HTTP\/1.1 100 Continue\r\n\r\nHTTP\/1.1 200 /);
  });
});

describe("paths and methods", () => {
  it("that are unknown get 404 and 405, as JSON", async () => {
    const service = await start();
    expect(await readCode(await fetch(`${service.url}/v3/rerank?secret=1`))).toEqual([404, "not_found"]);
    expect(await readCode(await fetch(`${service.url}/constructor`))).toEqual([404, "not_found"]);
    const wrong = await fetch(service.url + path);
    expect(wrong.headers.get("allow")).toBe("POST");
    expect(await readCode(wrong)).toEqual([405, "method_not_allowed"]);
    const put = await fetch(`${service.url}/healthz`, { method: "PUT" });
    expect([put.status, put.headers.get("allow")]).toEqual([405, "GET, HEAD"]);
    const head = await fetch(`${service.url}/healthz`, { method: "HEAD" });
    expect([head.status, await head.text()]).toEqual([200, ""]);
    expect(JSON.stringify(service.log)).not.toContain("secret");
  });

  it("serve those who ask for an upgrade as if they had not", async () => {
    const service = await start();
    const upgrade = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n";
    const text = await raw(
      service.port,
      (s) => s.write(`GET /healthz HTTP/1.1\r\nHost: localhost\r\n${upgrade}\r\n`),
      /ok/,
    );
    expect(text).toMatch(/^HTTP\/1.1 200 /);
  });
});

describe("health", () => {
  it("tells living from ready", async () => {
    const service = await start();
    const status = async (at: string): Promise<number> => (await fetch(service.url + at)).status;
    expect([await status("/healthz"), await status("/readyz")]).toEqual([200, 200]);
    service.reranker.loaded = undefined;
    expect([await status("/healthz"), await status("/readyz"), await status("/gr2/v1/model")]).toEqual([200, 503, 503]);
    const refused = await service.post(path, good);
    expect(refused.headers.get("retry-after")).toBe("5");
    expect(await readCode(refused)).toEqual([503, "unavailable"]);
  });
});

describe("a process that is too late with its work", () => {
  it("refuses before it reads a body, and still tells how it is", async () => {
    const service = await start();
    service.reranker.shed = () => {
      throw new Refusal("overloaded", "late", { retryAfterMs: 1_200 });
    };
    const refused = await service.post(path, "this is no JSON");
    expect(refused.headers.get("retry-after")).toBe("2");
    expect(await readCode(refused)).toEqual([429, "overloaded"]);
    expect((await fetch(`${service.url}/readyz`)).status).toBe(200);
  });
});

describe("tokens", () => {
  it("are asked for wherever something can be learned or cost", async () => {
    const { token, line } = newToken("shop", 1);
    const tokens = join(mkdtempSync(join(tmpdir(), "gr2-http-")), "tokens");
    writeFileSync(tokens, line);
    const service = await start({ security: { tokens } });
    const authorization = `Bearer ${token}`;
    const get = async (at: string, headers = {}) => (await fetch(service.url + at, { headers })).status;
    for (const at of ["/", "/healthz", "/readyz", "/openapi.json"]) expect(await get(at), at).toBe(200);
    for (const at of ["/metrics", "/gr2/v1/model"]) {
      expect(await get(at), at).toBe(401);
      expect(await get(at, { authorization }), at).toBe(200);
    }
    const refused = await service.post("/rerank", { query: "q", texts: ["a"] });
    expect([refused.status, refused.headers.get("www-authenticate")]).toEqual([401, 'Bearer realm="gr2"']);
    expect(await refused.json()).toMatchObject({ error_type: "Validation" });
    expect(service.reranker.requests).toEqual([]);

    // Who has a token is no web page: the service may be called by any name.
    const named = "GET /healthz HTTP/1.1\r\nHost: reranker.example\r\nConnection: close\r\n\r\n";
    expect(await raw(service.port, (s) => s.write(named))).toMatch(/^HTTP\/1.1 200 /);

    const statuses: number[] = [];
    for (let i = 0; i < 3; i++) statuses.push((await service.post(path, good, { authorization })).status);
    expect(statuses).toEqual([200, 200, 429]); // one a second, two at once
    expect(service.log.at(-1)).toMatchObject({ client: "shop", problem: "rate_limited" });
    expect(JSON.stringify(service.log)).not.toContain(token);
    await service.server.close();
    const openMetrics = await start({ security: { tokens, openMetrics: true } });
    expect((await fetch(`${openMetrics.url}/metrics`)).status).toBe(200);
  });

  it("that are missing spare the service the body", async () => {
    const tokens = join(mkdtempSync(join(tmpdir(), "gr2-http-")), "tokens");
    writeFileSync(tokens, newToken("shop").line);
    const service = await start({ security: { tokens } });
    const head = `POST ${path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n`;
    const text = await raw(service.port, (s) => s.write(`${head}Expect: 100-continue\r\n\r\n`));
    expect(text).toMatch(/^HTTP\/1.1 401 [\s\S]*\r\nconnection: close\r\n/i);
  });
});

describe("an open loopback service", () => {
  it("is not called by a web page's name", async () => {
    const service = await start({ http: { hosts: ["Reranker.Internal"] } });
    const ask = async (host: string) =>
      (
        await raw(service.port, (s) => s.write(`GET /healthz HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`))
      ).slice(9, 12);
    for (const host of ["localhost", "127.0.0.1:80", "[::1]:80", "reranker.internal:8080"])
      expect(await ask(host), host).toBe("200");
    for (const host of ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", ""])
      expect(await ask(host), host).toBe("403");
  });

  it("lets no page of another origin read or post", async () => {
    const service = await start();
    const preflight = await fetch(service.url + path, {
      method: "OPTIONS",
      headers: { origin: "https://evil.example" },
    });
    expect([preflight.status, preflight.headers.get("access-control-allow-origin")]).toEqual([405, null]);
    const form = await fetch(service.url + path, { method: "POST", body: new URLSearchParams({ a: "b" }) });
    expect(form.status).toBe(415);
  });
});

describe("slow clients", () => {
  it("are cut off while they send", async () => {
    const service = await start({ http: { headersTimeoutMs: 300, requestTimeoutMs: 600 } });
    const [headers, body] = await Promise.all([
      raw(service.port, (s) => s.write("GET /healthz HTTP/1.1\r\nHost: local")),
      raw(service.port, (s) =>
        s.write(
          `POST ${path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{`,
        ),
      ),
    ]);
    expect(headers).toMatch(/^HTTP\/1.1 408 /);
    expect(body === "" || /^HTTP\/1.1 408 /.test(body)).toBe(true);
    expect(service.reranker.requests).toEqual([]);
  });

  it("are cut off while they do not read", async () => {
    const service = await start({ http: { writeTimeoutMs: 200 } });
    const text = "x".repeat(4000);
    service.reranker.answer = (request) => ({ ...reversed(request), reasoning: `${text} `.repeat(20_000) }); // 80 MB
    const body = JSON.stringify({ ...good, mode: "think", stream: true });
    const head = `POST ${path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n`;
    const socket = connect(service.port, "127.0.0.1", () => socket.write(head + body));
    socket.on("error", () => undefined);
    socket.pause();
    for (let i = 0; i < 200 && service.log.length === 0; i++) await sleep(25);
    expect(service.log[0]?.bytesOut).toBeLessThan(40_000_000);
    socket.destroy();
  });

  it("that send nonsense after a request do not get its refusal as the request's answer", async () => {
    const service = await start();
    service.reranker.answer = () => new Promise(() => undefined);
    const body = JSON.stringify(good);
    const head = `POST ${path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n`;
    expect(await raw(service.port, (s) => s.write(`${head}${body}NOT HTTP\r\n\r\n`))).toBe("");
  });

  it("that send nonsense get 400, or 431 for endless headers", async () => {
    const service = await start();
    expect(await raw(service.port, (s) => s.write("\x16\x03\x01\x02\x00 hello\r\n\r\n"))).toMatch(/^HTTP\/1.1 400 /);
    const long = `GET / HTTP/1.1\r\nHost: localhost\r\nX: ${"x".repeat(20_000)}\r\n\r\n`;
    expect(await raw(service.port, (s) => s.write(long))).toMatch(/^HTTP\/1.1 431 /);
    const twoLengths = `POST ${path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n`;
    expect(await raw(service.port, (s) => s.write(twoLengths))).toMatch(/^HTTP\/1.1 400 /);
    expect((await fetch(`${service.url}/healthz`)).status).toBe(200);
  });
});

describe("a client that leaves", () => {
  it("stops the work for it", async () => {
    const service = await start();
    const aborted = new Promise<string>((resolve) => {
      service.reranker.answer = (_request, signal) =>
        new Promise((_, reject) => {
          signal?.addEventListener("abort", () => {
            resolve(String((signal.reason as Error).message));
            reject(signal.reason as Error);
          });
        });
    });
    const leave = new AbortController();
    const headers = { "content-type": "application/json" };
    const call = fetch(service.url + path, {
      method: "POST",
      headers,
      body: JSON.stringify(good),
      signal: leave.signal,
    });
    for (let i = 0; i < 200 && service.reranker.requests.length === 0; i++) await sleep(5);
    leave.abort();
    await expect(call).rejects.toThrow();
    expect(await aborted).toBe("the client disconnected");
    for (let i = 0; i < 200 && service.log.length === 0; i++) await sleep(5);
    expect(service.log[0]).toMatchObject({ status: 499, problem: "client_gone" });
  });
});

describe("too many at once", () => {
  it("are refused at once, and room is made again", async () => {
    const service = await start({ limits: { maxInFlight: 2 } });
    const release: (() => void)[] = [];
    service.reranker.answer = (request) => new Promise((resolve) => release.push(() => resolve(reversed(request))));
    const running = [service.post(path, good), service.post(path, good)];
    for (let i = 0; i < 200 && release.length < 2; i++) await sleep(5);
    const third = await service.post(path, good);
    expect(third.headers.get("retry-after")).toBe("1");
    expect(await readCode(third)).toEqual([429, "overloaded"]);
    for (const go of release.splice(0)) go();
    expect((await Promise.all(running)).map((r) => r.status)).toEqual([200, 200]);
    const fourth = service.post(path, good);
    for (let i = 0; i < 200 && release.length < 1; i++) await sleep(5);
    for (const go of release) go();
    expect((await fourth).status).toBe(200);
  });
});

describe("draining", () => {
  it("answers what has begun, takes nothing new, and ends", async () => {
    const service = await start({ http: { drainMs: 600_000 } });
    await fetch(`${service.url}/healthz`); // leaves an idle connection behind
    let release = (): void => undefined;
    service.reranker.answer = (request) => new Promise((resolve) => (release = () => resolve(reversed(request))));
    const begun = service.post(path, good);
    for (let i = 0; i < 200 && service.reranker.requests.length === 0; i++) await sleep(5);
    const drained = service.server.drain();
    await expect(fetch(`${service.url}/healthz`)).rejects.toThrow();
    release();
    const response = await begun;
    expect(response.status).toBe(200);
    await response.json();
    await drained;
  });

  it("does not wait for ever", async () => {
    const service = await start({ http: { drainMs: 100 } });
    service.reranker.answer = () => new Promise(() => undefined);
    const begun = service.post(path, good).catch((e: unknown) => e);
    for (let i = 0; i < 200 && service.reranker.requests.length === 0; i++) await sleep(5);
    await service.server.drain();
    expect(await begun).toBeInstanceOf(Error);
  });

  it("says on an open connection that it is the last answer", async () => {
    const service = await start({ http: { drainMs: 600_000 } });
    let release = (): void => undefined;
    service.reranker.answer = (request) => new Promise((resolve) => (release = () => resolve(reversed(request))));
    const body = JSON.stringify(good);
    const post = `POST ${path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
    const text = raw(service.port, (s) => s.write(post));
    for (let i = 0; i < 200 && service.reranker.requests.length === 0; i++) await sleep(5);
    const drained = service.server.drain();
    release();
    expect(await text).toMatch(/^HTTP\/1.1 200 /); // and the connection was closed, or raw() would not have ended
    await drained;
  });
});

describe("a port that is taken", () => {
  it("is named", async () => {
    const service = await start();
    await expect(start({ http: { port: service.port } })).rejects.toThrow(
      `cannot listen on 127.0.0.1:${service.port}: the port is taken`,
    );
  });
});

describe("the log", () => {
  it("has sizes, times and names, and nothing a caller wrote", async () => {
    const reranker = new FakeReranker();
    const service = await start({}, reranker);
    const request = { query: "PRIVATE", documents: [{ text: "PRIVATE", id: "PRIVATE" }], model: "PRIVATE" };
    await service.post("/v2/rerank?PRIVATE", request, { "x-request-id": "abc", "user-agent": "PRIVATE" });
    await service.post("/v2/rerank", { ...request, top_n: "PRIVATE" }, { "x-request-id": "PRIVATE!" });
    expect(JSON.stringify(service.log)).not.toContain("PRIVATE");
    const bytesIn = Buffer.byteLength(JSON.stringify(request));
    expect(service.log[0]).toMatchObject({
      requestId: "abc",
      method: "POST",
      route: "/v2/rerank",
      dialect: "cohere v2",
      client: "open",
      status: 200,
      bytesIn,
      numHistory: 1,
      numCandidates: 1,
    });
    expect(service.log[1]).toMatchObject({ status: 400, problem: "invalid" });
  });
});
