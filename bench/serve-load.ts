/**
 * Load for `gr2 serve` and its outcome: the service as a separate process, the run's test slates as requests, callers
 * that wait for their answers (closed loop) and arrivals that do not (open loop). The benchmarks decide what is
 * measured with it.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { status } from "@grpc/grpc-js";
import { readLines } from "../src/artifacts/files.ts";
import {
  CandidateOrder,
  FallbackReason,
  Mode,
  OnFallback,
  RerankClient,
  type RerankRequest,
  type RerankResponse,
} from "../src/client/index.ts";
import { RunError } from "../src/core/errors.ts";
import { repositoryRoot } from "../src/core/paths.ts";
import { Rng } from "../src/core/rng.ts";
import { loadDataset } from "../src/data/cache.ts";
import type { Slate } from "../src/prerank/types.ts";
import { RunFolder } from "../src/run/run-folder.ts";
import { processesUnder, workersUnder } from "../tests/integration/served.ts";

/** Deadline of a closed loop's requests: never reached. */
const patientMs = 50_000;
/** Deadline of an open loop's requests. */
export const hurriedMs = 2_000;

/** A test slate of the run. */
export type LoadedRequest = Omit<RerankRequest, "mode" | "deadlineMs" | "onFallback" | "candidateOrder">;
export type Ask = (deadlineMs: number) => RerankRequest;

/**
 * The run's test slates as requests without mode and deadline.
 * @param which all slates, or every user's last one
 */
export async function loadRequests(
  root: string,
  name: string,
  which: "slates" | "users" = "slates",
): Promise<LoadedRequest[]> {
  const run = RunFolder.view(root, name);
  const { items, sequences } = await loadDataset(run.file("stages", "data"));
  const itemIdAt = (row: number): string => items[row]?.id as string;
  const slates = readLines<Slate>(run.file("stages", "slates", "test.jsonl"));
  const chosen = which === "slates" ? slates : [...new Map(slates.map((s) => [s.user, s])).values()];
  return chosen.slice(0, 2_000).map((s) => ({
    history: Array.from(sequences[s.user]?.items.subarray(0, s.position).slice(-50) ?? [], (row) => ({
      itemId: itemIdAt(row),
      text: "",
    })),
    candidates: s.candidates.map((row, i) => ({
      id: itemIdAt(row),
      itemId: itemIdAt(row),
      text: "",
      score: s.scores[i],
    })),
    topN: 0,
  }));
}

export function makeAsk(requests: readonly LoadedRequest[], mode: "direct" | "think"): Ask {
  let next = 0;
  return (deadlineMs) => ({
    ...(requests[next++ % requests.length] as LoadedRequest),
    mode: mode === "think" ? Mode.MODE_THINK : Mode.MODE_DIRECT,
    deadlineMs,
    onFallback: OnFallback.ON_FALLBACK_UNSPECIFIED,
    candidateOrder: CandidateOrder.CANDIDATE_ORDER_UNSPECIFIED,
  });
}

/** An answer is wrong unless it has every candidate exactly once. */
export const isWhole = (request: RerankRequest, { ranking }: RerankResponse): boolean =>
  ranking.length === request.candidates.length && new Set(ranking.map((r) => r.id)).size === ranking.length;

export async function closedLoop({ client }: Service, ask: Ask, numCallers: number, seconds: number) {
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

/** Until so many were answered, or for a minute: a process that has just started compiles what it does. */
export async function warmUp(service: Service, ask: Ask, numCallers: number, numAnswers = 2_000): Promise<void> {
  const ends = performance.now() + 60_000;
  for (let n = 0; n < numAnswers && performance.now() < ends; )
    n += (await closedLoop(service, ask, numCallers, 1)).ms.length;
}

/** Answers per second with 64 callers. */
export async function measureCapacity(
  service: Service,
  requests: readonly LoadedRequest[],
  mode: "direct" | "think",
  seconds: number,
) {
  const asks = makeAsk(requests, mode);
  await closedLoop(service, asks, 64, Math.min(2, seconds)); // warm
  return (await closedLoop(service, asks, 64, seconds)).perSecond;
}

/** Waits until the model answers, whatever happened before; gives up after two minutes. */
export async function recovered({ client }: Pick<Service, "client">, ask: Ask): Promise<void> {
  for (let i = 0; i < 600; i++) {
    const answer = await client.rerank(ask(hurriedMs)).catch(() => undefined);
    if (answer?.fallback === FallbackReason.FALLBACK_REASON_UNSPECIFIED) return;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

/** @param strike called after a tenth of the time */
export async function openLoop(
  { client }: Pick<Service, "client">,
  ask: Ask,
  perSecond: number,
  seconds: number,
  strike?: () => void,
) {
  const rng = Rng.of(0, "arrivals");
  const out = {
    sent: 0,
    late: [] as number[],
    answered: [] as number[],
    refused: [] as number[],
    flagged: 0,
    lost: 0,
    recoveryMs: 0,
  };
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
    out.late.push(performance.now() - due);
    under.push(one());
  }
  await Promise.all(under);
  out.recoveryMs = Math.max(0, lastFlagged - struck);
  return out;
}

export function percentile(values: readonly number[], p: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor((p / 100) * sorted.length))] ?? 0;
}

export interface Service {
  readonly client: RerankClient;
  /** host:port of its gRPC side. */
  readonly address: string;
  /** Base URL of its HTTP side. */
  readonly url: string;
  readonly pid: number;
  readonly ended: Promise<void>;
  stop(): Promise<void>;
}

/** @param like an ended service whose ports to use; without it any free ones */
export async function startService(
  run: string,
  root: string,
  settings: readonly string[],
  like?: Service,
): Promise<Service> {
  const [port, httpPort] = like ? [like.address, like.url].map((a) => a.split(":").at(-1) as string) : ["0", "0"];
  // Measure a language model in both modes, whatever the run's evaluation recommends.
  const sets = ["serve.system=rl", ...settings].flatMap((s) => ["--set", s]);
  const child: ChildProcess = spawn(
    process.execPath,
    [
      ...[join(repositoryRoot, "bin/gr2.mjs"), "serve", run, "--root", root],
      ...["--port", port as string, "--http-port", httpPort as string, ...sets],
    ],
    { stdio: ["ignore", "pipe", "inherit"] },
  );
  const ended = new Promise<void>((resolve) => child.on("exit", () => resolve()));
  const line = await new Promise<string>((resolve) => {
    child.stdout?.once("data", (data) => resolve(String(data)));
    void ended.then(() => resolve(""));
  });
  const [, address, url] = /at grpc (\S+) and (\S+)/.exec(line) ?? [];
  if (!address || !url) throw new RunError(`gr2 serve ${run} did not start`);
  const client = new RerankClient(address, { timeoutMs: patientMs + 10_000 });
  return {
    client,
    address,
    url,
    pid: child.pid as number,
    ended,
    stop: async () => {
      client.close();
      child.kill("SIGTERM");
      await ended;
    },
  };
}

/** Linux reports processor time in these units, whatever the kernel's own clock. */
const ticksPerSecond = 100;

/** Seconds of processor time used by a service, all its processes together, and by its workers. */
export function cpuSeconds(pid: number): { readonly own: number; readonly workers: number } {
  const read = (id: number): number => {
    const fields = readFileSync(`/proc/${id}/stat`, "utf8")
      .replace(/^.*\) /s, "")
      .split(" ");
    return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond; // utime, stime
  };
  const sum = (ids: readonly number[]): number => ids.reduce((total, id) => total + read(id), 0);
  const own = [pid, ...processesUnder(pid)];
  return { own: sum(own), workers: sum(own.flatMap(workersUnder)) };
}
