/** Cohere's own client library, unchanged but for the address it calls. */
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CohereClient, CohereClientV2, CohereError } from "cohere-ai";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Refusal } from "../../../src/serve/request/types.ts";
import { newToken } from "../../../src/serve/security/tokens.ts";
import { reversed, startService, type TestService } from "../../serve-fixture.ts";

const { token, line } = newToken("shop");
let service: TestService;
beforeAll(async () => {
  const tokens = join(mkdtempSync(join(tmpdir(), "gr2-cohere-")), "tokens");
  writeFileSync(tokens, line);
  service = await startService({ security: { tokens } });
});
afterAll(() => service.server.close());

describe("cohere-ai", () => {
  it("re-ranks by v2", async () => {
    const client = new CohereClientV2({ environment: service.url, token });
    const answer = await client.rerank({ model: "rerank-v3.5", query: "q", documents: ["a", "b", "c"], topN: 2 });
    expect(answer.results).toEqual([
      { index: 2, relevanceScore: 0.3 },
      { index: 1, relevanceScore: 0.2 },
    ]);
    expect(answer.meta?.apiVersion?.version).toBe("2");
    expect(service.reranker.last.topN).toBe(2);
  });

  it("re-ranks by v1, which it says by its headers", async () => {
    const client = new CohereClient({ environment: service.url, token });
    const answer = await client.rerank({ query: "q", documents: ["a", { text: "b" }], returnDocuments: true });
    expect(answer.results).toEqual([
      { index: 1, relevanceScore: 0.2, document: { text: "b" } },
      { index: 0, relevanceScore: 0.1, document: { text: "a" } },
    ]);
    expect(answer.meta?.billedUnits?.searchUnits).toBe(1);
  });

  it("understands refusals, and comes back after one that may pass", async () => {
    const client = new CohereClientV2({ environment: service.url, token });
    const ask = (with_: CohereClientV2, documents: string[]) => with_.rerank({ model: "m", query: "q", documents });
    const failure = await ask(client, []).catch((e: unknown) => e);
    expect(failure).toBeInstanceOf(CohereError);
    expect(failure).toMatchObject({ statusCode: 400, body: { message: expect.stringMatching(/^documents is empty/) } });
    const stranger = new CohereClientV2({ environment: service.url, token: `${token}x` });
    expect(await ask(stranger, ["a"]).catch((e: unknown) => e)).toMatchObject({ statusCode: 401 });

    let refusals = 0;
    service.reranker.answer = (request) => {
      if (refusals++ === 0) throw new Refusal("overloaded", "later", { retryAfterMs: 1 });
      return reversed(request);
    };
    expect((await ask(client, ["a"])).results).toHaveLength(1);
    expect(refusals).toBe(2);
  });
});
