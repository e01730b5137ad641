/** `gr2 serve` with one, two, four, ... processes up to the machine's cores: what each further one adds. */
import { availableParallelism } from "node:os";
import { RerankClient } from "../src/client/index.ts";
import type { Measurement } from "./claim.ts";
import { closedLoop, cpuSeconds, type LoadedRequest, makeAsk, percentile, type Service, warmUp } from "./serve-load.ts";

const numCallers = 64;
/** Requests stay with their connection: enough for every process to have some. */
const numConnections = 16;

export async function processes(
  emit: (measured: Measurement) => void,
  start: (...settings: string[]) => Promise<Service>,
  requests: readonly LoadedRequest[],
  seconds: number,
): Promise<void> {
  const cores = availableParallelism();
  let single = 0;
  for (let count = 1; count <= cores; count *= 2) {
    const service = await start(`serve.processes=${count}`, "runtime.threads=1");
    const clients = Array.from(
      { length: numConnections },
      () => new RerankClient(service.address, { timeoutMs: 60_000, ownConnection: true }),
    );
    const ask = makeAsk(requests, "direct");
    const share = { callers: numCallers / numConnections, answers: 2_000 / numConnections };
    await Promise.all(clients.map((client) => warmUp({ ...service, client }, ask, share.callers, share.answers)));
    const before = cpuSeconds(service.pid);
    const served = await Promise.all(
      clients.map((client) => closedLoop({ ...service, client }, ask, share.callers, seconds)),
    );
    const after = cpuSeconds(service.pid);
    const ms = served.flatMap((s) => s.ms);
    const perSecond = served.reduce((sum, s) => sum + s.perSecond, 0);
    if (count === 1) single = perSecond;
    const name = `serve/processes, ${count} on ${cores} cores`;
    const n = ms.length;
    emit({
      ...{ claim: `${name}: answers per second`, value: perSecond, unit: "1/s", n },
      ...{ peer: "one process", peerValue: single },
    });
    emit({ claim: `${name}: p99`, value: percentile(ms, 99), unit: "ms", n });
    emit({
      ...{ claim: `${name}: cores busy with service and workers`, unit: "cores", n },
      value: (after.own + after.workers - before.own - before.workers) / seconds,
    });
    const faults = served.reduce((sum, s) => sum + s.faults, 0);
    emit({ claim: `${name}: faults`, value: faults, unit: "answers", n, bar: ["value", "<=", 0] });
    for (const client of clients) client.close();
    await service.stop();
  }
}
