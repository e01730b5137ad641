/**
 * `gr2 serve` and texts that it does not know: how soon the model answers a request full of them, and how much they and
 * a greedy client slow others down. Every cold text is new.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FallbackReason, Mode, RerankClient } from "../src/client/index.ts";
import { newToken } from "../src/serve/security/tokens.ts";
import type { Measurement } from "./claim.ts";
import { closedLoop, type LoadedRequest, makeAsk, percentile, type Service } from "./serve-load.ts";

type Emit = (measured: Measurement) => void;

const coldTexts = 100;
const hurriedMs = 2_000;
const rounds = 10;
let made = 0;

const coldRequest = (request: LoadedRequest) => ({
  ...{ history: request.history, mode: Mode.MODE_DIRECT, deadlineMs: hurriedMs },
  candidates: Array.from({ length: coldTexts }, (_, i) => ({
    id: String(i),
    text: `Number ${process.pid}.${made++}: a film about the sea, the war and ${i} cats`,
  })),
});

/** Requests with only cold texts, one after the other, then next to a caller whose requests have none. */
export async function cold(
  emit: Emit,
  service: Service,
  requests: readonly LoadedRequest[],
  seconds: number,
): Promise<void> {
  const ask = makeAsk(requests, "direct");
  await closedLoop(service, ask, 1, Math.min(2, seconds)); // warm
  const alone = await closedLoop(service, ask, 1, seconds);
  const ms: number[] = [];
  let byModel = 0;
  const sendCold = async (): Promise<void> => {
    const sent = performance.now();
    const answer = await service.client.rerank(coldRequest(requests[0] as LoadedRequest)).catch(() => undefined);
    ms.push(performance.now() - sent);
    if (answer?.fallback === FallbackReason.FALLBACK_REASON_UNSPECIFIED) byModel++;
  };
  for (let i = 0; i < rounds; i++) await sendCold();
  emit({
    ...{
      claim: `serve/cold, ${coldTexts} texts: answered by the model within ${hurriedMs} ms`,
      value: byModel / rounds,
    },
    ...{ unit: "share", n: rounds, bar: ["value", ">=", 1] as const },
  });
  emit({ claim: `serve/cold, ${coldTexts} texts: p50`, value: percentile(ms, 50), unit: "ms", n: rounds });
  let ended = false;
  const beside = (async () => {
    while (!ended) await sendCold();
  })();
  const warm = await closedLoop(service, ask, 1, seconds);
  ended = true;
  await beside;
  for (const p of [50, 99])
    emit({
      ...{ claim: `serve/cold, a warm caller next to one: p${p}`, value: percentile(warm.ms, p), unit: "ms" },
      ...{ n: warm.ms.length, peer: "alone", peerValue: percentile(alone.ms, p) },
      ...(p === 99 ? { bar: ["ratio", "<=", 1.5] as const } : {}),
    });
}

/** One caller of one client, alone and next to 64 callers of another. */
export async function tenants(
  emit: Emit,
  start: (...settings: string[]) => Promise<Service>,
  requests: readonly LoadedRequest[],
  seconds: number,
): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "gr2-tenants-"));
  const file = join(folder, "tokens");
  const [modest, greedy] = [newToken("modest"), newToken("greedy")];
  writeFileSync(file, `${modest.line}\n${greedy.line}\n`);
  try {
    const service = await start(`serve.security.tokens=${file}`);
    const asClient = (token: string): Service => ({
      ...service,
      client: new RerankClient(service.address, { token, timeoutMs: 60_000 }),
    });
    const [few, many] = [asClient(modest.token), asClient(greedy.token)];
    const ask = makeAsk(requests, "direct");
    await closedLoop(few, ask, 1, Math.min(2, seconds)); // warm
    const alone = await closedLoop(few, ask, 1, seconds);
    const [beside, theirs] = await Promise.all([closedLoop(few, ask, 1, seconds), closedLoop(many, ask, 128, seconds)]);
    for (const p of [50, 99])
      emit({
        ...{ claim: `serve/tenants, one caller next to 128 of another client: p${p}`, unit: "ms" },
        ...{ value: percentile(beside.ms, p), n: beside.ms.length, peer: "alone", peerValue: percentile(alone.ms, p) },
      });
    emit({
      ...{ claim: "serve/tenants, the 128 callers: p50", value: percentile(theirs.ms, 50), unit: "ms" },
      n: theirs.ms.length,
    });
    for (const { client } of [few, many]) client.close();
    await service.stop();
  } finally {
    rmSync(folder, { recursive: true });
  }
}
