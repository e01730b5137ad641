/**
 * Ten thousand hostile requests per transport (bench/hostile-http.ts, bench/hostile-grpc.ts): wrong answers, time,
 * memory; attacks on its sockets (bench/attacks.ts); and the guarantees of every answer (bench/promises.ts). The target
 * is a run's service, started here (--run), or a running one (--url, --grpc); without any of these, the HTTP server
 * with a re-ranker that reverses the order. `npm run bench -- fuzz-serve [--run NAME [--root runs]] [--url
 * http://127.0.0.1:8080] [--grpc 127.0.0.1:50061] [--token TOKEN]
 *  [--requests 10000] [--seed 0] [--callers 8]`
 */
import { parseArgs } from "node:util";
import { EnvironmentError } from "../src/core/errors.ts";
import type { ServedModel } from "../src/serve/request/types.ts";
import { startService as startFake } from "../tests/serve-fixture.ts";
import { attack, attacks } from "./attacks.ts";
import type { Benchmark, Measurement } from "./claim.ts";
import { hostileCall, hostileChannel } from "./hostile-grpc.ts";
import { hostileCase, judge, keepAlive } from "./hostile-http.ts";
import { keepsItems, keepsPromises } from "./promises.ts";
import { percentile, startService } from "./serve-load.ts";

const maxShown = 20;

/** The n-th hostile request, sent; what is wrong with the answer, or "". */
type Send = (n: number) => Promise<string>;

interface Run {
  readonly numRequests: number;
  readonly callers: number;
  readonly url: URL;
  readonly token: string | undefined;
}

export const bench: Benchmark = async (emit, args) => {
  const { values } = parseArgs({
    args: [...args],
    options: {
      run: { type: "string" },
      root: { type: "string", default: "runs" },
      url: { type: "string" },
      grpc: { type: "string" },
      token: { type: "string" },
      requests: { type: "string", default: "10000" },
      seed: { type: "string", default: "0" },
      callers: { type: "string", default: "8" },
    },
  });
  const { token } = values;
  const seed = Number(values.seed);
  const served = values.run === undefined ? undefined : await startService(values.run, values.root, []);
  const fake = served || values.url !== undefined ? undefined : await startFake();
  try {
    const url = new URL(served?.url ?? fake?.url ?? values.url ?? "");
    const limits = await fetchLimits(url, token);
    const run: Run = { numRequests: Number(values.requests), callers: Number(values.callers), url, token };
    const agent = keepAlive();
    const target = { host: url.hostname, port: Number(url.port || 80), ...(token === undefined ? {} : { token }) };
    await storm(emit, "http", run, (n) => judge(hostileCase(seed, n, limits), target, agent));
    agent.destroy();
    await sustainAttacks(emit, url);
    if (!fake) {
      const few = { ...run, numRequests: Math.ceil(run.numRequests / 20), callers: Math.min(2, run.callers) };
      await storm(emit, "promises", few, (n) => keepsPromises(url, authorization(token), seed, n));
      // Registered items stay, so not with a service that others use.
      if (served) await storm(emit, "items", few, (n) => keepsItems(url, authorization(token), seed, n));
    }
    const address = served?.address ?? values.grpc;
    if (address === undefined) return;
    const channel = hostileChannel(address, token);
    await storm(emit, "grpc", run, (n) => channel.send(hostileCall(seed, n, limits)));
    channel.close();
  } finally {
    await fake?.server.close();
    await served?.stop();
  }
};

async function storm(emit: (m: Measurement) => void, transport: string, run: Run, send: Send): Promise<void> {
  const { numRequests, url, token } = run;
  const wrong: string[] = [];
  const seconds: number[] = [];
  const bytesBefore = await residentBytes(url, token);
  const begin = performance.now();
  let next = 0;
  const caller = async (): Promise<void> => {
    for (let n = next++; n < numRequests; n = next++) {
      const start = performance.now();
      const fault = await send(n);
      seconds.push((performance.now() - start) / 1000);
      if (fault !== "") wrong.push(`${n}: ${fault.slice(0, 300)}`);
    }
  };
  await Promise.all(Array.from({ length: run.callers }, caller));
  const total = (performance.now() - begin) / 1000;
  for (const line of wrong.slice(0, maxShown)) process.stderr.write(`${line}\n`);

  const alive = await fetch(new URL("/readyz", url)).then((r) => (r.status === 200 ? 0 : 1));
  const bytesAfter = await residentBytes(url, token);
  const name = `fuzz-serve/${transport}`;
  const n = numRequests;
  emit({
    ...{ claim: `${name}: wrong answers, crashes, hangs`, value: wrong.length, unit: "requests", n },
    bar: ["value", "<=", 0],
  });
  emit({ claim: `${name}: not ready afterwards`, value: alive, unit: "services", n: 1, bar: ["value", "<=", 0] });
  emit({ claim: `${name}: slowest answer`, value: percentile(seconds, 100), unit: "s", n });
  emit({ claim: `${name}: requests per second`, value: n / total, unit: "1/s", n });
  emit({
    ...{ claim: `${name}: memory of the service`, value: bytesAfter / 2 ** 20, unit: "MiB", n: 1 },
    ...{ peer: "before", peerValue: bytesBefore / 2 ** 20 },
  });
}

/** Senders that never finish: two of http.headersTimeoutMs or requestTimeoutMs, as they are by default. */
const attackMs = 45_000;

async function sustainAttacks(emit: (m: Measurement) => void, url: URL): Promise<void> {
  const faults = (await Promise.all(attacks.map((one) => attack(one, url, attackMs)))).filter((fault) => fault !== "");
  for (const fault of faults) process.stderr.write(`${fault}\n`);
  emit({
    ...{ claim: "fuzz-serve/attacks: got in, or were not cut off", value: faults.length, unit: "attacks" },
    ...{ n: attacks.length, bar: ["value", "<=", 0] as const },
  });
}

const authorization = (token: string | undefined): Record<string, string> =>
  token === undefined ? {} : { authorization: `Bearer ${token}` };

async function fetchLimits(url: URL, token: string | undefined): Promise<ServedModel["limits"]> {
  const response = await fetch(new URL("/gr2/v1/model", url), { headers: authorization(token) }).catch(() => undefined);
  if (response?.status !== 200)
    throw new EnvironmentError(`no model answers at ${url.origin} (${response?.status ?? "nobody listens"})`, {
      advice: "Start the service first; give --token if it requires one.",
    });
  return ((await response.json()) as ServedModel).limits;
}

/** Memory as the service reports it. */
async function residentBytes(url: URL, token: string | undefined): Promise<number> {
  const text = await (await fetch(new URL("/metrics", url), { headers: authorization(token) })).text();
  return Number(/^process_resident_memory_bytes (\S+)$/m.exec(text)?.[1] ?? 0);
}
