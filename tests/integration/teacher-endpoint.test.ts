/**
 * Traces from a language model behind an OpenAI-compatible endpoint, through the pipeline on a fake worker: what is
 * kept and with which provenance, what SFT makes of it, an interrupted stage that goes on, and a key
 * that stands nowhere.
 */
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { TraceRecord } from "../../src/artifacts/traces.ts";
import { configHash, loadConfig, resolvedYaml } from "../../src/config/load.ts";
import type { Gr2Error } from "../../src/core/errors.ts";
import { Rng } from "../../src/core/rng.ts";
import { Run } from "../../src/run/run.ts";
import { stageNames } from "../../src/run/stage.ts";
import { runStages } from "../../src/stages/pipeline.ts";
import { FakeWorker } from "../../src/worker/fake.ts";
import { TelemetryBus } from "../../src/worker/telemetry.ts";
import { writePipelineFixture } from "../pipeline-fixture.ts";
import { type Asked, fail, list, say, startServer, type TestServer } from "../unit/endpoint/server.ts";

const folder = mkdtempSync(join(tmpdir(), "gr2-teacher-"));
const root = join(folder, "runs");
const keyName = "GR2_TEST_TEACHER_KEY";
const key = "secret-c0ffee-0123456789";
let recipe = "";
let server: TestServer;

/** Reads the question as a model would, and answers it with a first choice drawn by the request's seed. */
function writeAnswer(body: Asked): string {
  const prompt = body.messages[0]?.content ?? "";
  const [, history = "", candidates = ""] =
    /oldest first:\n([\s\S]*)\nThe candidates[^\n]*\n([\s\S]*?)\n(?:The user chose|Reason in)/.exec(prompt) ?? [];
  const ids = (lines: string): string[] => lines.split("\n").map((line) => line.split(" ")[0] as string);
  const ranking = Rng.of(body.seed, "answer").shuffle(ids(candidates));
  const told = /The user chose (\S+) next/.exec(prompt)?.[1];
  if (told) ranking.unshift(...ranking.splice(ranking.indexOf(told), 1));
  const reasoning = `pattern: the user has seen ${ids(history).at(-1)} and the like; complement: more of it; choice: ${ranking[0]}`;
  return JSON.stringify({ reasoning, ranking });
}

beforeAll(async () => {
  recipe = writePipelineFixture(folder);
  process.env[keyName] = key;
  server = await startServer((body, _n, response) => say(response, writeAnswer(body)));
  await invoke("base", "slates", []);
});
afterAll(async () => {
  delete process.env[keyName];
  await server.close();
  rmSync(folder, { recursive: true, force: true });
});

const log: string[] = [];
async function invoke(
  name: string,
  until: string,
  set: readonly string[],
  onVerb?: (verb: string) => void,
): Promise<void> {
  const config = loadConfig(recipe, set);
  const { signal } = new AbortController();
  const bus = new TelemetryBus(name);
  bus.on((m) => {
    if (m.kind === "log") log.push(m.text);
  });
  const yaml = { configYaml: resolvedYaml(config), configHash: configHash(config), seed: config.seed };
  const run = await Run.open({ root, name, ...yaml, stages: stageNames, until, signal, bus });
  try {
    await runStages(run, { config, root, name, signal, bus, worker: new FakeWorker(onVerb) });
    await run.close("finished");
  } catch (e) {
    await run.close("failed");
    throw e;
  }
}

const endpoint = (cache: string): string[] => [
  ...["teacher.kind=openai", "teacher.model=llm", `teacher.endpoint.baseUrl=${server.baseUrl}`],
  ...[`teacher.endpoint.apiKeyEnv=${keyName}`, `data.cacheDir=${join(folder, cache)}`],
  ...["teacher.endpoint.backoffSeconds=0.001", "teacher.endpoint.maxRetries=1"],
  ...["teacher.endpoint.timeoutSeconds=60", "teacher.endpoint.maxWaitSeconds=5", "teacher.endpoint.extraBody.top_k=20"],
];
/** A run that stands behind the slates stage. */
function fresh(name: string): string {
  cpSync(join(root, "base"), join(root, name), { recursive: true });
  return name;
}
const readTraces = (run: string): TraceRecord[] =>
  readFileSync(join(root, run, "stages/traces/traces.jsonl"), "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as TraceRecord);

describe("an endpoint as the teacher", () => {
  it("gives traces with provenance that SFT learns from", async () => {
    await invoke(fresh("kept"), "sft", [...endpoint("a"), "sft.epochs=0.3"]);
    const traces = readTraces("kept");
    expect(traces.length).toBeGreaterThan(10);
    const slates = new Map(
      readFileSync(join(root, "kept/stages/slates/rerank.jsonl"), "utf8")
        .trimEnd()
        .split("\n")
        .map((line) => JSON.parse(line) as { id: string; targetIndex: number; candidates: number[] })
        .map((s) => [s.id, s]),
    );
    for (const t of traces) {
      const slate = slates.get(t.slate);
      expect(t.order[0]).toBe(slate?.targetIndex);
      expect(t).toMatchObject({ teacher: "openai", model: "llm", sampling: "rejection" });
      expect(t.tries).toBeLessThanOrEqual(8);
      expect(t.prompt).toMatch(/^[0-9a-f]{64}$/);
      expect(new Date(t.time ?? "").getTime()).toBeGreaterThan(0);
      const words = "words" in t.reasoning ? t.reasoning.words : [];
      expect(words.at(-1)).toBe(slate?.candidates[slate.targetIndex]); // a row, not text: it becomes ID tokens
    }
    const { stats } = JSON.parse(readFileSync(join(root, "kept/stages/traces/teacher.json"), "utf8"));
    expect(stats.rejected["wrong first choice"]).toBeGreaterThan(0);
    expect(stats.accepted).toBe(traces.length);
    expect(server.seen[0]).toMatchObject({ model: "llm", temperature: 0.7, max_tokens: 512, top_k: 20 });
    expect(server.seen[0]).not.toHaveProperty("response_format");
  }, 60_000);

  it("leaves no trace of the key, in no file of the run or the cache and in no log", () => {
    expect(server.headers[0]?.authorization).toBe(`Bearer ${key}`);
    const files = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((e) => e.isFile());
    expect(files.length).toBeGreaterThan(20);
    for (const e of files) expect(readFileSync(join(e.parentPath, e.name), "latin1"), e.name).not.toContain(key);
    expect(log.join("\n")).not.toContain(key);
  });

  it("resumes where it stopped: the same traces, and nothing asked twice", async () => {
    const asked = server.seen.length;
    const { behave } = server;
    server.behave = (body, n, response, request) =>
      n < asked + 30 ? behave(body, n, response, request) : fail(response, 503, "restarting");
    const run = fresh("stopped");
    const set = [...endpoint("b"), "teacher.endpoint.concurrency=1"];
    const fault = (await invoke(run, "traces", set).catch((e: unknown) => e)) as Gr2Error;
    expect(fault.message).toContain("answers 503: restarting (tried 2 times). Its 30 answers so far are kept");
    expect(fault.advice).toContain("it resumes where it stopped");
    server.behave = behave;
    const failed = server.seen.length - asked - 30;
    await invoke(run, "traces", set);
    const without = (traces: TraceRecord[]) => traces.map(({ time: _, ...rest }) => rest);
    expect(without(readTraces(run))).toEqual(without(readTraces("kept")));
    expect(server.seen.length - asked - failed).toBe(asked);
  }, 60_000);

  it("continues with the traces it has when the budget is used up; targeted sampling needs one answer per slate", async () => {
    const run = fresh("budget");
    await invoke(run, "traces", [
      ...endpoint("c"),
      ...["teacher.sampling=targeted", "teacher.endpoint.maxRequests=12", "teacher.endpoint.structured=json_schema"],
    ]);
    expect(readTraces(run).length).toBe(12);
    expect(server.seen.at(-1)).toMatchObject({ response_format: { type: "json_schema" } });
    const summary = JSON.parse(readFileSync(join(root, run, "stages/traces/summary.json"), "utf8"));
    expect(summary.rejected_budget_used_up).toBe(summary.offered - 12);
  }, 60_000);

  it("stops soon if it answers in another language", async () => {
    const asked = server.seen.length;
    const { behave } = server;
    server.behave = (body, _n, response) => {
      const { ranking } = JSON.parse(writeAnswer(body)) as { ranking: string[] };
      const reasoning = `Muster: der Nutzer mag Filme; Ergänzung: noch einer davon; Wahl: ${ranking[0]}`;
      say(response, JSON.stringify({ reasoning, ranking }));
    };
    const fault = (await invoke(fresh("german"), "traces", endpoint("d")).catch((e: unknown) => e)) as Gr2Error;
    server.behave = behave;
    expect(fault.message).toContain("20 x not in English; the first reads:");
    expect(server.seen.length - asked).toBe(20);
  }, 60_000);
});

describe("a teacher that is looked at before the first stage", () => {
  it("stops a whole run in its first seconds, and costs nothing where its stage is finished", async () => {
    const { models } = server;
    const [asked, verbs]: [number, string[]] = [server.seen.length, []];
    const whole = (set: readonly string[]) => invoke("whole", "sft", set, (verb) => verbs.push(verb));
    server.models = (response) => fail(response, 401, `bad key ${key}`);
    await expect(whole(endpoint("f"))).rejects.toThrow(
      /cannot be used: the server refuses the key \(401\): bad key \[key\]$/,
    );
    await expect(whole([...endpoint("f"), "teacher.endpoint.baseUrl=http://127.0.0.1:9/v1"])).rejects.toThrow(
      /teacher at http:\/\/127\.0\.0\.1:9\/v1 cannot be used/,
    );
    expect(verbs).toEqual([]);
    server.models = (response) => list(response, ["Qwen3-32B"]);
    await invoke(fresh("listed"), "traces", [...endpoint("f"), "teacher.maxSlates=20", "teacher.maxTries=20"]);
    expect(log).toContain(`! teacher.model = llm: ${server.baseUrl} has Qwen3-32B`);
    const [listed, answered] = [server.listed, server.seen.length];
    expect(answered).toBeGreaterThan(asked);
    await invoke("listed", "sft", [...endpoint("f"), "teacher.maxSlates=20", "teacher.maxTries=20", "sft.epochs=0.3"]);
    expect([server.listed, server.seen.length]).toEqual([listed, answered]);
    expect(log.join("\n")).not.toContain(key);
    server.models = models;
  }, 60_000);
});

describe("a recipe with a teacher that cannot work", () => {
  it.each([
    [["teacher.kind=openai", "teacher.model=x"], /needs teacher.endpoint.baseUrl/],
    [["teacher.kind=worker"], /needs teacher.model/],
    [["teacher.endpoint.baseUrl=http://me:pw@host/v1"], /without credentials/],
    [["teacher.endpoint.baseUrl=host:8000"], /expected http/],
    [["teacher.endpoint.apiKeyEnv=sk-live-12345"], /NAME of an environment variable/],
    [["teacher.endpoint.maxCost=5"], /needs inputPrice and outputPrice/],
    [["teacher.kind=worker", "teacher.model=x", "sft.target=belief"], /needs the statistical teacher/],
  ])("is refused before it starts: %s", (set, message) => {
    expect(() => loadConfig(recipe, set)).toThrow(message);
  });

  it("names the variable without a key", async () => {
    const set = [...endpoint("e"), "teacher.endpoint.apiKeyEnv=GR2_TEST_NO_SUCH_KEY"];
    await expect(invoke(fresh("keyless"), "traces", set)).rejects.toThrow(/GR2_TEST_NO_SUCH_KEY.*is not set/);
  });
});
