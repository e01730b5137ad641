/**
 * A real model behind a real server as the teacher: transformers' `generate` in a process of its own. A random model
 * answers garbage, which is found out at once; SmolLM2-135M-Instruct, where it is on this machine, writes English.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { configHash, loadConfig, resolvedYaml } from "../../src/config/load.ts";
import type { Gr2Error } from "../../src/core/errors.ts";
import { repositoryRoot } from "../../src/core/paths.ts";
import { AnswerLog } from "../../src/endpoint/answers.ts";
import { Budget } from "../../src/endpoint/budget.ts";
import { askAll } from "../../src/endpoint/endpoint.ts";
import { Secret } from "../../src/endpoint/secret.ts";
import { Run } from "../../src/run/run.ts";
import { stageNames } from "../../src/run/stage.ts";
import { runStages } from "../../src/stages/pipeline.ts";
import { FakeWorker } from "../../src/worker/fake.ts";
import { TelemetryBus } from "../../src/worker/telemetry.ts";
import { writePipelineFixture } from "../pipeline-fixture.ts";

const folder = mkdtempSync(join(tmpdir(), "gr2-teacher-model-"));
const children: ChildProcess[] = [];
afterAll(() => {
  for (const child of children) child.kill("SIGKILL");
  rmSync(folder, { recursive: true, force: true });
});

/** Starts the server; resolves with its address. */
function serve(args: readonly string[]): Promise<string> {
  const script = join(repositoryRoot, "tests/python/openai_server.py");
  const child = spawn(join(repositoryRoot, ".venv/bin/python"), [script, "--key", "local-key", ...args], {
    env: { ...process.env, OMP_NUM_THREADS: "1" },
  });
  children.push(child);
  let said = "";
  return new Promise((resolve, reject) => {
    child.stderr.on("data", (part) => {
      said += part;
    });
    child.stdout.on("data", (part) => {
      const port = /ready (\d+)/.exec(String(part))?.[1];
      if (port) resolve(`http://127.0.0.1:${port}/v1`);
    });
    child.on("exit", (code) => reject(new Error(`the server ended with ${code}: ${said.slice(-500)}`)));
  });
}

const ask = async (baseUrl: string, model: string, content: string, answers: string, key = "local-key") => {
  const budget = new Budget({ maxRequests: 0, maxTokens: 0, maxCost: 0, inputPrice: 0, outputPrice: 0 });
  const body = { model, messages: [{ role: "user", content }] as const, temperature: 0.7, max_tokens: 24, seed: 1 };
  const [answer] = await askAll(
    [body],
    {
      ...{ baseUrl, concurrency: 1, timeoutMs: 60_000, maxRetries: 0, backoffMs: 1 },
      ...{ maxWaitMs: 1, maxFailures: 1, seed: 0 },
    },
    {
      secret: Secret.fromEnvironment("KEY", { KEY: key }),
      budget,
      answers: new AnswerLog(join(folder, answers)),
      signal: new AbortController().signal,
    },
  );
  return { answer, spent: budget.spent };
};

describe("a random model behind a real server", () => {
  it("is asked in its chat template, counts tokens, and is found to be of no use", async () => {
    const baseUrl = await serve(["--tiny"]);
    const { answer, spent } = await ask(baseUrl, "tiny", "hello", "tiny.jsonl");
    expect(answer?.kind).toBe("text");
    expect(spent.requests).toBe(1);
    // <|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n, a token a byte: 1 + 5 + 5 + 1 + 1 + 1 + 10
    expect(spent.inputTokens).toBe(24);
    expect((await ask(baseUrl, "tiny", "hello", "again.jsonl")).answer).toMatchObject({ text: answerText(answer) });
    await expect(ask(baseUrl, "tiny", "hello", "denied.jsonl", "wrong")).rejects.toThrow(
      /refuses the key.*invalid key/,
    );

    const recipe = writePipelineFixture(folder);
    process.env.GR2_TEST_LOCAL_KEY = "local-key";
    const config = loadConfig(recipe, [
      ...["teacher.kind=openai", "teacher.model=tiny", "teacher.maxAnswerTokens=8", "prompts.historyItems=2"],
      ...[`teacher.endpoint.baseUrl=${baseUrl}`, "teacher.endpoint.apiKeyEnv=GR2_TEST_LOCAL_KEY"],
    ]);
    const { signal } = new AbortController();
    const bus = new TelemetryBus("tiny");
    const yaml = { configYaml: resolvedYaml(config), configHash: configHash(config), seed: config.seed };
    const run = await Run.open({
      root: folder,
      name: "tiny",
      ...yaml,
      stages: stageNames,
      until: "traces",
      signal,
      bus,
    });
    const options = { config, root: folder, name: "tiny", until: "traces", signal, bus, worker: new FakeWorker() };
    const fault = (await runStages(run, options).catch((e: unknown) => e)) as Gr2Error;
    await run.close("failed");
    delete process.env.GR2_TEST_LOCAL_KEY;
    expect(fault.message).toContain("none of the first 20 answers of the teacher tiny is usable: 20 x not json");
    expect(fault.advice).toContain("a model that follows instructions");
  }, 120_000);
});

const answerText = (answer: Awaited<ReturnType<typeof ask>>["answer"]): string =>
  answer?.kind === "text" ? answer.text : "";

const smol = join(repositoryRoot, "data/smollm2-135m-instruct");
const gguf = "SmolLM2-135M-Instruct.Q4_1.gguf";

describe("SmolLM2-135M-Instruct behind a real server", () => {
  it.skipIf(!existsSync(join(smol, gguf)))(
    `writes English (needs ${gguf} in data/smollm2-135m-instruct)`,
    async () => {
      const baseUrl = await serve(["--model", smol, "--gguf", gguf]);
      const { answer, spent } = await ask(baseUrl, "smollm2", "What is soap used for? One sentence.", "smol.jsonl");
      expect(answerText(answer)).toMatch(/[a-z]{3,}( [a-z]{2,}){2}/i); // words, at least three in a row
      expect(spent.outputTokens).toBeGreaterThan(3);
      expect(readFileSync(join(folder, "smol.jsonl"), "utf8")).toContain(answerText(answer).slice(0, 8));
    },
    240_000,
  );
});
