/** Starting and ending: ports before models, readiness, a lame duck that still answers. */
import { mkdtempSync, rmSync } from "node:fs";
import { createServer as createHttpServer } from "node:http";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type ServeOptions, type Service, serve } from "../../../src/serve/serve.ts";
import { GatedWorker, makeRuns } from "../../service-fixture.ts";

const folder = mkdtempSync(join(tmpdir(), "gr2-lifecycle-"));
let root = "";
beforeAll(async () => {
  root = await makeRuns(folder, { first: [] });
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const begin = (set: readonly string[], change: Partial<ServeOptions> = {}): Promise<Service> =>
  serve({
    ...{ root, name: "first", signal: new AbortController().signal, log: () => {}, access: () => {} },
    overrides: ["serve.grpc.port=0", "serve.http.port=0", "serve.http.page=false", ...set],
    startWorker: async () => ({ client: new GatedWorker(), close: async () => {} }),
    ...change,
  });

/** A port that is free now. */
const freePort = (): Promise<number> =>
  new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });

const body = JSON.stringify({ candidates: [{ id: "a", item_id: "i1" }] });
const ask = async (url: string): Promise<number> =>
  (await fetch(`${url}/gr2/v1/rerank`, { method: "POST", headers: { "content-type": "application/json" }, body }))
    .status;
const ready = async (url: string): Promise<number> => (await fetch(`${url}/readyz`)).status;

describe("spans", () => {
  it("go to the collector of serve.otlp, the last ones before the service ends", async () => {
    const paths: (string | undefined)[] = [];
    const collector = createHttpServer((req, res) => {
      paths.push(req.url);
      req.resume().on("end", () => res.end("{}"));
    });
    const { port } = await new Promise<{ port: number }>((resolve) => {
      collector.listen(0, "127.0.0.1", () => resolve(collector.address() as { port: number }));
    });
    const service = await begin([`serve.otlp=http://127.0.0.1:${port}`]);
    expect(await ask(service.http.url)).toBe(200);
    await service.stop();
    expect(paths).toEqual(["/v1/traces"]);
    collector.close();
  });
});

describe("a start", () => {
  it("listens before the model is loaded, says so, and answers once it is", async () => {
    const port = await freePort();
    const url = `http://127.0.0.1:${port}`;
    let load = (): void => {};
    const loaded = new Promise<void>((resolve) => (load = resolve));
    const starting = begin([`serve.http.port=${port}`], {
      startWorker: async () => {
        await loaded;
        return { client: new GatedWorker(), close: async () => {} };
      },
    });
    for (let i = 0; i < 500 && (await ready(url).catch(() => 0)) === 0; i++)
      await new Promise((r) => setTimeout(r, 10));
    expect([(await fetch(`${url}/healthz`)).status, await ready(url), await ask(url)]).toEqual([200, 503, 503]);
    load();
    const service = await starting;
    expect([await ready(url), await ask(url)]).toEqual([200, 200]);
    await service.stop();
  });

  it("ends at once if a port is taken, and leaves no worker and no other port behind", async () => {
    const busy = await begin([]);
    const free = await freePort();
    let started = 0;
    const startWorker = async () => {
      started++;
      return { client: new GatedWorker(), close: async () => {} };
    };
    for (const taken of [`serve.http.port=${busy.http.port}`, `serve.grpc.port=${busy.grpc.port}`])
      await expect(begin([`serve.http.port=${free}`, taken], { startWorker }), taken).rejects.toThrow(
        /cannot listen on/,
      );
    expect(started).toBe(0);
    await expect(fetch(`http://127.0.0.1:${free}/healthz`)).rejects.toThrow();
    await busy.stop();
  });

  it("that fails closes its ports and its worker", async () => {
    const port = await freePort();
    let closed = 0;
    const startWorker = async () => ({ client: new GatedWorker(), close: async () => void closed++ });
    // A run that cannot be served: its worker has started by then.
    const failing = begin([`serve.http.port=${port}`, "serve.system=nonsense"], { startWorker });
    await expect(failing).rejects.toThrow(/no such system/);
    expect(closed).toBe(1);
    await expect(fetch(`http://127.0.0.1:${port}/healthz`)).rejects.toThrow();
  });
});

describe("an end", () => {
  it("first tells load balancers and answers on, then refuses", async () => {
    const service = await begin(["serve.lameDuckMs=600"]);
    const { url } = service.http;
    expect([await ready(url), await ask(url)]).toEqual([200, 200]);
    const asked = performance.now();
    const stopped = service.stop({ lameDuck: true });
    const seen: number[][] = [];
    while (performance.now() - asked < 400) seen.push([await ready(url), await ask(url)]);
    for (const statuses of seen) expect(statuses).toEqual([503, 200]);
    await stopped;
    expect(performance.now() - asked).toBeGreaterThanOrEqual(590);
    await expect(fetch(`${url}/healthz`)).rejects.toThrow();
  });

  it("is immediate if nobody needs to be told", async () => {
    const service = await begin(["serve.lameDuckMs=60000"]);
    const asked = performance.now();
    await service.stop();
    expect(performance.now() - asked).toBeLessThan(10_000);
  });
});
