/**
 * What callers of `gr2 serve` notice when something fails under load, at three tenths of its capacity: its worker is
 * killed, stopped or slow; the service itself is killed and restarted. Callers must get an order whatever happens (the
 * client's `ownOrder`).
 */
import { RerankClient } from "../src/client/index.ts";
import { workersUnder } from "../tests/integration/served.ts";
import type { Measurement } from "./claim.ts";
import { type LoadedRequest, makeAsk, measureCapacity, openLoop, recovered, type Service } from "./serve-load.ts";

const stillMs = 3_000;
/** A slow worker runs a fifth of the time, for this long. */
const slow = { forMs: 10_000, everyMs: 100, standsMs: 80 };

/** @param start starts a service; on given ports, if it replaces another one */
export async function faults(
  emit: (measured: Measurement) => void,
  requests: readonly LoadedRequest[],
  start: (like?: Service) => Promise<Service>,
  seconds: number,
): Promise<void> {
  let service = await start();
  let again: Promise<void> | undefined;
  const rate = 0.3 * (await measureCapacity(service, requests, "direct", Math.min(5, seconds)));
  const strikes: Readonly<Record<string, () => void>> = {
    "worker killed": () => signalWorker(service, "SIGKILL"),
    [`worker stopped for ${stillMs / 1000} s`]: () => standStill(service, stillMs),
    [`worker at a fifth of its speed for ${slow.forMs / 1000} s`]: () => {
      const until = performance.now() + slow.forMs;
      const timer = setInterval(() => {
        if (performance.now() > until) clearInterval(timer);
        else standStill(service, slow.standsMs);
      }, slow.everyMs);
    },
    "service killed, started again at once": () => {
      process.kill(service.pid, "SIGKILL");
      again = service.ended.then(async () => {
        service = await start(service);
      });
    },
  };
  for (const [what, strike] of Object.entries(strikes)) {
    const client = new RerankClient(service.address, { ownOrder: true });
    const ask = makeAsk(requests, "direct");
    await recovered({ client }, ask);
    const o = await openLoop({ client }, ask, rate, Math.max(30, seconds), strike);
    client.close();
    const name = `serve/direct, ${what} (${rate.toFixed(0)}/s)`;
    emit({ claim: `${name}: got own order back`, value: o.flagged / o.sent, unit: "share", n: o.sent });
    emit({ claim: `${name}: lost or wrong`, value: o.lost, unit: "requests", n: o.sent, bar: ["value", "<=", 0] });
    emit({ claim: `${name}: until the model answers again`, value: o.recoveryMs / 1000, unit: "s", n: 1 });
  }
  await again;
  await service.stop();
}

function standStill(service: Service, ms: number): void {
  signalWorker(service, "SIGSTOP");
  setTimeout(() => signalWorker(service, "SIGCONT"), ms);
}

function signalWorker(service: Service, signal: NodeJS.Signals): void {
  const [worker] = workersUnder(service.pid);
  if (worker !== undefined) process.kill(worker, signal);
}
