/** Thousands of hostile requests: each gets the status that is right for it, and the service is well afterwards. */
import { connect } from "node:net";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { attack, attacks } from "../../../bench/attacks.ts";
import { hostileCase, judge, keepAlive } from "../../../bench/hostile-http.ts";
import { Rng } from "../../../src/core/rng.ts";
import { parseJson } from "../../../src/serve/http/body.ts";
import { Problem } from "../../../src/serve/http/problem.ts";
import { Refusal } from "../../../src/serve/request/types.ts";
import { startService, type TestService } from "../../serve-fixture.ts";

const limits = { maxCandidates: 50, maxTextBytes: 2048, maxRequestBytes: 300_000 };
let service: TestService;
beforeAll(async () => {
  service = await startService({
    limits: { ...limits, maxJsonDepth: 6 },
    http: { headersTimeoutMs: 400, requestTimeoutMs: 800 },
  });
});
afterAll(() => service.server.close());

describe("hostile requests", () => {
  it("get the right status each, 2,000 of them", async () => {
    const agent = keepAlive();
    const numCases = 2000;
    const wrong: string[] = [];
    const kinds = new Set<string>();
    let next = 0;
    const caller = async (): Promise<void> => {
      for (let n = next++; n < numCases; n = next++) {
        const hostile = hostileCase(0, n, limits);
        kinds.add(hostile.kind);
        const fault = await judge(hostile, { host: "127.0.0.1", port: service.port }, agent);
        if (fault !== "") wrong.push(`${n}: ${fault.slice(0, 300)}`);
      }
    };
    await Promise.all(Array.from({ length: 8 }, caller));
    agent.destroy();
    expect(wrong).toEqual([]);
    expect(kinds.size).toBeGreaterThan(28);
    expect(service.log.filter((r) => r.problem === "internal")).toEqual([]);
    expect((await fetch(`${service.url}/readyz`)).status).toBe(200);
  });

  it.each(attacks)("do not get in below HTTP: $kind", async (one) => {
    const strict = await startService({ http: { headersTimeoutMs: 400, requestTimeoutMs: 800 } });
    expect(await attack(one, new URL(strict.url), 20_000)).toBe("");
    expect(strict.reranker.requests).toEqual([]);
    expect(strict.log.every((record) => record.route !== "/metrics")).toBe(true);
    await strict.server.close();
  });

  it("below HTTP end with a closed connection", async () => {
    const rng = Rng.of(0, "sockets");
    const noise = (length: number) => Buffer.from(Array.from({ length }, () => rng.int(256)));
    const starts = [
      "POST /rerank HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
      "POST /rerank HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
      "POST /rerank HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\nffffffff\r\n{",
      "GET / HTTP/9.9\r\n\r\n",
      "GET /\r\n",
      "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
      "POST /rerank HTTP/1.1\r\n\r\n",
      "GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\nX Y: z\r\n\r\n",
      "",
    ];
    const ends = await Promise.all(
      Array.from(
        { length: 120 },
        (_, i) =>
          new Promise<string>((resolve) => {
            const socket = connect(service.port, "127.0.0.1", () => {
              socket.write(Buffer.concat([Buffer.from(starts[i % starts.length] ?? ""), noise(rng.int(200))]));
              if (i % 7 === 0) socket.resetAndDestroy();
              else if (i % 3 === 0) socket.end();
            });
            let text = "";
            socket.on("data", (chunk) => {
              text += chunk.toString();
            });
            socket.on("error", () => undefined);
            socket.on("close", () => resolve(text));
          }),
      ),
    );
    for (const text of ends) expect(text).toMatch(/^$|^HTTP\/1\.1 (200|400|403|404|405|408|411|413|415|431) /);
    expect((await fetch(`${service.url}/readyz`)).status).toBe(200);
  });
});

describe("parseJson", () => {
  const bounds = { maxDepth: 8, maxValues: 1000 };
  const measureDepth = (value: unknown): number =>
    value !== null && typeof value === "object" ? 1 + Math.max(0, ...Object.values(value).map(measureDepth)) : 0;

  it("agrees with JSON.parse on whatever is within its limits", () => {
    fc.assert(
      fc.property(fc.json({ maxDepth: 12 }), (text) => {
        const bytes = Buffer.from(text);
        const expected = JSON.parse(bytes.toString()) as unknown;
        if (measureDepth(expected) > 8) expect(() => parseJson(bytes, bounds)).toThrow(Refusal);
        else expect(parseJson(bytes, bounds)).toEqual(expected);
      }),
    );
  });

  it("throws nothing but a refusal on bytes of any kind", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        try {
          parseJson(Buffer.from(bytes), bounds);
        } catch (e) {
          expect(e instanceof Problem || e instanceof Refusal).toBe(true);
        }
      }),
    );
  });
});
