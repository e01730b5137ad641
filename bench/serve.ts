/**
 * `gr2 serve` under load, from this process against a service in another: its speed for 1, 8 and 64 callers in both
 * modes, the gain from batching, overload, faults, other ways to re-rank, returning users, texts that it does not know,
 * and several clients.
 * `npm run bench -- serve --run NAME [--root runs] [--seconds 10] [--only
 * load,overload,faults,peers,returning,cold,tenants,processes] [--set path=value ...]` `npm run bench -- serve --run
 * NAME --soak MINUTES [--rate 10]`: mixed load instead, and whether memory stays flat
 *
 * Requests are the run's own test slates, in turn; the caches of answers and prompts are off (except in the part about
 * them). A caller sends one request after the other. The overload is an open loop: requests are sent on schedule,
 * answered or not.
 */
import { parseArgs } from "node:util";
import { loadConfig } from "../src/config/load.ts";
import { RunError } from "../src/core/errors.ts";
import { RunFolder } from "../src/run/run-folder.ts";
import type { Benchmark, Measurement } from "./claim.ts";
import { cold, tenants } from "./serve-cold.ts";
import { faults } from "./serve-faults.ts";
import {
  closedLoop,
  cpuSeconds,
  hurriedMs,
  type LoadedRequest,
  loadRequests,
  makeAsk,
  measureCapacity,
  openLoop,
  percentile,
  type Service,
  startService,
  warmUp,
} from "./serve-load.ts";
import { besidePeers } from "./serve-peers.ts";
import { processes } from "./serve-processes.ts";
import { returning } from "./serve-returning.ts";
import { soak } from "./serve-soak.ts";

const callers = [1, 8, 64];
/** Multiples of its capacity. */
const overloads = [1.4, 2, 3.5];
const parts = ["load", "overload", "faults", "peers", "returning", "cold", "tenants", "processes"] as const;
const modes = ["direct", "think"] as const;

const noMemory = ["serve.cache=0", "serve.prefixCacheMb=0"] as const;

type Emit = (measured: Measurement) => void;
type Start = (...settings: string[]) => Promise<Service>;

export const bench: Benchmark = async (emit, args) => {
  const { values } = parseArgs({
    args: [...args],
    options: {
      run: { type: "string" },
      root: { type: "string", default: "runs" },
      seconds: { type: "string", default: "10" },
      only: { type: "string", default: parts.join() },
      soak: { type: "string" },
      rate: { type: "string", default: "10" },
      set: { type: "string", multiple: true, default: [] },
    },
  });
  const { root, run: name } = values;
  if (name === undefined) throw new RunError("bench serve needs --run NAME, a finished run");
  const wanted = values.only.split(",");
  const unknown = wanted.find((part) => !(parts as readonly string[]).includes(part));
  if (unknown !== undefined) throw new RunError(`bench serve has no part "${unknown}"; there are ${parts.join(", ")}`);
  const requests = await loadRequests(root, name);
  const seconds = Number(values.seconds);
  const started: Service[] = [];
  const startLike = async (like: Service | undefined, ...more: string[]): Promise<Service> => {
    const service = await startService(name, root, [...more, ...values.set], like);
    started.push(service);
    return service;
  };
  const start: Start = (...more) => startLike(undefined, ...more);
  try {
    if (values.soak !== undefined)
      return await soak(emit, await start(), requests, Number(values.soak), Number(values.rate));
    if (wanted.includes("load")) await load(emit, requests, start, seconds);
    if (wanted.includes("overload")) {
      const service = await start(...noMemory);
      await overload(emit, requests, service, seconds);
      await service.stop();
    }
    if (wanted.includes("cold")) {
      const service = await start(...noMemory, "runtime.threads=1");
      await cold(emit, service, requests, seconds);
      await service.stop();
    }
    if (wanted.includes("tenants")) await tenants(emit, (...more) => start(...noMemory, ...more), requests, seconds);
    if (wanted.includes("processes"))
      await processes(emit, (...more) => start(...noMemory, ...more), requests, seconds);
    if (wanted.includes("faults")) await faults(emit, requests, (like) => startLike(like, ...noMemory), seconds);
    if (wanted.includes("peers")) {
      const run = { root, name, threads: 1, seconds };
      await besidePeers(emit, await start(...noMemory, "runtime.threads=1"), requests, run);
    }
    if (wanted.includes("returning")) {
      const on = await start("serve.cache=0", "serve.prefixCacheMb=256", "runtime.threads=1");
      const off = await start(...noMemory, "runtime.threads=1");
      const { prompts } = loadConfig(RunFolder.view(root, name).file("config.resolved.yaml"));
      await returning(emit, await loadRequests(root, name, "users"), { on, off }, prompts.historyItems);
    }
  } finally {
    for (const service of started) await service.stop();
  }
};

async function load(emit: Emit, requests: readonly LoadedRequest[], start: Start, seconds: number): Promise<void> {
  const single: Record<string, number> = {};
  const alone = await start(...noMemory, "serve.maxBatch=1");
  for (const mode of modes) {
    await closedLoop(alone, makeAsk(requests, mode), 8, Math.min(2, seconds)); // warm
    single[mode] = (await closedLoop(alone, makeAsk(requests, mode), 8, seconds)).perSecond;
  }
  await alone.stop();

  const service = await start(...noMemory);
  for (const mode of modes)
    for (const c of callers) {
      const asks = makeAsk(requests, mode);
      await warmUp(service, asks, c);
      const before = cpuSeconds(service.pid);
      const served = await closedLoop(service, asks, c, seconds);
      const after = cpuSeconds(service.pid);
      const name = `serve/${mode}, ${c} caller${c > 1 ? "s" : ""}`;
      const perAnswer = (from: number, to: number): number => (1000 * (to - from)) / served.ms.length;
      emit({
        ...{ claim: `${name}: answers per second`, value: served.perSecond, unit: "1/s", n: served.ms.length },
        ...(c === 64 ? { peer: "serve.maxBatch=1, 8 callers", peerValue: single[mode] as number } : {}),
        ...(c === 64 && mode === "direct" ? { bar: ["ratio", ">=", 4] as const } : {}),
      });
      emit({
        ...{ claim: `${name}: the service's own processor time`, value: perAnswer(before.own, after.own), unit: "ms" },
        ...{ n: served.ms.length, peer: "its workers'", peerValue: perAnswer(before.workers, after.workers) },
        ...(c === 64 && mode === "direct" ? { bar: ["ratio", "<=", 0.3] as const } : {}),
      });
      for (const p of [50, 95, 99])
        emit({ claim: `${name}: p${p}`, value: percentile(served.ms, p), unit: "ms", n: served.ms.length });
      emit({
        claim: `${name}: faults`,
        value: served.faults,
        unit: "answers",
        n: served.ms.length,
        bar: ["value", "<=", 0],
      });
    }
  await service.stop();
}

async function overload(
  emit: Emit,
  requests: readonly LoadedRequest[],
  service: Service,
  seconds: number,
): Promise<void> {
  for (const mode of modes) {
    const capacity = await measureCapacity(service, requests, mode, seconds);
    for (const times of overloads) {
      const rate = times * capacity;
      const o = await openLoop(service, makeAsk(requests, mode), rate, seconds);
      const name = `serve/${mode}, ${times} times its capacity`;
      const n = o.sent;
      emit({ claim: `${name}: sent`, value: rate, unit: "1/s", n });
      emit({ claim: `${name}: answered`, value: o.answered.length / n, unit: "share", n });
      emit({ claim: `${name}: refused`, value: o.refused.length / n, unit: "share", n });
      emit({ claim: `${name}: got own order back`, value: o.flagged / n, unit: "share", n });
      for (const p of [50, 99])
        emit({
          ...{ claim: `${name}: p${p} of the answered`, value: percentile(o.answered, p), unit: "ms" },
          n: o.answered.length,
          ...(p === 99 ? { bar: ["value", "<=", 1.1 * hurriedMs] as const } : {}),
        });
      emit({ claim: `${name}: p99 of the refused`, value: percentile(o.refused, 99), unit: "ms", n: o.refused.length });
      emit({ claim: `${name}: delay in sending, p99`, value: percentile(o.late, 99), unit: "ms", n });
      emit({ claim: `${name}: lost or wrong`, value: o.lost, unit: "requests", n, bar: ["value", "<=", 0] });
    }
  }
}
