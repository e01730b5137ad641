/** Every dialect, field by field: what it takes, what it answers, how it says no. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startService, type TestService } from "../../serve-fixture.ts";

let service: TestService;
beforeAll(async () => {
  service = await startService();
});
afterAll(() => service.server.close());

const post = (path: string, body: unknown, headers?: Record<string, string>) => service.postJson(path, body, headers);

describe("cohere", () => {
  it("v2 answers with places and scores, and no texts", async () => {
    const { status, body } = await post("/v2/rerank", {
      model: "rerank-v3.5",
      query: "Toy Story\nHeat",
      documents: ["a", "b", "c"],
      top_n: 2,
      max_tokens_per_doc: 4096,
    });
    expect(status).toBe(200);
    expect(body).toEqual({
      id: "r-1",
      results: [
        { index: 2, relevance_score: 0.3 },
        { index: 1, relevance_score: 0.2 },
      ],
      meta: { api_version: { version: "2", is_experimental: false }, billed_units: { search_units: 1 } },
    });
    expect(service.reranker.last).toEqual({
      history: [{ text: "Toy Story" }, { text: "Heat" }],
      candidates: [
        { id: "#0", text: "a" },
        { id: "#1", text: "b" },
        { id: "#2", text: "c" },
      ],
      topN: 2,
      mode: "direct",
      deadlineMs: 0,
    });
  });

  it("v1 is told from Jina by its model, its fields or its client, and gives documents back whole", async () => {
    const documents = [{ title: "A", text: "long", id: "x" }, "b"];
    const { body } = await post("/v1/rerank", {
      model: "rerank-english-v3.0",
      query: "q",
      documents,
      return_documents: true,
      rank_fields: ["title", "text"],
    });
    expect(body).toEqual({
      id: "r-1",
      results: [
        { index: 1, relevance_score: 0.2, document: { text: "b" } },
        { index: 0, relevance_score: 0.1, id: "x", document: { title: "A", text: "long", id: "x" } },
      ],
      meta: { api_version: { version: "1", is_experimental: false }, billed_units: { search_units: 1 } },
    });
    expect(service.reranker.last.candidates[0]).toEqual({ id: "x", text: "A\nlong" });
    const plain = { query: "q", documents: ["a"] };
    expect((await post("/v1/rerank", plain, { "x-fern-sdk-name": "cohere-ai" })).body).toHaveProperty("meta");
    expect((await post("/v1/rerank", plain)).body).not.toHaveProperty("meta");
  });

  it("says no with a message", async () => {
    const { status, body } = await post("/v2/rerank", { query: "q", documents: ["a"], top_n: 0 });
    expect(status).toBe(400);
    expect(body).toEqual({ id: "r-1", message: "top_n: Too small: expected number to be >=1" });
    expect(await post("/v2/rerank", { query: "q", documents: [] })).toMatchObject({
      status: 400,
      body: { message: "documents is empty: there is nothing to rank." },
    });
  });
});

describe("jina", () => {
  it("gives documents back unless told not to", async () => {
    const request = { model: "jina-reranker-v2-base-multilingual", query: "q", documents: ["a", { text: "b", id: 7 }] };
    expect((await post("/v1/rerank", { ...request, top_n: 5 })).body).toEqual({
      model: "fake",
      usage: { total_tokens: 42 },
      results: [
        { index: 1, relevance_score: 0.2, id: "7", document: { text: "b" } },
        { index: 0, relevance_score: 0.1, document: { text: "a" } },
      ],
    });
    expect((await post("/v1/rerank", { ...request, top_n: 1, return_documents: false })).body).toEqual({
      model: "fake",
      usage: { total_tokens: 42 },
      results: [{ index: 1, relevance_score: 0.2, id: "7" }],
    });
  });

  it("says no with a detail", async () => {
    expect(await post("/v1/rerank", { query: "q" })).toMatchObject({
      status: 422,
      body: { detail: "documents: Invalid input: expected array, received undefined" },
    });
  });
});

describe("vllm", () => {
  const expected = {
    id: "rerank-r-1",
    model: "fake",
    usage: { total_tokens: 42 },
    results: [
      { index: 1, document: { text: "b" }, relevance_score: 0.2 },
      { index: 0, document: { text: "a" }, relevance_score: 0.1 },
    ],
  };

  it("answers at all its paths", async () => {
    const request = { query: "q", documents: ["a", "b"], top_n: 0 };
    expect((await post("/rerank", request)).body).toEqual(expected);
    expect((await post("/v1/rerank", { ...request, truncate_prompt_tokens: -1 })).body).toEqual(expected);
    expect((await post("/v2/rerank", { ...request, use_activation: true })).body).toEqual(expected);
  });

  it("says no with an error object", async () => {
    expect(await post("/rerank", { query: 3, documents: ["a"] })).toMatchObject({
      status: 400,
      body: { error: { message: "query: Invalid input", type: "BadRequestError", param: null, code: 400 } },
    });
  });
});

describe("tei", () => {
  it("answers with a bare list", async () => {
    expect((await post("/rerank", { query: "q", texts: ["a", "b"] })).body).toEqual([
      { index: 1, score: 0.2 },
      { index: 0, score: 0.1 },
    ]);
    const { body } = await post("/rerank", { query: "q", texts: ["a"], return_text: true, raw_scores: true });
    expect(body).toEqual([{ index: 0, text: "a", score: Math.log(0.1) }]);
  });

  it("cuts a text only if told to, and says how many", async () => {
    const long = `${"x".repeat(4095)}äö`; // 4,099 bytes; byte 4,096 is the middle of ä
    const refused = await post("/rerank", { query: "q", texts: [long] });
    expect(refused.status).toBe(413);
    expect(refused.body).toEqual({
      error: "texts[0].text has 4099 bytes; at most 4096 are allowed.",
      error_type: "Validation",
    });
    const cut = await post("/rerank", { query: "q", texts: [long, "b"], truncate: true });
    expect(cut.headers.get("x-gr2-truncated")).toBe("1");
    expect(service.reranker.last.candidates[0]?.text).toBe("x".repeat(4095));
    await post("/rerank", { query: "q", texts: [long], truncate: true, truncation_direction: "left" });
    expect(service.reranker.last.candidates[0]?.text).toBe(`${"x".repeat(4092)}äö`);
  });

  it("says no with error and error_type", async () => {
    expect(await post("/rerank", { query: "q", texts: [] })).toMatchObject({
      status: 400,
      body: { error: "`texts` cannot be empty", error_type: "Empty" },
    });
    expect(await post("/rerank", { texts: ["a"] })).toMatchObject({ status: 422, body: { error_type: "Validation" } });
  });
});

describe("our own", () => {
  it("takes and gives all there is", async () => {
    const { body } = await post("/gr2/v1/rerank", {
      history: ["50", { item_id: 181 }, { text: "Heat (1995)" }],
      candidates: [
        { id: "a", item_id: "1", score: 2 },
        { id: 9, text: "Nine", score: 1 },
      ],
      top_n: 1,
      mode: "think",
      deadline_ms: 250,
    });
    expect(body).toEqual({
      ranking: [{ place: 1, id: "9", score: 0.2 }],
      thought: "it is reversed",
      fallback: null,
      timings_ms: { queue: 1, encode: 2, model: 3, total: 6 },
      tokens: { prompt: 40, generated: 2 },
      model_version: "fake@1",
      request_id: "r-1",
    });
    expect(service.reranker.last).toEqual({
      history: [{ itemId: "50" }, { itemId: "181" }, { text: "Heat (1995)" }],
      candidates: [
        { id: "a", itemId: "1", score: 2 },
        { id: "9", text: "Nine", score: 1 },
      ],
      topN: 1,
      mode: "think",
      deadlineMs: 250,
    });
  });

  it("is strict", async () => {
    const candidates = [{ id: "a", text: "A" }];
    const cases: [object, string][] = [
      [{ candidates, topn: 3 }, 'the body: Unrecognized key: "topn"'],
      [{ candidates: [{ id: "a", text: "A", txt: "" }] }, 'candidates[0]: Unrecognized key: "txt"'],
      [
        { candidates: [...candidates, ...candidates] },
        "candidates[1].id equals that of candidates[0]; ids must be unique.",
      ],
      [{ candidates: [{ id: "a" }] }, "candidates[0] has neither an item id nor a text."],
      [{ candidates: [{ id: "", text: "A" }] }, "candidates[0].id is empty."],
      [
        { candidates: [{ id: "b", text: "B", score: 1 }, ...candidates] },
        "1 of 2 candidates have a score; all must, or none.",
      ],
      [{ candidates, history: [{}] }, "history[0] has neither an item id nor a text."],
      [{ candidates, history: [{ text: 5 }] }, "history[0].text: Invalid input: expected string, received number"],
    ];
    for (const [request, message] of cases)
      expect(await post("/gr2/v1/rerank", request)).toMatchObject({
        status: 400,
        body: { error: { code: "invalid", message, request_id: "r-1" } },
      });
    const tooLate = await post("/gr2/v1/rerank", { candidates, deadline_ms: 60_001 });
    expect(tooLate).toMatchObject({ status: 413, body: { error: { message: "deadline_ms may be at most 60000." } } });
  });

  it("streams the thought and then the answer", async () => {
    const response = await service.post(
      "/gr2/v1/rerank",
      { candidates: [{ id: "a", text: "A" }], mode: "think", stream: true },
      { "x-request-id": "r-1" },
    );
    expect(response.headers.get("content-type")).toBe("text/event-stream");
    const blocks = (await response.text()).split("\n\n").filter(Boolean);
    expect(blocks.slice(0, 3)).toEqual([
      'event: thought\ndata: {"text":"it "}',
      'event: thought\ndata: {"text":"is "}',
      'event: thought\ndata: {"text":"reversed"}',
    ]);
    expect(blocks).toHaveLength(4);
    const [name, data = ""] = (blocks[3] ?? "").split("\n");
    expect(name).toBe("event: answer");
    expect(JSON.parse(data.replace(/^data: /, ""))).toMatchObject({ ranking: [{ id: "a" }], request_id: "r-1" });
  });
});
