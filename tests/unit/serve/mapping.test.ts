/** What all dialects share: queries, documents, headers, the caller's own order, refusals. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Refusal, type RefusalCode } from "../../../src/serve/request/types.ts";
import { FakeReranker, reversed, startService, type TestService } from "../../serve-fixture.ts";

let service: TestService;
beforeAll(async () => {
  service = await startService();
});
afterAll(() => service.server.close());

const post = (path: string, body: unknown, headers?: Record<string, string>) => service.postJson(path, body, headers);

describe("a query", () => {
  const readHistory = async (query: unknown) => {
    await post("/v2/rerank", { query, documents: ["a"] });
    return service.reranker.last.history;
  };

  it("is a history as JSON, as an object or in a string", async () => {
    const expected = [{ itemId: "50" }, { itemId: "3" }, { itemId: "i", text: "T" }];
    const history = ["50", 3, { item_id: "i", text: "T" }];
    expect(await readHistory({ history })).toEqual(expected);
    expect(await readHistory(JSON.stringify({ history }))).toEqual(expected);
    expect(await readHistory('{"history": []}')).toEqual([]);
    expect(await readHistory("")).toEqual([]);
  });

  it("is plain text if it is anything else, one item a line", async () => {
    expect(await readHistory(" Heat \r\n\n{braces}")).toEqual([{ text: " Heat " }, { text: "{braces}" }]);
    expect(await readHistory('{"history": broken')).toEqual([{ text: '{"history": broken' }]);
    expect(await readHistory('{"titles": ["\\"history\\""]}')).toEqual([{ text: '{"titles": ["\\"history\\""]}' }]);
  });

  it("that is a history must be a good one", async () => {
    expect(await post("/v2/rerank", { query: '{"history": [{"txt": 1}]}', documents: ["a"] })).toMatchObject({
      status: 400,
      body: { message: 'history[0]: Unrecognized key: "txt"' },
    });
    expect(await post("/v2/rerank", { query: '{"history": [{}]}', documents: ["a"] })).toMatchObject({
      status: 400,
      body: { message: "query.history[0] has neither an item id nor a text." },
    });
  });
});

describe("a document", () => {
  it("is never read as JSON: titles are written by strangers", async () => {
    await post("/v2/rerank", { query: "q", documents: ['{"item_id": "50"}'] });
    expect(service.reranker.last.candidates).toEqual([{ id: "#0", text: '{"item_id": "50"}' }]);
  });

  it("has numbers, lists and objects of rank_fields as text; a field that no document has is refused", async () => {
    const documents = [
      { name: "Heat", year: 1995, tags: ["crime", "drama"], by: { director: "Mann", year: null } },
      { name: "Heat", year: 1932, tags: [], remake: false },
      { year: 7 },
      "plain",
    ];
    const ask = (rank_fields: string[]) => post("/v1/rerank", { query: "q", documents, rank_fields });
    expect((await ask(["name", "year", "tags", "by", "remake"])).status).toBe(200);
    expect(service.reranker.last.candidates.map((c) => c.text)).toEqual([
      "Heat\n1995\ncrime, drama\nMann",
      "Heat\n1932\nfalse",
      "7",
      "plain",
    ]);
    expect(await ask(["name", "yaer"])).toMatchObject({
      status: 400,
      body: { message: "rank_fields[1] names a field that no document has." },
    });
  });

  it("with a blank text does not fail the request, unless all are; one without any text does", async () => {
    expect((await post("/v2/rerank", { query: "q", documents: ["a", "", { text: " " }] })).status).toBe(200);
    expect((await post("/rerank", { query: "q", texts: ["", "a"] })).status).toBe(200);
    const fields = { query: "q", documents: [{ name: "a" }, { name: "" }, { other: 1 }], rank_fields: ["name"] };
    expect((await post("/v1/rerank", fields)).status).toBe(200);
    expect(await post("/v2/rerank", { query: "q", documents: ["", " "] })).toMatchObject({
      status: 400,
      body: { message: "The texts of all documents are blank, including documents[0]." },
    });
    expect(await post("/v2/rerank", { query: "q", documents: ["a", { name: "b" }] })).toMatchObject({
      status: 400,
      body: { message: "documents[1] has neither an item id nor a text." },
    });
  });

  it("may name an item, a score and an id of the caller's", async () => {
    await post("/rerank", { query: "q", texts: [{ item_id: 50, score: 1.5, id: "x", colour: "red" }] });
    expect(service.reranker.last.candidates).toEqual([{ id: "x", itemId: "50", score: 1.5 }]);
  });
});

describe("mode and deadline", () => {
  it("come by header where the body has no field", async () => {
    await post("/v2/rerank", { query: "q", documents: ["a"] }, { "x-gr2-mode": "think", "x-gr2-deadline-ms": "90" });
    expect(service.reranker.last).toMatchObject({ mode: "think", deadlineMs: 90 });
    const bad = { "x-gr2-mode": "dream" };
    expect((await post("/v2/rerank", { query: "q", documents: ["a"] }, bad)).status).toBe(400);
    expect((await post("/rerank", { query: "q", texts: ["a"] }, { "x-gr2-deadline-ms": "-1" })).status).toBe(422);
  });
});

describe("what the candidates' order means", () => {
  it("is said by a header or by our own body; absent, the service decides", async () => {
    const meant = async (path: string, body: object, headers: Record<string, string> = {}) => {
      expect((await post(path, body, headers)).status).toBe(200);
      return service.reranker.last.candidateOrder;
    };
    const own = { candidates: [{ id: "a", text: "A" }] };
    const cohere = { query: "q", documents: ["a"] };
    expect(await meant("/v2/rerank", cohere)).toBeUndefined();
    expect(await meant("/v2/rerank", cohere, { "x-gr2-candidate-order": "arbitrary" })).toBe("arbitrary");
    expect(await meant("/gr2/v1/rerank", own, { "x-gr2-candidate-order": "arbitrary" })).toBe("arbitrary");
    expect(await meant("/gr2/v1/rerank", { ...own, candidate_order: "ranked" })).toBe("ranked");
    expect((await post("/v2/rerank", cohere, { "x-gr2-candidate-order": "no" })).status).toBe(400);
    expect((await post("/gr2/v1/rerank", { ...own, candidate_order: "no" })).status).toBe(400);
  });
});

describe("the caller's own order", () => {
  it("is not wanted where a header or our own body says so; absent, the service decides", async () => {
    const wanted = async (path: string, body: object, headers: Record<string, string> = {}) => {
      expect((await post(path, body, headers)).status).toBe(200);
      return service.reranker.last?.onFallback;
    };
    const own = { candidates: [{ id: "a", text: "A" }] };
    for (const [path, body] of [
      ["/v2/rerank", { query: "q", documents: ["a"] }],
      ["/v1/rerank", { query: "q", documents: ["a"] }],
      ["/rerank", { query: "q", texts: ["a"] }],
      ["/gr2/v1/rerank", own],
    ] as const) {
      expect(await wanted(path, body, { "x-gr2-on-fallback": "error" }), path).toBe("error");
      expect(await wanted(path, body), path).toBeUndefined();
    }
    expect(await wanted("/gr2/v1/rerank", { ...own, on_fallback: "own-order" }, { "x-gr2-on-fallback": "error" })).toBe(
      "own-order",
    );
    expect((await post("/v2/rerank", { query: "q", documents: ["a"] }, { "x-gr2-on-fallback": "no" })).status).toBe(
      400,
    );
    expect((await post("/gr2/v1/rerank", { ...own, on_fallback: "no" })).status).toBe(400);
  });

  it("that was not wanted is each dialect's own error, with the reason in the header", async () => {
    const reranker = new FakeReranker();
    reranker.answer = () => {
      throw new Refusal("unavailable", "the model gave no answer (deadline)", { fallback: "deadline" });
    };
    const failing = await startService({}, reranker);
    try {
      for (const [path, body] of [
        ["/v2/rerank", { query: "q", documents: ["a"] }],
        ["/rerank", { query: "q", texts: ["a"] }],
        ["/gr2/v1/rerank", { candidates: [{ id: "a", text: "A" }] }],
      ] as const) {
        const answer = await failing.post(path, body);
        expect([answer.status, answer.headers.get("x-gr2-fallback")], path).toEqual([503, "deadline"]);
        expect(await answer.text()).toContain("the model gave no answer (deadline)");
      }
    } finally {
      await failing.server.close();
    }
  });

  it("is marked in every dialect's headers and body", async () => {
    const reranker = new FakeReranker();
    reranker.answer = (request) => ({ ...reversed(request), fallback: "deadline" });
    const falling = await startService({}, reranker);
    try {
      const bodies: [string, object][] = [
        ["/v2/rerank", { query: "q", documents: ["a"] }],
        ["/v1/rerank", { query: "q", documents: ["a"] }],
        ["/rerank", { query: "q", texts: ["a"] }],
        ["/rerank", { query: "q", documents: ["a"] }],
        ["/gr2/v1/rerank", { candidates: [{ id: "a", text: "A" }] }],
      ];
      for (const [path, body] of bodies)
        expect((await falling.post(path, body)).headers.get("x-gr2-fallback"), path).toBe("deadline");
      const cohere = (await (await falling.post("/v2/rerank", bodies[0]?.[1])).json()) as object;
      expect(cohere).toMatchObject({ meta: { warnings: ["fallback: deadline; the order is the request's"] } });
      expect(await (await falling.post("/gr2/v1/rerank", bodies[4]?.[1])).json()).toMatchObject({
        fallback: "deadline",
      });
      expect(falling.log.at(-1)).toMatchObject({ status: 200, fallback: "deadline" });
      const postAndRead = async (path: string, body: unknown): Promise<unknown> =>
        (await falling.post(path, body as object)).json();
      expect(await postAndRead("/v1/rerank", bodies[1]?.[1])).toMatchObject({ fallback: "deadline" }); // Jina
      expect(await postAndRead("/rerank", bodies[2]?.[1])).toMatchObject([{ index: 0, fallback: "deadline" }]); // TEI
      expect(await postAndRead("/rerank", bodies[3]?.[1])).toMatchObject({ fallback: "deadline" }); // vLLM
      const v1 = await postAndRead("/v1/rerank", { ...bodies[1]?.[1], model: "rerank-english-v3.0" });
      expect(v1).toMatchObject({ meta: { warnings: ["fallback: deadline; the order is the request's"] } });
    } finally {
      await falling.server.close();
    }
  });
});

describe("a refusal", () => {
  /** [refusal, status in gr2 and Cohere and vLLM, Jina, TEI, TEI's error_type] */
  const table: [RefusalCode | "bug", number, number, number, string][] = [
    ["invalid", 400, 422, 422, "Validation"],
    ["too_large", 413, 413, 413, "Validation"],
    ["rate_limited", 429, 429, 429, "Overloaded"],
    ["overloaded", 429, 429, 429, "Overloaded"],
    ["unavailable", 503, 503, 503, "Unhealthy"],
    ["bug", 500, 500, 424, "Backend"],
  ];

  it("has its status, its shape and its time to wait in every dialect", async () => {
    const reranker = new FakeReranker();
    const refusing = await startService({}, reranker);
    try {
      for (const [code, status, jina, tei, type] of table) {
        reranker.answer = () => {
          throw code === "bug"
            ? new TypeError("Toy Story is undefined")
            : new Refusal(code, "no.", { retryAfterMs: 1200 });
        };
        const message = code === "bug" ? "The service failed to answer; look up the request's id in its log." : "no.";
        const ask = async (path: string, body: unknown) => {
          const response = await refusing.post(path, body, { "x-request-id": "r-1" });
          expect(response.headers.get("retry-after"), code).toBe(code === "bug" ? null : "2");
          return { status: response.status, body: (await response.json()) as unknown };
        };
        const documents = { query: "q", documents: ["a"] };
        expect(await ask("/v2/rerank", documents)).toEqual({ status, body: { id: "r-1", message } });
        expect(await ask("/v1/rerank", documents)).toEqual({ status: jina, body: { detail: message } });
        const errorOfVllm = { message, type: expect.stringMatching(/Error$/), param: null, code: status };
        expect(await ask("/rerank", documents)).toEqual({ status, body: { error: errorOfVllm } });
        expect(await ask("/rerank", { query: "q", texts: ["a"] })).toEqual({
          status: tei,
          body: { error: message, error_type: type },
        });
        const own = code === "bug" ? "internal" : code;
        expect(await ask("/gr2/v1/rerank", { candidates: [{ id: "a", text: "A" }] })).toEqual({
          status,
          body: { error: { code: own, message, request_id: "r-1" } },
        });
      }
      const bug = refusing.log.at(-1);
      expect(bug?.trace).toMatch(/^TypeError \| at /);
      expect(JSON.stringify(refusing.log)).not.toContain("Toy Story");
    } finally {
      await refusing.server.close();
    }
  });
});
