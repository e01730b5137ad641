/**
 * The client of OpenAI-compatible servers against a server that does everything wrong:
 * bounded, clear, nothing lost, no key shown.
 */
import { appendFileSync, mkdtempSync, readdirSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { EnvironmentError, type Gr2Error, InterruptedError } from "../../../src/core/errors.ts";
import { AnswerLog } from "../../../src/endpoint/answers.ts";
import { Budget, type BudgetOptions } from "../../../src/endpoint/budget.ts";
import { askAll, type EndpointOptions } from "../../../src/endpoint/endpoint.ts";
import type { ChatRequest } from "../../../src/endpoint/request.ts";
import { Secret } from "../../../src/endpoint/secret.ts";
import { type Behaviour, fail, say, startServer, type TestServer } from "./server.ts";

const key = "sk-test-0123456789";
const open: TestServer[] = [];
afterEach(async () => {
  for (const server of open.splice(0)) await server.close();
});

const free: BudgetOptions = { maxRequests: 0, maxTokens: 0, maxCost: 0, inputPrice: 0, outputPrice: 0 };
const questions = (n: number): ChatRequest[] =>
  Array.from({ length: n }, (_, i) => ({
    model: "teacher",
    messages: [{ role: "user", content: `question ${i}` }],
    temperature: 1,
    max_tokens: 50,
    seed: i,
  }));

async function setUp(behave: Behaviour, folder = mkdtempSync(join(tmpdir(), "gr2-endpoint-"))) {
  const server = await startServer(behave);
  open.push(server);
  const abort = new AbortController();
  const ask = (requests: readonly ChatRequest[], o: Partial<EndpointOptions> = {}, budget: Budget = new Budget(free)) =>
    askAll(
      requests,
      {
        baseUrl: server.baseUrl,
        concurrency: 3,
        timeoutMs: 2000,
        maxRetries: 2,
        backoffMs: 1,
        maxWaitMs: 50,
        maxFailures: 2,
        seed: 0,
        ...o,
      },
      {
        secret: Secret.fromEnvironment("KEY", { KEY: ` ${key}\n` }),
        budget,
        answers: new AnswerLog(join(folder, "answers.jsonl")),
        signal: abort.signal,
      },
    );
  return { server, ask, abort, folder };
}

const echo: Behaviour = (body, _n, response) => say(response, `answer to ${body.messages[0]?.content}`);
const listTexts = (answers: Awaited<ReturnType<typeof askAll>>) =>
  answers.map((a) => (a.kind === "text" ? a.text : a.reason));
const catchFault = async (asked: Promise<unknown>): Promise<Gr2Error> => {
  const fault = await asked.then(
    () => new Error("nothing was thrown"),
    (e: unknown) => e,
  );
  expect(fault).toBeInstanceOf(EnvironmentError);
  const error = fault as Gr2Error;
  expect(`${error.message} ${error.advice} ${error.stack} ${String(error.cause)}`).not.toContain(key);
  return error;
};

describe("a server that works", () => {
  it("answers every request in order, a few at a time, with the key in one header and nowhere else", async () => {
    const { server, ask, folder } = await setUp((body, n, response) => {
      setTimeout(() => echo(body, n, response, undefined as never), body.seed % 2 ? 1 : 8);
    });
    expect(listTexts(await ask(questions(9)))).toEqual(questions(9).map((q) => `answer to ${q.messages[0]?.content}`));
    expect(server.mostAtOnce).toBeLessThanOrEqual(3);
    expect(server.mostAtOnce).toBeGreaterThan(1);
    expect(new Set(server.headers.map((h) => h.authorization))).toEqual(new Set([`Bearer ${key}`]));
    expect(JSON.stringify(server.seen)).not.toContain(key);
    for (const file of readdirSync(folder)) expect(readFileSync(join(folder, file), "utf8")).not.toContain(key);
  });

  it("is not asked twice: answers stay on disk, a line cut short is asked again", async () => {
    const { server, ask, folder } = await setUp(echo);
    const first = await ask(questions(4));
    appendFileSync(join(folder, "answers.jsonl"), '{"key": "half a li');
    expect(await ask(questions(5)).then((a) => a.slice(0, 4))).toEqual(first);
    expect(server.seen.length).toBe(5);
    await ask(questions(5)); // the half line was cut off before the fifth was written
    expect(server.seen.length).toBe(5);
    await ask(questions(1).map((q) => ({ ...q, temperature: 0.5 })));
    expect(server.seen.length).toBe(6); // anything else in the request is another question
  });

  it("says which answers it cut", async () => {
    const { ask } = await setUp((body, _n, response) => {
      const finish_reason = body.seed === 1 ? "length" : "stop";
      response.end(JSON.stringify({ choices: [{ message: { content: "so" }, finish_reason }] }));
    });
    const cut = (answers: Awaited<ReturnType<typeof ask>>) => answers.map((a) => a.kind === "text" && a.cut);
    expect(cut(await ask(questions(3)))).toEqual([false, true, false]);
    expect(cut(await ask(questions(3)))).toEqual([false, true, false]); // from disk
  });
});

describe("a server in trouble", () => {
  it("is asked again after 429, 500, cut and strange answers, and waits as long as Retry-After says", async () => {
    const times: number[] = [];
    const { server, ask } = await setUp((body, n, response) => {
      times.push(performance.now());
      if (n === 0) fail(response, 429, "slow down", { "retry-after": "0.04" });
      else if (n === 1) fail(response, 500, "oops");
      else if (n === 2) response.end('{"choices": [{"message": {"content": "cut');
      else if (n === 3) response.end("<html>not what was asked for</html>");
      else if (n === 4) response.socket?.destroy();
      else echo(body, n, response, undefined as never);
    });
    expect(listTexts(await ask(questions(1), { maxRetries: 5 }))).toEqual(["answer to question 0"]);
    expect(server.seen.length).toBe(6);
    expect((times[1] as number) - (times[0] as number)).toBeGreaterThanOrEqual(38);
  });

  it.each<[string, Behaviour, RegExp]>([
    ["is down", (_b, _n, response) => response.socket?.destroy(), /socket|ECONNRESET|closed/i],
    ["is slow", () => {}, /no answer within 0\.05 s \(tried 3 times\)/],
    ["is broken", (_b, _n, r) => fail(r, 503, "out of memory"), /answers 503: out of memory \(tried 3 times\)/],
    [
      "is rate-limited for an hour",
      (_b, _n, r) => fail(r, 429, "quota", { "retry-after": "3600" }),
      /asked to wait 3600 s/,
    ],
    [
      "is rate-limited until a date",
      (_b, _n, r) => fail(r, 429, "quota", { "retry-after": new Date(Date.now() + 3_600_000).toUTCString() }),
      /asked to wait 3(599|600) s/,
    ],
    ["sends garbage", (_b, _n, r) => r.end("lorem ipsum"), /not a chat completion: lorem ipsum/],
    ["sends truncated JSON", (_b, _n, r) => r.end('{"choices": ['), /not a chat completion/],
    ["sends answers without text", (_b, _n, r) => r.end('{"choices": []}'), /not a chat completion/],
    ["refuses the request", (_b, _n, r) => fail(r, 400, "context too long"), /answers 400: context too long/],
    ["sends us elsewhere", (_b, _n, r) => fail(r, 302, "", { location: "http://127.0.0.1:1/v1" }), /redirect/],
  ])("stops the stage when it %s, saying so, after a bounded number of tries", async (_what, behave, message) => {
    const { server, ask } = await setUp(behave);
    const fault = await catchFault(ask(questions(20), { timeoutMs: 50, concurrency: 1 }));
    expect(fault.message).toMatch(message);
    expect(fault.message).toContain("Its 0 answers so far are kept");
    expect(fault.advice).toContain("it resumes where it stopped");
    expect(server.seen.length).toBeLessThanOrEqual(6); // 2 failures x 3 tries
  });

  it("cannot be reached at all", async () => {
    const { server, ask } = await setUp(echo);
    await server.close();
    expect((await catchFault(ask(questions(5)))).message).toContain("ECONNREFUSED");
  });

  it.each<[number, string, RegExp]>([
    [401, "teacher.endpoint.apiKeyEnv", /refuses the key \(401\): bad key \[key\]/],
    [403, "teacher.endpoint.apiKeyEnv", /refuses the key \(403\)/],
    [404, "teacher.model", /no such address or model \(404\)/],
  ])("is asked once if it says %i: no retry can help", async (status, advice, message) => {
    const { server, ask } = await setUp((_b, _n, response, request) =>
      fail(response, status, `bad key ${request.headers.authorization?.slice(7)}`),
    );
    const fault = await catchFault(ask(questions(20), { concurrency: 1 }));
    expect(fault.message).toMatch(message);
    expect(fault.advice).toContain(advice);
    expect(server.seen.length).toBe(1);
  });

  it("keeps the answers from before it failed, and resumes from there", async () => {
    const { server, ask } = await setUp((body, n, response) =>
      n < 4 ? echo(body, n, response, undefined as never) : fail(response, 502, "gone"),
    );
    const fault = await catchFault(ask(questions(10), { concurrency: 1, maxRetries: 0 }));
    expect(fault.message).toContain("Its 4 answers so far are kept");
    server.behave = echo;
    const asked = server.seen.length;
    expect(listTexts(await ask(questions(10))).every((t) => t.startsWith("answer to"))).toBe(true);
    expect(server.seen.length - asked).toBe(6);
  });

  it("leaves out single requests that fail, as long as others go well", async () => {
    const { ask } = await setUp((body, n, response) =>
      body.seed % 3 === 1 ? fail(response, 422, "no") : echo(body, n, response, undefined as never),
    );
    expect(listTexts(await ask(questions(4), { concurrency: 1 }))).toEqual([
      ...["answer to question 0", "endpoint failed", "answer to question 2", "answer to question 3"],
    ]);
  });

  it("is left when the user interrupts", async () => {
    const { ask, abort } = await setUp(() => {});
    setTimeout(() => abort.abort(), 30);
    await expect(ask(questions(3), { timeoutMs: 60_000 })).rejects.toThrow(InterruptedError);
  });

  it("never gets its echo of the key onto the disk", async () => {
    const { ask, folder } = await setUp((_b, _n, response, request) =>
      say(response, `you sent ${request.headers.authorization}`),
    );
    expect(listTexts(await ask(questions(1)))).toEqual(["you sent Bearer [key]"]);
    expect(readFileSync(join(folder, "answers.jsonl"), "utf8")).not.toContain(key);
  });
});

describe("a budget", () => {
  // A request reserves 10 bytes + 64 tokens to read and 50 to write, 124 in all; the server counts 4 + 50.
  it.each<[string, Partial<BudgetOptions>, number]>([
    ["requests", { maxRequests: 4 }, 4],
    ["tokens", { maxTokens: 400 }, 6], // 5 x 54 + 124 = 394, 6 x 54 + 124 = 448
    ["money", { maxCost: 0.0016, inputPrice: 1, outputPrice: 10 }, 3], // e-6: 2 x 504 + 574 = 1582, 3 x 504 + 574 = 2086
  ])("of %s is never passed", async (_what, options, most) => {
    const usage = { prompt_tokens: 4, completion_tokens: 50 };
    const { server, ask } = await setUp((_b, _n, response) => say(response, "yes", usage));
    const budget = new Budget({ ...free, ...options });
    const answers = await ask(questions(10), {}, budget);
    expect(answers.filter((a) => a.kind === "text").length).toBe(most);
    expect(listTexts(answers).filter((t) => t === "budget used up").length).toBe(10 - most);
    expect(server.seen.length).toBe(most);
    // What is on disk counts again: the same budget gives the same answers.
    const again = await ask(questions(10), {}, new Budget({ ...free, ...options }));
    expect(again.filter((a) => a.kind === "text").length).toBe(most);
    expect(server.seen.length).toBe(most);
  });

  it("counts retries as requests", async () => {
    const { server, ask } = await setUp((_b, _n, response) => fail(response, 500, "oops"));
    const answers = await ask(questions(1), { maxRetries: 9 }, new Budget({ ...free, maxRequests: 3 }));
    expect(listTexts(answers)).toEqual(["budget used up"]);
    expect(server.seen.length).toBe(3);
  });

  it("is estimated where the server does not count", async () => {
    const { ask } = await setUp((_b, _n, response) => say(response, "nine char", {}));
    const budget = new Budget(free);
    await ask(questions(2), {}, budget);
    expect(budget.spent).toEqual({ requests: 2, inputTokens: 8, outputTokens: 6 }); // ceil(10 / 3) and ceil(9 / 3) each
  });
});

describe("a secret", () => {
  it("is missing with a name, and shows in no form", () => {
    expect(() => Secret.fromEnvironment("GR2_NO_SUCH_KEY", {})).toThrow(/GR2_NO_SUCH_KEY.*is not set/);
    const secret = Secret.fromEnvironment("K", { K: key });
    expect(JSON.stringify({ secret })).not.toContain(key);
    expect(secret.redact(`x ${key} Authorization: Bearer other-token"`)).toBe('x [key] Authorization: Bearer [key]"');
    expect(Secret.fromEnvironment("").headers()).toEqual({});
  });
});
