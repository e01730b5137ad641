/**
 * `gr2 serve` under load, from this process against one of its own: how fast for 1, 8 and 64 callers in both modes, what
 * batching is worth, what happens at twice the load it can take, and when a worker is killed or stands still.
 * `npm run bench -- serve --run NAME [--root runs] [--seconds 10] [--set path=value ...]`
 *
 * Requests are the run's own test slates, taken in turn; answers are never taken from memory (serve.cache=0).
 * A caller sends one request after the other. The overload is open: requests leave at their time, answered or not.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { status } from "@grpc/grpc-js";
import { FallbackReason, Mode, RerankClient, type RerankRequest, type RerankResponse } from "../src/client/index.ts";
import { RunError } from "../src/core/errors.ts";
import { repositoryRoot } from "../src/core/paths.ts";
import { Rng } from "../src/core/rng.ts";
import { loadDataset } from "../src/data/cache.ts";
import type { Slate } from "../src/prerank/types.ts";
import { RunFolder } from "../src/run/run-folder.ts";
import { readLines } from "../src/stages/files.ts";
import { workersUnder } from "../tests/integration/served.ts";
import type { Benchmark, Measurement } from "./claim.ts";

const callers = [1, 8, 64];
const patientMs = 50_000;
const hurriedMs = 2_000;

type Ask = (deadlineMs: number) => RerankRequest;

export const bench: Benchmark = async (emit, args) => {
  const { values } = parseArgs({
    args: [...args],
    options: {
      run: { type: "string" },
      root: { type: "string", default: "runs" },
      seconds: { type: "string", default: "10" },
      set: { type: "string", multiple: true, default: [] },
    },
  });
  if (values.run === undefined) throw new RunError("bench serve needs --run NAME, a finished run");
  const requests = await requestsOf(RunFolder.view(values.root, values.run));
  const started: Service[] = [];
  const start = async (...more: string[]): Promise<Service> => {
    const service = await startService(values.run as string, values.root, [...more, "serve.cache=0", ...values.set]);
    started.push(service);
    return service;
  };
  try {
    await measure(emit, requests, start, Number(values.seconds));
  } finally {
    for (const service of started) await service.stop();
  }
};

async function measure(
  emit: (measured: Measurement) => void,
  requests: readonly Omit<RerankRequest, "mode" | "deadlineMs">[],
  start: (...settings: string[]) => Promise<Service>,
  seconds: number,
): Promise<void> {
  const single: Record<string, number> = {};
  const alone = await start("serve.maxBatch=1");
  for (const mode of ["direct", "think"] as const)
    single[mode] = (await closedLoop(alone, asksOf(requests, mode), 8, seconds)).perSecond;
  await alone.stop();

  const service = await start();
  const capacity: Record<string, number> = {};
  for (const mode of ["direct", "think"] as const)
    for (const c of callers) {
      const asks = asksOf(requests, mode);
      await closedLoop(service, asks, c, Math.min(2, seconds)); // warm
      const load = await closedLoop(service, asks, c, seconds);
      const name = `serve/${mode}, ${c} caller${c > 1 ? "s" : ""}`;
      emit({
        ...{ claim: `${name}: answers a second`, value: load.perSecond, unit: "1/s", n: load.ms.length },
        ...(c === 64 ? { peer: "serve.maxBatch=1, 8 callers", peerValue: single[mode] as number } : {}),
        ...(c === 64 && mode === "direct" ? { bar: ["ratio", ">=", 4] as const } : {}),
      });
      for (const p of [50, 95, 99])
        emit({ claim: `${name}: p${p}`, value: percentile(load.ms, p), unit: "ms", n: load.ms.length });
      emit({
        claim: `${name}: faults`,
        value: load.faults,
        unit: "answers",
        n: load.ms.length,
        bar: ["value", "<=", 0],
      });
      capacity[mode] = load.perSecond;
    }

  for (const mode of ["direct", "think"] as const) {
    const rate = 2 * (capacity[mode] as number);
    const o = await openLoop(service, asksOf(requests, mode), rate, seconds);
    const name = `serve/${mode}, twice the load (${rate.toFixed(0)}/s)`;
    const n = o.sent;
    emit({ claim: `${name}: answered`, value: o.answered.length / n, unit: "share", n });
    emit({ claim: `${name}: refused`, value: o.refused.length / n, unit: "share", n });
    emit({ claim: `${name}: own order back`, value: o.flagged / n, unit: "share", n });
    emit({
      ...{ claim: `${name}: p99 of the answered`, value: percentile(o.answered, 99), unit: "ms", n: o.answered.length },
      bar: ["value", "<=", 1.1 * hurriedMs],
    });
    emit({ claim: `${name}: p99 of the refused`, value: percentile(o.refused, 99), unit: "ms", n: o.refused.length });
    emit({ claim: `${name}: lost or wrong`, value: o.lost, unit: "requests", n, bar: ["value", "<=", 0] });
  }

  for (const [what, signal] of [
    ["worker killed", "SIGKILL"],
    ["worker stands still for 3 s", "SIGSTOP"],
  ] as const) {
    await recovered(service, asksOf(requests, "direct"));
    const rate = 0.3 * (capacity.direct as number);
    const strike = (): void => {
      const [worker] = workersUnder(service.pid);
      if (worker === undefined) return;
      process.kill(worker, signal);
      if (signal === "SIGSTOP") setTimeout(() => process.kill(worker, "SIGCONT"), 3_000);
    };
    const o = await openLoop(service, asksOf(requests, "direct"), rate, Math.max(30, seconds), strike);
    const name = `serve/direct, ${what}`;
    emit({ claim: `${name}: own order back`, value: o.flagged / o.sent, unit: "share", n: o.sent });
    emit({ claim: `${name}: lost or wrong`, value: o.lost, unit: "requests", n: o.sent, bar: ["value", "<=", 0] });
    emit({ claim: `${name}: until the model answers again`, value: o.recoveryMs / 1000, unit: "s", n: 1 });
  }
}

/** The run's test slates as requests without mode and deadline. */
async function requestsOf(run: RunFolder): Promise<Omit<RerankRequest, "mode" | "deadlineMs">[]> {
  const { items, sequences } = await loadDataset(run.file("stages", "data"));
  const idOf = (row: number): string => items[row]?.id as string;
  const slates = readLines<Slate>(run.file("stages", "slates", "test.jsonl")).slice(0, 2_000);
  return slates.map((s) => ({
    history: Array.from(sequences[s.user]?.items.subarray(0, s.position).slice(-50) ?? [], (row) => ({
      itemId: idOf(row),
      text: "",
    })),
    candidates: s.candidates.map((row, i) => ({ id: idOf(row), itemId: idOf(row), text: "", score: s.scores[i] })),
    topN: 0,
  }));
}

function asksOf(requests: readonly Omit<RerankRequest, "mode" | "deadlineMs">[], mode: "direct" | "think"): Ask {
  let next = 0;
  return (deadlineMs) => ({
    ...(requests[next++ % requests.length] as Omit<RerankRequest, "mode" | "deadlineMs">),
    mode: mode === "think" ? Mode.MODE_THINK : Mode.MODE_DIRECT,
    deadlineMs,
  });
}

/** An answer is wrong if it does not hold every candidate once. */
const isWhole = (request: RerankRequest, { ranking }: RerankResponse): boolean =>
  ranking.length === request.candidates.length && new Set(ranking.map((r) => r.id)).size === ranking.length;

async function closedLoop({ client }: Service, ask: Ask, numCallers: number, seconds: number) {
  const ms: number[] = [];
  let faults = 0;
  const begin = performance.now();
  const caller = async (): Promise<void> => {
    while (performance.now() - begin < 1000 * seconds) {
      const request = ask(patientMs);
      const sent = performance.now();
      const answer = await client.rerank(request).catch(() => undefined);
      ms.push(performance.now() - sent);
      if (answer?.fallback !== FallbackReason.FALLBACK_REASON_UNSPECIFIED || !isWhole(request, answer)) faults++;
    }
  };
  await Promise.all(Array.from({ length: numCallers }, caller));
  return { ms, faults, perSecond: (1000 * ms.length) / (performance.now() - begin) };
}

/** Waits until the model answers, from whatever happened before; gives up after two minutes. */
async function recovered({ client }: Service, ask: Ask): Promise<void> {
  for (let i = 0; i < 600; i++) {
    const answer = await client.rerank(ask(hurriedMs)).catch(() => undefined);
    if (answer?.fallback === FallbackReason.FALLBACK_REASON_UNSPECIFIED) return;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

/** @param strike called after a tenth of the time */
async function openLoop({ client }: Service, ask: Ask, perSecond: number, seconds: number, strike?: () => void) {
  const rng = Rng.of(0, "arrivals");
  const out = { sent: 0, answered: [] as number[], refused: [] as number[], flagged: 0, lost: 0, recoveryMs: 0 };
  const under: Promise<void>[] = [];
  const begin = performance.now();
  let struck = Number.POSITIVE_INFINITY;
  let lastFlagged = 0;
  const one = async (): Promise<void> => {
    const request = ask(hurriedMs);
    const sent = performance.now();
    try {
      const answer = await client.rerank(request);
      if (!isWhole(request, answer)) out.lost++;
      else if (answer.fallback === FallbackReason.FALLBACK_REASON_UNSPECIFIED)
        out.answered.push(performance.now() - sent);
      else {
        out.flagged++;
        if (sent > struck) lastFlagged = sent;
      }
    } catch (e) {
      if ((e as { code?: status }).code === status.RESOURCE_EXHAUSTED) out.refused.push(performance.now() - sent);
      else out.lost++;
    }
  };
  for (let due = begin; due - begin < 1000 * seconds; due += (-1000 * Math.log(1 - rng.uniform())) / perSecond) {
    const early = due - performance.now();
    if (early > 1) await new Promise((resolve) => setTimeout(resolve, early));
    if (strike && struck === Number.POSITIVE_INFINITY && performance.now() - begin > 100 * seconds) {
      struck = performance.now();
      strike();
    }
    out.sent++;
    under.push(one());
  }
  await Promise.all(under);
  out.recoveryMs = Math.max(0, lastFlagged - struck);
  return out;
}

function percentile(values: readonly number[], p: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor((p / 100) * sorted.length))] ?? 0;
}

interface Service {
  readonly client: RerankClient;
  readonly pid: number;
  stop(): Promise<void>;
}

async function startService(run: string, root: string, settings: readonly string[]): Promise<Service> {
  const sets = settings.flatMap((s) => ["--set", s]);
  const child: ChildProcess = spawn(
    process.execPath,
    [join(repositoryRoot, "bin/gr2.mjs"), "serve", run, "--root", root, "--port", "0", "--http-port", "0", ...sets],
    { stdio: ["ignore", "pipe", "inherit"] },
  );
  const ended = new Promise<void>((resolve) => child.on("exit", () => resolve()));
  const line = await new Promise<string>((resolve) => {
    child.stdout?.once("data", (data) => resolve(String(data)));
    void ended.then(() => resolve(""));
  });
  const address = /at grpc (\S+)/.exec(line)?.[1];
  if (!address) throw new RunError(`gr2 serve ${run} did not start`);
  const client = new RerankClient(address, { timeoutMs: patientMs + 10_000 });
  return {
    client,
    pid: child.pid as number,
    stop: async () => {
      client.close();
      child.kill("SIGTERM");
      await ended;
    },
  };
}
