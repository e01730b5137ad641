/**
 * The whole pipeline in miniature, through the command line and with the real Python worker: it finishes, repeats
 * itself bit by bit, and survives being killed.
 */
import { spawn } from "node:child_process";
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { FallbackReason, Mode, RerankClient, type RerankResponse } from "../../src/client/index.ts";
import { exitCodes } from "../../src/core/errors.ts";
import { repositoryRoot } from "../../src/core/paths.ts";
import { stageNames } from "../../src/run/stage.ts";
import { Catalogue } from "../../src/sid/catalogue.ts";
import {
  type Ended,
  gr2,
  listWorkers,
  metricLines,
  pipelineArgs,
  readMetrics,
  readOutputs,
  readRunManifest,
  start,
  until,
  workplace,
} from "./mini.ts";
import { served, workersUnder } from "./served.ts";

const w = workplace();
afterAll(() => rmSync(w.folder, { recursive: true, force: true }));

const tmp = join(w.folder, "tmp");
const finished = (e: Ended) => expect(e, `${e.stdout}\n${e.stderr}`).toMatchObject({ code: 0, stderr: "" });

/** A fault as a person sees it: the code, one sentence, no stack trace. */
function failedCleanly(e: Ended, code: number, message: RegExp): void {
  expect(e.code, `${e.stdout}\n${e.stderr}`).toBe(code);
  expect(e.stderr).toMatch(message);
  expect(e.stderr).not.toMatch(/^\s+at |Traceback|bug in/m);
}

/** Stages run one after another and every test compares with the first one's run. */
describe.sequential("the pipeline in miniature", { timeout: 900_000 }, () => {
  beforeAll(async () => finished(await gr2(pipelineArgs(w, "whole"), { tmp })), 900_000);

  it("leaves results, a report, the worker's versions and the memory of every stage, and nothing else", () => {
    const metrics = readMetrics(w, "whole") as { rows: { system: string }[]; schema: string };
    expect(metrics.schema).toBe("gr2.metrics/2");
    const systems = new Set(metrics.rows.map((r) => r.system));
    for (const system of ["prerank", "direct", "sft", "sft_nothink", "rl", "rl_nothink"])
      expect(systems).toContain(system);
    expect(readFileSync(join(w.root, "whole", "report.html"), "utf8")).toContain("</html>");
    const manifest = readRunManifest(w, "whole");
    expect(manifest.state).toBe("finished");
    expect(manifest.versions.torch).toMatch(/^\d+\./);
    expect(manifest.data.toy).toMatch(/^[0-9a-f]{64}$/);
    expect(Object.keys(manifest.stages)).toHaveLength(stageNames.length);
    for (const stage of Object.values(manifest.stages)) expect(stage.peak_bytes).toBeGreaterThan(2 ** 20);
    expect(listWorkers(w)).toEqual([]);
    // tsx and torch keep one cache folder a user, by a fixed name; nothing of ours stays.
    expect(readdirSync(tmp).filter((f) => !/^(tsx-|torchinductor_)/.test(f))).toEqual([]);
    expect(readdirSync(join(w.root, "whole")).filter((f) => /lock|tmp|telemetry/.test(f))).toEqual([]);
  });

  it("does nothing when nothing has changed, without a worker, within seconds", async () => {
    rmSync(join(w.root, "whole", "worker.log"));
    const again = await gr2(pipelineArgs(w, "whole"));
    finished(again);
    expect(again.stdout).toMatch(/prerank .*\n(.*\n)*.*report: /);
    expect(again.stdout.match(/unchanged/g)).toHaveLength(stageNames.length);
    expect(again.seconds).toBeLessThan(10);
    expect(existsSync(join(w.root, "whole", "worker.log"))).toBe(false);
  });

  it("is served: alike alone and in a crowd, through the loss of its worker, until it is told to end", async () => {
    const service = await served(
      ...([w, "whole", "--set", "serve.cache=0", "--set", "serve.overload=own-order"] as const),
      ...["--set", "serve.system=rl"], // the recommended one may have no language model
    );
    onTestFinished(service.kill);
    const client = new RerankClient(service.grpc, { timeoutMs: 60_000 });
    const request = (k: number, mode: Mode) => ({
      mode,
      deadlineMs: 50_000,
      history: Array.from({ length: 1 + (k % 12) }, (_, i) => ({ itemId: String(100 + ((k * 7 + i) % 60)) })),
      candidates: [
        ...[0, 11, 22, 33].map((i) => ({ id: `c${i}`, itemId: String(100 + ((k + i) % 60)), score: 40 - i })),
        { id: "new", text: `A film nobody knows ${k % 3}`, score: 1 },
      ],
    });
    for (const mode of [Mode.MODE_DIRECT, Mode.MODE_THINK]) {
      const alone: RerankResponse[] = [];
      for (let k = 0; k < 6; k++) alone.push(await client.rerank(request(k, mode)));
      const crowd = await Promise.all(alone.map((_, k) => client.rerank(request(k, mode))));
      crowd.forEach((answer, k) => {
        const before = alone[k]?.ranking ?? [];
        // So small a model may write reasoning that repeats; such an answer is refused, alone and in a crowd.
        expect(answer.fallback).toBe(alone[k]?.fallback);
        const reasons: FallbackReason[] = [FallbackReason.FALLBACK_REASON_UNSPECIFIED];
        if (mode === Mode.MODE_THINK) reasons.push(FallbackReason.FALLBACK_REASON_INVALID_ANSWER);
        expect(reasons).toContain(answer.fallback);
        expect(answer.ranking.map((r) => r.id)).toEqual(before.map((r) => r.id));
        // Not bit for bit: the last bits of a float32 sum depend on the shape of the batch.
        answer.ranking.forEach((r, i) => {
          expect(r.score).toBeCloseTo(before[i]?.score as number, 5);
        });
        expect(answer.thought).toBe(alone[k]?.thought);
      });
    }
    let thought = "";
    for await (const { event } of client.rerankStream(request(5, Mode.MODE_THINK)))
      if (event?.$case === "thought") thought += event.value;
      else if (event?.value.fallback === FallbackReason.FALLBACK_REASON_UNSPECIFIED)
        expect(thought.trim()).toBe(event.value.thought);
    expect(thought).not.toBe("");

    const [worker] = workersUnder(service.pid);
    const busy = Array.from({ length: 20 }, (_, k) =>
      client.rerank({ ...request(k, Mode.MODE_THINK), deadlineMs: 1_000 }),
    );
    process.kill(worker as number, "SIGKILL");
    for (const answer of await Promise.all(busy)) {
      const places = answer.ranking.map((r) => r.place);
      const own = answer.fallback !== FallbackReason.FALLBACK_REASON_UNSPECIFIED;
      expect(own ? places : [...places].sort()).toEqual([0, 1, 2, 3, 4]);
    }

    process.kill(service.pid, "SIGTERM");
    const ended = await service.ended;
    client.close();
    expect(ended.code, ended.stderr).toBe(0);
    expect(ended.stdout.trim().split("\n")).toHaveLength(1);
    expect(ended.stderr).not.toMatch(/^\s+at |Traceback|bug in/m);
    expect(workersUnder(service.pid)).toEqual([]);
  });

  it("gives a later item its own ID, and keeps it", async () => {
    const items = join(w.folder, "later.csv");
    const out = join(w.folder, "later.jsonl");
    writeFileSync(
      items,
      "item_id,title,genres\n900,Silent River 61,Drama\n100,known to the run,\n901,Silent River 61,Drama\n",
    );
    const encode = (file: string) =>
      gr2([
        "sid",
        "encode",
        "whole",
        "--root",
        w.root,
        "--items",
        items,
        "--out",
        file,
        "--column",
        "categories=genres",
      ]);
    finished(await encode(out));
    const lines = readFileSync(out, "utf8").trimEnd().split("\n");
    const given = lines.map((l) => JSON.parse(l) as { item_id: string; sid: string; known: boolean });
    expect(given.map((e) => [e.item_id, e.known])).toEqual([
      ["900", false],
      ["100", true],
      ["901", false], // the same text, another item
    ]);
    const catalogue = Catalogue.fromJSON(
      JSON.parse(readFileSync(join(w.root, "whole/stages/sid/catalogue.json"), "utf8")),
    );
    const rows = given.map((e) => catalogue.rowOfText(e.sid));
    expect(rows).toEqual([undefined, expect.any(Number), undefined]);
    expect(new Set(given.map((e) => e.sid)).size).toBe(3);
    const again = await encode(out);
    finished(again);
    expect(again.stdout).toContain("0 new items got a semantic ID; 3 were already in");
    expect(readFileSync(out, "utf8").trimEnd().split("\n")).toEqual(lines);
  });

  const expectSame = (run: string) => {
    expect(readMetrics(w, run)).toEqual(readMetrics(w, "whole"));
    expect(readOutputs(w, run)).toEqual(readOutputs(w, "whole"));
    expect(metricLines(w, run)).toEqual(metricLines(w, "whole"));
  };

  it("gives the same bits with --fresh", async () => {
    const first = [readMetrics(w, "whole"), readOutputs(w, "whole"), metricLines(w, "whole")];
    const again = await gr2(pipelineArgs(w, "whole", "--fresh"));
    finished(again);
    expect(again.stdout).not.toMatch(/unchanged|resumed/);
    expect([readMetrics(w, "whole"), readOutputs(w, "whole"), metricLines(w, "whole")]).toEqual(first);
  });

  const cursor = (run: string, stage: string) => existsSync(join(w.root, run, "stages", stage, "cursor.json"));

  it("resumes after kill -9 in mid-training, RL and evaluation, without orphans, to the same bits", async () => {
    const run = "killed";
    for (const stage of ["midtrain", "rl", "evaluate"]) {
      const r = start(pipelineArgs(w, run));
      await until(() => cursor(run, stage), `a checkpoint of ${stage}`);
      expect(listWorkers(w).length).toBeGreaterThan(0);
      r.child.kill("SIGKILL");
      expect((await r.ended).signal).toBe("SIGKILL");
      await until(() => listWorkers(w).length === 0, "the end of the worker", 5_000);
    }
    const last = await gr2(pipelineArgs(w, run));
    finished(last);
    expect(last.stdout).toMatch(/rl\s+unchanged/);
    expect(last.stdout).toMatch(/evaluate\s+resumed/);
    expectSame(run);
  });

  it("says so when its worker is killed, and resumes when started again", async () => {
    const run = "orphaned";
    for (const stage of ["midtrain", "rl"]) {
      const r = start(pipelineArgs(w, run));
      await until(() => cursor(run, stage), `a checkpoint of ${stage}`);
      for (const pid of listWorkers(w)) process.kill(pid, "SIGKILL");
      failedCleanly(
        await r.ended,
        exitCodes.WORKER,
        /^error: \w+ failed: the worker process is gone \(killed by SIGKILL.*\n\s+A rerun resumes.*worker\.log\.\n$/,
      );
      expect(readRunManifest(w, run).state).toBe("failed");
    }
    finished(await gr2(pipelineArgs(w, run)));
    expectSame(run);
  });

  it("runs on a separate worker, which outlives the run, and says when there is none", async () => {
    const nobody = gr2(
      pipelineArgs(w, "nobody", "--set", "runtime.mode=remote", "--set", "runtime.address=127.0.0.1:1"),
    );
    const worker = spawn(
      join(repositoryRoot, ".venv/bin/python"),
      ["-m", "gr2_worker", "--address", "127.0.0.1:0", "--threads", "1"],
      {
        env: { ...process.env, PYTHONPATH: join(repositoryRoot, "python_worker") },
        stdio: ["ignore", "pipe", "ignore"],
      },
    );
    try {
      const address = await new Promise<string>((done) => worker.stdout.once("data", (d) => done(String(d).trim())));
      const remote = ["--set", "runtime.mode=remote", "--set", `runtime.address=${address}`];
      finished(await gr2(pipelineArgs(w, "remote", ...remote)));
      expect({ ...readMetrics(w, "remote"), config_hash: "" }).toEqual({ ...readMetrics(w, "whole"), config_hash: "" });
      expect(readOutputs(w, "remote")).toEqual(readOutputs(w, "whole"));
      expect(worker.exitCode).toBeNull();
    } finally {
      worker.kill("SIGTERM");
    }
    failedCleanly(await nobody, exitCodes.ENVIRONMENT, /no worker answers at 127\.0\.0\.1:1\n\s+Start it there/);
  });
});
