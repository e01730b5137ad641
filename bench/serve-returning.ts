/**
 * Returning users in mode direct: what the prefix cache gains. Two services take the same visits in turn, one of them
 * with serve.prefixCacheMb=0. Each user's first visit is not measured.
 *
 *   other candidates        the same history, the candidates of somebody else's slate
 *   a growing history       one more item each time, below the items a prompt shows (prompts.historyItems)
 *   a full history          one more item each time, above: the prompt's window moves, its beginning is another one
 */
import { CandidateOrder, FallbackReason, Mode, OnFallback } from "../src/client/index.ts";
import type { Measurement } from "./claim.ts";
import { cpuSeconds, isWhole, type LoadedRequest, type Service } from "./serve-load.ts";

const visits = 8;
const maxUsers = 100;
const numCallers = 32;

/** A user's visits, first to last. */
type Visits = readonly LoadedRequest[];
const sides = ["off", "on"] as const;
type Side = (typeof sides)[number];

/** The time of some requests, and the scores in their answers by candidate, best first; undefined: no answer. */
interface Round {
  readonly seconds: number;
  readonly workerSeconds: number;
  readonly answers: readonly (ReadonlyMap<string, number> | undefined)[];
}

/**
 * @param questions one a user
 * @param historyItems that a prompt shows
 */
export async function returning(
  emit: (measured: Measurement) => void,
  requests: readonly LoadedRequest[],
  services: { readonly on: Service; readonly off: Service },
  historyItems: number,
): Promise<void> {
  const long = requests.filter(({ history }) => history.length >= historyItems + visits).slice(0, maxUsers);
  const kinds: Record<string, (q: LoadedRequest, user: number) => Visits> = {
    "other candidates": ({ history }, user) =>
      each((visit) => ({
        ...(long[(user + visit) % long.length] as LoadedRequest),
        history: history.slice(-historyItems),
      })),
    "a growing history": (q) =>
      each((visit) => ({ ...q, history: q.history.slice(0, historyItems - visits + visit + 1) })),
    "a full history": (q) => each((visit) => ({ ...q, history: q.history.slice(0, historyItems + visit + 1) })),
  };
  for (const [kind, makeVisits] of Object.entries(kinds)) {
    const users = long.map(makeVisits);
    const before = await fetchTokenCounts(services.on);
    const rounds: Record<Side, Round[]> = { off: [], on: [] };
    for (let visit = 0; visit < visits; visit++) {
      const requests = users.map((own) => own[visit] as LoadedRequest);
      for (const side of visit % 2 ? sides : sides.toReversed()) rounds[side].push(await all(services[side], requests));
    }
    const after = await fetchTokenCounts(services.on);
    const name = `serve/returning, ${kind}`;
    const n = (visits - 1) * users.length;
    const of = (side: Side, what: "seconds" | "workerSeconds"): number =>
      rounds[side].slice(1).reduce((sum, round) => sum + round[what], 0);
    const line = (what: string, unit: string, value: (side: Side) => number): void =>
      emit({
        ...{ claim: `${name}: ${what}`, value: value("on"), unit, n },
        ...{ peer: "serve.prefixCacheMb=0", peerValue: value("off") },
      });
    line("answers per second", "1/s", (side) => n / of(side, "seconds"));
    line("CPU time of the worker per answer", "ms", (side) => (1000 * of(side, "workerSeconds")) / n);
    const [computed, reused] = [after.computed - before.computed, after.reused - before.reused];
    const share = reused / (computed + reused);
    emit({ claim: `${name}: prompt tokens reused, including first visits`, value: share, unit: "share", n });
    const pairs = rounds.on.flatMap((round, r) =>
      round.answers.map((on, i) => [on, rounds.off[r]?.answers[i]] as const),
    );
    const differences = pairs.map(([on, off]) => (on && off ? difference(on, off) : Number.POSITIVE_INFINITY));
    const bar = (limit: number) => ({ n: pairs.length, bar: ["value", "<=", limit] as const });
    const most = Math.max(...differences);
    emit({ claim: `${name}: largest difference of a score`, value: most, unit: "probability", ...bar(1e-6) });
    const others = pairs.filter(
      ([on, off]) => [...(on?.keys() ?? [])].join() !== [...(off?.keys() ?? [])].join(),
    ).length;
    emit({ claim: `${name}: orders that differ`, value: others, unit: "answers", ...bar(0) });
  }
}

const difference = (some: ReadonlyMap<string, number>, other: ReadonlyMap<string, number>): number =>
  Math.max(...[...some].map(([id, score]) => Math.abs(score - (other.get(id) ?? Number.POSITIVE_INFINITY))));

const each = (visit: (number: number) => LoadedRequest): Visits =>
  Array.from({ length: visits }, (_, number) => visit(number));

/** Sends every request once, from all callers. */
async function all({ client, pid }: Service, requests: readonly LoadedRequest[]): Promise<Round> {
  const cpu = cpuSeconds(pid).workers;
  const begin = performance.now();
  const answers: (ReadonlyMap<string, number> | undefined)[] = [];
  let next = 0;
  const caller = async (): Promise<void> => {
    for (let i = next++; i < requests.length; i = next++) {
      const onFallback = OnFallback.ON_FALLBACK_UNSPECIFIED;
      const candidateOrder = CandidateOrder.CANDIDATE_ORDER_UNSPECIFIED;
      const asked = requests[i] as LoadedRequest;
      const request = { ...asked, mode: Mode.MODE_DIRECT, deadlineMs: 50_000, onFallback, candidateOrder };
      const answer = await client.rerank(request).catch(() => undefined);
      const good = answer?.fallback === FallbackReason.FALLBACK_REASON_UNSPECIFIED && isWhole(request, answer);
      answers[i] = good ? new Map(answer.ranking.map(({ id, score }) => [id, score])) : undefined;
    }
  };
  await Promise.all(Array.from({ length: numCallers }, caller));
  return { seconds: (performance.now() - begin) / 1000, workerSeconds: cpuSeconds(pid).workers - cpu, answers };
}

/** Reads the service's counters. */
async function fetchTokenCounts({ url }: Service): Promise<{ computed: number; reused: number }> {
  const text = await (await fetch(new URL("/metrics", url))).text();
  const of = (how: string): number =>
    Number(new RegExp(`^gr2_prompt_tokens_total\\{how="${how}"\\} (\\d+)$`, "m").exec(text)?.[1] ?? 0);
  return { computed: of("computed"), reused: of("reused") };
}
