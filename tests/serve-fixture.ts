/** A service without a model: a re-ranker that turns the order around, and an HTTP server in front of it. */
import { http, limits, security } from "../src/config/schema/serve-http.ts";
import { createHttpServer, type HttpServer } from "../src/serve/http/server.ts";
import type { HttpAccess } from "../src/serve/observe/access.ts";
import { Metrics } from "../src/serve/observe/metrics.ts";
import { passOn, type Tracing } from "../src/serve/observe/trace.ts";
import type {
  ItemReference,
  RegisteredCount,
  RerankAnswer,
  RerankEvent,
  Reranker,
  RerankRequest,
  ServedModel,
} from "../src/serve/request/types.ts";
import { openSecurity, type Security } from "../src/serve/security/security.ts";

export const servedModel: ServedModel = {
  name: "fake",
  version: "fake@1",
  systems: { think: "rl", direct: "sft_direct" },
  recommendation: { system: "sft_direct", sentence: "Deploy sft_direct." },
  positionOdds: { think: [1, 0.5], direct: [1, 0.25] },
  lifts: { direct: { metric: "N@5", delta: 0.02, ciLow: 0.01, ciHigh: 0.03 } },
  hashes: { config: "c0", weights: "00", tokenizer: "70", data: "da" },
  numParameters: 7,
  modes: ["think", "direct"],
  limits: {
    maxCandidates: 100,
    maxThinkCandidates: 50,
    maxHistory: 1000,
    maxTextBytes: 4096,
    maxRequestBytes: 4 << 20,
    maxBatch: 64,
    maxItems: 1000,
    maxDeadlineMs: 60_000,
  },
};

/** Last becomes first; of n candidates the one at rank r (from 0) scores (n - r) / 10. */
export const reversed = (request: RerankRequest): RerankAnswer => {
  const n = request.candidates.length;
  return {
    ranking: request.candidates
      .map((c, position) => ({ position, id: c.id, score: (position + 1) / 10 }))
      .reverse()
      .slice(0, request.topN || n),
    reasoning: request.mode === "think" ? "it is reversed" : "",
    timings: { queue: 1, encode: 2, model: 3, total: 6 },
    tokens: { prompt: 40, generated: 2 },
    modelVersion: servedModel.version,
  };
};

/** Behaviour by default; a test replaces what it is about. */
export class FakeReranker implements Reranker {
  readonly requests: RerankRequest[] = [];
  signal: AbortSignal | undefined;
  answer: (request: RerankRequest, signal: AbortSignal | undefined) => RerankAnswer | Promise<RerankAnswer> = reversed;
  loaded: ServedModel | undefined = servedModel;

  shed: () => void = () => {};

  async rerank(request: RerankRequest, options: { signal?: AbortSignal } = {}): Promise<RerankAnswer> {
    this.requests.push(request);
    this.signal = options.signal;
    return await this.answer(request, options.signal);
  }

  async *stream(request: RerankRequest, options: { signal?: AbortSignal } = {}): AsyncGenerator<RerankEvent> {
    const answer = await this.rerank(request, options);
    if (answer.reasoning !== "") for (const text of answer.reasoning.split(/(?<= )/)) yield { kind: "reasoning", text };
    yield { kind: "answer", answer };
  }

  readonly registered: ItemReference[] = [];

  async register(items: readonly ItemReference[]): Promise<RegisteredCount> {
    this.registered.push(...items);
    return { version: this.registered.length, registered: items.length, unchanged: 0, known: 0 };
  }

  itemsVersion(): number {
    return this.registered.length;
  }

  model(): ServedModel | undefined {
    return this.loaded;
  }

  ready(): boolean {
    return this.loaded !== undefined;
  }

  load() {
    return { queued: 3, running: 2, workers: 2, workersReady: 1 };
  }

  get last(): RerankRequest {
    const request = this.requests.at(-1);
    if (!request) throw new Error("nothing was asked");
    return request;
  }
}

export interface TestService {
  readonly url: string;
  readonly port: number;
  readonly server: HttpServer;
  readonly security: Security;
  readonly reranker: FakeReranker;
  readonly log: HttpAccess[];
  post(path: string, body: unknown, headers?: Record<string, string>): Promise<Response>;
  /** The same, read; request id r-1 by default. */
  postJson(
    path: string,
    body: unknown,
    headers?: Record<string, string>,
  ): Promise<{ readonly status: number; readonly headers: Headers; readonly body: unknown }>;
}

type Overrides = Partial<Record<"http" | "security" | "limits", object>>;

export async function startService(
  overrides: Overrides = {},
  reranker = new FakeReranker(),
  tracing: Tracing = passOn,
): Promise<TestService> {
  const log: HttpAccess[] = [];
  const guard = openSecurity(security.parse(overrides.security ?? {}));
  const server = createHttpServer({
    reranker,
    security: guard,
    http: http.parse({ port: 0, keepAliveMs: 30_000, maxConnections: 500, ...overrides.http }),
    limits: limits.parse(overrides.limits ?? {}),
    metrics: new Metrics(),
    log: (record) => log.push(record),
    tracing,
  });
  const { url, port } = await server.listen();
  const post: TestService["post"] = (path, body, headers = {}) =>
    fetch(url + path, {
      method: "POST",
      headers: { "content-type": "application/json", ...headers },
      body: typeof body === "string" ? body : JSON.stringify(body),
    });
  const postJson: TestService["postJson"] = async (path, body, headers = { "x-request-id": "r-1" }) => {
    const response = await post(path, body, headers);
    return { status: response.status, headers: response.headers, body: (await response.json()) as unknown };
  };
  return { url, port, server, security: guard, reranker, log, post, postJson };
}
