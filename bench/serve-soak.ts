/**
 * Mixed load for minutes: does the memory of the service and of its workers stay flat? One line per minute on stderr.
 *
 * Of a hundred requests about 45 are direct, 10 think, 25 come over HTTP (every dialect, valid and malformed, from
 * hostile-http.ts), 10 are malformed gRPC and 10 are abandoned by their caller.
 */
import { readFileSync } from "node:fs";
import { status } from "@grpc/grpc-js";
import { FallbackReason } from "../src/client/index.ts";
import { Rng } from "../src/core/rng.ts";
import type { ServedModel } from "../src/serve/request/types.ts";
import { workersUnder } from "../tests/integration/served.ts";
import type { Measurement } from "./claim.ts";
import { hostileCase, judge, keepAlive } from "./hostile-http.ts";
import { hurriedMs, isWhole, type LoadedRequest, makeAsk, type Service } from "./serve-load.ts";

const sampleMs = 5_000;

interface Memory {
  readonly service: number;
  readonly workers: number;
}

export async function soak(
  emit: (measured: Measurement) => void,
  service: Service,
  requests: readonly LoadedRequest[],
  minutes: number,
  perSecond: number,
): Promise<void> {
  const { client, url, pid } = service;
  const rng = Rng.of(0, "soak");
  const counts = { sent: 0, flagged: 0, refused: 0, wrong: 0 };
  const direct = makeAsk(requests, "direct");
  const think = makeAsk(requests, "think");
  const agent = keepAlive();
  const target = { host: new URL(url).hostname, port: Number(new URL(url).port) };
  const model = (await (await fetch(new URL("/gr2/v1/model", url))).json()) as ServedModel;

  const statusCode = (e: unknown): status | undefined => (e as { code?: status }).code;
  const wrong = (what: string): void => {
    if (counts.wrong++ < 20) process.stderr.write(`wrong: ${what}\n`);
  };
  const asked = async (ask: typeof direct): Promise<void> => {
    const request = ask(hurriedMs);
    try {
      const answer = await client.rerank(request);
      if (!isWhole(request, answer)) wrong("not every candidate once");
      else if (answer.fallback !== FallbackReason.FALLBACK_REASON_UNSPECIFIED) counts.flagged++;
    } catch (e) {
      if (statusCode(e) === status.RESOURCE_EXHAUSTED) counts.refused++;
      else wrong(String(e));
    }
  };
  const malformed = async (): Promise<void> => {
    const code = await client.rerank({ candidates: [{ id: "a" }, { id: "a" }] }).then(() => status.OK, statusCode);
    if (code === status.RESOURCE_EXHAUSTED) counts.refused++;
    else if (code !== status.INVALID_ARGUMENT) wrong(`a malformed request got ${status[code ?? status.UNKNOWN]}`);
  };
  const left = async (afterMs: number): Promise<void> => {
    const leave = new AbortController();
    setTimeout(() => leave.abort(), afterMs);
    const code = await client.rerank(think(hurriedMs), { signal: leave.signal }).then(() => status.OK, statusCode);
    if (![status.OK, status.CANCELLED, status.RESOURCE_EXHAUSTED].includes(code ?? status.UNKNOWN))
      wrong(`an abandoned request got ${status[code ?? status.UNKNOWN]}`);
  };
  const http = async (n: number): Promise<void> => {
    const fault = await judge(hostileCase(0, n, model.limits), target, agent);
    if (fault.includes(": 429,")) counts.refused++;
    else if (fault !== "") wrong(fault.slice(0, 200));
  };
  const one = (n: number): Promise<void> => {
    const kind = rng.uniform();
    if (kind < 0.45) return asked(direct);
    if (kind < 0.55) return asked(think);
    if (kind < 0.8) return http(n);
    return kind < 0.9 ? malformed() : left(50 * rng.uniform());
  };

  const samples: Memory[] = [];
  const sampling = setInterval(() => samples.push(readMemory(pid)), sampleMs);
  const begin = performance.now();
  const printing = setInterval(() => {
    const { service: s, workers: w } = samples.at(-1) as Memory;
    process.stderr.write(
      `minute ${Math.round((performance.now() - begin) / 60_000)}: service ${s.toFixed(1)} MiB, workers ${w.toFixed(1)} MiB, ${JSON.stringify(counts)}\n`,
    );
  }, 60_000);
  const under = new Set<Promise<void>>();
  for (let due = begin; due - begin < 60_000 * minutes; due += (-1000 * Math.log(1 - rng.uniform())) / perSecond) {
    const early = due - performance.now();
    if (early > 1) await new Promise((resolve) => setTimeout(resolve, early));
    const request = one(counts.sent++);
    under.add(request);
    void request.finally(() => under.delete(request));
  }
  await Promise.all(under);
  clearInterval(sampling);
  clearInterval(printing);
  agent.destroy();

  const name = `serve/soak of ${minutes} min at ${perSecond}/s`;
  const n = counts.sent;
  emit({ claim: `${name}: lost or wrong`, value: counts.wrong, unit: "requests", n, bar: ["value", "<=", 0] });
  emit({ claim: `${name}: refused`, value: counts.refused / n, unit: "share", n });
  emit({ claim: `${name}: got own order back`, value: counts.flagged / n, unit: "share", n });
  for (const which of ["service", "workers"] as const) {
    const third = samples.length / 3;
    const mean = (from: number): number => {
      const part = samples.slice(Math.floor(from * third), Math.floor((from + 1) * third));
      return part.reduce((sum, s) => sum + s[which], 0) / part.length;
    };
    emit({
      ...{ claim: `${name}: memory of the ${which}, last third`, value: mean(2), unit: "MiB", n: samples.length },
      ...{ peer: "middle third", peerValue: mean(1), bar: ["ratio", "<=", 1.1] as const },
    });
  }
}

/** Resident memory, MiB. */
function readMemory(pid: number): Memory {
  return { service: residentMiB(pid), workers: workersUnder(pid).reduce((sum, w) => sum + residentMiB(w), 0) };
}

function residentMiB(pid: number): number {
  const [, kilobytes] = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8")) ?? [];
  return Number(kilobytes ?? 0) / 1024;
}
