import { createServer } from "node:net";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { listModels } from "../../../src/endpoint/models.ts";
import { Secret } from "../../../src/endpoint/secret.ts";
import { fail, list, startServer, type TestServer } from "./server.ts";

const key = "secret-beef-0123456789";
let server: TestServer;
beforeAll(async () => {
  server = await startServer((_body, _n, response) => fail(response, 500, "must not be asked anything"));
});
afterAll(() => server.close());

const ask = (url = server.baseUrl, timeoutMs = 5000) =>
  listModels(url, { secret: Secret.fromEnvironment("KEY", { KEY: key }), timeoutMs, signal: AbortSignal.any([]) });

describe("the list of a server's models", () => {
  it("names them, and is requested once, with the key", async () => {
    server.models = (response) => list(response, ["a", "b"]);
    expect(await ask(`${server.baseUrl}/`)).toEqual({ kind: "models", names: ["a", "b"] });
    expect([server.listed, server.seen.length]).toEqual([1, 0]);
    expect(server.headers.at(-1)?.authorization).toBe(`Bearer ${key}`);
  });

  it("may not exist, be empty or be something else: nothing is known then", async () => {
    for (const status of [404, 405, 429, 503]) {
      server.models = (response) => fail(response, status, "no");
      expect(await ask()).toEqual({ kind: "unknown", reason: `GET /models returned status ${status}` });
    }
    for (const body of ["<html>", "[]", "null", '{"data":[null,{"id":7}]}', '{"data":{}}']) {
      server.models = (response) => response.end(body);
      expect(await ask(), body).toEqual({
        kind: "unknown",
        reason: "GET /models returned something other than a list of models",
      });
    }
    server.models = () => {};
    expect(await ask(server.baseUrl, 100)).toEqual({ kind: "unknown", reason: "no answer within 0.1 s" });
  });

  it("is refused without the right key; what the server echoes of it is not shown", async () => {
    server.models = (response) => fail(response, 401, `bad key ${key}`);
    expect(await ask()).toEqual({
      kind: "unusable",
      reason: "the server refuses the key (401): bad key [key]",
      advice: expect.stringContaining("apiKeyEnv"),
    });
    server.models = (response) => list(response, [`model-of-${key}`]);
    expect(await ask()).toEqual({ kind: "models", names: ["model-of-[key]"] });
  });

  it("cannot be had where nobody listens, at a host that does not exist, or behind a redirection", async () => {
    const free = createServer();
    await new Promise<void>((done) => free.listen(0, "127.0.0.1", done));
    const { port } = free.address() as { port: number };
    await new Promise((done) => free.close(done));
    const down = await ask(`http://127.0.0.1:${port}/v1`);
    expect(down).toMatchObject({ kind: "unusable", reason: expect.stringContaining("ECONNREFUSED") });
    expect(down).toMatchObject({ advice: "Start the server, or correct teacher.endpoint.baseUrl." });
    expect(await ask("http://no-such-host.invalid/v1")).toMatchObject({
      kind: "unusable",
      advice: "Check the host's name in teacher.endpoint.baseUrl.",
    });
    server.models = (response) => {
      response.writeHead(302, { location: `http://127.0.0.1:${port}/` });
      response.end();
    };
    expect(await ask()).toMatchObject({ kind: "unusable", reason: expect.stringContaining("redirect") });
  });
});
