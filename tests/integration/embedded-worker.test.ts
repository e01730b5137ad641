/** The embedded Python worker: starts, answers, and never outlives its orchestrator, whatever way that dies. */
import { type ChildProcess, spawn } from "node:child_process";
import { chmodSync, existsSync, mkdtempSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { repositoryRoot } from "../../src/core/paths.ts";
import { isAlive } from "../../src/run/processes.ts";
import { Trie } from "../../src/sid/trie.ts";
import { startWorker } from "../../src/worker/launcher.ts";
import { checkPython, defaultPythonBin } from "../../src/worker/python.ts";
import type { WorkerClient } from "../../src/worker/types.ts";

const wait = (ms: number) => new Promise((done) => setTimeout(done, ms));

/** Starts the child and resolves with the worker's pid; its stderr is part of the error if it fails. */
async function orchestrator(mode: "idle" | "computing"): Promise<{ child: ChildProcess; pid: number }> {
  const script = join(repositoryRoot, "tests/integration/embedded-child.ts");
  const child = spawn(process.execPath, ["--import", "tsx", script, mode], { stdio: ["ignore", "pipe", "pipe"] });
  let stderr = "";
  child.stderr?.on("data", (d) => {
    stderr += d;
  });
  const pid = await new Promise<number>((done, fail) => {
    let out = "";
    child.stdout?.on("data", (d) => {
      out += d;
      const line = /^\{"pid":(\d+)\}$/m.exec(out);
      if (line) done(Number(line[1]));
    });
    child.on("exit", (code) => fail(new Error(`the orchestrator ended with ${code}: ${stderr}`)));
  });
  return { child, pid };
}

async function goneWithin(pid: number, ms: number): Promise<boolean> {
  for (const end = Date.now() + ms; Date.now() < end; await wait(50))
    if (!isAlive(pid, undefined) || isZombie(pid)) return true;
  return false;
}

/** A killed orchestrator's worker may wait for init to collect it; it runs no more. */
const isZombie = (pid: number): boolean => !isAlive(pid, undefined) || !existsSync(`/proc/${pid}/exe`);

const waitForExit = (child: ChildProcess) =>
  new Promise<number | null>((done) => {
    if (child.exitCode !== null || child.signalCode !== null) done(child.exitCode);
    else child.on("exit", (code) => done(code));
  });

/**
 * The trie this side builds is the one the worker walks: as wide as the catalogue, the search gives what Forward gives.
 */
async function beamsEqualForward(client: WorkerClient): Promise<void> {
  const { tokenizerJson } = await client.trainTokenizer({ texts: ["a b c"], vocabSize: 256, specialTokens: [] });
  const architecture = {
    model_type: "qwen3",
    hidden_size: 16,
    intermediate_size: 32,
    num_hidden_layers: 1,
    num_attention_heads: 2,
    num_key_value_heads: 2,
    head_dim: 8,
    max_position_embeddings: 64,
    initializer_range: 0.2,
  };
  await client.loadModel({ source: { kind: "scratch", architecture, tokenizerJson }, seed: 1 });
  const items = Array.from({ length: 40 }, (_, i) => [i % 3, 7 * (i % 5), ...(i % 2 ? [9] : [8, i]), 100 + i]);
  const prompts = [[1, 2, 3], [4]];
  const excluded = [[5, 6], items.map((_, row) => row).slice(1)];
  const found = await client.beamSearch({ prompts, trie: new Trie(items), beamWidth: 40, excluded });
  const { logprobs } = await client.forward({
    batch: { groups: prompts.map((prompt) => ({ prompt, responses: items })) },
  });
  let at = 0;
  prompts.forEach((_, p) => {
    const scores = items.map((item) => {
      at += item.length;
      return logprobs.subarray(at - item.length, at).reduce((sum, x) => sum + x, 0);
    });
    const left = scores.map((_, row) => row).filter((row) => !excluded[p]?.includes(row));
    left.sort((a, b) => (scores[b] as number) - (scores[a] as number));
    expect([...found.rows.data.subarray(40 * p, 40 * p + left.length)]).toEqual(left);
    expect(found.logprobs.data[40 * p]).toBeCloseTo(scores[left[0] as number] as number, 3);
  });
}

describe("an embedded worker", { timeout: 240_000 }, () => {
  it("serves, says who it is, reports a kill in one sentence, and can be started again", async () => {
    const first = await startWorker({ mode: "embedded", threads: 1 });
    const info = await first.client.getInfo();
    expect(info.numThreads).toBe(1);
    expect(info.pythonVersion).toMatch(/^3\.\d+/);
    process.kill(first.pid as number, "SIGKILL");
    const start = performance.now();
    await expect(first.client.getInfo()).rejects.toThrow(
      "the worker process is gone (killed by SIGKILL, often because memory ran out",
    );
    expect(performance.now() - start).toBeLessThan(5_000);
    await first.close();
    await first.close();

    const second = await startWorker({ mode: "embedded", threads: 1, port: 0 });
    expect(second.address).toMatch(/^127\.0\.0\.1:\d+$/);
    await beamsEqualForward(second.client);
    const remote = await startWorker({ mode: "remote", address: second.address });
    expect((await remote.client.getInfo()).torchVersion).toBe(info.torchVersion);
    await remote.close();
    await second.close();
    expect(isAlive(second.pid as number, undefined)).toBe(false);
  });

  it("is gone after SIGINT, SIGTERM and SIGKILL of its orchestrator, idle or computing", async () => {
    const cases = [
      ["SIGINT", "computing"],
      ["SIGTERM", "idle"],
      ["SIGKILL", "computing"],
    ] as const;
    await Promise.all(
      cases.map(async ([signal, mode]) => {
        const { child, pid } = await orchestrator(mode);
        expect(isAlive(pid, undefined)).toBe(true);
        const exit = waitForExit(child);
        child.kill(signal);
        expect(await exit, `${signal} while ${mode}`).toBe(signal === "SIGKILL" ? null : 130);
        expect(await goneWithin(pid, 5_000), `worker after ${signal} while ${mode}`).toBe(true);
      }),
    );
  });
});

describe("a worker that cannot start", () => {
  const fakePython = (script: string) => {
    const path = join(mkdtempSync(join(tmpdir(), "gr2-python-")), "python");
    writeFileSync(path, `#!/bin/sh\n${script}\n`);
    chmodSync(path, 0o755);
    return path;
  };

  it("names a missing, an old and an incomplete Python", async () => {
    const start = (python: string) => startWorker({ mode: "embedded", python });
    await expect(start("/nowhere/python")).rejects.toThrow("no Python at /nowhere/python");
    await expect(start("no-such-python")).rejects.toThrow("cannot run Python (no-such-python)");
    await expect(start(fakePython(`echo '{"version":[3,9,1],"missing":[]}'`))).rejects.toThrow(
      /Python 3\.9\.1 .* is too old: .*3\.11 or newer/,
    );
    await expect(start(fakePython(`echo '{"version":[3,11,1],"missing":["torch","grpc"]}'`))).rejects.toMatchObject({
      message: expect.stringContaining("the Python packages torch, grpcio are missing"),
      advice: "Run `make setup`.",
      code: "ENVIRONMENT",
    });
    expect(() => checkPython(defaultPythonBin(), { no_such_module: "no-such-package" })).toThrow(
      "package no-such-package is missing",
    );
  });

  it("repeats what a Python that dies at the start said", async () => {
    const probe = `echo '{"version":[3,11,1],"missing":[]}'`;
    const python = fakePython(
      `case "$1" in -c) ${probe};; *) echo "ImportError: libfoo.so not found" >&2; exit 3;; esac`,
    );
    const failing = startWorker({ mode: "embedded", python });
    await expect(failing).rejects.toThrow(/did not start: .*exit status 3.*ImportError: libfoo\.so not found/);
  });

  it("says that nobody answers at a remote address", async () => {
    const remote = startWorker({ mode: "remote", address: "127.0.0.1:1", startTimeoutMs: 200 });
    await expect(remote).rejects.toMatchObject({ code: "ENVIRONMENT", message: "no worker answers at 127.0.0.1:1" });
  });

  it("says that its port is in use", { timeout: 120_000 }, async () => {
    const server = createServer();
    const port = await new Promise<number>((done) =>
      server.listen(0, "127.0.0.1", () => done((server.address() as { port: number }).port)),
    );
    try {
      await expect(startWorker({ mode: "embedded", port })).rejects.toMatchObject({
        code: "ENVIRONMENT",
        message: expect.stringMatching(new RegExp(`${port}`)),
      });
    } finally {
      server.close();
    }
  });
});
