/**
 * Ten thousand hostile requests (bench/hostile-http.ts) against a running service, or without --url against the HTTP server over a
 * re-ranker that turns the order around: wrong answers, time, memory.
 * `npm run bench -- fuzz-serve [--url http://127.0.0.1:8080] [--token TOKEN] [--requests 10000] [--seed 0] [--callers 8]`
 */
import { parseArgs } from "node:util";
import { EnvironmentError } from "../src/core/errors.ts";
import type { ServedModel } from "../src/serve/types.ts";
import { startService } from "../tests/serve-fixture.ts";
import type { Benchmark } from "./claim.ts";
import { type HostileLimits, hostileCase, judge, keepAlive, type Target } from "./hostile-http.ts";

const maxShown = 20;

export const bench: Benchmark = async (emit, args) => {
  const { values } = parseArgs({
    args: [...args],
    options: {
      url: { type: "string" },
      token: { type: "string" },
      requests: { type: "string", default: "10000" },
      seed: { type: "string", default: "0" },
      callers: { type: "string", default: "8" },
    },
  });
  const own = values.url === undefined ? await startService() : undefined;
  const url = new URL(values.url ?? own?.url ?? "");
  const token = values.token === undefined ? {} : { token: values.token };
  const target: Target = { host: url.hostname, port: Number(url.port || 80), ...token };
  const limits = await limitsOf(url, values.token);

  const numRequests = Number(values.requests);
  const wrong: string[] = [];
  const seconds: number[] = [];
  const agent = keepAlive();
  const bytesBefore = await residentBytes(url, values.token);
  const begin = performance.now();
  let next = 0;
  const caller = async (): Promise<void> => {
    for (let n = next++; n < numRequests; n = next++) {
      const start = performance.now();
      const fault = await judge(hostileCase(Number(values.seed), n, limits), target, agent);
      seconds.push((performance.now() - start) / 1000);
      if (fault !== "") wrong.push(`${n}: ${fault.slice(0, 300)}`);
    }
  };
  await Promise.all(Array.from({ length: Number(values.callers) }, caller));
  const total = (performance.now() - begin) / 1000;
  agent.destroy();
  for (const line of wrong.slice(0, maxShown)) process.stderr.write(`${line}\n`);

  const alive = await fetch(new URL("/readyz", url)).then((r) => (r.status === 200 ? 0 : 1));
  const bytesAfter = await residentBytes(url, values.token);
  seconds.sort((a, b) => a - b);
  const n = numRequests;
  emit({
    claim: "fuzz-serve/wrong answers, crashes, hangs",
    value: wrong.length,
    unit: "requests",
    n,
    bar: ["value", "<=", 0],
  });
  emit({ claim: "fuzz-serve/not ready afterwards", value: alive, unit: "services", n: 1, bar: ["value", "<=", 0] });
  emit({ claim: "fuzz-serve/slowest answer", value: seconds.at(-1) ?? 0, unit: "s", n });
  emit({ claim: "fuzz-serve/requests a second", value: n / total, unit: "1/s", n });
  emit({
    claim: "fuzz-serve/memory of the service",
    value: bytesAfter / 2 ** 20,
    unit: "MiB",
    n: 1,
    peer: "before",
    peerValue: bytesBefore / 2 ** 20,
  });
  await own?.server.close();
};

const authorization = (token: string | undefined): Record<string, string> =>
  token === undefined ? {} : { authorization: `Bearer ${token}` };

async function limitsOf(url: URL, token: string | undefined): Promise<HostileLimits> {
  const response = await fetch(new URL("/gr2/v1/model", url), { headers: authorization(token) }).catch(() => undefined);
  if (response?.status !== 200)
    throw new EnvironmentError(`no model answers at ${url.origin} (${response?.status ?? "nobody listens"})`, {
      advice: "Start the service first; give --token if it asks for one.",
    });
  return ((await response.json()) as ServedModel).limits;
}

/** What the service itself says its memory is. */
async function residentBytes(url: URL, token: string | undefined): Promise<number> {
  const text = await (await fetch(new URL("/metrics", url), { headers: authorization(token) })).text();
  return Number(/^process_resident_memory_bytes (\S+)$/m.exec(text)?.[1] ?? 0);
}
