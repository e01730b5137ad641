/**
 * What the service says of itself: metrics, the OpenAPI document, the try-it page. And the command that makes tokens.
 */
import { execFile, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { serveTokenNew } from "../../../src/cli/serve-token.ts";
import { repositoryRoot } from "../../../src/core/paths.ts";
import { findToken, readTokens } from "../../../src/serve/security/tokens.ts";
import { reversed, startService, type TestService } from "../../serve-fixture.ts";

let service: TestService;
beforeAll(async () => {
  service = await startService();
});
afterAll(() => service.server.close());

describe("/metrics", () => {
  it("counts calls, answers, times and tokens in Prometheus' format", async () => {
    const one = { query: "q", documents: ["a"] };
    await service.post("/v2/rerank", one);
    service.reranker.answer = (request) => ({ ...reversed(request), fallback: "worker_lost" });
    await service.post("/v2/rerank", one);
    await service.post("/v2/rerank", { ...one, documents: [] });
    for (const path of ["/a", "/b", "/c?x=1"]) await fetch(service.url + path);
    const response = await fetch(`${service.url}/metrics`);
    expect(response.headers.get("content-type")).toBe("text/plain; version=0.0.4; charset=utf-8");
    const text = await response.text();
    const value = (series: string): number => {
      const line = text.split("\n").find((l) => l.startsWith(`${series} `));
      return line === undefined ? Number.NaN : Number(line.slice(series.length + 1));
    };
    const labels = 'transport="http",route="/v2/rerank"';
    expect(value(`gr2_requests_total{${labels},status="200"}`)).toBe(2);
    expect(value(`gr2_requests_total{${labels},status="400"}`)).toBe(1);
    expect(value('gr2_requests_total{transport="http",route="unknown",status="404"}')).toBe(3);
    expect(value('gr2_answers_total{transport="http",route="/v2/rerank",mode="direct",fallback="none"}')).toBe(1);
    expect(value('gr2_answers_total{transport="http",route="/v2/rerank",mode="direct",fallback="worker_lost"}')).toBe(
      1,
    );
    expect(value('gr2_tokens_total{kind="prompt"}')).toBe(80); // twice 40
    // Stage times are 2 ms twice: neither is within 1 ms, both are within 2.5.
    expect(value('gr2_stage_seconds_bucket{mode="direct",stage="encode",le="0.001"}')).toBe(0);
    expect(value('gr2_stage_seconds_bucket{mode="direct",stage="encode",le="0.0025"}')).toBe(2);
    expect(value('gr2_stage_seconds_bucket{mode="direct",stage="encode",le="+Inf"}')).toBe(2);
    expect(value('gr2_stage_seconds_sum{mode="direct",stage="encode"}')).toBeCloseTo(0.004);
    expect(value(`gr2_request_seconds_count{${labels}}`)).toBe(3);
    expect([value("gr2_ready"), value("gr2_queued"), value("gr2_workers_ready")]).toEqual([1, 3, 1]);
    expect(value('gr2_model_info{name="fake",version="fake@1"}')).toBe(1);
    expect(value("process_resident_memory_bytes")).toBeGreaterThan(1e6);
    expect(value("process_open_fds")).toBeGreaterThan(3);
    expect(value("process_start_time_seconds") * 1000).toBeCloseTo(performance.timeOrigin, -1);
    expect(value('gr2_refusals_total{transport="http",route="/v2/rerank",reason="invalid"}')).toBe(1);
    expect(value('gr2_answer_cache_total{mode="direct",result="miss"}')).toBe(1); // a fallback is neither
    for (const line of text.trimEnd().split("\n"))
      expect(line).toMatch(/^(# (HELP|TYPE) \w+ .+|\w+(\{(\w+="[^"]*",?)+\})? -?[\d.e+-]+)$/);
  });
});

describe("/metrics as OpenMetrics", () => {
  it("has every family's help, counters named without _total, and an end", async () => {
    await service.post("/v2/rerank", { query: "q", documents: ["a"] });
    const response = await fetch(`${service.url}/metrics`, {
      headers: { accept: "application/openmetrics-text; version=1.0.0" },
    });
    expect(response.headers.get("content-type")).toBe("application/openmetrics-text; version=1.0.0; charset=utf-8");
    const text = await response.text();
    expect(text.endsWith("\n# EOF\n")).toBe(true);
    const types = text.split("\n").flatMap((line) => (line.startsWith("# TYPE ") ? [line.split(" ")] : []));
    expect(types.map(([, , name]) => name)).toEqual([...new Set(types.map(([, , name]) => name))]);
    for (const [, , name, type] of types) {
      expect(text).toMatch(new RegExp(`^# HELP ${name} [A-Z1].*\\.$`, "m")); // a sentence, not the name again
      if (type === "counter") expect(text).toMatch(new RegExp(`^${name}_total[{ ]`, "m"));
    }
  });
});

describe("/openapi.json", () => {
  it("describes every path with the schemas that read it", async () => {
    interface Operation {
      readonly requestBody?: { readonly content: Record<string, { readonly schema: Record<string, unknown> }> };
      readonly responses: Record<string, unknown>;
    }
    const document = (await (await fetch(`${service.url}/openapi.json`)).json()) as {
      openapi: string;
      paths: Record<string, { post?: Operation; get?: Operation }>;
    };
    expect(document.openapi).toBe("3.1.0");
    expect(Object.keys(document.paths).sort()).toEqual(
      [
        ...["/", "/v1/items", "/gr2/v1/model", "/gr2/v1/rerank", "/healthz", "/metrics", "/openapi.json"],
        ...["/readyz", "/rerank", "/v1/rerank", "/v2/rerank", "/score", "/v1/score", "/infinity/rerank"],
        ...["/health", "/ping", "/version", "/info", "/models", "/v1/models"],
      ].sort(),
    );
    const own = document.paths["/gr2/v1/rerank"]?.post;
    const schema = own?.requestBody?.content["application/json"]?.schema;
    expect(schema).toMatchObject({
      type: "object",
      required: ["candidates"],
      additionalProperties: false,
      properties: { mode: { enum: ["think", "direct"], default: "direct" }, top_n: { default: 0, minimum: 0 } },
    });
    expect(Object.keys(own?.responses ?? {})).toEqual(["200", "400", "401", "413", "415", "429", "500", "503"]);
    expect(Object.keys(document.paths["/rerank"]?.post?.responses ?? {})).toContain("424");
    expect(document.paths["/rerank"]?.post?.requestBody?.content["application/json"]?.schema.anyOf).toHaveLength(3);
  });
});

describe("the page", () => {
  it("holds all it needs, and its policy lets nothing else run", async () => {
    const response = await fetch(service.url);
    const html = await response.text();
    const policy = response.headers.get("content-security-policy") ?? "";
    for (const tag of ["style", "script"] as const) {
      const blocks = [...html.matchAll(new RegExp(`<${tag}>([\\s\\S]*?)</${tag}>`, "g"))].map((m) => m[1] ?? "");
      expect(blocks).toHaveLength(1);
      const hash = createHash("sha256")
        .update(blocks[0] ?? "")
        .digest("base64");
      expect(policy).toContain(`${tag}-src 'sha256-${hash}'`);
    }
    expect(policy).toMatch(/^default-src 'none';/);
    expect(policy).not.toMatch(/unsafe|\*/);
    expect(html).not.toMatch(/https?:|innerHTML|<link|<img|\son\w+=|\sstyle=|src=/);
    expect(() => new Function(/<script>([\s\S]*?)<\/script>/.exec(html)?.[1] ?? "")).not.toThrow();
  });

  it("can be switched off", async () => {
    const quiet = await startService({ http: { page: false } });
    expect((await fetch(quiet.url)).status).toBe(404);
    await quiet.server.close();
  });
});

describe.skipIf(spawnSync("curl", ["--version"]).error !== undefined)("docs/serving-http.md", () => {
  it("has curl lines that work as pasted", async () => {
    const text = readFileSync(join(repositoryRoot, "docs/serving-http.md"), "utf8");
    const blocks = [...text.matchAll(/```sh\n(curl [\s\S]*?)```/g)].map((m) => m[1] ?? "");
    expect(blocks).toHaveLength(4);
    const documented = await startService();
    for (const block of blocks) {
      const here = block.replaceAll("http://127.0.0.1:8080", documented.url);
      await promisify(execFile)("bash", ["-ec", here]);
    }
    expect(documented.log.map((r) => [r.status, r.dialect || r.route])).toEqual([
      [200, "gr2"],
      [200, "gr2"],
      [200, "cohere v2"],
      [200, "jina"],
      [200, "tei"],
      ...["/gr2/v1/model", "/healthz", "/readyz", "/metrics"].map((route) => [200, route]),
    ]);
    await documented.server.close();
  });
});

describe("gr2 serve token new", () => {
  it("prints the token once and stores its hash, for nobody else to read", () => {
    const file = join(mkdtempSync(join(tmpdir(), "gr2-token-")), "tokens");
    const [first = ""] = serveTokenNew("shop", { file }).split("\n");
    writeFileSync(file, readFileSync(file, "utf8").trimEnd()); // an editor that leaves no last line break
    const [second = ""] = serveTokenNew("app", { file, rate: 3 }).split("\n");
    const stored = readTokens(file);
    expect(findToken(stored, first)?.name).toBe("shop");
    expect(findToken(stored, second)).toMatchObject({ name: "app", requestsPerSecond: 3 });
    expect(readFileSync(file, "utf8")).not.toContain(first);
    expect(statSync(file).mode & 0o077).toBe(0);
    const [third = "", , , line = ""] = serveTokenNew("by-hand", {}).split("\n");
    writeFileSync(file, line);
    expect(findToken(readTokens(file), third)?.name).toBe("by-hand");
    writeFileSync(file, "something else\n");
    expect(() => serveTokenNew("shop", { file })).toThrow(/tokens:1 is not a token line/);
    expect(readFileSync(file, "utf8")).toBe("something else\n");
  });
});
