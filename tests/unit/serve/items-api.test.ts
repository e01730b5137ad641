/** Registering items over HTTP and gRPC: what is read, refused and answered. */
import { afterEach, describe, expect, it } from "vitest";
import { RerankClient } from "../../../src/client/index.ts";
import { security } from "../../../src/config/schema/serve-http.ts";
import { startGrpcServer } from "../../../src/serve/grpc/server.ts";
import { Metrics } from "../../../src/serve/observe/metrics.ts";
import { Refusal } from "../../../src/serve/request/types.ts";
import { openSecurity } from "../../../src/serve/security/security.ts";
import { FakeReranker, startService } from "../../serve-fixture.ts";

const ends: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0)) await end();
});

describe("POST /v1/items", () => {
  it("registers items and reports the outcome", async () => {
    const service = await startService();
    ends.push(() => service.server.close());
    const items = [{ item_id: 7, text: "Heat (1995)" }, { text: "GoldenEye (1995)" }];
    const response = await service.post("/v1/items", { items }, { "x-request-id": "r1" });
    expect([response.status, await response.json()]).toEqual([
      200,
      { version: 2, registered: 2, unchanged: 0, known: 0, request_id: "r1" },
    ]);
    expect(service.reranker.registered).toEqual([{ itemId: "7", text: "Heat (1995)" }, { text: "GoldenEye (1995)" }]);
    expect(service.log.at(-1)).toMatchObject({ route: "/v1/items", status: 200, numCandidates: 2 });
  });

  it("refuses what is no list of items, other methods, strangers, and what the engine refuses", async () => {
    const service = await startService();
    ends.push(() => service.server.close());
    const status = async (body: unknown): Promise<number> => (await service.post("/v1/items", body)).status;
    expect(await status({})).toBe(400);
    expect(await status({ items: [{ item_id: "x" }] })).toBe(400);
    expect(await status({ items: [{ text: "A", colour: "red" }] })).toBe(400);
    expect(await status("{")).toBe(400);
    expect((await fetch(`${service.url}/v1/items`)).status).toBe(405);
    service.reranker.register = async () => {
      throw new Refusal("too_large", "at most 3 items may be registered");
    };
    const refused = await service.post("/v1/items", { items: [{ text: "A" }] });
    expect([refused.status, await refused.json()]).toMatchObject([413, { error: { code: "too_large" } }]);
  });
});

describe("RegisterItems", () => {
  it("is the same over gRPC, and GetModel has the version", async () => {
    const reranker = new FakeReranker();
    const server = await startGrpcServer({
      ...{ reranker, security: openSecurity(security.parse({})), metrics: new Metrics() },
      ...{ host: "127.0.0.1", port: 0, maxRequestBytes: 1 << 20, defaultDeadlineMs: 1_000 },
      ...{ log: () => {}, access: () => {} },
    });
    const client = new RerankClient(`127.0.0.1:${server.port}`);
    ends.push(
      async () => client.close(),
      () => server.drain(0),
    );
    const count = await client.registerItems({ items: [{ itemId: "x", text: "A" }, { text: "B" }] });
    expect(count).toEqual({ version: 2, registered: 2, unchanged: 0, known: 0 });
    expect(reranker.registered).toEqual([{ itemId: "x", text: "A" }, { text: "B" }]);
    expect(await client.getModel()).toMatchObject({ itemsVersion: 2, directPositionOdds: [1, 0.25] });
  });
});
