/**
 * `gr2 serve` under load, from this process against one of its own: how fast for 1, 8 and 64 callers in both modes, what
 * batching is worth, what happens at twice the load it can take, and when a worker is killed or stands still.
 * `npm run bench -- serve --run NAME [--root runs] [--seconds 10] [--set path=value ...]`
 *
 * Requests are the run's own test slates, taken in turn; answers are never taken from memory (serve.cache=0).
 * A caller sends one request after the other. The overload is open: requests leave at their time, answered or not.
 */
import { parseArgs } from "node:util";
import { RunError } from "../src/core/errors.ts";
import { workersUnder } from "../tests/integration/served.ts";
import type { Benchmark, Measurement } from "./claim.ts";
import {
  asksOf,
  closedLoop,
  hurriedMs,
  openLoop,
  percentile,
  type Question,
  recovered,
  requestsOf,
  type Service,
  startService,
} from "./serve-load.ts";
import { soak } from "./serve-soak.ts";

const callers = [1, 8, 64];

export const bench: Benchmark = async (emit, args) => {
  const { values } = parseArgs({
    args: [...args],
    options: {
      run: { type: "string" },
      root: { type: "string", default: "runs" },
      seconds: { type: "string", default: "10" },
      soak: { type: "string" },
      rate: { type: "string", default: "10" },
      set: { type: "string", multiple: true, default: [] },
    },
  });
  if (values.run === undefined) throw new RunError("bench serve needs --run NAME, a finished run");
  const requests = await requestsOf(values.root, values.run);
  const started: Service[] = [];
  const start = async (...more: string[]): Promise<Service> => {
    const service = await startService(values.run as string, values.root, [...more, ...values.set]);
    started.push(service);
    return service;
  };
  try {
    if (values.soak !== undefined) await soak(emit, await start(), requests, Number(values.soak), Number(values.rate));
    else await measure(emit, requests, (...more) => start("serve.cache=0", ...more), Number(values.seconds));
  } finally {
    for (const service of started) await service.stop();
  }
};

async function measure(
  emit: (measured: Measurement) => void,
  requests: readonly Question[],
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
