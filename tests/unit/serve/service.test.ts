/**
 * A run as it is served, and the service as one process: both transports, a swap under load,
 * what its workers are given.
 */
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { RerankClient } from "../../../src/client/index.ts";
import { openServedRun } from "../../../src/serve/model/served-run.ts";
import type { RerankAnswer } from "../../../src/serve/request/types.ts";
import { serve } from "../../../src/serve/serve.ts";
import { GatedWorker, makeRequest, makeRuns, until } from "../../service-fixture.ts";

const folder = mkdtempSync(join(tmpdir(), "gr2-service-"));
let root = "";
beforeAll(async () => {
  root = await makeRuns(folder, { first: ["decoding.evidence=true"] });
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const five = [10, 4, 20, 5, 7];

describe("a run", () => {
  it("is served by the system asked for, and only with settings that leave it what it is", async () => {
    expect((await openServedRun(root, "first", ["serve.system=rl"])).systems).toMatchObject({
      think: { name: "rl" },
      direct: { name: "rl_direct" },
    });
    expect(Object.keys((await openServedRun(root, "first", ["serve.system=direct"])).systems)).toEqual(["direct"]);
    await expect(openServedRun(root, "first", ["serve.system=best"])).rejects.toThrow(/no such system/);
    await expect(openServedRun(root, "first", ["prompts.historyItems=3"])).rejects.toThrow(
      /served with its own settings/,
    );
    await expect(openServedRun(root, "nobody", [])).rejects.toThrow(/no run "nobody"/);
  });

  it("may be named through a link; one that is unfinished or damaged is refused", async () => {
    cpSync(join(root, "first"), join(root, "second"), { recursive: true });
    symlinkSync("second", join(root, "live"));
    expect((await openServedRun(root, "live", [])).name).toBe("second");
    const file = join(root, "second", "stages", "sid", "catalogue.json");
    const content = readFileSync(file, "utf8");
    writeFileSync(file, content.replace("1", "2"));
    await expect(openServedRun(root, "second", [])).rejects.toThrow(/changed since the stage wrote them/);
    writeFileSync(file, content);
    const manifest = join(root, "second", "manifest.json");
    const whole = readFileSync(manifest, "utf8");
    writeFileSync(manifest, JSON.stringify({ ...JSON.parse(whole), stages: {} }));
    await expect(openServedRun(root, "second", [])).rejects.toThrow(/is not finished/);
    writeFileSync(manifest, whole);
    await openServedRun(root, "second", []);
  });
});

describe("the service", () => {
  it("answers over both transports, swaps runs under load without losing a request, and ends in order", async () => {
    const [one, two, link] = ["one", "two", "swapped"].map((name) => join(root, name)) as [string, string, string];
    for (const copy of [one, two]) cpSync(join(root, "first"), copy, { recursive: true });
    symlinkSync("one", link);
    const log: string[] = [];
    const workers: GatedWorker[] = [];
    const service = await serve({
      root,
      name: "swapped",
      overrides: [
        "serve.grpc.port=0",
        "serve.http.port=0",
        "serve.http.page=false",
        "serve.cache=0",
        "serve.system=rl",
      ],
      signal: new AbortController().signal,
      log: (message) => log.push(message),
      access: () => {},
      startWorker: async () => {
        const worker = new GatedWorker();
        workers.push(worker);
        return { client: worker, close: async () => {} };
      },
    });
    const client = new RerankClient(service.grpc.address);
    const request = { candidates: five.map((i) => ({ id: `c${i}`, itemId: `i${i}` })) };
    const body = { candidates: five.map((i) => ({ id: `c${i}`, item_id: `i${i}` })) };
    const overHttp = await fetch(`${service.http.url}/gr2/v1/rerank`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
    const { ranking } = (await overHttp.json()) as RerankAnswer;
    expect(ranking).toEqual((await client.rerank(request)).ranking);

    const versions = new Set<string>();
    let lostOnes = 0;
    let loading = true;
    const load = (async () => {
      while (loading) {
        const answer = await client.rerank(request);
        versions.add(answer.modelVersion);
        if (answer.fallback !== 0) lostOnes++;
      }
    })();
    await service.reload(); // nothing has changed
    expect(versions.size).toBe(1);
    writeFileSync(join(two, "stages", "sft", "summary.json"), "{}");
    rmSync(link);
    symlinkSync("two", link);
    await service.reload(); // damaged: the old one stays
    expect([versions.size, service.engine.model()?.name]).toEqual([1, "one"]);
    cpSync(join(root, "first", "stages", "sft"), join(two, "stages", "sft"), { recursive: true });
    await service.reload();
    await until(() => versions.size === 2);
    loading = false;
    await load;
    expect([lostOnes, service.engine.model()?.name]).toEqual([0, "two"]);
    expect(log.map((line) => line.split(":")[0])).toEqual(["reloaded", "reload failed, the old one stays", "reloaded"]);

    let open = (): void => {};
    for (const worker of workers) worker.gate = () => new Promise((resolve) => (open = resolve));
    const last = client.rerank(request);
    await until(() => service.engine.load().running > 0);
    const stopped = service.stop();
    open();
    await stopped;
    expect((await last).ranking.length).toBe(5);
    await expect(client.rerank(request, { timeoutMs: 2_000 })).rejects.toThrow();
    client.close();
  });

  it("gives its workers a prefix cache and counts what it spared", async () => {
    const worker = new GatedWorker();
    worker.reused = 2;
    const service = await serve({
      ...{ root, name: "first", signal: new AbortController().signal, log: () => {}, access: () => {} },
      overrides: [
        "serve.grpc.port=0",
        "serve.http.port=0",
        "serve.http.page=false",
        "serve.prefixCacheMb=3",
        "serve.system=rl",
      ],
      startWorker: async () => ({ client: worker, close: async () => {} }),
    });
    const counted = async (): Promise<Record<string, number>> => {
      const lines = (await (await fetch(`${service.http.url}/metrics`)).text()).split("\n");
      const series = lines.map((line) => /^gr2_prompt_tokens_total\{how="(\w+)"\} (\d+)$/.exec(line) ?? []);
      return Object.fromEntries(series.filter(([line]) => line).map(([, how, value]) => [how, Number(value)]));
    };
    const direct = await service.engine.rerank(makeRequest(five));
    expect(await counted()).toEqual({ computed: direct.tokens.prompt - 2, reused: 2 });
    await service.engine.rerank(makeRequest(five)); // remembered: no worker was asked
    const think = await service.engine.rerank(makeRequest(five, { mode: "think" }));
    expect(await counted()).toEqual({ computed: direct.tokens.prompt + think.tokens.prompt - 4, reused: 4 });
    expect(new Set(worker.prefixCaches)).toEqual(new Set([3 * 1024 * 1024]));
    await service.stop();
  });
});
