/** W3C trace context through the service: read, logged, returned, sent to the worker; spans to an OTLP collector. */
import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, describe, expect, it } from "vitest";
import { openOtlp } from "../../../src/serve/observe/otlp.ts";
import { formatTraceparent, passOn, readTraceparent } from "../../../src/serve/observe/trace.ts";
import { startService, type TestService } from "../../serve-fixture.ts";

const traceId = "4bf92f3577b34da6a3ce929d0e0e4736";
const header = `00-${traceId}-00f067aa0ba902b7-01`;
const body = { history: ["1"], candidates: [{ id: "a", text: "A" }] };

const closing: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0)) await close();
});

async function start(...args: Parameters<typeof startService>): Promise<TestService> {
  const service = await startService(...args);
  closing.push(() => service.server.close());
  return service;
}

describe("traceparent", () => {
  it("is read as the standard says", () => {
    expect(readTraceparent(header)).toEqual({ traceId, spanId: "00f067aa0ba902b7", flags: 1 });
    expect(readTraceparent(`cc-${traceId}-00f067aa0ba902b7-01-what-comes-later`)?.traceId).toBe(traceId);
    const ignored = [
      ...[undefined, "", "00", header.toUpperCase(), `${header}-more`, `ff${header.slice(2)}`, ` ${header}`],
      ...[`00-${"0".repeat(32)}-00f067aa0ba902b7-01`, `00-${traceId}-${"0".repeat(16)}-01`, `${header}\n`],
    ];
    for (const bad of ignored) expect(readTraceparent(bad)).toBeUndefined();
    expect(formatTraceparent({ traceId, spanId: "00f067aa0ba902b7", flags: 1 })).toBe(header);
  });

  it("is logged and returned with a span of the service's own, and nothing is made up without one", async () => {
    const service = await start();
    const traced = await service.post("/gr2/v1/rerank", body, { traceparent: header });
    const returned = readTraceparent(traced.headers.get("traceparent"));
    expect(returned).toMatchObject({ traceId, flags: 1 });
    expect(returned?.spanId).not.toBe("00f067aa0ba902b7");
    expect(service.log[0]).toMatchObject({ traceId, spanId: returned?.spanId });
    const plain = await service.post("/gr2/v1/rerank", body, { traceparent: "nonsense" });
    expect(plain.headers.get("traceparent")).toBeNull();
    expect(service.log[1]).not.toHaveProperty("traceId");
  });

  it("of other requests does not reach this one's span", () => {
    const [a, b] = [passOn.begin("", header), passOn.begin("", header)];
    expect(a?.context.spanId).not.toBe(b?.context.spanId);
  });
});

describe("the log", () => {
  it("has a line a request: time, level, id, peer, route, mode, milliseconds by stage, fallback", async () => {
    const service = await start();
    await service.post("/gr2/v1/rerank", body, { "x-request-id": "r-7" });
    expect(service.log[0]).toMatchObject({
      ...{ requestId: "r-7", level: "info", peer: "127.0.0.1", route: "/gr2/v1/rerank", mode: "direct" },
      stages: { parse: expect.any(Number), encode: 2, queue: 1, model: 3 },
    });
    expect(Math.abs(Date.parse(service.log[0]?.time ?? "") - Date.now())).toBeLessThan(60_000);
    const { answer } = service.reranker;
    service.reranker.answer = async (request, signal) => ({ ...(await answer(request, signal)), fallback: "deadline" });
    await service.post("/gr2/v1/rerank", body);
    expect(service.log[1]).toMatchObject({ level: "warn", fallback: "deadline" });
    await service.post("/gr2/v1/rerank", { candidates: [] });
    expect(service.log[2]).toMatchObject({ level: "warn", problem: "invalid" });
    service.reranker.answer = () => {
      throw new TypeError("a bug");
    };
    await service.post("/gr2/v1/rerank", body);
    expect(service.log[3]).toMatchObject({ level: "error", problem: "internal" });
    expect(service.log[3]).not.toHaveProperty("stages");
  });
});

interface Span {
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId?: string;
  readonly name: string;
  readonly kind: number;
  readonly startTimeUnixNano: string;
  readonly endTimeUnixNano: string;
  readonly attributes: readonly { readonly key: string; readonly value: Record<string, unknown> }[];
  readonly status: { readonly code?: number; readonly message?: string };
}

/** An OTLP/HTTP receiver. */
async function collector() {
  const spans: Span[] = [];
  const paths: string[] = [];
  const server = createServer(async (req: IncomingMessage, res) => {
    const chunks: Buffer[] = [];
    for await (const chunk of req) chunks.push(chunk as Buffer);
    paths.push(`${req.method} ${req.url} ${req.headers["content-type"]}`);
    const { resourceSpans } = JSON.parse(Buffer.concat(chunks).toString());
    for (const { scopeSpans } of resourceSpans) for (const scope of scopeSpans) spans.push(...scope.spans);
    res.writeHead(200, { "content-type": "application/json" }).end("{}");
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  closing.push(() => new Promise((resolve) => server.close(resolve)));
  return { spans, paths, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` };
}

describe("spans", () => {
  it("reach a collector: the caller's trace, a child a stage, no text", async () => {
    const { spans, paths, url } = await collector();
    const tracing = await openOtlp(`${url}/`, "1");
    const service = await start({}, undefined, tracing);
    const traced = await service.post("/gr2/v1/rerank", body, { traceparent: header, "x-request-id": "r-8" });
    await service.post("/gr2/v1/rerank", { history: [{ text: "PRIVATE" }], candidates: [] });
    await tracing.close();
    expect(paths[0]).toBe("POST /v1/traces application/json");
    const find = (parent: string) => spans.find((s) => s.kind === 2 && (s.parentSpanId ?? "") === parent); // a server's
    const server = find("00f067aa0ba902b7");
    expect(server).toMatchObject({ name: "POST /gr2/v1/rerank", traceId });
    expect(readTraceparent(traced.headers.get("traceparent"))?.spanId).toBe(server?.spanId);
    expect(server?.attributes).toContainEqual({ key: "gr2.request_id", value: { stringValue: "r-8" } });
    const stages = spans.filter((s) => s.parentSpanId === server?.spanId);
    expect(stages.map((s) => s.name)).toEqual(["parse", "encode", "queue", "model"]);
    const ms = (s: Span | undefined) => (Number(s?.endTimeUnixNano) - Number(s?.startTimeUnixNano)) / 1e6;
    expect(stages.slice(1).map((s) => Math.round(ms(s)))).toEqual([2, 1, 3]);
    const own = find("");
    expect(own).toMatchObject({ status: { code: 2, message: "invalid" } }); // STATUS_CODE_ERROR
    expect(own?.traceId).not.toBe(traceId);
    expect(JSON.stringify(spans)).not.toContain("PRIVATE");
  });

  it("are lost, and nothing else, where no collector answers", async () => {
    const tracing = await openOtlp("http://127.0.0.1:9", "1");
    const service = await start({}, undefined, tracing);
    expect((await service.post("/gr2/v1/rerank", body)).status).toBe(200);
    await Promise.race([tracing.close(), sleep(15_000).then(() => expect.fail("it hangs"))]);
  });
});
